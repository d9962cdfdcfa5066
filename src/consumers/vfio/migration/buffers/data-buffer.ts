/**
 * A buffer for the state of a device: pages of memory, mapped for the device, and the key by which the device knows them.
 *
 * Idea: the pages lie anywhere; in two steps they get one range of addresses, reserved once and linked in one go, so that the address
 * of page i is `start + 4096 i` and nothing per page needs to be kept but the pages. What is kept is a choice ({@link BufferForm}),
 * and counted. Without an address space each page is mapped by itself, and the device sees the same.
 * Promises: what fails leaves nothing behind; the key goes before the addresses, and the addresses before the pages.
 * The CPU reads and writes pages while the device may: so a device that bounces, or does not look into caches, is refused
 * (`coherence: "required"`) or synced around each record (`"synced"`). Never stale data.
 * Specified by: behaviour of Linux 7.2 VFIO for mlx5 (data buffers); docs/live-migration.md.
 */
import { type DmaAddr, PAGE_SIZE, PhysAddr, PhysPage, pagesOf } from "../../../../base/index.ts";
import type { Direction, Dma, DmaAttributes } from "../../../../dma/index.ts";
import type { PageAllocator, PhysicalMemory } from "../../../../platform/index.ts";
import { type BufferForm, RANGE_STATE_BYTES } from "./buffer-cost.ts";
import { badBuffer, deviceGone, noPages, sharedRefused } from "./errors.ts";
import { type MappedPages, mapEachPage, mapInTwoSteps, mapTable } from "./mapped-pages.ts";
import { PageList, type PageRun, PageRuns, type PageStore, RunBuilder } from "./page-stores.ts";
import { ScatterTable } from "./scatter-table.ts";

/** Which way the bytes of a buffer go. `none`: it is never mapped. */
export type BufferDirection = Exclude<Direction, "bidirectional"> | "none";

/** What a device offers to know buffers by. */
export interface DeviceKeys {
  /** The device is there. */
  readonly isPresent: boolean;
  /**
   * Makes a key of `pages` pages; `addressAt` gives the address of each, and is not kept.
   *
   * @throws DmaError nothing is left behind then
   */
  createKey(pages: number, addressAt: (index: number) => DmaAddr): number;
  /** The device does not touch the pages any more. Cannot fail. */
  destroyKey(key: number): void;
}

/** Where buffers come from, and for whom they are. */
export interface BufferHost {
  /** By which they are mapped. */
  readonly dma: Dma;
  /** Their bytes, as the CPU sees them. */
  readonly memory: PhysicalMemory;
  /** Pages may be given back in other portions than they were taken. */
  readonly pages: PageAllocator;
  /** Where the device's names for them come from. */
  readonly keys: DeviceKeys;
  /** "page-list" unless said, as Linux 7.2 does. */
  readonly form?: BufferForm;
  /** The addresses that the device was given are kept: true unless said, as in Linux 7.2. False: they are computed. */
  readonly keepsAddresses?: boolean;
  /** Pages are taken in blocks of so many while there are such. 1 unless said. */
  readonly blockPages?: number;
  /** "required" unless said. */
  readonly coherence?: "required" | "synced";
}

/** Pages for a device's state, and what the device needs to reach them. */
export class DataBuffer {
  /** Who fills it; without a direction the device never sees it. */
  readonly direction: BufferDirection;
  /** Pages of 4 KiB. */
  readonly pageCount: number;
  /** Physically contiguous pieces. */
  readonly runCount: number;
  /** Bytes that are filled, from the start. */
  filledBytes = 0;
  /** Name of the buffer to the device; -1 while it has none. */
  key = -1;
  readonly #host: BufferHost;
  readonly #store: PageStore;
  #mapped: MappedPages | undefined;
  #isFree = false;

  /**
   * Takes pages for `bytes` bytes; nothing is mapped before {@link register}.
   *
   * @throws DmaError ERR_DMA_BUFFER (EINVAL) for none; ERR_DMA_BUFFER_MEMORY (ENOMEM)
   */
  constructor(host: BufferHost, bytes: number, direction: BufferDirection) {
    if (!(Number.isSafeInteger(bytes) && bytes > 0)) throw badBuffer(`a buffer of ${bytes} bytes`);
    this.#host = host;
    this.direction = direction;
    this.pageCount = pagesOf(bytes);
    const runs = takePages(host, this.pageCount);
    this.runCount = runs.length;
    if (host.form === "scatterlist") this.#store = new ScatterTable(runs);
    else this.#store = new (host.form === "runs" ? PageRuns : PageList)(runs, this.pageCount);
  }

  /** Bytes that it can hold. */
  get capacityBytes(): number {
    return this.pageCount * PAGE_SIZE;
  }

