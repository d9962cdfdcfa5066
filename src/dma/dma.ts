/**
 * The front door: DMA mapping for one device.
 *
 * Idea: with a domain the device is translated, without one it goes direct; the calls are the same. Three ways to make
 * memory reachable, so that they can be compared: one-shot ({@link Dma.map}), a scatterlist ({@link Dma.mapScatterlist}),
 * and two steps ({@link Dma.tryReserveIova}, then link and sync). Each has handles, which remember what was mapped; the
 * bare calls (`mapPhys`, `unmapPhys`) allocate nothing and leave that to the caller.
 * Promises: a failed call leaves nothing behind; release cannot fail.
 * Specified by: behaviour of Linux 7.2 DMA API; docs/two-step.md has the table of Linux names.
 */
import {
  ATTRIBUTE_BITS,
  attributeBits,
  type Counters,
  type DmaAddr,
  type DmaAttributes,
  type DmaEventName,
  PAGE_SIZE,
  type PhysAddr,
  PhysPage,
} from "../base/index.ts";
import type { AddressSpace } from "../iommu/index.ts";
import { maxBounceSize } from "../swiotlb/index.ts";
import { checkAddress, checkLength, checkLimit, checkList, checkOptions, checkPhysOffset, checkVec } from "./checks.ts";
import { ALL_ADDRESSES, type DeviceOptions, DmaDevice } from "./device.ts";
import type { DevicePath } from "./device-path.ts";
import { type BatchLimits, DmaBatch } from "./disjoint/batch.ts";
import { type LinearOptions, mapLinear } from "./disjoint/map-linear.ts";
import { mapVecs, type VecsMapping } from "./disjoint/map-vecs.ts";
import {
  badBoundary,
  badDirection,
  badReservation,
  emptyList,
  maskTooNarrow,
  notCoherent,
  onlySinglePages,
  sharedForbidden,
} from "./errors.ts";
import { CoherentMemory, DmaMapping, type ListCalls, ScatterlistMapping } from "./handles.ts";
import {
  type Allocation,
  allocateDirect,
  allocateTranslated,
  freeBlocks,
  type PageBlock,
  takeOutOfCaches,
} from "./path/coherent.ts";
import { DirectPath } from "./path/direct.ts";
import { Granules } from "./path/granules.ts";
import type { MappedList, Path } from "./path/path.ts";
import { permissions } from "./path/permissions.ts";
import { TranslatedPath } from "./path/translated.ts";
import { type Terms, termsOf } from "./terms.ts";
import type { IovaRange } from "./two-step/iova-range.ts";
import { reserveRange } from "./two-step/reserve-range.ts";
import type { Direction, PhysVec } from "./vectors.ts";
import type { DeviceWatch, DmaWatcher } from "./watch.ts";

/** A device, and the address space that it is behind. */
export interface DmaOptions extends DeviceOptions {
  /** The device's address space; without one it uses physical addresses. */
  readonly domain?: AddressSpace;
  /** Looks over every call and says what was misused: a `DmaDebug` (docs/dma-debugging.md). One value may serve many devices. */
  readonly debug?: DmaWatcher;
}

/** What a watcher calls memory that was allocated. */
const ALLOCATION_KINDS = {
  dma_alloc: "coherent",
  dma_alloc_pages: "noncoherent",
  dma_alloc_sgt: "scatter-gather",
} as const;

/** Reservations up to this many granules are cached by the allocator, and cheap. */
const CACHED_GRANULES = 32;

/**
 * DMA mapping for one device: one shot ({@link Dma.map}), scatterlists ({@link Dma.mapScatterlist}), two steps ({@link
 * Dma.tryReserveIova}), disjoint, linear and batched pieces, coherent memory. A failed call leaves nothing behind;
 * release cannot fail. Follows Linux 7.2's DMA API; docs/two-step.md has the table of Linux names.
 */
export class Dma {
  /** The device that it maps for. */
  readonly device: DmaDevice;
  /** The address space behind which the device is; undefined: it goes direct. */
  readonly domain: AddressSpace | undefined;
  readonly #path: Path;
  readonly #granules: Granules | undefined;
  readonly #watch: DeviceWatch | undefined;
  /** The same as one value, for the calls that reserve. */
  readonly #devicePath: DevicePath;

