/**
 * Pages that keep their places: address space for the whole range for all of its life, each page at the offset of its own address.
 *
 * Idea: the place of a page in the reservation follows from its address in the process, never from who came first. So a part can go with
 * one invalidation, what comes back lies where it lay, and no other entry changes. The reservation begins at the same offset within 2 MiB as the
 * range does, so that huge pages of the process can be huge entries in both tables.
 * Promises: the GPU forgets a page before the IOMMU does, and the IOMMU before the page is given up. A page that is mapped costs nothing to map
 * again. A page in memory of a device is never mapped for the bus. A failed commit leaves nothing of itself. Without address space
 * pages are mapped one by one, with the same answers.
 * Not for: looking pages up, and when (bring-pages.ts). Specified by: behaviour of Linux 7.2 hmm_dma_map, whose flags these are; partial
 * unlinks, runs and alignment are this project's.
 */
import { assert, type DmaAddr, DmaError, PAGE_SIZE, PhysPage } from "../../base/index.ts";
import type { DmaAttributes, IovaRange } from "../../dma/index.ts";
import type { P2pState } from "../../p2p/index.ts";
import { HMM, PfnWords } from "../hmm/index.ts";
import type { BackingOptions, PageBacking, PageSpan } from "./backing.ts";
import { missedChange, peerPage } from "./errors.ts";
import { busPage } from "./gpu-table.ts";
import { lookOver } from "./look-over.ts";

/** Pages of a large entry. */
const LARGE = 512;
const PLAIN: DmaAttributes = { requireCoherent: true };
const PEER: DmaAttributes = { requireCoherent: true, mmio: true };

/** How the run of pages around an index is mapped. */
type RunKind = "none" | "through-host-bridge" | "bus-address";

/** Pages of a process for a GPU, each at its own place. */
export class KeptPages implements PageBacking {
  readonly start: number;
  readonly pages: number;
  /** What is known of each page: its flags and number. Pages of devices are valid and not mapped. */
  readonly words: PfnWords;
  readonly #options: BackingOptions;
  readonly #range: IovaRange | undefined;
  /** Bytes from the start of the reservation to page 0. */
  readonly #pad: number;
  /** Addresses by index, where nothing is reserved and the device is translated. */
  readonly #addresses: Float64Array | undefined;
  readonly #peers: P2pState = { type: undefined, provider: undefined };
  #linked = 0;
  #devicePages = 0;
  #released = false;

  constructor(options: BackingOptions) {
    const { dma, start, pages, counts } = options;
    this.#options = options;
    this.start = start;
    this.pages = pages;
    this.words = new PfnWords(pages);
    const inside = (start / PAGE_SIZE) % LARGE;
    this.#pad = Math.ceil((inside + pages) / LARGE) > 1 || pages >= LARGE ? inside * PAGE_SIZE : 0;
    this.#range = dma.tryReserveIova({ length: this.#pad + pages * PAGE_SIZE });
    if (this.#range === undefined && dma.needsUnmap) {
      this.#addresses = new Float64Array(pages);
      counts.fellBack++;
    }
  }

  get reservedBytes(): number {
    return this.#released || !this.#range ? 0 : this.#range.capacity;
  }

  get linkedPages(): number {
    return this.#linked;
  }

  get hasDevicePages(): boolean {
    return this.#devicePages > 0;
  }

  /** Page 0 of the range for the bus, where address space is reserved. */
  get address(): DmaAddr | undefined {
    return this.#range && ((this.#range.address + this.#pad) as DmaAddr);
  }

