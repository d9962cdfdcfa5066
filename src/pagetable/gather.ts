/**
 * Gather: what has been unmapped and not yet invalidated, and the tables that wait for it.
 *
 * Idea: one interval that only grows, and a list of detached table frames. Whoever owns the IOTLB invalidates the
 * interval, then calls {@link Gather.releaseTables}; a flush queue takes the list over with {@link Gather.takeTables}.
 * Promises: no allocation in steady state; a detached table is not reused before it is released.
 * Not for: deciding when to invalidate.
 * Specified by: behaviour of Linux 7.2 (the IOTLB gather).
 */
import type { Arena } from "./arena.ts";

/** A growing list of table frames that keeps its room. */
export class FrameList {
  /** The frames; the first `length` are in use. */
  frames: Int32Array = new Int32Array(16);
  /** Frames in the list. */
  length = 0;

  /** Appends a frame; the list grows where it must. */
  push(frame: number): void {
    if (this.length === this.frames.length) {
      const frames = new Int32Array(this.length * 2);
      frames.set(this.frames);
      this.frames = frames;
    }
    this.frames[this.length++] = frame;
  }

  /** Gives every frame back to its arena; the number of them. */
  release(arena: Arena): number {
    const { length } = this;
    for (let i = 0; i < length; i++) arena.release(this.frames[i]!);
    this.length = 0;
    return length;
  }
}

/** What an unmap leaves to be invalidated: one range of addresses, and the tables that nobody reaches any more. */
export class Gather {
  /** First page of what is to be invalidated; meaningless while `end` is 0. */
  start: number = Number.POSITIVE_INFINITY;
  /** The page after the last; 0: nothing is. */
  end = 0;
  /** Leaf size in pages, on tables with legacy rules; else 0. */
  pageSize = 0;
  /** Levels at which leaves were removed: bit n is level n. */
  leafLevels = 0;
  /** Levels from which tables were detached: bit n is level n. */
  tableLevels = 0;
  /** Tables that a walk in progress may still be in. */
  tables: FrameList = new FrameList();

  /** Is there anything to invalidate? */
  get pending(): boolean {
    return this.start < this.end;
  }

  /** The IOTLB may keep its cached table pointers: only leaves went. */
  get leavesOnly(): boolean {
    return this.tables.length === 0;
  }

  /**
   * Widens the interval by `pages` from `start`; none at page 0 means everything, as Linux's inclusive end then wraps
   * to the last address there is.
   */
  add(start: number, pages: number): void {
    if (start < this.start) this.start = start;
    const end = start + pages === 0 ? 2 ** 52 : start + pages;
    if (end > this.end) this.end = end;
  }

  /** Would adding the pages leave a gap? */
  isDisjoint(start: number, pages: number): boolean {
    const next = this.end === 2 ** 52 ? 0 : this.end; // the address after the last one is 0
    return this.end !== 0 && (start > next || start + pages < this.start);
  }

  /** Empties the interval. Call it after the invalidation, with the tables released or handed over. */
  reset(): void {
    this.start = Number.POSITIVE_INFINITY;
    this.end = 0;
    this.pageSize = 0;
    this.leafLevels = 0;
    this.tableLevels = 0;
  }

  /** The invalidation is done: gives the tables back. */
  releaseTables(arena: Arena): number {
    return this.tables.release(arena);
  }

  /** Appends the tables to `list`, which the caller releases after its own, later invalidation. */
  takeTables(list: FrameList): void {
    for (let i = 0; i < this.tables.length; i++) list.push(this.tables.frames[i]!);
    this.tables.length = 0;
  }
}
