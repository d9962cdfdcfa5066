/** Input and output of a mapping: never the same type. */
import type { DmaAddr, PhysAddr } from "../base/index.ts";

export type { Direction } from "../base/index.ts";

/** Input: a run of physical memory. Bytes. */
export interface PhysVec {
  readonly phys: PhysAddr;
  readonly length: number;
}

/** Output: a run of addresses that the device can use. Bytes. */
export interface DmaVec {
  readonly address: DmaAddr;
  readonly length: number;
}

/** How a mapping differs from plain cacheable memory. */
export interface DmaAttributes {
  /** The target is a device's memory, not RAM. */
  readonly mmio?: boolean;
  /** Only privileged accesses of the device are allowed. */
  readonly privileged?: boolean;
}