  /** Bytes of bookkeeping: pages, or scatter table, and kept addresses; and the state of its range. */
  get metadataBytes(): number {
    const { addressBytes = 0, hasRange = false } = this.#mapped ?? {};
    return this.#store.bytes + addressBytes + (hasRange ? RANGE_STATE_BYTES : 0);
  }

  /**
   * Maps all pages and gives the device its key. A buffer without a direction cannot be.
   *
   * @throws DmaError ERR_DMA_BUFFER (EINVAL) if it has no direction or was registered before; ERR_DMA_DEVICE_GONE (ENOTCONN);
   *   ERR_DMA_BUFFER_COHERENCE (EOPNOTSUPP); of mapping; of the device. Nothing is mapped then
   */
  register(): void {
    const { direction, pageCount } = this;
    const { keys } = this.#host;
    if (this.#isFree || this.#mapped || direction === "none") throw badBuffer("a buffer that cannot be registered");
    if (!keys.isPresent) throw deviceGone();
    const mapped = this.#map(direction);
    try {
      this.key = keys.createKey(pageCount, (i) => mapped.addressAt(i));
    } catch (error) {
      mapped.unmap();
      throw error;
    }
    this.#mapped = mapped;
  }

  /** The device can reach it. */
  get isRegistered(): boolean {
    return this.#mapped !== undefined;
  }

  /** What the device wrote is the CPU's to read. */
  forCpu(): void {
    if (this.#host.coherence === "synced") this.#mapped?.syncForCpu();
  }

  /** What the CPU wrote is the device's. */
  forDevice(): void {
    if (this.#host.coherence === "synced") this.#mapped?.syncForDevice();
  }

  /** Copies bytes out, as the CPU sees them. Valid within the capacity. */
  read(offset: number, into: Uint8Array): void {
    this.#eachPiece(offset, into.length, (phys, at, length) =>
      this.#host.memory.read(phys, into.subarray(at, at + length)),
    );
  }

  /** Copies bytes in. Valid within the capacity. */
  write(offset: number, from: Uint8Array): void {
    this.#eachPiece(offset, from.length, (phys, at, length) =>
      this.#host.memory.write(phys, from.subarray(at, at + length)),
    );
  }

  /** Ends it: key, addresses, pages, in this order. Cannot fail; a second time does nothing. */
  free(): void {
    if (this.#isFree) return;
    this.#isFree = true;
    if (this.#mapped) {
      this.#host.keys.destroyKey(this.key);
      this.key = -1;
      this.#mapped.unmap();
      this.#mapped = undefined;
    }
    for (const { phys, length } of this.#store.vecs(0, this.pageCount).reverse())
      this.#host.pages.freePages(PhysPage.of(phys), length / PAGE_SIZE);
  }

  #map(direction: Direction): MappedPages {
    const { dma, coherence, keepsAddresses = true } = this.#host;
    const attributes: DmaAttributes | undefined = coherence === "synced" ? undefined : { requireCoherent: true };
    const how = { pages: this.pageCount, direction, attributes };
    try {
      if (this.#store instanceof ScatterTable) return mapTable(dma, this.#store, how);
      const range = dma.tryReserveIova({ length: this.capacityBytes });
      if (!range) return mapEachPage(dma, this.#store, how);
      return mapInTwoSteps(range, this.#store, how, keepsAddresses);
    } catch (error) {
      throw coherence === "synced" ? error : sharedRefused(error);
    }
  }

  #eachPiece(offset: number, length: number, move: (phys: PhysAddr, at: number, length: number) => void): void {
    for (let at = 0; at < length; ) {
      const index = Math.floor((offset + at) / PAGE_SIZE);
      const inside = (offset + at) % PAGE_SIZE;
      const piece = Math.min(PAGE_SIZE - inside, length - at);
      move(PhysAddr(PhysPage.start(this.#store.pageAt(index)) + inside), at, piece);
      at += piece;
    }
  }
}

/**
 * Pages for a buffer, in blocks while there are such.
 *
 * @throws DmaError ERR_DMA_BUFFER_MEMORY (ENOMEM); nothing is taken then
 */
function takePages({ pages, blockPages = 1 }: BufferHost, count: number): readonly PageRun[] {
  const taken = new RunBuilder();
  let block = blockPages;
  for (let left = count; left > 0; ) {
    const size = Math.min(block, left);
    const page = pages.allocatePages(size);
    if (page !== undefined) {
      taken.add(page, size);
      left -= size;
    } else if (size > 1) block = size >> 1;
    else {
      for (const [start, length] of taken.runs.reverse()) pages.freePages(start, length);
      throw noPages(count, count - left);
    }
  }
  return taken.runs;
}