  /** The bare calls on mapped scatterlists, for who keeps no handle: a list must be named as it was mapped. */
  readonly lists: ListCalls = {
    unmap: (mapped) => {
      this.#announceList("dma_unmap_sg", mapped);
      this.#path.unmapList(mapped);
    },
    syncForCpu: (mapped) => {
      if (this.device.skipSync) return;
      this.#path.syncListForCpu(mapped);
      this.#announceList("dma_sync_sg_for_cpu", mapped);
    },
    syncForDevice: (mapped) => {
      if (this.device.skipSync) return;
      this.#path.syncListForDevice(mapped);
      this.#announceList("dma_sync_sg_for_device", mapped);
    },
  };

  /** @throws DmaError ERR_DMA_OPTIONS, ERR_DMA_LIMIT (EINVAL) */
  constructor(options: DmaOptions = {}) {
    checkOptions(options);
    this.domain = options.domain;
    const { domain, debug } = options;
    this.device = new DmaDevice(options, options.counters ?? domain?.counters, debug !== undefined);
    this.setSegmentBoundary(this.device.segmentBoundaryMask);
    this.#granules = domain && new Granules(this.device, domain);
    const path = this.#granules ? new TranslatedPath(this.#granules) : new DirectPath(this.device);
    this.#watch = debug?.watch(this.device, domain);
    this.#path = this.#watch?.path(path) ?? path;
    this.#devicePath = { device: this.device, granules: this.#granules, path: this.#path, watch: this.#watch };
  }

  /** What the work for this device cost so far. */
  get counters(): Counters {
    return this.device.counters;
  }

  // What the device can do.

  /**
   * The highest address that the device can emit.
   *
   * @throws DmaError ERR_DMA_LIMIT (EINVAL) if it is no whole number from 0 to 2^64; ERR_DMA_MASK (EIO) if, without an IOMMU, it
   * could not reach all RAM below 4 GiB; nothing is changed
   */
  setMask(mask: number): void {
    this.#checkMask("mask", mask);
    this.device.mask = mask;
    this.device.maskChanged();
  }

  /** The same for coherent memory. @throws as {@link setMask} */
  setCoherentMask(mask: number): void {
    this.#checkMask("coherentMask", mask);
    this.device.coherentMask = mask;
  }

  /** @throws DmaError ERR_DMA_LIMIT (EINVAL) unless it is a power of two less one */
  setSegmentBoundary(mask: number): void {
    const isPowerOfTwoLessOne = mask >= 0 && Number.isInteger(Math.log2(mask + 1));
    if (typeof mask !== "number" || mask > ALL_ADDRESSES || !isPowerOfTwoLessOne) throw badBoundary(mask);
    this.device.segmentBoundaryMask = mask < ALL_ADDRESSES ? mask : ALL_ADDRESSES - 1;
  }

