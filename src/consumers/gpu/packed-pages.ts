/**
 * The way of Linux 7.2, for comparison: a range is mapped whole, its pages packed one behind the other, and goes whole.
 *
 * Idea: address space is reserved at each look for as many pages as the range has, if the first page is one of the system; pages of the system are
 * linked in order without gaps, in pieces as the process maps them; whatever happens to any page takes all of it back.
 * Promises: the same answers as {@link KeptPages}. Not for: anything but comparison; a change of one page costs the whole range.
 * Specified by: behaviour of Linux 7.2 drm_gpusvm_get_pages and drm_gpusvm_unmap_pages.
 */
import { type DmaAddr, PAGE_SIZE, PhysPage } from "../../base/index.ts";
import type { IovaRange } from "../../dma/index.ts";
import { HMM, PfnWords } from "../hmm/index.ts";
import type { BackingOptions, PageBacking, PageSpan } from "./backing.ts";
import { busPage } from "./gpu-table.ts";
import { lookOver } from "./look-over.ts";

const PLAIN = { requireCoherent: true };

/** Pages of a process for a GPU, packed, all or none. */
export class PackedPages implements PageBacking {
  readonly start: number;
  readonly pages: number;
  readonly words: PfnWords;
  readonly #options: BackingOptions;
  #range: IovaRange | undefined;
  /** Bytes that are linked in the range. */
  #stateOffset = 0;
  /** One-step mappings by index, where there is no range. */
  #addresses: Float64Array | undefined;
  #linked = 0;
  #devicePages = 0;

  constructor(options: BackingOptions) {
    this.#options = options;
    this.start = options.start;
    this.pages = options.pages;
    this.words = new PfnWords(options.pages);
  }

  get reservedBytes(): number {
    return this.#range?.length ?? 0;
  }

  get linkedPages(): number {
    return this.#linked;
  }

  get hasDevicePages(): boolean {
    return this.#devicePages > 0;
  }

  has(index: number, write: boolean): boolean {
    if (!this.words.has(index, HMM.valid) || (write && !this.words.has(index, HMM.write))) return false;
    const entry = this.#options.table.entryAt(this.#options.gpuPage + index);
    return entry !== undefined && (!write || entry.writable);
  }

  knows(): boolean {
    return this.#linked + this.#devicePages > 0;
  }

  /** Only all of the range at once, as Linux walks it. */
  commit(_first: number, found: PfnWords): void {
    if (this.knows()) this.drop(0, this.pages, { first: 0, end: 0 });
    const { dma, table, gpuPage, direction, counts } = this.#options;
    const { targets } = lookOver(this.#options, 0, found);
    const { words } = this;
    const writable = new Uint8Array(found.count);
    const isSystem = (i: number): boolean => Number.isNaN(targets[i]!);
    const looked = targets.map((target) => (Number.isNaN(target) ? 1 : 0));
    try {
      if (isSystem(0)) this.#range = dma.tryReserveIova({ length: this.pages * PAGE_SIZE });
      if (!this.#range) this.#addresses = new Float64Array(this.pages);
      for (let i = 0; i < found.count; ) {
        let run = 1;
        const order = found.has(i, HMM.valid) ? found.order(i) : 0;
        if (looked[i]) {
          const most = Math.min(found.count - i, 2 ** order - (found.page(i) % 2 ** order));
          while (run * 2 <= most) run *= 2;
          this.#map(i, found.page(i), run, targets);
          for (let j = i; j < i + run; j++) counts.linked(this.start / PAGE_SIZE + j);
        } else this.#devicePages++;
        for (let j = i; j < i + run; j++) {
          words.put(j, found.flags[j]!, found.page(j));
          if (looked[j]) words.flags[j]! |= HMM.dmaMapped;
          writable[j] = direction !== "to-device" && found.has(j, HMM.write) ? 1 : 0;
        }
        i += run;
      }
      this.#range?.sync(0, this.#stateOffset);
      table.bind(gpuPage, targets, writable);
    } catch (error) {
      this.drop(0, this.pages);
      throw error;
    }
  }

  drop(_first: number, _end: number, event?: PageSpan): number {
    const { dma, table, gpuPage, direction, counts } = this.#options;
    const { words } = this;
    const before = this.#linked + this.#devicePages;
    if (before > 0) table.zap(gpuPage, this.pages);
    if (this.#range) {
      if (this.#stateOffset > 0) this.#range.unlink(0, this.#stateOffset, { direction, attributes: PLAIN });
      this.#range.free();
    } else if (this.#addresses)
      for (let i = 0; i < this.pages; i++)
        if (words.has(i, HMM.dmaMapped)) dma.unmapPhys(this.#addresses[i] as DmaAddr, PAGE_SIZE, direction, PLAIN);
    for (let i = 0; i < this.pages; i++) {
      const page = this.start / PAGE_SIZE + i;
      if (words.has(i, HMM.valid))
        counts.dropped(page, event !== undefined && (page < event.first || page >= event.end));
      words.clear(i);
    }
    this.#range = undefined;
    this.#addresses = undefined;
    this.#stateOffset = 0;
    this.#linked = 0;
    this.#devicePages = 0;
    return before;
  }

  release(): void {
    this.drop(0, this.pages);
  }

  #map(index: number, page: number, run: number, targets: Float64Array): void {
    const { dma, direction } = this.#options;
    const phys = PhysPage.start(page as PhysPage);
    if (this.#range) {
      this.#range.link(this.#stateOffset, phys, run * PAGE_SIZE, direction, PLAIN);
      const first = busPage(this.#range.address + this.#stateOffset);
      for (let i = 0; i < run; i++) targets[index + i] = first + i;
      this.#stateOffset += run * PAGE_SIZE;
    } else
      for (let i = 0; i < run; i++) {
        const address = dma.mapPhys(PhysPage.start((page + i) as PhysPage), PAGE_SIZE, direction, PLAIN);
        this.#addresses![index + i] = address;
        this.words.flags[index + i]! |= HMM.valid | HMM.dmaMapped;
        targets[index + i] = busPage(address);
      }
    this.#linked += run;
  }
}
