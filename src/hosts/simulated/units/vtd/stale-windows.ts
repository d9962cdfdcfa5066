/**
 * Stale windows: for how long pages that were unmapped could still be reached.
 *
 * Idea: an observer of the stack. A window opens when entries are cleared and closes when an invalidation of a block
 * around them is submitted; in strict mode both happen in one call, in lazy mode a flush queue lies between.
 * Not for: more than one domain, and whether anybody did reach them (ask the unit).
 */
import { type Observer, PAGE_SIZE } from "../../../../base/index.ts";
import type { Clock } from "../../../../platform/index.ts";

interface Window {
  /** Pages [start, end). */
  readonly start: number;
  readonly end: number;
  readonly sinceMs: number;
}

export class StaleWindows {
  /** To be given to the domain and to its unit. */
  readonly observer: Observer;
  /** Closed windows: pages times milliseconds, and the longest. */
  pageMs = 0;
  longestMs = 0;
  #open: Window[] = [];
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
    const blocks: { start: number; end: number }[] = [];
    this.observer = {
      unmapped: (iova, _length, bytes) => {
        const start = Math.floor(iova / PAGE_SIZE);
        if (bytes > 0) this.#open.push({ start, end: start + bytes / PAGE_SIZE, sinceMs: clock.nowMs() });
      },
      cacheInvalidated: (why, _start, _last, address, order) => {
        const start = address / PAGE_SIZE;
        if (why === "unmap") blocks.push({ start, end: start + 2 ** order });
      },
      descriptorsSubmitted: () => {
        for (const { start, end } of blocks.splice(0)) this.#close(start, end);
      },
    };
  }

  /** Pages that can still be reached. */
  get openPages(): number {
    return this.#open.reduce((pages, { start, end }) => pages + end - start, 0);
  }

  #close(from: number, to: number): void {
    const nowMs = this.#clock.nowMs();
    this.#open = this.#open.flatMap(({ start, end, sinceMs }) => {
      const [first, after] = [Math.max(start, from), Math.min(end, to)];
      if (first >= after) return [{ start, end, sinceMs }];
      this.pageMs += (after - first) * (nowMs - sinceMs);
      this.longestMs = Math.max(this.longestMs, nowMs - sinceMs);
      return [
        { start, end: first, sinceMs },
        { start: after, end, sinceMs },
      ].filter((rest) => rest.start < rest.end);
    });
  }
}
