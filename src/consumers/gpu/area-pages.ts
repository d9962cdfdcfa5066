/**
 * Pages kept for whole areas of a process: one reservation an area, in which every range of it has its place.
 *
 * Idea: what the process mapped at once is reserved at once, so a range that goes leaves its neighbours' addresses alone, and pages that outlive their
 * range stay mapped for the next one. An area that grows, or merges with another, keeps its reservation as long as anything of it is in use; what lies
 * beyond it gets one of its own. Very large areas are not worth it: they fall back to chunks.
 * Not for: which ranges there are (svm-context.ts).
 */
import { GiB, PAGE_SIZE } from "../../base/index.ts";
import type { UserArea } from "../../platform/index.ts";
import type { BackingOptions } from "./backing.ts";
import type { Span } from "./chunk-choice.ts";
import { KeptPages } from "./kept-pages.ts";

/** Areas above this many bytes are shared by chunks. */
export const LARGEST_AREA_BYTES: number = 64 * GiB;
/** An area may take this part of the device's address space. */
export const AREA_SHARE: number = 1 / 16;

/** The reservations of a context's areas. */
export class AreaPages {
  readonly #make: (span: Span) => Omit<BackingOptions, "start" | "pages" | "gpuPage">;
  readonly #largestBytes: number;
  readonly #kept = new Set<KeptPages>();

  /**
   * @param make what a backing is made with
   * @param spaceBytes address space that the device has
   */
  constructor(make: (span: Span) => Omit<BackingOptions, "start" | "pages" | "gpuPage">, spaceBytes: number) {
    this.#make = make;
    this.#largestBytes = Math.min(LARGEST_AREA_BYTES, spaceBytes * AREA_SHARE);
  }

  /** All of them, for those who watch. */
  get kept(): Iterable<KeptPages> {
    return this.#kept;
  }

  /** The pages that hold `address`: of the area, made now if there are none yet. undefined: the area is too large for that. */
  for(area: UserArea, address: number, window: Span): KeptPages | undefined {
    for (const pages of this.#kept) if (holds(pages, address)) return pages;
    const free = this.#freeAround(
      { start: Math.max(area.start, window.start), end: Math.min(area.end, window.end) },
      address,
    );
    if (free.end - free.start > this.#largestBytes) return undefined;
    const made = new KeptPages({
      ...this.#make(free),
      start: free.start,
      pages: (free.end - free.start) / PAGE_SIZE,
      gpuPage: free.start / PAGE_SIZE,
    });
    this.#kept.add(made);
    return made;
  }

  /** Gives back what is not in use any more: no page of it is known, and no range lies in it. */
  trim(isUsed: (pages: KeptPages) => boolean): void {
    for (const pages of this.#kept) {
      if (pages.knows(0, pages.pages) || isUsed(pages)) continue;
      pages.release();
      this.#kept.delete(pages);
    }
  }

  /** Everything goes. */
  release(): void {
    for (const pages of this.#kept) pages.release();
    this.#kept.clear();
  }

  /** What of `span` around `address` is in no reservation. */
  #freeAround(span: Span, address: number): Span {
    let { start, end } = span;
    for (const pages of this.#kept) {
      const [first, last] = [pages.start, pages.start + pages.pages * PAGE_SIZE];
      if (last <= address) start = Math.max(start, last);
      else if (first > address) end = Math.min(end, first);
    }
    return { start, end };
  }
}

const holds = (pages: KeptPages, address: number): boolean =>
  address >= pages.start && address < pages.start + pages.pages * PAGE_SIZE;
