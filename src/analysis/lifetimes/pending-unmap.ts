/**
 * An `iommu:unmap` that no event has named so far: what it may have taken.
 *
 * Idea: the event itself and its candidates, in an object that is used again: each CPU has a few. Not for: deciding (iommu-matcher.ts).
 */
import type { Place } from "./history.ts";

/** Of nothing. */
export const NONE: readonly number[] = [];

/** What an `iommu:unmap` may have taken, until an event says whose that was; and the event itself. Used again. */
export class PendingUnmap implements Place {
  /** Nobody has said yet. */
  isOpen = false;
  timeNs = 0;
  cpu = 0;
  pid = 0;
  task = 0;
  type = 0;
  site = 0;
  page = 0;
  /** 0: the IOMMU had nothing there. */
  pages = 0;
  /** Its place in the order of ends. */
  order = 0;
  /** Mappings that it fits, newest first: how many, their rows and ids. */
  count = 0;
  readonly rows: number[] = [];
  readonly ids: number[] = [];
  /** What it fits of the maps without a device. */
  pieces: readonly number[] = NONE;

  /** It fits several. */
  get isContested(): boolean {
    return this.count + (this.pieces.length > 0 ? 1 : 0) > 1;
  }

  /** Whether `row`, which is mapping `id`, may be the one. */
  has(row: number, id: number): boolean {
    for (let i = 0; i < this.count; i++) if (this.rows[i] === row && this.ids[i] === id) return true;
    return false;
  }
}
