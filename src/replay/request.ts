/** A request as a driver sees it, before anything of it is mapped. */
import { PAGE_SIZE } from "../base/index.ts";
import type { Direction, PhysVec } from "../dma/index.ts";

/** What one request transfers. */
export interface ReplayRequest {
  /** Its memory, in order. */
  readonly vecs: readonly PhysVec[];
  /** Bytes in all. */
  readonly length: number;
  /** Who writes. */
  readonly direction: Direction;
  /** Every inner edge lies on a page: one range of addresses can hold it. */
  readonly linear: boolean;
}

/** Can one IOVA range hold these runs one after the other, where `granule` bytes are the smallest thing that can be mapped? */
export const isLinear = (vecs: readonly PhysVec[], granule: number = PAGE_SIZE): boolean =>
  vecs.every(
    ({ phys, length }, i) =>
      (i === 0 || phys % granule === 0) && (i === vecs.length - 1 || (phys + length) % granule === 0),
  );
