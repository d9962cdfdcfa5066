/**
 * What memory of processes is made of: folios, areas, and the links by which all mappings of a folio are found again.
 *
 * Idea: the data stands here, in one place, since each kind of it names the others; what is done with it stands in the modules
 * named after it (fault, fork, zap, migrate, ...). Numbers are pages of 4 KiB throughout, never bytes: `page` in an address space,
 * `frame` in physical memory, `offset` in an object.
 * Promises: counts of mappings are kept by the folio itself and are never below zero; the order in which mappings are visited is
 * that of Linux (by offset, then by age), since watchers see it.
 * Specified by: behaviour of Linux 7.2 mm; judged by test/golden (hmm).
 */
import { assert, type PhysPage } from "../../../base/index.ts";
import type { FaultOutcome, MemoryOwner, PhysicalMemory, Steps, UserMemory } from "../../../platform/index.ts";
import type { Notifiers } from "./notifiers.ts";
import { type HUGE_ORDER, HUGE_PAGES, type PageTable } from "./page-table.ts";
import type { SwapSpace } from "./swap.ts";

/** What an area allows and how it behaves. */
export const AREA = {
  /** The process may read. */
  read: 1,
  /** The process may write. */
  write: 2,
  /** The process may run code there. */
  execute: 4,
  /** Writes go to the object and are seen by whoever shares it. */
  shared: 8,
  /** Huge pages wanted. */
  huge: 0x10,
  /** Huge pages not wanted. */
  noHuge: 0x20,
  /** Not given to a child. */
  dontFork: 0x40,
  /** Given to a child empty. */
  wipeOnFork: 0x80,
  /** Of a file with huge pages only. */
  hugetlb: 0x100,
  /** Registers or peer memory, mapped by number: nothing to pin. */
  io: 0x200,
  /** Counted as memory that the system promised. Only tells areas apart that would else merge. */
  accounted: 0x400,
} as const;

/** The three bits that a program protects memory with. */
export const ACCESS_BITS: number = AREA.read | AREA.write | AREA.execute;

/** Memory that belongs to a device: its driver hears when a page of it is free again. */
export interface DeviceRegion {
  readonly kind: "device-private" | "device-coherent" | "peer";
  readonly owner: MemoryOwner | undefined;
  /** The folio's last reference is gone. */
  freed(folio: Folio): void;
  /** A huge folio has become 512 small ones. */
  split(folio: Folio): void;
  /** The CPU needs `page`, which is here: its driver brings it back, 512 pages if `huge`. */
  bringBack(space: Space, area: Area, page: number, folio: Folio, huge: boolean): Steps<FaultOutcome>;
}

/** A block of physical memory that is allocated, mapped and freed as one: a page, or 512 of them. */
export class Folio {
  readonly frame: PhysPage;
  order: 0 | typeof HUGE_ORDER;
  readonly region: DeviceRegion | undefined;
  /** What kind of memory processes have in it. */
  kind: "anonymous" | "file" | "hugetlb" | "zero" | "free" = "free";
  /** Of anonymous memory: where its mappings are found. */
  anonVma: AnonVma | undefined;
  /** Of a file: whose cache it lies in. undefined once it was cut off. */
  object: MappedObject | undefined;
  /** Offset of its first page: in the file, or as anonymous areas count. */
  offset = 0;
  /** Held by device drivers and other readers; long-term or not. */
  pins = 0;
  /** References of work under way. */
  held = 0;
  /** Work under way has it for itself; others wait. */
  locked = false;
  /** The slot that has the same contents: others want the page from there, and the swap cache holds it. */
  swapSlot: number | undefined;
  /** Mappings of all of it by one entry. */
  #entireMaps = 0;
  /** Mappings of single pages, all together. */
  #pageMaps = 0;
  #mapsOf: Int32Array | undefined;
  /** Pages that one process has for itself, so that a write need not copy. */
  #isExclusive: Uint8Array | boolean = false;
  /** The first two address spaces that map a huge folio, and how often each: as much as Linux remembers. */
  readonly #spaces: [number, number, number, number] = [0, 0, 0, 0];
  #seemsShared = false;

  constructor(frame: PhysPage, order: 0 | typeof HUGE_ORDER, region?: DeviceRegion) {
    this.frame = frame;
    this.order = order;
    this.region = region;
  }

  get pages(): number {
    return this.order === 0 ? 1 : HUGE_PAGES;
  }

  get isLarge(): boolean {
    return this.order !== 0;
  }

  /** Work under way holds it: somebody besides the swap cache. */
  get isInWork(): boolean {
    return this.held > (this.swapSlot === undefined ? 0 : 1);
  }

  /** Mappings: one for each entry, whatever its size. */
  get mapCount(): number {
    return this.#entireMaps + this.#pageMaps;
  }

  /** Entries that map `frame`. */
  mapCountOf(frame: PhysPage): number {
    return this.#entireMaps + (this.#mapsOf ? this.#mapsOf[frame - this.frame]! : this.#pageMaps);
  }

