/**
 * Physical memory as processes use it: which folio each page belongs to, where new ones come from, and when they are free.
 *
 * Idea: one table from page to folio for the whole machine, so that whoever has a page number (a pin, an entry, a device) finds what
 * it is. A folio is free when no entry maps it, no cache holds it, nobody has pinned it and no work is under way on it.
 * Promises: a new folio is zeroed; huge ones are aligned; nothing is freed twice. Zero pages are shared by all and never freed.
 * Not for: which process may see what (space.ts).
 */
import { assert, PAGE_SIZE, PhysAddr, PhysPage } from "../../../base/index.ts";
import {
  finish,
  type MemoryOwner,
  type PageAllocator,
  type PhysicalMemory,
  type Steps,
  type UserPages,
} from "../../../platform/index.ts";
import { HUGE_ORDER, HUGE_PAGES } from "./page-table.ts";
import { reclaimSteps } from "./reclaim.ts";
import { type DeviceRegion, Folio, type FrameSource, type MemorySettings } from "./structures.ts";
import { isZeroFilled, SwapSpace } from "./swap.ts";

/** Pages that are freed at once when memory is short, as Linux frees them. */
const RECLAIM_BATCH = 32;

/** How many frames there are, and of which sizes. */
export interface FramesOptions {
  /** Where memory comes from, and where it is. */
  readonly pages: PageAllocator;
  /** The bytes of the pages. */
  readonly memory: PhysicalMemory;
  /** Huge pages set aside for hugetlb: taken at the start. None unless said. */
  readonly hugetlbPages?: number;
  /** Pages that may go to swap when memory is short. None unless said: a process then gets no more memory. */
  readonly swapPages?: number;
  /** Most pages of memory that processes and files have, hugetlb left out; all there are unless said. */
  readonly limitPages?: number;
  /** Huge pages where a program advises it, and 16 pages a file fault, unless said. */
  readonly settings?: Partial<MemorySettings>;
  /** False: this allocation fails, as it does when memory is short. Asked for each, with its order. */
  readonly mayAllocate?: (order: number) => boolean;
}

/** Frames of memory of all processes: given out, counted, and given back with the last reference. */
export class Frames implements FrameSource, UserPages {
  /** What the system does of its own: huge pages, and when. */
  readonly settings: MemorySettings;
  /** The bytes of the machine. */
  readonly memory: PhysicalMemory;
  readonly swap: SwapSpace<Folio> | undefined;
  readonly #limitPages: number;
  /** Pages of memory given out. */
  #pagesInUse = 0;
  readonly #oldest = new Set<Folio>();
  readonly #pages: PageAllocator;
  readonly #mayAllocate: (order: number) => boolean;
  readonly #folios = new Map<PhysPage, Folio>();
  readonly #hugetlb: PhysPage[] = [];
  /** Huge pages that are promised to mappings and not taken yet. */
  #reserved = 0;
  #zero: Folio | undefined;
  #hugeZero: Folio | undefined;
  #spaces = 0;
  #processes = 0;

  /** @throws Error (an assertion) if the huge pages cannot be set aside */
  constructor(options: FramesOptions) {
    this.memory = options.memory;
    this.settings = { hugePages: "madvise", faultAroundPages: 16, ...options.settings };
    this.#pages = options.pages;
    this.swap = options.swapPages ? new SwapSpace<Folio>(options.swapPages, (folio) => this.letGo(folio)) : undefined;
    this.#limitPages = options.limitPages ?? Number.POSITIVE_INFINITY;
    this.#mayAllocate = options.mayAllocate ?? ((): boolean => true);
    for (let i = 0; i < (options.hugetlbPages ?? 0); i++) {
      const frame = this.#takeHuge();
      assert(frame !== undefined, "no memory for the huge pages that are set aside");
      this.#hugetlb.push(frame);
    }
  }

  /** A number for a new address space. */
  nextSpace(): number {
    return ++this.#spaces;
  }

  /** A number for a new process. */
  nextProcess(): number {
    return ++this.#processes;
  }

  /** Folios in use, zero pages left out. */
  get inUse(): number {
    return this.#folios.size - (this.#zero ? 1 : 0) - (this.#hugeZero ? 1 : 0);
  }

