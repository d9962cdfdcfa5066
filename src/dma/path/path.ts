/**
 * A path: one way from a device to memory. `direct.ts` and `translated.ts` are the two.
 *
 * The calls are those of the one-shot API on bare addresses, without handles and without checks of the arguments; the
 * front door (`dma.ts`) has checked them.
 */
import type { DmaAddr, PhysAddr } from "../../base/index.ts";
import type { Terms } from "../terms.ts";
import type { Direction, DmaVec, PhysVec } from "../vectors.ts";

export interface Path {
  /** @throws DmaError; nothing is mapped then */
  mapPhys(phys: PhysAddr, length: number, terms: Terms): DmaAddr;
  unmapPhys(address: DmaAddr, length: number, terms: Terms): void;
  syncForCpu(address: DmaAddr, length: number, direction: Direction): void;
  syncForDevice(address: DmaAddr, length: number, direction: Direction): void;
  /** @throws DmaError; nothing is mapped then */
  mapList(list: readonly PhysVec[], terms: Terms): DmaVec[];
  unmapList(mapped: MappedList): void;
  syncListForCpu(mapped: MappedList): void;
  syncListForDevice(mapped: MappedList): void;
}

/** A mapped scatterlist, as whoever unmaps it must name it. */
export interface MappedList extends Terms {
  /** The input, as it was mapped. */
  readonly list: readonly PhysVec[];
  /** The output that the map gave. */
  readonly segments: readonly DmaVec[];
}
