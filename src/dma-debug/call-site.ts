/**
 * Call sites: where in a program a call was made, for people who look for a bug.
 *
 * Idea: only the frames are taken at the call; text is made of them when somebody reads it, which is rare. The site is the
 * first frame outside this library's DMA layer, so that it names the driver's line and not ours.
 * Promises: works with the stack formats of V8, JavaScriptCore and SpiderMonkey; what cannot be read is said so.
 */

/** The folders of the DMA layer and of its debugging, as stacks name them; in a bundle, the bundle's. */
const LIBRARY: readonly string[] = (import.meta.url.includes("/dma-debug/") ? [".", "../dma/"] : ["."]).map((folder) =>
  plain(new URL(folder, import.meta.url).href),
);
/** Tests and benchmarks lie beside the code, and are callers. */
const CALLER = /\.(test|bench)\.[cm]?[jt]s/;
/** `at name (place:line:column)`, `at place:line:column`, and `name@place:line:column` of other engines. */
const FRAME = /^\s*(?:at (?:async )?)?(?:(.*?)(?: \(|@))?((?:file:|https?:|\/|[A-Za-z]:[\\/])[^()]*:\d+:\d+)\)?$/;

/** Frames that are taken: ours and the caller's, however deep its way into the library. */
const FRAMES = 20;

export class CallSite {
  readonly #taken: Error;

  constructor() {
    const limit = Error.stackTraceLimit; // V8 and JavaScriptCore take ten frames unless told, others take all
    if (typeof limit === "number") Error.stackTraceLimit = FRAMES;
    this.#taken = new Error("call site");
    if (typeof limit === "number") Error.stackTraceLimit = limit;
  }

  /** `name (file:line:column)`. */
  toString(): string {
    let outermost: string | undefined;
    for (const line of (this.#taken.stack ?? "").split("\n")) {
      const frame = FRAME.exec(line);
      if (frame === null) continue;
      const place = plain(frame[2]!);
      outermost = frame[1] && frame[1] !== "<anonymous>" ? `${frame[1]} (${place})` : place;
      if (!LIBRARY.some((folder) => place.startsWith(folder)) || CALLER.test(place)) return outermost;
    }
    return outermost ?? "a place that this engine does not name";
  }
}

function plain(place: string): string {
  return place.replace(/^file:\/\//, "");
}