  /** Pages of 4 KiB that processes and files have in memory, hugetlb and zero pages left out. */
  get pagesInUse(): number {
    return this.#pagesInUse;
  }

  /** What may leave memory, oldest first: for reclaim. */
  get oldest(): ReadonlySet<Folio> {
    return this.#oldest;
  }

  /** The folio could not leave memory now: it becomes the youngest. */
  rotate(folio: Folio): void {
    if (this.#oldest.delete(folio)) this.#oldest.add(folio);
  }

  /** Sends up to `pages` pages to swap, oldest first. How many went. */
  reclaim(pages: number): number {
    return finish(this.reclaimSteps(pages));
  }

  /** As {@link Frames.reclaim}, in steps: other steps of the machine may run between them. */
  *reclaimSteps(pages: number): Steps<number> {
    return yield* reclaimSteps(this, pages);
  }

  folio(frame: PhysPage): Folio | undefined {
    const exact = this.#folios.get(frame);
    if (exact) return exact;
    const head = this.#folios.get((frame - (frame % HUGE_PAGES)) as PhysPage);
    return head?.isLarge ? head : undefined;
  }

  allocate(order: 0 | typeof HUGE_ORDER): Folio | undefined {
    if (!this.#mayAllocate(order)) return undefined;
    let frame = this.#take(order);
    // A huge page is a convenience: for it, nothing has to go.
    if (frame === undefined && order === 0 && this.swap && this.reclaim(RECLAIM_BATCH) > 0) frame = this.#take(order);
    if (frame === undefined) return undefined;
    const folio = this.#enter(new Folio(frame, order));
    this.#pagesInUse += folio.pages;
    this.#oldest.add(folio);
    return folio;
  }

  #take(order: 0 | typeof HUGE_ORDER): PhysPage | undefined {
    if (this.#pagesInUse + (order === 0 ? 1 : HUGE_PAGES) > this.#limitPages) return undefined;
    return order === 0 ? this.#pages.allocatePages(1) : this.#takeHuge();
  }

  /** A folio of memory that is not the system's. */
  enterRegion(frame: PhysPage, order: 0 | typeof HUGE_ORDER, region: DeviceRegion): Folio {
    return this.#enter(new Folio(frame, order, region));
  }

  zero(): Folio | undefined {
    this.#zero ??= this.#makeZero(0);
    return this.#zero;
  }

  /** The 2 MiB of zeros that all processes share, made at the first call; undefined: no memory for it. */
  hugeZero(): Folio | undefined {
    this.#hugeZero ??= this.#makeZero(HUGE_ORDER);
    return this.#hugeZero;
  }

  /** Huge pages for hugetlb that are neither in use nor promised. */
  get freeHugetlb(): number {
    return this.#hugetlb.length - this.#reserved;
  }

  reserveHugetlb(count: number): boolean {
    if (count > this.freeHugetlb) return false;
    this.#reserved += count;
    return true;
  }

  takeHugetlb(promised: boolean): Folio | undefined {
    if (!promised && this.freeHugetlb <= 0) return undefined;
    const frame = this.#hugetlb.pop();
    if (frame === undefined) return undefined;
    if (promised) this.#reserved--;
    this.#clear(frame, HUGE_PAGES);
    const folio = this.#enter(new Folio(frame, HUGE_ORDER));
    folio.kind = "hugetlb";
    return folio;
  }

  hold(folio: Folio): void {
    folio.held++;
  }

  /** Undoes one `hold`; a folio that nobody uses any more is freed. */
  letGo(folio: Folio): void {
    folio.held--;
    this.release(folio);
  }

  release(folio: Folio): void {
    if (folio.mapCount > 0 || folio.pins > 0 || folio.held > 0 || folio.object !== undefined) return;
    if (folio.kind === "zero" || this.#folios.get(folio.frame) !== folio) return;
    this.#folios.delete(folio.frame);
    this.#oldest.delete(folio);
    folio.anonVma = undefined;
    if (folio.region) folio.region.freed(folio);
    else if (folio.kind === "hugetlb") this.#hugetlb.push(folio.frame);
    else {
      this.#pagesInUse -= folio.pages;
      this.#pages.freePages(folio.frame, folio.pages);
    }
    folio.kind = "free";
  }

  split(folio: Folio): Folio[] {
    assert(folio.isLarge && folio.mapCount === 0, `the block at page ${folio.frame} cannot be split now`);
    this.#folios.delete(folio.frame);
    const isReclaimable = this.#oldest.delete(folio);
    const parts: Folio[] = [];
    for (let i = 0; i < HUGE_PAGES; i++) {
      const part = this.#enter(new Folio((folio.frame + i) as PhysPage, 0, folio.region));
      if (isReclaimable) this.#oldest.add(part);
      part.become(folio);
      part.offset = folio.offset + i;
      parts.push(part);
    }
    folio.region?.split(folio);
    folio.kind = "free";
    return parts;
  }

  /** Copies the bytes of `pages` pages. */
  copy(from: PhysPage, to: PhysPage, pages = 1): void {
    const bytes = new Uint8Array(PAGE_SIZE);
    for (let i = 0; i < pages; i++) {
      this.memory.read(PhysPage.start((from + i) as PhysPage), bytes);
      this.memory.write(PhysPage.start((to + i) as PhysPage), bytes);
    }
  }

  isZeroFilled(frame: PhysPage): boolean {
    const bytes = new Uint8Array(PAGE_SIZE);
    this.memory.read(PhysPage.start(frame), bytes);
    return isZeroFilled(bytes);
  }

  unpin(page: PhysPage, count: number, _dirty: boolean): void {
    for (let i = 0; i < count; i++) {
      const folio = this.folio((page + i) as PhysPage);
      if (folio?.kind === "zero") continue; // held by all at once
      assert(folio !== undefined && folio.pins > 0, `page ${page + i} is unpinned more often than pinned`);
      folio.pins--;
      this.release(folio);
    }
  }

  kindOf(page: PhysPage): "ram" | "device-private" | "device-coherent" | "peer" | "other" {
    const folio = this.folio(page);
    return folio ? (folio.region?.kind ?? "ram") : "other";
  }

  ownerOf(page: PhysPage): MemoryOwner | undefined {
    return this.folio(page)?.region?.owner;
  }

  orderOf(page: PhysPage): number {
    return this.folio(page)?.order ?? 0;
  }

  isZeroPage(page: PhysPage): boolean {
    return this.folio(page)?.kind === "zero";
  }

  pinsOf(page: PhysPage): number {
    return this.folio(page)?.pins ?? 0;
  }

  #enter(folio: Folio): Folio {
    this.#folios.set(folio.frame, folio);
    return folio;
  }

  #makeZero(order: 0 | typeof HUGE_ORDER): Folio | undefined {
    const folio = this.allocate(order);
    if (!folio) return undefined;
    folio.kind = "zero";
    this.#oldest.delete(folio);
    this.#pagesInUse -= folio.pages;
    return folio;
  }

  /** 512 pages that begin at a multiple of 512: from twice as many, if chance did not give such. */
  #takeHuge(): PhysPage | undefined {
    const first = this.#pages.allocatePages(HUGE_PAGES);
    if (first === undefined || first % HUGE_PAGES === 0) return first;
    this.#pages.freePages(first, HUGE_PAGES);
    const wide = this.#pages.allocatePages(2 * HUGE_PAGES - 1);
    if (wide === undefined) return undefined;
    const aligned = Math.ceil(wide / HUGE_PAGES) * HUGE_PAGES;
    if (aligned > wide) this.#pages.freePages(wide, aligned - wide);
    const rest = wide + HUGE_PAGES - 1 - aligned;
    if (rest > 0) this.#pages.freePages((aligned + HUGE_PAGES) as PhysPage, rest);
    return aligned as PhysPage;
  }

  #clear(frame: PhysPage, pages: number): void {
    const zeros = new Uint8Array(PAGE_SIZE);
    for (let i = 0; i < pages; i++) this.memory.write(PhysAddr((frame + i) * PAGE_SIZE), zeros);
  }
}
