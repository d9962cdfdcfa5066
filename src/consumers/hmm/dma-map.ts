/**
 * The DMA map of a watched range: pages come and go, their addresses for the device stay.
 *
 * Idea: address space for the whole range is reserved once; each page is linked at its own offset when it is first needed and unlinked
 * when it is invalidated, so a page that comes back lies where it lay. Flags in the words say what is mapped and how, and
 * survive walks. Without an IOMMU nothing is reserved, and addresses are worked out, or kept in a list where unmapping needs them.
 * Promises: no copy is ever made: a device that would need one is refused, since the CPU and the device use the pages at the same
 * time. A page that is mapped already costs nothing to map again. A failed map leaves nothing of itself.
 * Not for: choosing what is brought (range-fault.ts); locks: whoever invalidates and whoever maps must not do so at once.
 * Specified by: behaviour of Linux 7.2 hmm_dma_map; judged by test/golden (hmm-dma).
 */
import { assert, type DmaAddr, PAGE_SIZE, PhysPage } from "../../base/index.ts";
import type { Dma, DmaAttributes, IovaRange } from "../../dma/index.ts";
import type { P2pState } from "../../p2p/index.ts";
import { badWord, deviceNeedsSyncs, peerOutOfReach } from "./errors.ts";
import { HMM, PfnWords } from "./words.ts";

/** How much a map covers, and what it does when pages go. */
export interface HmmDmaMapOptions {
  /** The device that the pages are mapped for. It must be coherent and must not bounce. */
  readonly dma: Dma;
  /** Pages of 4 KiB in the range. */
  readonly pages: number;
  /**
   * Bytes that one index maps: 4096 unless said. There is one word for each index; with `linuxCompatible` one for each 4 KiB, of which only
   * the first lie inside the reservation.
   */
  readonly entryBytes?: number;
}

interface UnlinkTerms {
  readonly direction: "bidirectional";
  readonly attributes: DmaAttributes;
  readonly lazy: boolean;
}

/** What every page is mapped with: a bounce buffer would be stale at once. */
const PLAIN: DmaAttributes = { requireCoherent: true };
const PEER: DmaAttributes = { requireCoherent: true, mmio: true };
/** What unmapping says: one for each case, so that it makes no objects. */
const termsToTake = (attributes: DmaAttributes): readonly [UnlinkTerms, UnlinkTerms] => [
  { direction: "bidirectional", attributes, lazy: false },
  { direction: "bidirectional", attributes, lazy: true },
];
const TAKE_PLAIN = termsToTake(PLAIN);
const TAKE_PEER = termsToTake(PEER);
const MAPPED = HMM.valid | HMM.dmaMapped;

/**
 * Maps the pages of a mirrored range for a device, each at its own offset of one reserved range; page by page where
 * there is no IOMMU. Refuses devices that would have to bounce or sync.
 */
export class HmmDmaMap implements Disposable {
  /** One for each index: for {@link rangeFault} to fill where that is a page of 4 KiB. */
  readonly words: PfnWords;
  /** Bytes that one index maps: 4096 unless said in the options. */
  readonly entryBytes: number;
  readonly #dma: Dma;
  readonly #range: IovaRange | undefined;
  /** What memory of the system is linked with: nothing, where it could not be copied anyway. */
  readonly #plain: DmaAttributes | undefined;
  readonly #one = new Float64Array(1);
  /** Addresses by index, where nothing is reserved and unmapping needs them. */
  readonly #addresses: Float64Array | undefined;
  /** Whose peer memory was met last: of this device and range only. */
  readonly #peers: P2pState = { type: undefined, provider: undefined };

