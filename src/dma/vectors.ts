/** Input and output of a mapping: never the same type. */
import type { DmaAddr, PhysAddr } from "../base/index.ts";

export type { Direction } from "../base/index.ts";

/** Input: physically contiguous memory. Bytes. */
export interface PhysVec {
  readonly phys: PhysAddr;
  readonly length: number;
}

/** Output: contiguous addresses that the device can use. Bytes. */
export interface DmaVec {
  readonly address: DmaAddr;
  readonly length: number;
  /** The address is a peer's on the bus: it is in no IOVA range, and nothing translates it. */
  readonly bus?: boolean;
}
