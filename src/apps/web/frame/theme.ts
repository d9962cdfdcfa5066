/** Light or dark: as the system is, or as was chosen on this page. */
import { type ReadonlySignal, signal } from "@preact/signals";

/** How the page looks. */
export type Theme = "light" | "dark";

const KEY = "dmalink.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** The choice of before; a page on a disk may have no storage. */
function stored(): Theme | undefined {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : undefined;
  } catch {
    return undefined;
  }
}

const chosen = signal<Theme | undefined>(stored());
const shown = signal<Theme>("light");

/** What is shown; pictures on a canvas are drawn anew when it changes. */
export const theme: ReadonlySignal<Theme> = shown;

function show(): void {
  shown.value = chosen.value ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset["theme"] = shown.value;
}

/** Begins to follow the system. */
export function startTheme(): void {
  system.addEventListener("change", show);
  show();
}

/** The other one, from now on. */
export function switchTheme(): void {
  chosen.value = shown.value === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(KEY, chosen.value);
  } catch {
    // then for this visit only
  }
  show();
}