  /**
   * @throws DmaError ERR_DMA_HMM_UNSUPPORTED (EOPNOTSUPP) if mappings of the device may need syncs, or it does not reach all memory;
   *   ERR_DMA_LENGTH (EINVAL)
   */
  constructor(options: HmmDmaMapOptions) {
    const { dma, pages, entryBytes = PAGE_SIZE } = options;
    if (dma.needsSync || dma.addressingLimited) throw deviceNeedsSyncs(dma.device.name, dma.addressingLimited);
    this.#dma = dma;
    this.entryBytes = entryBytes;
    this.#range = dma.tryReserveIova({ length: pages * PAGE_SIZE });
    this.#plain = this.#range?.isPlain ? undefined : PLAIN;
    this.words = new PfnWords(dma.device.linuxCompatible ? pages : (pages * PAGE_SIZE) / entryBytes);
    if (this.#range === undefined && dma.needsUnmap) this.#addresses = new Float64Array(this.words.count);
  }

  /** Where the range begins for the device; undefined where nothing is reserved. */
  get address(): DmaAddr | undefined {
    return this.#range?.address;
  }

  /** Addresses are kept in a list, 8 bytes a page. */
  get hasAddressList(): boolean {
    return this.#addresses !== undefined;
  }

  /**
   * Maps the page of word `index`, if it is not mapped yet. Its address for the device. One sync.
   *
   * @throws DmaError ERR_DMA_HMM_WORD (EINVAL) if the word is not valid; ERR_DMA_HMM_PEER (EREMOTEIO); and as `IovaRange.link`, or
   *   without a reservation `Dma.mapPhys`
   */
  map(index: number): DmaAddr {
    this.#put(index, true, this.#one, 0);
    return this.#one[0] as DmaAddr;
  }

  /**
   * The same for `count` words from `first` on, with one sync for all: words that are not valid are left out.
   *
   * @param into addresses by index from `first`; NaN for those left out
   * @returns pages that were newly mapped
   * @throws DmaError as {@link map}; what was mapped before stays so and is promised to the device
   */
  mapPages(first: number, count: number, into: Float64Array): number {
    let newly = 0;
    let low = count;
    let high = 0;
    try {
      for (let i = 0; i < count; i++) {
        const index = first + i;
        if (!this.words.has(index, HMM.valid)) {
          into[i] = Number.NaN;
          continue;
        }
        if (this.#put(index, false, into, i)) continue;
        newly++;
        low = Math.min(low, i);
        high = i + 1;
      }
    } finally {
      if (low < high) this.#range?.sync((first + low) * this.entryBytes, (high - low) * this.entryBytes);
    }
    return newly;
  }

  /** Takes the page of word `index` from the device, now. False: it was not valid, or not mapped. */
  unmap(index: number): boolean {
    return this.#unmap(index, false);
  }

  /** The same for `count` words from `first` on, with one invalidation for all. How many were. */
  unmapPages(first: number, count: number): number {
    let done = 0;
    for (let i = first; i < first + count; i++) if (this.#unmap(i, true)) done++;
    this.#range?.flush();
    return done;
  }

  /** Gives everything back. What is still mapped is unmapped first. A second time does nothing. */
  free(): void {
    if (this.#dma.device.linuxCompatible) {
      this.#range?.destroy(0);
      return;
    }
    if (this.#addresses) for (let i = 0; i < this.words.count; i++) this.#unmap(i, false);
    this.#range?.destroy();
  }

  /** As `free`, for `using`. */
  [Symbol.dispose](): void {
    this.free();
  }

  /**
   * Maps a word, if it is not mapped, and puts its address into `into[at]`: the engine would make an object of an address that a call
   * returns. True: it was mapped.
   */
  #put(index: number, sync: boolean, into: Float64Array, at: number): boolean {
    const { words } = this;
    if (words.has(index, HMM.dmaMapped) && !words.has(index, HMM.peerBus)) {
      if (this.#range) {
        into[at] = this.#range.address + index * this.entryBytes;
        return true;
      }
      if (this.#dma.needsUnmap && this.#addresses) {
        into[at] = this.#addresses[index]!;
        return true;
      }
    }
    this.#mapNew(index, sync, into, at);
    return false;
  }

  #mapNew(index: number, sync: boolean, into: Float64Array, at: number): void {
    const { words, entryBytes } = this;
    const { device } = this.#dma;
    if (!words.has(index, HMM.valid) && !device.linuxCompatible) throw badWord(index, words.flags[index]!);
    const phys = PhysPage.start(words.page(index));
    const type = device.machine.peers?.stateOf(this.#peers, phys, device.node) ?? "none";
    if (type === "bus-address") {
      words.flags[index]! |= HMM.peerBus | HMM.dmaMapped;
      into[at] = this.#peers.provider!.busAddress(phys);
      return;
    }
    if (type === "not-supported") throw peerOutOfReach(device.name, phys);
    const isPeer = type === "through-host-bridge";
    if (this.#range) {
      const attributes = isPeer ? PEER : this.#plain;
      const offset = index * entryBytes;
      this.#range.link(offset, phys, entryBytes, "bidirectional", attributes);
      if (sync) this.#syncNew(this.#range, offset, attributes);
      into[at] = this.#range.address + offset;
    } else {
      const address = this.#dma.mapPhys(phys, entryBytes, "bidirectional", isPeer ? PEER : PLAIN);
      if (this.#dma.needsUnmap) {
        assert(this.#addresses !== undefined, "a mapping that has to be unmapped has no place in a list");
        this.#addresses[index] = address;
      }
      into[at] = address;
    }
    words.flags[index]! |= HMM.dmaMapped | (isPeer ? HMM.peer : 0);
  }

  #syncNew(range: IovaRange, offset: number, attributes: DmaAttributes | undefined): void {
    try {
      range.sync(offset, this.entryBytes);
    } catch (error) {
      range.unlink(
        offset,
        this.entryBytes,
        attributes ? { direction: "bidirectional", attributes } : { direction: "bidirectional" },
      );
      throw error;
    }
  }

  #unmap(index: number, lazy: boolean): boolean {
    const { words, entryBytes } = this;
    const flags = words.flags[index]!;
    if ((flags & MAPPED) !== MAPPED) return false;
    const isPeer = (flags & HMM.peer) !== 0;
    const attributes = isPeer ? PEER : PLAIN;
    if ((flags & HMM.peerBus) === 0) {
      if (this.#range)
        this.#range.unlink(index * entryBytes, entryBytes, (isPeer ? TAKE_PEER : TAKE_PLAIN)[lazy ? 1 : 0]);
      else if (this.#addresses)
        this.#dma.unmapPhys(this.#addresses[index] as DmaAddr, entryBytes, "bidirectional", attributes);
    }
    words.flags[index] = flags & ~(HMM.dmaMapped | HMM.peer | HMM.peerBus);
    return true;
  }
}
