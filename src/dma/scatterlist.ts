/**
 * Scatterlists behind an IOMMU: one range for the whole list, and as few output segments as the device's limits allow.
 *
 * Idea: every entry takes whole granules, one after the other; an output segment goes on while the bytes do. Where an
 * entry would cross a segment boundary, a gap is left before it. Entries that are a peer's bus addresses stay out.
 * Promises: one reservation, one sync, one invalidation, whatever the length; a failed call leaves nothing.
 * Specified by: behaviour of Linux 7.2 DMA-IOMMU layer, scatterlists; judged by test/golden (kind scatterlist).
 * Linux also maps what lies behind an entry into the gap, joins past the limit once an entry was longer than it, and takes
 * a peer's memory through the host bridge for RAM: only with `linuxCompatible`.
 */
import { type Direction, DmaAddr, IovaPage, PAGE_SIZE, type PhysAddr, type PhysPage } from "../base/index.ts";
import type { DmaDevice } from "./device.ts";
import { noAddressSpace } from "./errors.ts";
import { PeerChunks } from "./peers.ts";
import { permissions } from "./permissions.ts";
import type { TranslatedPath } from "./translated.ts";
import type { DmaAttributes, DmaVec, PhysVec } from "./vectors.ts";

/** One entry on its way through. Bytes. */
interface Entry {
  readonly phys: number;
  readonly length: number;
  /** From the start of its first granule. */
  readonly inside: number;
  /** Whole granules, and the gap that follows. */
  whole: number;
  gap: number;
  /** Set for a peer's bus address. */
  readonly bus: number | undefined;
  /** A peer's memory, through the host bridge. */
  readonly mmio: boolean;
}

export function mapList(
  path: TranslatedPath,
  list: readonly PhysVec[],
  direction: Direction,
  attributes?: DmaAttributes,
): DmaVec[] {
  const { domain, device } = path;
  const { entries, total } = layOut(path, list);
  if (total === 0) return segmentsOf(path, entries, 0);
  const pages = total / PAGE_SIZE;
  const first = path.reserve(pages);
  if (first === 0) throw noAddressSpace(total, device.reach(device.mask));
  const memory = permissions(direction, attributes, device.coherent);
  const peer = permissions(direction, { ...attributes, mmio: true }, device.coherent);
  let at = 0;
  let mapped = 0;
  try {
    for (let i = 0; i < entries.length; ) {
      const entry = entries[i++]!;
      if (entry.bus !== undefined) continue;
      const start = entry.phys - entry.inside;
      let length = entry.whole + (device.linuxCompatible ? entry.gap : 0);
      let { gap } = entry;
      for (let next = entries[i]; next; next = entries[++i]) {
        if (next.bus !== undefined || (gap > 0 && !device.linuxCompatible) || next.mmio !== entry.mmio) break;
        if (next.phys - next.inside !== start + length) break;
        length += next.whole + (device.linuxCompatible ? next.gap : 0);
        gap = next.gap;
      }
      const prot = entry.mmio ? peer : memory;
      domain.map(IovaPage.add(first, at / PAGE_SIZE), (start / PAGE_SIZE) as PhysPage, length / PAGE_SIZE, prot);
      at += length;
      mapped = at;
      if (!device.linuxCompatible) at += gap;
    }
  } catch (error) {
    if (mapped === 0) device.observer?.unmapped?.(first * PAGE_SIZE, 0, 0);
    if (mapped > 0) domain.releaseSparse(first, mapped / PAGE_SIZE, first, pages);
    else domain.release(first, 0, pages);
    throw error;
  }
  domain.sync(first, pages);
  return segmentsOf(path, entries, first * PAGE_SIZE);
}

/** A peer's memory, which no cache holds and no encryption covers. Linux takes it for RAM in lists. */
export function isPeer({ linuxCompatible, machine }: DmaDevice, phys: PhysAddr): boolean {
  return !linuxCompatible && machine.peers?.providerOf(phys) !== undefined;
}

