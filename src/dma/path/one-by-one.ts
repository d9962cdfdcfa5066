/**
 * Scatterlists behind an IOMMU whose entries are mapped one by one, because one of them bounces or the device is untrusted.
 *
 * Idea: as many one-shot mappings as entries. A peer's memory is recognised as in other lists: bus addresses stay out, and
 * what goes through the host bridge is device memory. Linux does not look for peers here: only with `linuxCompatible`.
 * Promises: a failed call leaves nothing, in lazy mode too; it copies nothing out.
 * Specified by: behaviour of Linux 7.2 DMA-IOMMU layer, scatterlists of untrusted devices.
 */
import { DmaAddr, type IovaPage, PAGE_SIZE } from "../../base/index.ts";
import { bounceOut } from "./bounce.ts";
import type { MappedList } from "./path.ts";
import { PeerChunks } from "./peers.ts";
import { isPeer } from "./scatterlist.ts";
import type { TranslatedPath } from "./translated.ts";
import type { Direction, DmaAttributes, DmaVec, PhysVec } from "../vectors.ts";

export function mapEach(
  path: TranslatedPath,
  list: readonly PhysVec[],
  direction: Direction,
  attributes?: DmaAttributes,
): DmaVec[] {
  const { device } = path;
  const chunks = device.linuxCompatible ? undefined : new PeerChunks(device);
  const segments: DmaVec[] = [];
  try {
    for (const { phys, length } of list) {
      const chunk = chunks?.at(phys);
      if (chunk?.type === "bus-address") {
        segments.push({ address: DmaAddr(phys + chunk.busOffset), length, bus: true });
        continue;
      }
      const how = chunk?.type === "through-host-bridge" ? { ...attributes, mmio: true } : attributes;
      segments.push({ address: path.mapPhys(phys, length, direction, how), length });
    }
  } catch (error) {
    undoEach(path, { list, segments, direction, attributes });
    throw error;
  }
  return segments;
}

export function unmapEach(path: TranslatedPath, { list, segments, direction, attributes }: MappedList): void {
  segments.forEach(({ address, length, bus }, i) => {
    if (bus) return;
    const how = isPeer(path.device, list[i]!.phys) ? { ...attributes, mmio: true } : attributes;
    path.unmapPhys(address, length, direction, how);
  });
}

/** What can be synced: all but peers' memory. */
export function eachMemory(
  path: TranslatedPath,
  { list, segments }: MappedList,
  visit: (address: DmaAddr, length: number) => void,
): void {
  segments.forEach(({ address, length }, i) => {
    if (!isPeer(path.device, list[i]!.phys)) visit(address, length);
  });
}

function undoEach(path: TranslatedPath, mapped: MappedList): void {
  const { device, domain, ownership } = path;
  const { list, segments, direction } = mapped;
  const attributes = { ...mapped.attributes, skipCpuSync: true };
  if (device.linuxCompatible) {
    unmapEach(path, { list, segments, direction, attributes });
    return;
  }
  segments.forEach(({ address, length, bus }, i) => {
    if (bus) return;
    const isMemory = !mapped.attributes?.mmio && !isPeer(device, list[i]!.phys);
    const phys = path.physOf(address)!;
    if (isMemory && ownership.needed(mapped.attributes)) ownership.takeBack(phys, length, direction);
    const inside = path.inside(address);
    const page = ((address - inside) / PAGE_SIZE) as IovaPage;
    const pages = path.pages(inside + length);
    domain.unmapNow(page, pages);
    domain.release(page, 0, pages);
    if (device.machine.pool?.holds(phys)) bounceOut(device, phys, length, direction, attributes);
    else if (isMemory) device.machine.encryption?.unmapped?.(phys, length);
  });
}
