/**
 * Parts of the page that are loaded when they are first looked at: each is a script of its own (tools/page.ts) that gives its view.
 *
 * Not for: code that holds state of the page; a part has its own copy of every module but Preact's, and gets the rest as properties.
 */
import type { ComponentType } from "preact";
import { loadScript } from "./load.ts";

const shared = globalThis as { dmalinkParts?: Record<string, ComponentType> };
shared.dmalinkParts ??= {};
const parts = shared.dmalinkParts;

/** In a part: gives its view to the page. */
export function givePart(name: string, component: ComponentType): void {
  parts[name] = component;
}

/** In the page: the view of a part, and its styles, loaded where they are not. */
export async function loadPart(name: string): Promise<ComponentType> {
  if (!parts[name]) {
    const styles = document.createElement("link");
    styles.rel = "stylesheet";
    styles.href = `${name}.css`;
    document.head.append(styles);
    await loadScript(`${name}.js`);
  }
  const part = parts[name];
  if (!part) throw new Error(`${name}.js of this page holds no such part`);
  return part;
}
