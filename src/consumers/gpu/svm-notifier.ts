/**
 * A notifier of shared virtual memory: watches a wide span of a process for all ranges in it.
 *
 * Idea: one watch for many ranges, aligned to its size; it comes with the first of them and goes with the last. So its sequence says only that
 * *something* in the span changed; whether a range is still true is the range's own matter.
 * Promises: ranges in it never overlap.
 */
import type { IntervalNotifier, Invalidation, UserMemory } from "../../platform/index.ts";
import { UserAddr } from "../../platform/index.ts";
import type { PageBacking } from "./backing.ts";
import type { SvmRange } from "./svm-range.ts";

/** The ranges of one span. */
export class SvmNotifier {
  readonly start: number;
  readonly end: number;
  readonly watch: IntervalNotifier;
  /** By start, in order of being made. */
  readonly ranges: Map<number, SvmRange> = new Map();
  /** Backings that have pages in the span: each once. */
  readonly backings: Set<PageBacking> = new Set();

  /** @throws DmaError ERR_DMA_USER_GONE (EFAULT) */
  constructor(memory: UserMemory, start: number, end: number, changed: (what: Invalidation) => boolean) {
    this.start = start;
    this.end = end;
    this.watch = memory.watch(UserAddr(start), UserAddr(end), changed);
  }

  /** The range that holds `address`. */
  rangeAt(address: number): SvmRange | undefined {
    for (const range of this.ranges.values()) if (address >= range.start && address < range.end) return range;
    return undefined;
  }

  /** Some range overlaps [start, end). */
  overlaps(start: number, end: number): boolean {
    for (const range of this.ranges.values()) if (range.start < end && range.end > start) return true;
    return false;
  }
}
