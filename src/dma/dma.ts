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
import { type Counters, type DmaAddr, PAGE_SIZE, type PhysAddr, PhysPage } from "../base/index.ts";
import type { AddressSpace } from "../iommu/index.ts";
import { maxBounceSize } from "../swiotlb/index.ts";
import type { DmaEventName } from "../trace/index.ts";
import { type BatchLimits, DmaBatch } from "./disjoint/batch.ts";
import { checkAddress, checkLength, checkLimit, checkOptions, checkPhysOffset, checkVec } from "./checks.ts";
import {
  type Allocation,
  allocateDirect,
  allocateTranslated,
  freeBlocks,
  type PageBlock,
  takeOutOfCaches,
} from "./path/coherent.ts";
import { DebuggedPath, type DmaDebug } from "../dma-debug/index.ts";
import { ALL_ADDRESSES, type DeviceOptions, DmaDevice } from "./device.ts";
import { DirectPath } from "./path/direct.ts";
import {
  badBoundary,
  badDirection,
  emptyList,
  maskTooNarrow,
  notCoherent,
  onlySinglePages,
  sharedForbidden,
} from "./errors.ts";
import type { IovaRange } from "./two-step/iova-range.ts";
import { type LinearOptions, mapLinear } from "./disjoint/map-linear.ts";
import { CoherentMemory, DmaMapping, ScatterlistMapping } from "./handles.ts";
import type { MappedList, Path } from "./path/path.ts";
import { permissions } from "./path/permissions.ts";
import { reserveRange } from "./two-step/reserve-range.ts";
import { TranslatedPath } from "./path/translated.ts";
import { mapVecs, type VecsMapping } from "./disjoint/map-vecs.ts";
import { ATTRIBUTE_BITS, attributeBits, type Direction, type DmaAttributes, type PhysVec } from "./vectors.ts";

export interface DmaOptions extends DeviceOptions {
  /** The device's address space; without one it uses physical addresses. */
  readonly domain?: AddressSpace;
}

/** What checked mode calls memory that was allocated. */
const DEBUG_KINDS = { dma_alloc: "coherent", dma_alloc_pages: "noncoherent", dma_alloc_sgt: "scatter-gather" } as const;

/** Reservations up to this many granules are cached by the allocator, and cheap. */
const CACHED_GRANULES = 32;

export class Dma {
  readonly device: DmaDevice;
  readonly domain: AddressSpace | undefined;
  readonly #path: Path;
  readonly #translated: TranslatedPath | undefined;

  /** @throws DmaError ERR_DMA_OPTIONS, ERR_DMA_LIMIT (EINVAL) */
  constructor(options: DmaOptions = {}) {
    checkOptions(options);
    this.domain = options.domain;
    this.device = new DmaDevice(options, options.counters ?? options.domain?.counters);
    this.setSegmentBoundary(this.device.segmentBoundaryMask);
    this.#translated = this.domain && new TranslatedPath(this.device, this.domain);
    const path = this.#translated ?? new DirectPath(this.device);
    this.device.watch = options.debug?.watch(this.device, this.domain);
    this.#path = this.device.watch === undefined ? path : new DebuggedPath(path, this.device.watch);
  }

  /** Checked mode, as it was given: findings, and what is live. */
  get debug(): DmaDebug | undefined {
    return this.device.debug;
  }

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
    if (this.#translated) return 2 ** 32 - 1;
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
    const bouncing = this.#translated ? device.untrusted : device.forceBounce || this.addressingLimited;
    return bouncing ? maxBounceSize(device.minAlignMask) : Number.POSITIVE_INFINITY;
  }

