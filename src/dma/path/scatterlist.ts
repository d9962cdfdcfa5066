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
import { DmaAddr, type IovaPage, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";
import { noAddressSpace } from "../errors.ts";
import type { Terms } from "../terms.ts";
import type { DmaVec, PhysVec } from "../vectors.ts";
import type { Granules } from "./granules.ts";
import { PeerChunks, type PeerRoute } from "./peers.ts";
import { permissions } from "./permissions.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;
const NO_BOUNDARY = 0;

export function mapList(granules: Granules, list: readonly PhysVec[], terms: Terms): DmaVec[] {
  const { domain, device } = granules;
  const layout = layOut(granules, list);
  const { pages } = layout;
  if (pages === 0) return segmentsOf(granules, list, layout, 0);
  const first = granules.reserve(pages);
  if (first === 0) throw noAddressSpace(pages * PAGE, device.reach(device.mask));
  mapEntries(granules, list, layout, first, terms);
  try {
    domain.sync(first as IovaPage, pages);
  } catch (error) {
    domain.release(first, 0, pages); // what was mapped is undone already
    throw error;
  }
  return segmentsOf(granules, list, layout, first);
}

/** How a list lies in its range: every entry on whole granules, one after the other, but for the gaps. */
interface Layout {
  /** Gaps included. */
  readonly pages: number;
  /** Pages from one segment boundary to the next; none where no entry can reach one. */
  readonly boundary: number;
  /** How each entry is reached; undefined where there is nothing but memory. */
  readonly routes: readonly PeerRoute[] | undefined;
}

/** @throws DmaError ERR_DMA_PEER (EREMOTEIO) */
function layOut(granules: Granules, list: readonly PhysVec[]): Layout {
  const { device } = granules;
  const routes = device.machine.peers && routesOf(device, list);
  const pages = pagesFor(granules, list, routes, NO_BOUNDARY);
  const boundary = (device.segmentBoundaryMask + 1) / PAGE;
  if (pages <= boundary) return { pages, boundary: NO_BOUNDARY, routes };
  return { pages: pagesFor(granules, list, routes, boundary), boundary, routes };
}

function routesOf(device: DmaDevice, list: readonly PhysVec[]): readonly PeerRoute[] {
  const chunks = new PeerChunks(device);
  return list.map(({ phys }) => chunks.at(phys));
}

function pagesFor(
  granules: Granules,
  list: readonly PhysVec[],
  routes: readonly PeerRoute[] | undefined,
  boundary: number,
): number {
  let total = 0;
  for (let i = 0; i < list.length; i++) {
    if (routes?.[i]?.type === "bus-address") continue;
    const { phys, length } = list[i]!;
    const pages = granules.pages(granules.inside(phys) + length);
    if (boundary !== NO_BOUNDARY) total += gapAt(total, pages, boundary);
    total += pages;
  }
  return total;
}

/** Pages left out at page `offset` of the range, so that the next `pages` do not cross a segment boundary. */
function gapAt(offset: number, pages: number, boundary: number): number {
  const over = offset % boundary;
  const gap = over === 0 ? 0 : boundary - over;
  return gap < pages ? gap : 0;
}

/** Maps the entries from page `first` on, adjacent ones together; on failure nothing of the list is left, nor its range. */
function mapEntries(
  granules: Granules,
  list: readonly PhysVec[],
  { pages: reserved, boundary, routes }: Layout,
  first: IovaPage,
  { direction, attributes }: Terms,
): void {
  const { domain, device } = granules;
  const { linuxCompatible } = device;
  const memory = permissions(direction, attributes, device.coherent);
  const peer = routes && permissions(direction, { ...attributes, mmio: true }, device.coherent);
  // The run that is not mapped yet: `length` pages from `start` on, `at` pages into the range. Adjacent entries join it
  // while it is open.
  let at = 0;
  let start = 0;
  let length = 0;
  let mmio = false;
  let open = false;
  let offset = 0;
  let mapped = 0;
  try {
    for (let i = 0; i < list.length; i++) {
      const route = routes?.[i];
      if (route?.type === "bus-address") {
        open = false;
        continue;
      }
      const vec = list[i]!;
      const inside = granules.inside(vec.phys);
      const page = (vec.phys - inside) / PAGE;
      const pages = granules.pages(inside + vec.length);
      const isPeer = route?.type === "through-host-bridge" && !linuxCompatible;
      if (boundary !== NO_BOUNDARY) {
        const gap = gapAt(offset, pages, boundary);
        offset += gap;
        if (linuxCompatible) length += gap;
        else if (gap > 0) open = false;
      }
      if (open && isPeer === mmio && page === start + length) length += pages;
      else {
        if (length > 0) domain.map((first + at) as IovaPage, start as PhysPage, length, mmio ? peer! : memory);
        mapped = at + length;
        at = offset;
        start = page;
        length = pages;
        mmio = isPeer;
        open = true;
      }
      offset += pages;
    }
    domain.map((first + at) as IovaPage, start as PhysPage, length, mmio ? peer! : memory);
  } catch (error) {
    if (mapped === 0) device.observer?.unmapped?.(first * PAGE, 0, 0);
    if (mapped > 0) domain.releaseSparse(first, mapped, first, reserved);
    else domain.release(first, 0, reserved);
    throw error;
  }
}

/** What the device is told: joined where the bytes go on and the limits allow it. */
function segmentsOf(
  granules: Granules,
  list: readonly PhysVec[],
  { boundary, routes }: Layout,
  first: number,
): DmaVec[] {
  const { maxSegmentSize, segmentBoundaryMask, linuxCompatible } = granules.device;
  const perBoundary = PAGE / (segmentBoundaryMask + 1);
  const segments: { address: DmaAddr; length: number; bus?: boolean }[] = [];
  let page = first;
  let joinable = 0; // bytes of the segment that the next entry may join; 0: none
  for (let i = 0; i < list.length; i++) {
    const { phys, length } = list[i]!;
    const route = routes?.[i];
    if (route?.type === "bus-address") {
      segments.push({ address: DmaAddr(phys + route.busOffset), length, bus: true });
      joinable = 0;
      continue;
    }
    const inside = granules.inside(phys);
    const pages = granules.pages(inside + length);
    if (boundary !== NO_BOUNDARY) {
      const gap = gapAt(page - first, pages, boundary);
      page += gap;
      if (gap > 0) joinable = 0;
    }
    const room = linuxCompatible ? (maxSegmentSize - joinable) >>> 0 : maxSegmentSize - joinable;
    if (joinable > 0 && inside === 0 && room >= length && !Number.isInteger(page * perBoundary)) {
      joinable += length;
      segments[segments.length - 1]!.length = joinable;
    } else {
      segments.push({ address: DmaAddr(page * PAGE + inside), length });
      joinable = length;
    }
    page += pages;
    if (inside + length < pages * PAGE) joinable = 0;
  }
  return segments;
}

/** Clears a mapped list and gives its range back: one invalidation, or one entry of the flush queue. */
export function unmapSegments(granules: Granules, segments: readonly DmaVec[]): void {
  let first: DmaVec | undefined;
  let last: DmaVec | undefined;
  let mapped = 0;
  for (const segment of segments) {
    if (segment.bus) continue;
    first ??= segment;
    last = segment;
    mapped += granules.pages(granules.inside(segment.address) + segment.length);
  }
  if (!first || !last) return;
  const inside = granules.inside(first.address);
  const page = ((first.address - inside) / PAGE) as IovaPage;
  const pages = granules.pages(last.address + last.length - first.address + inside);
  if (mapped === pages || granules.device.linuxCompatible) granules.domain.release(page, pages, pages);
  else granules.domain.releaseSparse(page, pages, page, pages); // gaps before segment boundaries
}
