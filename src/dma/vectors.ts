/** Input and output of a mapping: never the same type. */
import type { DmaAddr, PhysAddr } from "../base/index.ts";

export type { Direction } from "../base/index.ts";

/** Input: physically contiguous memory. Bytes. */
export interface PhysVec {
  /** First byte. */
  readonly phys: PhysAddr;
  /** Bytes; they follow each other. */
  readonly length: number;
}

/** Output: contiguous addresses that the device can use. Bytes. */
export interface DmaVec {
  /** First byte, as the device puts it on the bus. */
  readonly address: DmaAddr;
  /** Bytes; they follow each other. */
  readonly length: number;
  /** The address is a peer's on the bus: it is in no IOVA range, and nothing translates it. */
  readonly bus?: boolean;
}
