/**
 * The view in the URL: which one, and where in it, so that a link shows a colleague the same place.
 *
 * Idea: all of it lies behind the "#", which no server sees and which works for a file on disk: `#/timeline?from=1.5&to=2`.
 * Promises: back, forward and reload lead where one was. A step (a click) makes an entry in the history, a movement (panning) none.
 */
import { type ReadonlySignal, signal } from "@preact/signals";

/** A place in the page. */
interface Route {
  /** The name of a view. */
  readonly view: string;
  /** Where in it; a view names its own. Values are text, whatever a link had in them. */
  readonly at: Readonly<Record<string, string>>;
}

const FIRST_VIEW = "overview";

const current = signal<Route>(parse(location.hash));

/** Where the page is. */
export const route: ReadonlySignal<Route> = current;

addEventListener("hashchange", () => {
  current.value = parse(location.hash);
});

function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { view: path || FIRST_VIEW, at: Object.fromEntries(new URLSearchParams(query)) };
}

/** The link to a place. */
export function linkTo(view: string, at: Readonly<Record<string, string | undefined>> = {}): string {
  const known = Object.entries(at).filter((entry): entry is [string, string] => entry[1] !== undefined);
  const query = new URLSearchParams(known).toString();
  return `#/${view}${query && `?${query}`}`;
}

/** Goes to a place, as a click does. */
export function go(view: string, at: Readonly<Record<string, string | undefined>> = {}): void {
  location.hash = linkTo(view, at);
}

/** Changes where the current view is, and keeps what is not named; `undefined` takes a value out. No new entry in the history. */
export function move(at: Readonly<Record<string, string | undefined>>): void {
  const { view, at: before } = current.value;
  const link = linkTo(view, { ...before, ...at });
  if (link === location.hash) return;
  history.replaceState(null, "", link);
  current.value = parse(link);
}
