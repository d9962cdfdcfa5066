/**
 * A path: one way from a device to memory. `direct.ts` and `translated.ts` are the two.
 *
 * The calls are those of the one-shot API on bare addresses, without handles and without checks of the arguments; the
 * front door (`dma.ts`) has checked them.
 */
import type { Direction, DmaAddr, PhysAddr } from "../../base/index.ts";
import type { DmaAttributes, DmaVec, PhysVec } from "../vectors.ts";

export interface Path {
  /** @throws DmaError; nothing is mapped then */
  mapPhys(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr;
  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void;
  syncForCpu(address: DmaAddr, length: number, direction: Direction): void;
  syncForDevice(address: DmaAddr, length: number, direction: Direction): void;
  /** @throws DmaError; nothing is mapped then */
  mapList(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): DmaVec[];
  unmapList(mapped: MappedList): void;
  syncListForCpu(mapped: MappedList): void;
  syncListForDevice(mapped: MappedList): void;
}

/** A mapped scatterlist, as whoever unmaps it must name it. */
export interface MappedList {
  readonly list: readonly PhysVec[];
  readonly segments: readonly DmaVec[];
  readonly direction: Direction;
  readonly attributes: DmaAttributes | undefined;
}

/** The kmalloc sizes of Linux: an object of one of them shares its cache lines with nobody only if it fills them. */
const BUCKETS = [8, 16, 32, 64, 96, 128, 192];

/** Buffers smaller than their cache lines may share them with what the CPU writes meanwhile: such a buffer is bounced. */
export function sharesCacheLine(length: number, cacheLine: number): boolean {
  if (cacheLine <= 1 || length >= 2 * cacheLine) return false;
  const size = BUCKETS.find((bucket) => bucket >= length) ?? 2 ** Math.ceil(Math.log2(length));
  return size % cacheLine !== 0;
}
