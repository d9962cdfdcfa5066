/**
 * Mapping and unmapping: areas come, and areas or parts of them go.
 *
 * Promises: an unmapping that is refused changes nothing but where areas are cut; what was unmapped is told to watchers as one range,
 * holes included, before it goes.
 * Specified by: behaviour of Linux 7.2 (mmap, munmap).
 */
import type { PhysPage } from "../../../base/index.ts";
import { type Steps, USER_END } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { enterArea, mergeNew, removeArea, splitArea } from "./areas.ts";
import { areaTaken, badRange, userMemory } from "./errors.ts";
import { SimulatedFile } from "./file.ts";
import type { Frames } from "./frames.ts";
import { HugetlbObject } from "./hugetlb-object.ts";
import { ENTRY, HUGE_PAGES, WRITABLE } from "./page-table.ts";
import { PeerObject } from "./peer-object.ts";
import { AREA, Area, type MappedObject } from "./structures.ts";
import { freeTables, zapPages } from "./zap.ts";

/** What to map. Pages, not bytes. */
interface MapRequest {
  readonly page: number;
  readonly pages: number;
  /** Bits of read, write, execute. */
  readonly access: number;
  readonly shared?: boolean;
  /** Of a file, from page `offset` of it on. Anonymous memory unless said. */
  readonly object?: MappedObject;
  readonly offset?: number;
  /** Pages that were set aside, 2 MiB each. */
  readonly hugetlb?: boolean;
  /** Registers of a device: this physical page and the following. */
  readonly ioFrame?: PhysPage;
  /** Peer memory of a device, which others may reach too: the same. */
  readonly peerFrame?: PhysPage;
  /** What is mapped there goes. If not, it is an error. */
  readonly replace?: boolean;
}

const LAST_PAGE = USER_END / 4096;

/** Throws unless [page, page + pages) can be part of an address space. */
export function checkPages(page: number, pages: number): void {
  if (!Number.isInteger(page) || !Number.isInteger(pages) || page < 0 || pages < 1 || page + pages > LAST_PAGE)
    throw badRange(page * 4096, pages * 4096);
}

/**
 * @throws DmaError ERR_DMA_USER_RANGE (EINVAL), ERR_DMA_USER_TAKEN (EEXIST), ERR_DMA_USER_MEMORY (ENOMEM) if there are not enough
 *   huge pages to promise
 */
export function* mapSteps(space: AddressSpace, request: MapRequest): Steps<void> {
  const { page } = request;
  const pages = request.hugetlb ? Math.ceil(request.pages / HUGE_PAGES) * HUGE_PAGES : request.pages;
  checkPages(page, pages);
  const end = page + pages;
  yield* space.beginWrite();
  try {
    if (request.hugetlb && page % HUGE_PAGES !== 0) throw badRange(page * 4096, pages * 4096);
    if (!request.replace && space.areas.within(page, end).length > 0) throw areaTaken(page, end);
    if (request.hugetlb && !space.frames.reserveHugetlb(pages / HUGE_PAGES)) throw userMemory(pages);
    try {
      if (request.replace) yield* unmapLocked(space, page, end);
    } catch (error) {
      if (request.hugetlb) space.frames.reserveHugetlb(-pages / HUGE_PAGES);
      throw error;
    }
    const object = objectOf(space.frames, request, pages);
    const flags = flagsOf(request);
    const isOwn = object === undefined && request.ioFrame === undefined;
    const offset = isOwn ? page : (request.offset ?? 0);
    const shape = { start: page, end, flags, object, offset, ioFrame: request.ioFrame };
    if (!mergeNew(space, { ...shape, anonVma: undefined })) enterArea(space, new Area(space, shape));
    if (request.ioFrame !== undefined) showFrames(space, page, pages, request);
    if (object instanceof PeerObject) showPeer(space, page, pages, request, object);
  } finally {
    space.endWrite();
  }
}

