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

/**
 * Input: pieces of physically contiguous memory as columns, without an object for each. Piece i is [phys[i], + its length).
 * Bytes. For a call with very many pieces; {@link PhysVec} is clearer where there are few.
 */
export interface PhysColumns {
  /** The first byte of each piece. */
  readonly phys: Float64Array;
  /** Bytes of each piece; a number if all are of this length. */
  readonly length: Float64Array | number;
  /** How many pieces there are, from the first on: all of `phys`, unless said. */
  readonly count?: number;
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