/** The entries that the CPU caches: all but peers' memory. */
export function cachedEntries(device: DmaDevice, list: readonly PhysVec[]): readonly PhysVec[] {
  return list.some(({ phys }) => isPeer(device, phys)) ? list.filter(({ phys }) => !isPeer(device, phys)) : list;
}

/** Whole granules for every entry, and where a gap has to be so that no entry crosses a segment boundary. */
function layOut(path: TranslatedPath, list: readonly PhysVec[]): { entries: Entry[]; total: number } {
  const boundary = path.device.segmentBoundaryMask + 1;
  const chunks = new PeerChunks(path.device);
  const entries: Entry[] = [];
  let total = 0;
  let previous: Entry | undefined;
  for (const { phys, length } of list) {
    const chunk = chunks.at(phys);
    const inside = path.inside(phys);
    if (chunk.type === "bus-address") {
      entries.push({ phys, length, inside: 0, whole: 0, gap: 0, bus: phys + chunk.busOffset, mmio: false });
      continue;
    }
    const whole = path.pages(inside + length) * PAGE_SIZE;
    const over = total % boundary;
    const gap = over === 0 ? 0 : boundary - over;
    if (gap !== 0 && gap < whole - 1 && previous) {
      previous.gap += gap;
      total += gap;
    }
    const mmio = chunk.type === "through-host-bridge" && !path.device.linuxCompatible;
    previous = { phys, length, inside, whole, gap: 0, bus: undefined, mmio };
    entries.push(previous);
    total += whole;
  }
  return { entries, total };
}

/** What the device is told: joined where the bytes go on and the limits allow it. */
function segmentsOf(path: TranslatedPath, entries: readonly Entry[], first: number): DmaVec[] {
  const { maxSegmentSize, segmentBoundaryMask, linuxCompatible } = path.device;
  const boundary = segmentBoundaryMask + 1;
  const segments: { address: DmaAddr; length: number; bus?: boolean }[] = [];
  let at = first;
  let joinable = 0; // bytes of the segment that the next entry may join; 0: none
  for (const { length, inside, whole, gap, bus } of entries) {
    if (bus !== undefined) {
      segments.push({ address: DmaAddr(bus), length, bus: true });
      joinable = 0;
      continue;
    }
    const room = linuxCompatible ? (maxSegmentSize - joinable) >>> 0 : maxSegmentSize - joinable;
    if (joinable > 0 && inside === 0 && at % boundary !== 0 && room >= length) {
      joinable += length;
      segments.at(-1)!.length = joinable;
    } else {
      segments.push({ address: DmaAddr(at + inside), length });
      joinable = length;
    }
    at += whole + gap;
    if (inside + length < whole + gap) joinable = 0;
  }
  return segments;
}

/** Clears a mapped list and gives its range back: one invalidation, or one entry of the flush queue. */
export function unmapSegments(path: TranslatedPath, segments: readonly DmaVec[]): void {
  let first: DmaVec | undefined;
  let last: DmaVec | undefined;
  let mapped = 0;
  for (const segment of segments) {
    if (segment.bus) continue;
    first ??= segment;
    last = segment;
    mapped += path.pages(path.inside(segment.address) + segment.length);
  }
  if (!first || !last) return;
  const inside = path.inside(first.address);
  const page = ((first.address - inside) / PAGE_SIZE) as IovaPage;
  const pages = path.pages(last.address + last.length - first.address + inside);
  if (mapped === pages || path.device.linuxCompatible) path.domain.release(page, pages, pages);
  else path.domain.releaseSparse(page, pages, page, pages); // gaps before segment boundaries
}

/** Clears the granules of [address, + length) and gives them back. */
export function unmapRange(path: TranslatedPath, address: number, length: number): void {
  const inside = path.inside(address);
  const page = ((address - inside) / PAGE_SIZE) as IovaPage;
  const pages = path.pages(inside + length);
  path.domain.release(page, pages, pages);
}
