/**
 * Scatterlists whose entries are mapped one by one: without an IOMMU always, behind one because an entry bounces or the
 * device is untrusted.
 *
 * Idea: as many one-shot mappings as entries, none merged. A peer's memory is recognised as in other lists: bus addresses
 * stay out, and what goes through the host bridge is device memory.
 * Promises: a failed call leaves nothing; it is told what was mapped, and undoes that.
 * Specified by: behaviour of Linux 7.2 direct mapping and DMA-IOMMU layer, scatterlists.
 */
import { DmaAddr, type PhysAddr } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";
import { type Terms, withAttributes } from "../terms.ts";
import type { DmaVec, PhysVec } from "../vectors.ts";
import type { MappedList, Path } from "./path.ts";
import { isPeer, PeerChunks, reachedAs } from "./peers.ts";

/** How one entry is mapped, and how a list is undone that failed half-way. */
export interface EntryMapper {
  map(phys: PhysAddr, length: number, terms: Terms): DmaAddr;
  /** Cannot fail. */
  undo(mapped: MappedList): void;
}

/** @param looksForPeers Linux does not where it maps the lists of untrusted devices */
export function mapEach(
  device: DmaDevice,
  list: readonly PhysVec[],
  terms: Terms,
  mapper: EntryMapper,
  looksForPeers: boolean,
): DmaVec[] {
  const chunks = looksForPeers ? new PeerChunks(device) : undefined;
  const segments: DmaVec[] = [];
  try {
    for (const { phys, length } of list) {
      const route = chunks?.at(phys);
      if (route?.type === "bus-address") segments.push({ address: DmaAddr(phys + route.busOffset), length, bus: true });
      else segments.push({ address: mapper.map(phys, length, reachedAs(route, terms)), length });
    }
  } catch (error) {
    mapper.undo({ list, segments, ...terms });
    throw error;
  }
  return segments;
}

/** Unmaps the entries by `path`. @param lengthOf the bytes of entry i, as its caller knows them */
export function unmapEach(
  device: DmaDevice,
  path: Path,
  mapped: MappedList,
  lengthOf: (i: number) => number = (i) => mapped.segments[i]!.length,
): void {
  const { list, segments } = mapped;
  segments.forEach(({ address, bus }, i) => {
    if (bus) return;
    const terms = isPeer(device, list[i]!.phys) ? withAttributes(mapped, { mmio: true }) : mapped;
    path.unmapPhys(address, lengthOf(i), terms);
  });
}

/** What can be synced: all but peers' memory. */
export function eachMemory(
  device: DmaDevice,
  { list, segments }: MappedList,
  visit: (address: DmaAddr, length: number) => void,
): void {
  segments.forEach(({ address, length, bus }, i) => {
    if (!bus && !isPeer(device, list[i]!.phys)) visit(address, length);
  });
}