  /** Somebody else than one address space may map it: exact for up to two of them. */
  get seemsShared(): boolean {
    return this.isLarge && this.kind !== "hugetlb" ? this.#seemsShared : this.mapCount > 1;
  }

  addMap(frame: PhysPage, space: number): void {
    this.#pageMaps++;
    if (this.isLarge) {
      this.#mapsOf ??= new Int32Array(HUGE_PAGES);
      this.#mapsOf[frame - this.frame]!++;
      this.#noteSpace(space);
    }
  }

  removeMap(frame: PhysPage, space: number): void {
    this.#pageMaps--;
    assert(this.#pageMaps >= 0, `page ${frame} is unmapped more often than mapped`);
    if (this.isLarge) {
      this.#mapsOf![frame - this.frame]!--;
      this.#forgetSpace(space);
    }
    if (this.mapCountOf(frame) === 0) this.setExclusive(frame, false);
  }

  addEntireMap(space: number): void {
    this.#entireMaps++;
    this.#noteSpace(space);
  }

  removeEntireMap(space: number): void {
    this.#entireMaps--;
    assert(this.#entireMaps >= 0, `the block at page ${this.frame} is unmapped more often than mapped`);
    this.#forgetSpace(space);
    if (this.mapCount === 0) this.#isExclusive = false;
  }

  isExclusive(frame: PhysPage): boolean {
    return typeof this.#isExclusive === "boolean" ? this.#isExclusive : this.#isExclusive[frame - this.frame] === 1;
  }

  setExclusive(frame: PhysPage, is: boolean): void {
    if (!this.isLarge) this.#isExclusive = is;
    else if (this.isExclusive(frame) !== is) {
      if (typeof this.#isExclusive === "boolean")
        this.#isExclusive = new Uint8Array(HUGE_PAGES).fill(this.#isExclusive ? 1 : 0);
      this.#isExclusive[frame - this.frame] = is ? 1 : 0;
    }
  }

  setAllExclusive(is: boolean): void {
    this.#isExclusive = is;
  }

  /** Takes over what `from` was, which is moving here. */
  become(from: Folio): void {
    this.kind = from.kind;
    this.anonVma = from.anonVma;
    this.object = from.object;
    this.offset = from.offset;
  }

  #noteSpace(space: number): void {
    const slots = this.#spaces;
    if (slots[0] === space && slots[1] > 0) slots[1]++;
    else if (slots[2] === space && slots[3] > 0) slots[3]++;
    else if (slots[1] === 0) {
      slots[0] = space;
      slots[1] = 1;
      if (this.mapCount !== 1) this.#seemsShared = true;
    } else {
      if (slots[3] === 0) {
        slots[2] = space;
        slots[3] = 1;
      }
      this.#seemsShared = true;
    }
  }

  #forgetSpace(space: number): void {
    const slots = this.#spaces;
    if (slots[0] === space && slots[1] > 0) slots[1]--;
    else if (slots[2] === space && slots[3] > 0) slots[3]--;
    if (slots[1] === this.mapCount || slots[3] === this.mapCount) this.#seemsShared = false;
  }
}

/** The end of a link: one area that may map pages of an {@link AnonVma}. */
interface AnonLink {
  readonly area: Area;
  readonly anonVma: AnonVma;
}

/** Which areas may map anonymous pages: those of the process that made them, and of its descendants. */
export class AnonVma {
  readonly parent: AnonVma | undefined;
  readonly root: AnonVma;
  children = 0;
  /** Areas whose own new pages go here. */
  activeAreas = 0;
  /** By offset of the area, then by age. */
  readonly links: AnonLink[] = [];

  constructor(parent?: AnonVma) {
    this.parent = parent;
    this.root = parent?.root ?? this;
  }

  insert(link: AnonLink): void {
    insertByOffset(this.links, link, (each) => each.area.offset);
  }

  remove(link: AnonLink): void {
    this.links.splice(this.links.indexOf(link), 1);
  }
}

/** An object that areas map: the memory of a file. */
export interface MappedObject {
  readonly name: string;
  readonly isHugetlb: boolean;
  /** Pages that it has: beyond, an access ends in a signal. */
  readonly endOffset: number;
  /** By offset, then by age; a child stands right behind its parent. */
  readonly areas: Area[];
  /** The folio at `offset`, if it is there. */
  peek(offset: number): Folio | undefined;
  /** Makes it, if it is not there; undefined for lack of memory. */
  get(offset: number): Folio | undefined;
  /** Its page `folio`, which nothing maps, is in swap from now on. Objects whose pages stay have no such. */
  toSwap?(folio: Folio, slot: number): void;
  /** Its page `from`, which nothing maps, is `to` from now on. */
  replace?(from: Folio, to: Folio): void;
  acquire(): void;
  release(): void;
}

/** Neighbouring pages of an address space that are of one kind. */
export class Area {
  readonly space: Space;
  start: number;
  end: number;
  flags: number;
  readonly object: MappedObject | undefined;
  /** Of its first page: in the object; for anonymous memory the page where it was first mapped. */
  offset: number;
  /** Of `io` areas: the physical page that its first page shows. */
  readonly ioFrame: PhysPage | undefined;
  /** Where its own new pages go. */
  anonVma: AnonVma | undefined;
  /** Newest first. */
  readonly links: AnonLink[] = [];