  /** The address of page `index` on the bus; undefined: it is not mapped there. */
  addressOf(index: number): DmaAddr | undefined {
    const { words } = this;
    if (!words.has(index, HMM.dmaMapped)) return undefined;
    if (words.has(index, HMM.peerBus)) return this.#busAddress(words.page(index));
    if (this.#range) return (this.#range.address + this.#pad + index * PAGE_SIZE) as DmaAddr;
    return (this.#addresses?.[index] ?? words.page(index) * PAGE_SIZE) as DmaAddr;
  }

  has(index: number, write: boolean): boolean {
    const { words } = this;
    if (!words.has(index, HMM.valid) || (write && !words.has(index, HMM.write))) return false;
    const entry = this.#options.table.entryAt(this.#options.gpuPage + index);
    return entry !== undefined && (!write || entry.writable);
  }

  knows(first: number, end: number): boolean {
    for (let i = first; i < end; i++) if (this.words.has(i, HMM.valid)) return true;
    return false;
  }

  commit(first: number, found: PfnWords): void {
    const { words } = this;
    const { table, gpuPage, direction } = this.#options;
    const { targets } = lookOver(this.#options, first, found);
    for (let i = 0; i < found.count; i++) {
      if (!found.has(i, HMM.valid) || !words.has(first + i, HMM.valid)) continue;
      const [known, now] = [words.page(first + i), found.page(i)];
      if (known !== now) throw missedChange(this.start + (first + i) * PAGE_SIZE, known, now);
    }
    this.#linkNew(first, found, targets);
    const writable = new Uint8Array(found.count);
    for (let i = 0; i < found.count; i++) {
      if (!found.has(i, HMM.valid)) continue;
      const index = first + i;
      if (!Number.isNaN(targets[i]!)) {
        assert(!words.has(index, HMM.dmaMapped), `page ${index} is in memory of a device and mapped for the bus`);
        if (!words.has(index, HMM.valid)) this.#devicePages++;
      }
      words.put(index, found.flags[i]!, found.page(i));
      writable[i] = direction !== "to-device" && found.has(i, HMM.write) ? 1 : 0;
      if (Number.isNaN(targets[i]!)) targets[i] = busPage(this.addressOf(index)!);
    }
    try {
      table.bind(gpuPage + first, targets, writable);
    } catch (error) {
      this.drop(first, first + found.count); // no memory for the GPU's tables: nobody uses what was mapped
      throw error;
    }
  }

  drop(first: number, end: number, event?: PageSpan): number {
    const { table, gpuPage, counts } = this.#options;
    const { words } = this;
    while (first < end && !words.has(first, HMM.valid)) first++;
    while (first < end && !words.has(end - 1, HMM.valid)) end--;
    if (first >= end) return 0;
    table.zap(gpuPage + first, end - first);
    let dropped = 0;
    for (let i = first; i < end; ) {
      const run = this.#runAt(i, end);
      if (run > 0 && words.has(i, HMM.dmaMapped)) this.#unlink(i, run);
      for (let j = i; j < i + run; j++) {
        if (!words.has(j, HMM.dmaMapped)) this.#devicePages--;
        const page = this.start / PAGE_SIZE + j;
        counts.dropped(page, event !== undefined && (page < event.first || page >= event.end));
        words.clear(j);
      }
      dropped += run;
      i += Math.max(run, 1);
    }
    this.#range?.flush();
    return dropped;
  }

  release(): void {
    if (this.#released) return;
    this.drop(0, this.pages);
    this.#released = true;
    this.#range?.destroy();
  }

  /** Known pages from `index` on that are mapped in the same way: they go in one piece. 0: it is not known. */
  #runAt(index: number, end: number): number {
    const { words } = this;
    if (!words.has(index, HMM.valid)) return 0;
    const sticky = HMM.dmaMapped | HMM.peer | HMM.peerBus;
    const flags = words.flags[index]! & sticky;
    let i = index + 1;
    while (i < end && words.has(i, HMM.valid) && (words.flags[i]! & sticky) === flags) i++;
    return i - index;
  }

  /** Links all that is new, in runs, with one sync. All or nothing. */
  #linkNew(first: number, found: PfnWords, targets: Float64Array): void {
    const { words } = this;
    const { leaves } = this.#options;
    const isNew = (i: number): boolean =>
      found.has(i, HMM.valid) && Number.isNaN(targets[i]!) && !words.has(first + i, HMM.dmaMapped);
    const done: [number, number][] = [];
    let [low, high] = [this.pages, 0];
    try {
      for (let i = 0; i < found.count; ) {
        if (!isNew(i)) {
          i++;
          continue;
        }
        const page = found.page(i);
        const kind = this.#kindOf(page, first + i);
        let run = 1;
        while (
          (leaves === "large" || kind === "bus-address") &&
          i + run < found.count &&
          isNew(i + run) &&
          found.page(i + run) === page + run &&
          this.#kindOf(found.page(i + run), first + i + run) === kind
        )
          run++;
        this.#link(first + i, page, run, kind);
        done.push([first + i, run]);
        low = Math.min(low, first + i);
        high = first + i + run;
        i += run;
      }
      if (low < high) this.#range?.sync(this.#pad + low * PAGE_SIZE, (high - low) * PAGE_SIZE);
    } catch (error) {
      for (const [index, run] of done) {
        this.#unlink(index, run);
        for (let i = index; i < index + run; i++) words.clear(i);
      }
      this.#range?.flush();
      throw error;
    }
  }

  #link(index: number, page: number, run: number, kind: RunKind): void {
    const { words } = this;
    const { direction, counts } = this.#options;
    const attributes = kind === "through-host-bridge" ? PEER : PLAIN;
    const phys = PhysPage.start(page as PhysPage);
    if (kind !== "bus-address") {
      if (this.#range) this.#range.link(this.#pad + index * PAGE_SIZE, phys, run * PAGE_SIZE, direction, attributes);
      else this.#mapEach(index, page, run, attributes);
    }
    const flag = kind === "none" ? 0 : kind === "bus-address" ? HMM.peerBus : HMM.peer;
    for (let i = 0; i < run; i++) {
      words.put(index + i, 0, page + i);
      words.flags[index + i]! |= HMM.dmaMapped | flag;
      counts.linked(this.start / PAGE_SIZE + index + i);
    }
    this.#linked += run;
  }

  #mapEach(index: number, page: number, run: number, attributes: DmaAttributes): void {
    const { dma, direction } = this.#options;
    let done = 0;
    try {
      for (; done < run; done++) {
        const phys = PhysPage.start((page + done) as PhysPage);
        const address = dma.mapPhys(phys, PAGE_SIZE, direction, attributes);
        if (this.#addresses) this.#addresses[index + done] = address;
      }
    } catch (error) {
      while (--done >= 0 && this.#addresses)
        dma.unmapPhys(this.#addresses[index + done] as DmaAddr, PAGE_SIZE, direction, attributes);
      throw error;
    }
  }

  /** Takes mapped pages of one kind from the bus; the IOMMU is told by the flush that follows. */
  #unlink(index: number, run: number): void {
    const { words } = this;
    const { dma, direction } = this.#options;
    this.#linked -= run;
    if (words.has(index, HMM.peerBus)) return;
    const attributes = words.has(index, HMM.peer) ? PEER : PLAIN;
    if (this.#range) {
      this.#unlinkLinked(this.#range, index, run, attributes);
      return;
    }
    if (!this.#addresses) return;
    for (let i = index; i < index + run; i++)
      dma.unmapPhys(this.#addresses[i] as DmaAddr, PAGE_SIZE, direction, attributes);
  }

  #unlinkLinked(range: IovaRange, index: number, run: number, attributes: DmaAttributes): void {
    const { direction } = this.#options;
    try {
      range.unlink(this.#pad + index * PAGE_SIZE, run * PAGE_SIZE, { direction, attributes, lazy: true });
    } catch (error) {
      if (!(error instanceof DmaError && error.code === "ERR_DMA_SPLIT")) throw error;
      this.#unlinkWhole(range, index, run, attributes);
    }
  }

  /** No memory to split a large entry: all pages of it go, and are asked for again. */
  #unlinkWhole(range: IovaRange, index: number, run: number, attributes: DmaAttributes): void {
    const { words } = this;
    const { direction, counts, table, gpuPage } = this.#options;
    const inside = (this.#pad / PAGE_SIZE) % LARGE;
    const wide = (at: number): number => at - ((at + inside) % LARGE);
    let first = Math.max(0, wide(index));
    let end = Math.min(this.pages, wide(index + run - 1) + LARGE);
    while (first < index && !words.has(first, HMM.dmaMapped)) first++;
    while (end > index + run && !words.has(end - 1, HMM.dmaMapped)) end--;
    table.zap(gpuPage + first, end - first);
    for (let i = first; i < end; ) {
      if (!words.has(i, HMM.dmaMapped) || words.has(i, HMM.peerBus)) {
        i++;
        continue;
      }
      const from = i;
      while (i < end && words.has(i, HMM.dmaMapped) && !words.has(i, HMM.peerBus)) i++;
      range.unlink(this.#pad + from * PAGE_SIZE, (i - from) * PAGE_SIZE, { direction, attributes, lazy: true });
    }
    for (let i = first; i < end; i++) {
      if (i >= index && i < index + run) continue;
      if (words.has(i, HMM.dmaMapped)) {
        this.#linked--;
        counts.dropped(this.start / PAGE_SIZE + i, true);
        words.clear(i);
      }
    }
    counts.widened++;
  }

  #kindOf(page: number, index: number): RunKind {
    const { dma, allowPeers } = this.#options;
    const { machine, node } = dma.device;
    const type = machine.peers?.stateOf(this.#peers, PhysPage.start(page as PhysPage), node) ?? "none";
    if (type === "none") return type;
    if (!allowPeers || type === "not-supported") throw peerPage(this.start + index * PAGE_SIZE);
    return type;
  }

  #busAddress(page: number): DmaAddr {
    const phys = PhysPage.start(page as PhysPage);
    return this.#options.dma.device.machine.peers!.providerOf(phys)!.busAddress(phys);
  }
}
