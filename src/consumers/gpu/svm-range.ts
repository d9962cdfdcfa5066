/**
 * A range of shared virtual memory: a chunk of addresses that a page fault made, and the pages behind it.
 *
 * Idea: a range is never split. When the process unmaps any of it, it is dead: it answers EFAULT for ever, and a collector takes it away; what is
 * left of its addresses becomes new, smaller ranges at the next touch. What stands behind it is its own pages, or a part of what is
 * kept for the whole area.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { PageBacking, PageSpan } from "./backing.ts";

/** Addresses [start, end) of a process that a GPU shares as one. */
export class SvmRange {
  readonly start: number;
  readonly end: number;
  readonly backing: PageBacking;
  /** Page of the backing that `start` is. */
  readonly first: number;
  /** The backing is its own, and goes with it. */
  readonly isOwn: boolean;
  /** The process unmapped some of it. */
  isUnmapped = false;
  /** It sticks out of what was unmapped. */
  isPartly = false;

  constructor(start: number, end: number, backing: PageBacking, isOwn: boolean) {
    this.start = start;
    this.end = end;
    this.backing = backing;
    this.first = (start - backing.start) / PAGE_SIZE;
    this.isOwn = isOwn;
  }

  get pages(): number {
    return (this.end - this.start) / PAGE_SIZE;
  }

  /** The GPU can use the page at `address` now. */
  has(address: number, write: boolean): boolean {
    return this.backing.has(Math.floor((address - this.backing.start) / PAGE_SIZE), write);
  }

  /** Any of its pages is known. */
  get isKnown(): boolean {
    return this.backing.knows(this.first, this.first + this.pages);
  }

  /** Takes all of it from the GPU. */
  drop(event?: PageSpan): void {
    this.backing.drop(this.first, this.first + this.pages, event);
  }
}
