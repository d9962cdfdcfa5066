/** The frame: what is open, the tabs, and the view that the URL names. Files can be dropped anywhere on it. */
import type { VNode } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Opener, useDrop } from "./opener.tsx";
import { linkTo, route } from "./route.ts";
import { failure, files, opened, openTrace, progress } from "./session.ts";
import { switchTheme, theme } from "./theme.ts";
import { VIEWS } from "./views.ts";

export function App(): VNode {
  const dragging = useDrop();
  const { view } = route.value;
  const shown = VIEWS.find(({ name }) => name === view) ?? VIEWS[0]!;
  const Shown = shown.component;
  return (
    <div class={dragging ? "app dragging" : "app"} data-judged={opened.value?.checked ? "" : undefined}>
      <button type="button" class="skip" onClick={skip}>
        to the content
      </button>
      <Header current={shown.name} />
      <Work />
      <main id="main" tabIndex={-1} class={`view-${shown.name}`}>
        <h1 class="hidden">{shown.title}</h1>
        {shown.ofTrace && !opened.value ? progress.value ? null : <Opener /> : <Shown />}
      </main>
    </div>
  );
}

/** A button and not a link: what is behind the "#" is the view's. */
function skip(): void {
  document.getElementById("main")?.focus();
}

function Header({ current }: { readonly current: string }): VNode {
  return (
    <header class="bar">
      <a class="brand" href={linkTo("overview")}>
        dma<b>link</b>
      </a>
      <nav aria-label="views">
        {VIEWS.map(({ name, title }) => (
          <a key={name} href={linkTo(name)} aria-current={name === current ? "page" : undefined}>
            {title}
          </a>
        ))}
      </nav>
      <FileChoice />
      <button
        type="button"
        class="icon"
        onClick={switchTheme}
        aria-label={theme.value === "dark" ? "light colours" : "dark colours"}
        title={theme.value === "dark" ? "light colours" : "dark colours"}
      >
        {theme.value === "dark" ? "☀" : "☾"}
      </button>
    </header>
  );
}

/** The open file; a choice where several were given. */
function FileChoice(): VNode | null {
  const session = opened.value;
  if (!session) return null;
  const { trace } = session.files;
  const given = files.value;
  if (given.length < 2) return <span class="file">{trace.name}</span>;
  return (
    <select
      class="file"
      aria-label="open trace"
      onChange={({ currentTarget }) => openTrace({ trace: given[currentTarget.selectedIndex]! })}
    >
      {given.map((file) => (
        <option key={file.name} selected={file === trace}>
          {file.name}
        </option>
      ))}
    </select>
  );
}

/** What is being done, and what went wrong; said to a screen reader too. */
function Work(): VNode {
  const now = progress.value;
  const slow = useLater(now !== undefined);
  return (
    <div role="status" aria-live="polite">
      {now && slow ? (
        <div class="work">
          <span>{now.what}</span>
          <i
            style={{ width: `${Math.round((now.share ?? 0) * 100)}%` }}
            class={now.share === undefined ? "busy" : ""}
          />
        </div>
      ) : null}
      {failure.value === undefined ? null : <p class="notice error">{failure.value}</p>}
    </div>
  );
}

/** What takes no time needs no word about it: nothing flashes. */
function useLater(busy: boolean): boolean {
  const [late, setLate] = useState(false);
  useEffect(() => {
    if (!busy) {
      setLate(false);
      return undefined;
    }
    const timer = setTimeout(() => setLate(true), 150);
    return () => clearTimeout(timer);
  }, [busy]);
  return late;
}