function flagsOf({ access, shared, hugetlb, ioFrame }: MapRequest): number {
  const isPromised = (access & AREA.write) !== 0 && !shared && !hugetlb && ioFrame === undefined;
  return (
    access |
    (shared ? AREA.shared : 0) |
    (hugetlb ? AREA.hugetlb : 0) |
    (ioFrame === undefined ? 0 : AREA.io) |
    (isPromised ? AREA.accounted : 0)
  );
}

/** What stands behind the new area: shared anonymous memory is a file without a name. */
function objectOf(frames: Frames, request: MapRequest, pages: number): MappedObject | undefined {
  if (request.ioFrame !== undefined) return undefined;
  if (request.peerFrame !== undefined) return new PeerObject(frames, request.peerFrame, pages);
  if (request.hugetlb) return new HugetlbObject(frames, pages, pages / HUGE_PAGES);
  if (request.object || !request.shared) return request.object;
  const file = new SimulatedFile({ frames, name: "anonShared", medium: "tmpfs", length: pages * 4096 });
  file.handOver();
  return file;
}

/** Registers are there at once: a fault brings nothing. */
function showFrames(space: AddressSpace, page: number, pages: number, request: MapRequest): void {
  const state = ENTRY.special | ((request.access & AREA.write) !== 0 && request.shared ? WRITABLE : 0);
  for (let i = 0; i < pages; i++)
    space.table.makeLeaf(page + i).set((page + i) % HUGE_PAGES, state, request.ioFrame! + i);
}

/** So is peer memory; but its pages are pages, which a device can be given. */
function showPeer(space: AddressSpace, page: number, pages: number, request: MapRequest, object: PeerObject): void {
  const state = ENTRY.present | ((request.access & AREA.write) !== 0 && request.shared ? WRITABLE : 0);
  for (let i = 0; i < pages; i++) {
    const folio = object.folioAt(i);
    space.table.makeLeaf(page + i).set((page + i) % HUGE_PAGES, state, folio.frame);
    folio.addMap(folio.frame, space.id);
  }
}

/** @throws DmaError ERR_DMA_USER_RANGE (EINVAL), also where it would cut a huge page of hugetlb */
export function* unmapSteps(space: AddressSpace, page: number, pages: number): Steps<void> {
  checkPages(page, pages);
  yield* space.beginWrite();
  try {
    yield* unmapLocked(space, page, page + pages);
  } finally {
    space.endWrite();
  }
}

/** The same for those who have the areas for themselves already. */
export function* unmapLocked(space: AddressSpace, start: number, end: number): Steps<void> {
  const { areas, notifiers } = space;
  const first = areas.from(start);
  if (!first || first.start >= end) return;
  if (first.start < start) splitArea(space, first, start, true);
  for (const area of areas.within(start, end)) if (area.end > end) splitArea(space, area, end, false);
  const going = areas.within(start, end);
  const floor = areas.before(start)?.end ?? 0;
  const ceiling = areas.from(end)?.start ?? Number.POSITIVE_INFINITY;
  for (const area of going) areas.remove(area);
  notifiers.begin("unmap", start, end);
  yield ANNOUNCED;
  for (const area of going) zapPages(space, area, area.start, area.end);
  notifiers.end();
  freeTables(space, going, floor, ceiling);
  for (const area of going) removeArea(area);
}

/** All areas go: the last process of the space has ended. */
export function* endSteps(space: AddressSpace): Steps<void> {
  yield* space.beginWrite();
  space.isGone = true;
  const going = [...space.areas];
  for (const area of going) space.areas.remove(area);
  space.notifiers.begin("release", 0, LAST_PAGE);
  yield ANNOUNCED;
  for (const area of going) zapPages(space, area, area.start, area.end);
  space.notifiers.end();
  freeTables(space, going, 0, Number.POSITIVE_INFINITY);
  for (const area of going) removeArea(area);
  space.endWrite();
}