  /** Longest mapping, bytes, that is made fast. */
  get optMappingSize(): number {
    if (!this.#translated) return this.maxMappingSize;
    return Math.min(this.maxMappingSize, CACHED_GRANULES * this.#translated.granule);
  }

  /** Pieces that start and end on multiples of this + 1 can be merged into one range; 0: never. */
  get mergeBoundary(): number {
    return this.#translated ? this.#translated.granule - 1 : 0;
  }

  /** Mappings must be unmapped. If not, unmapping is allowed and does nothing. */
  get needsUnmap(): boolean {
    return this.#translated !== undefined || !this.device.skipSync;
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
   * @param asked.again a range of this device that was given back: its object is the new range, and nothing is allocated.
   * For those who keep one for each request in flight; nobody else may still hold it. One in use is left alone.
   * @throws DmaError ERR_DMA_LENGTH, ERR_DMA_OFFSET (EINVAL)
   */
  tryReserveIova(asked: {
    length: number;
    physOffset?: number;
    capacity?: number;
    again?: IovaRange | undefined;
  }): IovaRange | undefined {
    const { length, physOffset = 0, capacity = length, again } = asked;
    checkLength(length);
    checkLength(capacity);
    checkPhysOffset(physOffset);
    const path = this.#translated;
    if (path === undefined) return undefined;
    return reserveRange(path, length, path.inside(physOffset), capacity, again);
  }

  // One shot.

  /**
   * Maps `length` bytes at `phys` in one shot. The handle gives them back.
   *
   * @throws DmaError as {@link mapPhys}
   */
  map(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaMapping {
    const address = this.mapPhys(phys, length, direction, attributes);
    this.device.watch?.errorChecked(address);
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
    if (device.observer === undefined) return this.#path.mapPhys(phys, length, direction, attributes);
    let address: DmaAddr | undefined;
    try {
      address = this.#path.mapPhys(phys, length, direction, attributes);
      return address;
    } finally {
      this.#announce("dma_map_phys", direction, attributes, { phys, length, address });
    }
  }

  /** Ends a mapping of {@link mapPhys}: the same length, direction and attributes. Cannot fail. */
  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    if (attributes?.shared && this.#translated) {
      this.device.watch?.unmappedAsShared(address, length, direction, attributes);
      return; // was never mapped
    }
    this.#path.unmapPhys(address, length, direction, attributes);
    if (this.device.observer !== undefined)
      this.#announce("dma_unmap_phys", direction, attributes, { address, length });
  }

  syncForCpu(address: DmaAddr, length: number, direction: Direction): void {
    if (this.device.skipSync) return;
    this.#path.syncForCpu(address, length, direction);
    if (this.device.observer !== undefined)
      this.#announce("dma_sync_single_for_cpu", direction, undefined, { address, length });
  }

  syncForDevice(address: DmaAddr, length: number, direction: Direction): void {
    if (this.device.skipSync) return;
    this.#path.syncForDevice(address, length, direction);
    if (this.device.observer !== undefined)
      this.#announce("dma_sync_single_for_device", direction, undefined, { address, length });
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
    if (attributes?.shared && this.#translated && !this.device.linuxCompatible) throw sharedForbidden(this.device.name);
    const segments = this.#path.mapList(list, direction, attributes);
    const mapped: MappedList = { list, segments, direction, attributes };
    this.#announceList("dma_map_sg", mapped);
    return new ScatterlistMapping(this, mapped);
  }

  /** For {@link ScatterlistMapping}. */
  unmapList(mapped: MappedList): void {
    this.#announceList("dma_unmap_sg", mapped);
    this.#path.unmapList(mapped);
  }

  /** For {@link ScatterlistMapping}. */
  syncListForCpu(mapped: MappedList): void {
    if (this.device.skipSync) return;
    this.#path.syncListForCpu(mapped);
    this.#announceList("dma_sync_sg_for_cpu", mapped);
  }

  /** For {@link ScatterlistMapping}. */
  syncListForDevice(mapped: MappedList): void {
    if (this.device.skipSync) return;
    this.#path.syncListForDevice(mapped);
    this.#announceList("dma_sync_sg_for_device", mapped);
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
    return mapVecs(this.device, this.#translated, this.#path, vecs, direction, attributes);
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
    return mapLinear(this.device, this.#translated, this.#path, vecs, direction, attributes, options);
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
    return new DmaBatch(this.device, this.#translated, this.#path, direction, limits, attributes);
  }

  // Memory of its own.

  /**
   * Zeroed memory that the device and the CPU share without syncs.
   *
   * @throws DmaError ERR_DMA_LENGTH (EINVAL), ERR_DMA_NO_MEMORY, ERR_DMA_IOVA_EXHAUSTED (ENOMEM), ERR_DMA_MACHINE (EOPNOTSUPP)
   */
  allocCoherent(length: number, attributes?: DmaAttributes): CoherentMemory {
    return this.#allocate("dma_alloc", length, "bidirectional", attributes, this.device.coherentMask);
  }

  /** Zeroed pages in one block; ownership moves with syncs, as for a mapping. @throws as {@link allocCoherent} */
  allocPages(length: number, direction: Direction): CoherentMemory {
    checkDirection(direction);
    return this.#allocate("dma_alloc_pages", length, direction, { forceContiguous: true }, this.device.coherentMask);
  }

  /** One output over pages that may lie anywhere. @throws as {@link allocCoherent}; ERR_DMA_ATTRIBUTES (EINVAL) */
  allocNoncontiguous(length: number, direction: Direction, attributes?: DmaAttributes): CoherentMemory {
    checkDirection(direction);
    if (attributeBits(attributes) & ~ATTRIBUTE_BITS.allocSinglePages) throw onlySinglePages();
    return this.#allocate("dma_alloc_sgt", length, direction, attributes, this.device.coherentMask);
  }

  #allocate(
    name: "dma_alloc" | "dma_alloc_pages" | "dma_alloc_sgt",
    length: number,
    direction: Direction,
    attributes: DmaAttributes | undefined,
    mask: number,
  ): CoherentMemory {
    checkLength(length);
    const { device } = this;
    const path = this.#translated;
    let allocation: Allocation | undefined;
    try {
      allocation = path
        ? allocateTranslated(path, length, name === "dma_alloc_pages" ? direction : "bidirectional", attributes, mask)
        : allocateDirect(device, length, mask);
    } finally {
      this.#announce(name, direction, attributes, { address: allocation?.address, length });
    }
    const { address, blocks } = allocation;
    if (name !== "dma_alloc_pages") takeOutOfCaches(device, blocks);
    const kind = DEBUG_KINDS[name];
    const phys = PhysPage.start(blocks[0]!.page);
    const told = name === "dma_alloc_pages" ? undefined : attributes; // contiguous is what it always is
    device.watch?.allocated(kind, address, length, phys, direction, told);
    return new CoherentMemory(this, address, length, blocks, () => {
      device.watch?.freeing(kind, address, length, phys, direction, told);
      const freeName = name.replace("alloc", "free") as DmaEventName;
      this.#announce(freeName, direction, attributes, { address, length });
      this.#free(name, address, length, blocks);
    });
  }

  #free(name: string, address: DmaAddr, length: number, blocks: readonly PageBlock[]): void {
    const path = this.#translated;
    if (path) {
      if (name === "dma_alloc_pages") path.physOf(address); // as for any streaming mapping
      const pages = path.pages(length);
      path.domain.release((address / PAGE_SIZE) as never, pages, pages);
    }
    freeBlocks(this.device, blocks);
  }

  #checkMask(name: "mask" | "coherentMask", mask: number): void {
    checkLimit(name, mask);
    const { ramEnd } = this.device.machine;
    if (this.#translated || mask >= 2 ** 32 - 1 || ramEnd === undefined) return;
    const needed = ramEnd - PAGE_SIZE;
    if (mask < needed) throw maskTooNarrow(this.device.name, mask, needed);
  }

  #checkAttributes(attributes: DmaAttributes | undefined): void {
    if (attributes === undefined) return;
    if (attributes.requireCoherent && !this.device.coherent) throw notCoherent(this.device.name);
    if (attributes.shared && this.#translated) throw sharedForbidden(this.device.name);
  }

  #checkVecs(vecs: readonly PhysVec[], direction: Direction, attributes: DmaAttributes | undefined): void {
    if (vecs.length === 0) throw emptyList();
    for (const vec of vecs) checkVec(vec);
    checkDirection(direction);
    this.#checkAttributes(attributes);
  }

  #announce(
    name: DmaEventName,
    direction: Direction,
    attributes: DmaAttributes | undefined,
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