  constructor(space: Space, range: AreaShape) {
    this.space = space;
    this.start = range.start;
    this.end = range.end;
    this.flags = range.flags;
    this.object = range.object;
    this.offset = range.offset;
    this.ioFrame = range.ioFrame;
  }

  get pages(): number {
    return this.end - this.start;
  }

  has(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  /** Memory without an object behind it: private and anonymous. */
  get isAnonymous(): boolean {
    return this.object === undefined && !this.has(AREA.io);
  }

  /** Writes are copied, not shared. */
  get isPrivate(): boolean {
    return !this.has(AREA.shared);
  }

  /** Where `page` of it lies in the object. */
  offsetOf(page: number): number {
    return this.offset + page - this.start;
  }

  /** Moves a border, keeping what each page is. */
  setRange(start: number, end: number, offset: number): void {
    this.start = start;
    this.end = end;
    this.offset = offset;
  }
}

/** What makes an area. */
export interface AreaShape {
  readonly start: number;
  readonly end: number;
  readonly flags: number;
  readonly object: MappedObject | undefined;
  readonly offset: number;
  readonly ioFrame?: PhysPage | undefined;
}

/** An address space, as all work on it sees it. */
export interface Space {
  /** Never given twice. */
  readonly id: number;
  readonly frames: FrameSource;
  readonly areas: AreaIndex;
  readonly table: PageTable;
  readonly notifiers: Notifiers;
  /** Somebody has pinned pages here: from then on a fork looks. */
  hasPinned: boolean;
  /** The same, as consumers and drivers see it. */
  readonly memory: UserMemory;
}

/** The areas of a space by address. */
export interface AreaIndex extends Iterable<Area> {
  /** The area that holds `page`. */
  at(page: number): Area | undefined;
  /** The first area that ends above `page`. */
  from(page: number): Area | undefined;
  /** The last area that starts below `page`. */
  before(page: number): Area | undefined;
  /** Areas that overlap [start, end), in order: a list of its own, so that they may change meanwhile. */
  within(start: number, end: number): Area[];
  next(area: Area): Area | undefined;
  previous(area: Area): Area | undefined;
  insert(area: Area): void;
  remove(area: Area): void;
}

/** Where folios come from and go to. */
export interface FrameSource {
  readonly settings: MemorySettings;
  /** Where pages go when memory is short; undefined: nowhere. */
  readonly swap: SwapSpace<Folio> | undefined;
  /** The bytes of the pages. */
  readonly memory: PhysicalMemory;
  /** The folio that `frame` is part of. */
  folio(frame: PhysPage): Folio | undefined;
  /** Memory of zeros, nobody's yet; undefined for lack of it. */
  allocate(order: Folio["order"]): Folio | undefined;
  /** The page of zeros that all share who have only read. */
  zero(): Folio | undefined;
  hugeZero(): Folio | undefined;
  /** Work begins that needs the folio to stay; such work has ended. */
  hold(folio: Folio): void;
  letGo(folio: Folio): void;
  /** To be called after something let go of a folio: frees it, if it was the last. */
  release(folio: Folio): void;
  /** A huge folio that nothing maps becomes 512 small ones. */
  split(folio: Folio): Folio[];
  copy(from: PhysPage, to: PhysPage, pages?: number): void;
  /** It holds nothing but zeros. */
  isZeroFilled(frame: PhysPage): boolean;
  /** A huge page of those set aside: one that was promised, or one that is free. */
  takeHugetlb(promised: boolean): Folio | undefined;
  /** Promises `count` huge pages; false if there are not so many. Negative: takes promises back. */
  reserveHugetlb(count: number): boolean;
}

/** How the system is set up. */
export interface MemorySettings {
  /** Huge pages for anonymous memory: for all, where a program advises it, or not at all. */
  readonly hugePages: "always" | "madvise" | "never";
  /** Pages of a file that one read fault brings along, if they are in memory. A power of two. */
  readonly faultAroundPages: number;
  /**
   * Watchers hear of a border within 2 MiB only where a huge entry is cut. Linux 7.2 tells them in any case, so that a munmap of one page costs
   * whoever follows the memory up to 512. False unless said.
   */
  readonly quietSplits?: boolean;
}

/** Puts `item` behind all whose offset is not above its own. */
export function insertByOffset<T>(items: T[], item: T, offsetOf: (item: T) => number): void {
  const offset = offsetOf(item);
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (offsetOf(items[middle]!) <= offset) low = middle + 1;
    else high = middle;
  }
  items.splice(low, 0, item);
}