  /** The smallest mask that reaches everything. */
  get requiredMask(): number {
    if (this.#granules) return 2 ** 32 - 1;
    const { ramEnd } = this.device.machine;
    return ramEnd === undefined ? ALL_ADDRESSES : 2 ** Math.ceil(Math.log2(ramEnd)) - 1;
  }

  /** The device cannot reach everything by itself. */
  get addressingLimited(): boolean {
    return this.device.reach(this.device.mask) < this.requiredMask;
  }

  /** Longest mapping, bytes, that can always be made; Infinity if there is no limit. */
  get maxMappingSize(): number {
    const { device } = this;
    if (device.machine.pool === undefined) return Number.POSITIVE_INFINITY;
    const bouncing = this.#granules ? device.untrusted : device.forceBounce || this.addressingLimited;
    return bouncing ? maxBounceSize(device.minAlignMask) : Number.POSITIVE_INFINITY;
  }

  /** Longest mapping, bytes, that is made fast. */
  get optMappingSize(): number {
    if (!this.#granules) return this.maxMappingSize;
    return Math.min(this.maxMappingSize, CACHED_GRANULES * this.#granules.granule);
  }

  /** Pieces that start and end on multiples of this + 1 can be merged into one range; 0: never. */
  get mergeBoundary(): number {
    return this.#granules ? this.#granules.granule - 1 : 0;
  }

  /** Mappings must be unmapped. If not, unmapping is allowed and does nothing. */
  get needsUnmap(): boolean {
    return this.#granules !== undefined || !this.device.skipSync;
  }

  /** Mappings may need syncs. If not, they cost one comparison. */
  get needsSync(): boolean {
    return !this.device.skipSync;
  }

  // Two steps.

  /**
   * Reserves address space for `length` bytes, of which the first lies `physOffset` bytes into its granule. Nothing is
   * reachable yet. `undefined` if the device is not translated, or there is no room: map each piece by itself then.
   *
   * @param asked.capacity bytes that {@link IovaRange.grow} may reach; `length` unless said
   * @param asked.reuse a range of this device that was given back: its object is the new range, and nothing is allocated.
   * For those who keep one for each request in flight; nobody else may still hold it. One in use is left alone.
   * @throws DmaError ERR_DMA_LENGTH, ERR_DMA_OFFSET (EINVAL)
   */
  tryReserveIova(asked: {
    length: number;
    physOffset?: number;
    capacity?: number;
    reuse?: IovaRange | undefined;
  }): IovaRange | undefined {
    if (typeof asked !== "object" || asked === null) throw badReservation(asked);
    const { length, physOffset = 0, capacity = length, reuse } = asked;
    checkLength(length);
    checkLength(capacity);
    checkPhysOffset(physOffset);
    this.device.contract?.check();
    if (this.#granules === undefined) return undefined;
    return reserveRange(this.#devicePath, length, this.#granules.inside(physOffset), capacity, reuse);
  }

  // One shot.

  /**
   * Maps `length` bytes at `phys` in one shot. The handle gives them back.
   *
   * @throws DmaError as {@link mapPhys}
   */
  map(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaMapping {
    const address = this.mapPhys(phys, length, direction, attributes);
    this.#watch?.errorChecked(address);
    return new DmaMapping(this, address, length, direction, attributes);
  }

  /**
   * Maps `length` bytes at `phys`; {@link unmapPhys} takes the same arguments. Peer memory is not recognised: who may meet
   * it asks {@link DmaMachine.peers} first.
   *
   * @throws DmaError ERR_DMA_LENGTH, ERR_DMA_ADDRESS, ERR_DMA_DIRECTION, ERR_DMA_ALIGN (EINVAL), ERR_DMA_NOT_COHERENT,
   * ERR_DMA_SHARED (EOPNOTSUPP), ERR_DMA_BOUNCE_FORBIDDEN, ERR_DMA_PRIVATE (EPERM), ERR_DMA_REACH (EIO),
   * ERR_DMA_IOVA_EXHAUSTED, ERR_DMA_BOUNCE_FULL, ERR_DMA_BOUNCE_NONE (ENOMEM), ERR_DMA_MAP
   */
  mapPhys(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    checkLength(length);
    checkAddress(phys);
    checkDirection(direction);
    this.#checkAttributes(attributes);
    const { device } = this;
    device.contract?.checkPiece(phys, length, attributes);
    const terms = termsOf(direction, attributes);
    if (device.observer === undefined) return this.#path.mapPhys(phys, length, terms);
    let address: DmaAddr | undefined;
    try {
      address = this.#path.mapPhys(phys, length, terms);
      return address;
    } finally {
      this.#announce("dma_map_phys", terms, { phys, length, address });
    }
  }

  /** Ends a mapping of {@link mapPhys}: the same length, direction and attributes. Cannot fail. */
  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    const terms = termsOf(direction, attributes);
    if (attributes?.shared && this.#granules && this.device.sharedBit === 0) {
      this.#watch?.unmappedAsShared(address, length, terms);
      return; // was never mapped
    }
    this.#path.unmapPhys(address, length, terms);
    if (this.device.observer !== undefined) this.#announce("dma_unmap_phys", terms, { address, length });
  }

  /**
   * The CPU may look at what {@link Dma.mapPhys} mapped, or at a part of it, until it gives it back: bounced bytes are copied, caches
   * maintained. Costs one comparison where neither is needed. `direction` is that of the mapping.
   */
  syncForCpu(address: DmaAddr, length: number, direction: Direction): void {
    if (this.device.skipSync) return;
    this.#path.syncForCpu(address, length, direction);
    if (this.device.observer !== undefined)
      this.#announce("dma_sync_single_for_cpu", termsOf(direction), { address, length });
  }

  /** The device may use that memory again; otherwise as {@link Dma.syncForCpu}. */
  syncForDevice(address: DmaAddr, length: number, direction: Direction): void {
    if (this.device.skipSync) return;
    this.#path.syncForDevice(address, length, direction);
    if (this.device.observer !== undefined)
      this.#announce("dma_sync_single_for_device", termsOf(direction), { address, length });
  }

  // Scatterlists.

  /**
   * Maps a scatterlist: one range for all entries, physically adjacent ones mapped together; output segments are joined
   * where granules allow it and they stay within the device's limits.
   *
   * @throws DmaError as {@link mapPhys}; ERR_DMA_PEER (EREMOTEIO)
   */
  mapScatterlist(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): ScatterlistMapping {
    if (list.length === 0) throw emptyList();
    for (const vec of list) checkVec(vec);
    checkDirection(direction);
    if (attributes?.requireCoherent && !this.device.coherent) throw notCoherent(this.device.name);
    if (attributes?.shared && this.#granules && !this.device.linuxCompatible) throw sharedForbidden(this.device.name);
    for (const { phys, length } of list) this.device.contract?.checkPiece(phys, length, attributes);
    const segments = this.#path.mapList(list, termsOf(direction, attributes));
    const mapped: MappedList = { list, segments, direction, attributes };
    this.#announceList("dma_map_sg", mapped);
    return new ScatterlistMapping(mapped, this.lists);
  }

  // Beyond Linux: docs/two-step.md says which to take.

  /**
   * Maps disjoint pieces, joined where it is convenient: the outputs in order are the inputs in order, byte for byte, each
   * within the device's limits. Never fails for lack of merging.
   *
   * Cost: one reservation, one sync, one invalidation.
   * @throws DmaError as {@link mapScatterlist}
   */
  mapVecs(vecs: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): VecsMapping {
    this.#checkVecs(vecs, direction, attributes);
    return mapVecs(this.#devicePath, vecs, termsOf(direction, attributes));
  }

  /**
   * Maps pieces as one output of the sum of their lengths, or fails.
   *
   * @throws DmaError as {@link mapScatterlist}; ERR_DMA_LINEAR (ENXIO: inner edges do not join; EINVAL: too long)
   */
  mapLinear(
    vecs: readonly PhysVec[],
    direction: Direction,
    attributes?: DmaAttributes,
    options: LinearOptions = {},
  ): VecsMapping {
    this.#checkVecs(vecs, direction, attributes);
    return mapLinear(this.#devicePath, vecs, termsOf(direction, attributes), options);
  }

  /**
   * Starts a batch: add pieces until it is full, finalize, unmap.
   *
   * @throws DmaError ERR_DMA_LENGTH, ERR_DMA_DIRECTION (EINVAL), ERR_DMA_IOVA_EXHAUSTED (ENOMEM)
   */
  batch(direction: Direction, limits: BatchLimits, attributes?: DmaAttributes): DmaBatch {
    checkDirection(direction);
    checkLength(limits.maxBytes);
    this.#checkAttributes(attributes);
    this.device.contract?.check();
    return new DmaBatch(this.#devicePath, termsOf(direction, attributes), limits);
  }

  // Memory of its own.

  /**
   * Zeroed memory that the device and the CPU share without syncs.
   *
   * @throws DmaError ERR_DMA_LENGTH (EINVAL), ERR_DMA_NO_MEMORY, ERR_DMA_IOVA_EXHAUSTED (ENOMEM), ERR_DMA_MACHINE (EOPNOTSUPP)
   */
  allocCoherent(length: number, attributes?: DmaAttributes): CoherentMemory {
    return this.#allocate("dma_alloc", length, termsOf("bidirectional", attributes));
  }

  /** Zeroed pages in one block; ownership moves with syncs, as for a mapping. @throws as {@link allocCoherent} */
  allocPages(length: number, direction: Direction): CoherentMemory {
    checkDirection(direction);
    return this.#allocate("dma_alloc_pages", length, termsOf(direction, { forceContiguous: true }));
  }

  /** One output over pages that may lie anywhere. @throws as {@link allocCoherent}; ERR_DMA_ATTRIBUTES (EINVAL) */
  allocNoncontiguous(length: number, direction: Direction, attributes?: DmaAttributes): CoherentMemory {
    checkDirection(direction);
    if (attributeBits(attributes) & ~ATTRIBUTE_BITS.allocSinglePages) throw onlySinglePages();
    return this.#allocate("dma_alloc_sgt", length, termsOf(direction, attributes));
  }

  #allocate(name: keyof typeof ALLOCATION_KINDS, length: number, terms: Terms): CoherentMemory {
    checkLength(length);
    const { device } = this;
    device.contract?.check();
    const granules = this.#granules;
    const mask = device.coherentMask;
    const { direction, attributes } = terms;
    const mapped = termsOf(name === "dma_alloc_pages" ? direction : "bidirectional", attributes);
    let allocation: Allocation | undefined;
    try {
      allocation = granules ? allocateTranslated(granules, length, mapped, mask) : allocateDirect(device, length, mask);
    } finally {
      this.#announce(name, terms, { address: allocation?.address, length });
    }
    const { address, blocks } = allocation;
    if (name !== "dma_alloc_pages") takeOutOfCaches(device, blocks);
    const kind = ALLOCATION_KINDS[name];
    const phys = PhysPage.start(blocks[0]!.page);
    const told = name === "dma_alloc_pages" ? termsOf(direction) : terms; // contiguous is what it always is
    this.#watch?.allocated(kind, address, length, phys, told);
    return new CoherentMemory(device, address, length, blocks, () => {
      this.#watch?.freeing(kind, address, length, phys, told);
      const freeName = name.replace("alloc", "free") as DmaEventName;
      this.#announce(freeName, terms, { address, length });
      this.#free(name, address, length, blocks);
    });
  }

  #free(name: string, address: DmaAddr, length: number, blocks: readonly PageBlock[]): void {
    const granules = this.#granules;
    if (granules) {
      if (name === "dma_alloc_pages") granules.physOf(address); // as for any streaming mapping
      granules.unmapWhole(address, length);
    }
    freeBlocks(this.device, blocks);
  }

  #checkMask(name: "mask" | "coherentMask", mask: number): void {
    checkLimit(name, mask);
    const { ramEnd } = this.device.machine;
    if (this.#granules || mask >= 2 ** 32 - 1 || ramEnd === undefined) return;
    const needed = ramEnd - PAGE_SIZE;
    if (mask < needed) throw maskTooNarrow(this.device.name, mask, needed);
  }

  #checkAttributes(attributes: DmaAttributes | undefined): void {
    if (attributes === undefined) return;
    if (attributes.requireCoherent && !this.device.coherent) throw notCoherent(this.device.name);
    if (attributes.shared && this.#granules && this.device.sharedBit === 0) throw sharedForbidden(this.device.name);
  }

  #checkVecs(vecs: readonly PhysVec[], direction: Direction, attributes: DmaAttributes | undefined): void {
    checkList(vecs);
    if (vecs.length === 0) throw emptyList();
    for (const vec of vecs) checkVec(vec);
    checkDirection(direction);
    this.#checkAttributes(attributes);
  }

  #announce(
    name: DmaEventName,
    { direction, attributes }: Terms,
    fields: { phys?: number; length: number; address: number | undefined },
  ): void {
    const { device } = this;
    if (device.observer?.dmaCalled === undefined) return;
    device.announce({ name, device: device.name, direction, attributes: attributeBits(attributes), ...fields });
  }

  #announceList(name: DmaEventName, { list, segments, direction, attributes }: MappedList): void {
    const { device } = this;
    if (device.observer?.dmaCalled === undefined) return;
    device.announce({
      name,
      device: device.name,
      direction,
      attributes: attributeBits(attributes),
      physAddresses: list.map(({ phys }) => phys),
      addresses: segments.map(({ address }) => address),
      lengths: segments.map(({ length }) => length),
    });
  }
}

function checkDirection(direction: Direction): void {
  if (permissions(direction) === 0) throw badDirection(direction);
}
