/**
 * An RDMA device: protection domains, and regions under keys.
 *
 * Idea: what verbs check is checked here, in their order; what a region is made of (pinned, on demand, another driver's buffer, all of an
 * address space) is a backing with a page list; the adapter is told when all is ready. When the adapter lacks a page, it is brought here.
 * Promises: a failed registration leaves nothing. Before memory is unmapped the adapter has stopped using it. A key that was given back
 * misses.
 * Not for: messages (queue-pair.ts); the kernel's own transfers (transfer/).
 * Specified by: behaviour of Linux 7.2 verbs (drivers/infiniband/core, uverbs); judged by test/golden (umem, the verbs).
 */
import { DmaError, PAGE_SIZE } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import { ACCESS, isWritableAccess, KEY } from "../../layouts/rdma/index.ts";
import {
  type AdapterPageFault,
  type Clock,
  finish,
  type RdmaAdapter,
  type Steps,
  USER_END,
  type UserProcess,
} from "../../platform/index.ts";
import { checkAccess, DEFAULT_ACCESS, type RegionCapabilities } from "./access.ts";
import { type Advice, advised } from "./advise.ts";
import type { BringOptions, RegionBacking } from "./backing.ts";
import { BufferBacking } from "./buffer-backing.ts";
import {
  badAccess,
  badArgument,
  badRegion,
  callUnsupported,
  memoryReadOnly,
  noKeyLeft,
  otherDomain,
  unknownName,
} from "./errors.ts";
import { ImplicitBacking } from "./implicit-backing.ts";
import { Keys } from "./keys.ts";
import { OnDemandBacking } from "./on-demand-backing.ts";
import { PinnedBacking } from "./pinned-backing.ts";
import { MemoryRegion, MemoryWindow, type ProtectionDomain } from "./region.ts";
import type { BufferRequest, RegionChange, RegionRequest } from "./region-request.ts";

/** A device: an adapter with its front door, or software. */
export interface RdmaDeviceOptions {
  /** Absent for a software device: it uses memory as the CPU does, and nothing is mapped. */
  readonly adapter?: RdmaAdapter;
  /** By which memory is mapped; needed with an adapter. */
  readonly dma?: Dma;
  /**
   * For regions over all of an address space, and to try a fault again when its range keeps changing: without a clock
   * there are none, and such a fault is refused.
   */
  readonly clock?: Clock;
  /** Which kinds of regions it can have. */
  readonly capabilities?: RegionCapabilities;
  /** Bytes of a part of a region over all of an address space. 1 GiB unless said. */
  readonly implicitPartBytes?: number;
  /** One invalidation of the IOMMU for all pages of an event. True unless said; Linux 7.2: each page. */
  readonly batched?: boolean;
}

/** The length that, from address 0 on, means all of an address space. */
export const WHOLE_ADDRESS_SPACE: number = 2 ** 64;

const GIB = 2 ** 30;
/** Tries of a page fault of the adapter while the range keeps changing, and the pause between two, ms. */
const FAULT_TRIES = 100;
const FAULT_PAUSE_MS = 1;

const TO_READ: BringOptions = { write: false };
const TO_WRITE: BringOptions = { write: true };

/** Registers memory for an RDMA adapter, and brings pages that it lacks. */
export class RdmaDevice {
  /** The hardware; undefined for a software device. */
  readonly adapter: RdmaAdapter | undefined;
  /** By which memory is mapped; undefined for a software device. */
  readonly dma: Dma | undefined;
  /** Which kinds of regions it can have. */
  readonly capabilities: RegionCapabilities;
  /** Page faults of the adapter so far. */
  readonly counts: {
    /** All of them. */
    faults: number;
    /** Of those, the ones that could not be helped. */
    refused: number;
  } = { faults: 0, refused: 0 };
  readonly #clock: Clock | undefined;
  readonly #options: RdmaDeviceOptions;
  readonly #domains = new Set<number>();
  readonly #regions = new Keys<MemoryRegion>();
  readonly #parts = new Keys<OnDemandBacking>();
  readonly #windows = new Map<number, MemoryWindow>();
  readonly #stopFaults: (() => void) | undefined;
  #nextDomain = 1;
  #nextQueue = 1;

  /** @throws DmaError ERR_DMA_RDMA_ARGUMENT (EINVAL) for an adapter without a front door */
  constructor(options: RdmaDeviceOptions = {}) {
    const { adapter, dma, clock, capabilities = {} } = options;
    if (adapter && !dma) throw badArgument("an adapter needs the front door of its device (dma)");
    this.adapter = adapter;
    this.dma = dma;
    this.capabilities = capabilities;
    this.#clock = clock;
    this.#options = options;
    this.#stopFaults = adapter?.onPageFault((fault) => this.#serve(fault, FAULT_TRIES));
  }

  /** A key for who fills page lists by itself. @throws DmaError ERR_DMA_RDMA_KEYS (ENOMEM) */
  reserveKey(): number {
    const key = this.#regions.take();
    if (key === undefined) throw noKeyLeft();
    return key;
  }

  /** Gives such a key back, with the variant that it has by now. */
  releaseKey(key: number): void {
    this.adapter?.removeRegion(key);
    this.#regions.giveBack(key);
  }

  /** Regions that are registered. */
  get regions(): number {
    return this.#regions.size;
  }

  /** A number for a queue: 24 bits, never twice. */
  nextQueueNumber(): number {
    return this.#nextQueue++;
  }

  /** A new protection domain: what is made in it can be used only together. */
  allocateDomain(): ProtectionDomain {
    const number = this.#nextDomain++;
    this.#domains.add(number);
    return { number };
  }

  /** A window of a domain, bound to nothing. @throws DmaError ERR_DMA_RDMA_NAME (ENOENT), ERR_DMA_RDMA_KEYS (ENOMEM), ERR_DMA_RDMA_ARGUMENT (EINVAL) */
  allocateWindow(domain: ProtectionDomain): MemoryWindow {
    this.#checkDomain(domain);
    if (!this.adapter) throw badArgument("a software device has no windows");
    const window = new MemoryWindow(this.reserveKey(), domain);
    this.#windows.set(KEY.index(window.key), window);
    this.adapter.putWindow(window.key, domain.number);
    return window;
  }

  /** The window ends, bound or not: its keys name nothing. A second time does nothing. */
  freeWindow(window: MemoryWindow): void {
    if (!this.#windows.delete(KEY.index(window.key))) return;
    this.adapter!.removeWindow(window.key);
    this.#regions.giveBack(window.key);
  }

  /** Nothing of it may be in use. @throws DmaError ERR_DMA_RDMA_NAME (ENOENT), ERR_DMA_RDMA_DOMAIN (EBUSY) */
  freeDomain(domain: ProtectionDomain): void {
    this.#checkDomain(domain);
    for (const window of this.#windows.values()) if (window.domain === domain) throw otherDomain(window.key, "EBUSY");
    for (const region of this.#regions) if (region.domain === domain) throw otherDomain(region.key, "EBUSY");
    this.#domains.delete(domain.number);
  }

  /**
   * Registers memory of a process: pinned, on demand, or (address 0 and {@link WHOLE_ADDRESS_SPACE}) all of it.
   *
   * @throws DmaError ERR_DMA_RDMA_RANGE (EINVAL) unless address and virt agree; ERR_DMA_RDMA_NAME (ENOENT); as {@link checkAccess};
   *   as `PinnedBacking`, {@link OnDemandBacking}, `ImplicitBacking`; nothing is left then
   */
  register(domain: ProtectionDomain, request: RegionRequest): MemoryRegion {
    const { address, length, access } = request;
    const virt = (access & ACCESS.zeroBased) !== 0 ? address % PAGE_SIZE : (request.virt ?? address);
    if (address % PAGE_SIZE !== virt % PAGE_SIZE)
      throw badRegion(address, length, `virt 0x${virt.toString(16)} differs from it in the low 12 bits`);
    this.#checkDomain(domain);
    checkAccess(access, this.capabilities.access ?? DEFAULT_ACCESS);
    return this.#enter(domain, access, virt, length, (key) => this.#backingOf(request, virt, key));
  }

  /**
   * Registers a part of another driver's buffer.
   *
   * @throws DmaError ERR_DMA_RDMA_NAME (ENOENT); as {@link checkAccess}; as {@link BufferBacking}; ERR_DMA_RDMA_UNSUPPORTED (EOPNOTSUPP) for a
   *   software device; nothing is left then
   */
  registerBuffer(domain: ProtectionDomain, request: BufferRequest): MemoryRegion {
    const { buffer, life, offset, length, virt = offset, access } = request;
    this.#checkDomain(domain);
    checkAccess(access, this.capabilities.access ?? DEFAULT_ACCESS);
    const { adapter, dma } = this;
    if (!adapter || !dma) throw callUnsupported("a software device has no mapping of a buffer");
    return this.#enter(domain, access, virt, length, (key) => {
      const known = (): MemoryRegion | undefined => this.#regions.get(key);
      return new BufferBacking({
        buffer,
        life,
        offset,
        length,
        virt,
        access,
        dma,
        blockSizes: adapter.blockSizes,
        forget: (first, end) => adapter.forgetBlocks(key, first, end),
        resized: () => {
          const region = known();
          if (region) adapter.putRegion(region.context!);
        },
        revoked: () => {
          adapter.removeRegion(key);
          const region = known();
          if (region) region.state = "revoked";
        },
      });
    });
  }

  /**
   * The device uses the region no more, and its memory is given back. The key names nothing.
   *
   * @throws DmaError ERR_DMA_RDMA_NAME (ENOENT); ERR_DMA_RDMA_ARGUMENT (EINVAL) while windows are bound to it
   */
  deregister(key: number): void {
    const region = this.region(key);
    const bound = this.adapter?.windowsOn(key) ?? 0;
    if (bound > 0)
      throw badArgument(`${bound} windows are bound to the region of key ${key}: invalidate or free them first`);
    this.adapter?.removeRegion(key);
    region.state = "released";
    region.backing.release();
    this.#regions.giveBack(key);
  }

  /** The region that exactly this key names. @throws DmaError ERR_DMA_RDMA_NAME (ENOENT), ERR_DMA_RDMA_ARGUMENT (EINVAL) for a window's */
  region(key: number): MemoryRegion {
    if (this.#windows.get(KEY.index(key))?.key === key) throw badArgument(`key ${key} is a window's, and no region's`);
    const region = this.#regions.get(key);
    if (!region) throw unknownName("region with the key", key);
    return region;
  }

  /**
   * Changes a region under its key.
   *
   * @throws DmaError ERR_DMA_RDMA_ARGUMENT (EINVAL) if nothing is to change; ERR_DMA_RDMA_UNSUPPORTED (EOPNOTSUPP) for a change that is
   *   not known or not offered; ERR_DMA_RDMA_NAME (ENOENT); as {@link checkAccess}; ERR_DMA_RDMA_READ_ONLY (EACCES); nothing is changed then
   */
  reregister(key: number, change: RegionChange): MemoryRegion {
    const names = Object.keys(change);
    if (names.length === 0) throw badArgument("a re-registration that changes nothing");
    const unknown = names.filter((name) => name !== "domain" && name !== "access" && name !== "translation");
    if (unknown.length > 0) throw callUnsupported(`a region has no ${unknown.join(", ")} to be changed`);
    if (change.translation && (this.capabilities.newTranslation === false || !this.adapter))
      throw callUnsupported("this device cannot put other memory under a key: register it anew");
    const region = this.region(key);
    const { domain = region.domain, access = region.access, translation } = change;
    if (change.access !== undefined) checkAccess(access, this.capabilities.access ?? DEFAULT_ACCESS);
    this.#checkDomain(domain);
    if (isWritableAccess(access) && !region.backing.writable && change.access !== undefined && !translation)
      throw memoryReadOnly(access);
    if (translation) return this.#replace(region, domain, access, translation);
    region.domain = domain;
    region.access = access;
    if (region.context && region.state === "valid") this.adapter?.putRegion(region.context);
    return region;
  }

  /**
   * Brings pages of regions on demand before they are needed.
   *
   * @throws DmaError before anything is done, for any of `pieces`: ERR_DMA_RDMA_NAME (ENOENT), ERR_DMA_RDMA_ARGUMENT (EINVAL) for a region that
   *   is not on demand or a piece outside of it, ERR_DMA_RDMA_DOMAIN (EPERM), ERR_DMA_RDMA_READ_ONLY (EPERM)
   * @returns pieces that could not be brought: those failures are nobody's concern but of who asks
   */
  advise(domain: ProtectionDomain, advice: Advice): number {
    return advised(domain, advice, (key) => this.region(key));
  }

  /**
   * Brings a part of a region, as a fault of the device does. Pages that the process has are shown to the device without garbage.
   *
   * @throws DmaError ERR_DMA_RDMA_UNSUPPORTED (EOPNOTSUPP) for a region that is not on demand; and if it cannot be brought
   */
  bring(key: number, address: number, length: number, write: boolean): void {
    const backing = this.#parts.get(key) ?? this.region(key).backing;
    if (backing.bring) backing.bring(address, length, write ? TO_WRITE : TO_READ);
    else finish(this.bringSteps(key, address, length, write));
  }

  /** Brings a part of a region, as a fault of the device does: for who schedules faults. @throws DmaError if it cannot be brought */
  *bringSteps(key: number, address: number, length: number, write: boolean): Steps<void> {
    const backing = this.#parts.get(key) ?? this.region(key).backing;
    if (!backing.bringSteps) throw callUnsupported("the region is not on demand: its pages are where they shall be");
    yield* backing.bringSteps(address, length, write ? TO_WRITE : TO_READ);
  }

  /** Everything that is registered goes. */
  close(): void {
    for (const window of [...this.#windows.values()]) this.freeWindow(window);
    for (const region of this.#regions) this.deregister(region.key);
    this.#stopFaults?.();
  }

  #checkDomain({ number }: ProtectionDomain): void {
    if (!this.#domains.has(number)) throw unknownName("protection domain", number);
  }

  #enter(
    domain: ProtectionDomain,
    access: number,
    virt: number,
    length: number,
    make: (key: number) => RegionBacking,
  ): MemoryRegion {
    const key = this.#regions.take();
    if (key === undefined) throw noKeyLeft();
    try {
      const region = new MemoryRegion(key, domain, access, virt, length, make(key));
      this.#regions.put(key, region);
      if (region.context) this.adapter?.putRegion(region.context);
      return region;
    } catch (error) {
      this.#regions.giveBack(key);
      throw error;
    }
  }

  #backingOf(request: RegionRequest, virt: number, key: number): RegionBacking {
    const { adapter, dma } = this;
    const { process, address, length, access, mayBounce = false } = request;
    const { batched = true } = this.#options;
    if ((access & ACCESS.onDemand) !== 0) {
      const isWhole = address === 0 && length === WHOLE_ADDRESS_SPACE;
      if (isWhole) return this.#implicitBacking(process, access, virt, key);
      return new OnDemandBacking({
        process,
        address,
        length,
        virt,
        access,
        pageBytes: (access & ACCESS.hugetlb) !== 0 ? 2 ** 21 : PAGE_SIZE,
        ...(dma && { dma }),
        batched,
        forget: (first, end) => adapter?.forgetBlocks(key, first, end),
      });
    }
    const backing = new PinnedBacking({
      process,
      address,
      length,
      access,
      virt,
      mayBounce,
      ...(dma && { dma }),
      blockSizes: adapter?.blockSizes ?? PAGE_SIZE,
    });
    if ((access & ACCESS.flushPersistent) !== 0) {
      backing.release();
      throw badAccess(access, "the memory is not persistent");
    }
    return backing;
  }

  #implicitBacking(process: UserProcess, access: number, virt: number, own: number): RegionBacking {
    const { adapter, dma } = this;
    const clock = this.#clock;
    const { implicitPartBytes: partBytes = GIB, batched = true } = this.#options;
    if (virt !== 0 || !this.capabilities.implicitOnDemand || !adapter || !dma || !clock)
      throw badRegion(0, WHOLE_ADDRESS_SPACE, "this device has no regions over all of an address space");
    if ((access & ACCESS.hugetlb) !== 0) throw badAccess(access, "all of an address space is not in huge pages");
    return new ImplicitBacking({
      process,
      access,
      dma,
      clock,
      partBytes,
      spanBytes: USER_END,
      batched,
      enter: (part, start) => this.#enterPart(part, access, start, partBytes),
      leave: (key) => {
        adapter.removeRegion(key);
        this.#parts.giveBack(key);
        this.#regions.giveBack(key);
      },
      forgetPart: (key, first, end) => adapter.forgetBlocks(key, first, end),
      forget: (first, end) => adapter.forgetBlocks(own, first, end),
    });
  }

  #enterPart(part: OnDemandBacking, access: number, start: number, length: number): number {
    const key = this.#regions.take();
    if (key === undefined) throw noKeyLeft();
    this.#parts.put(key, part);
    const { list, ...rest } = part.list!;
    this.adapter!.putRegion({ ...rest, list: list as never, key, domain: 0, access, virt: start, length });
    return key;
  }

  /** Other memory under the key: made first, so that a failure leaves the old one. */
  #replace(
    region: MemoryRegion,
    domain: ProtectionDomain,
    access: number,
    request: NonNullable<RegionChange["translation"]>,
  ): MemoryRegion {
    if (region.kind !== "pinned") throw callUnsupported("only pinned regions can be given other memory");
    const { address, length, virt = address } = request;
    if (address % PAGE_SIZE !== virt % PAGE_SIZE) throw badRegion(address, length, "virt differs in the low 12 bits");
    const backing = this.#backingOf({ ...request, access }, virt, region.key);
    this.adapter?.removeRegion(region.key);
    region.backing.release();
    Object.assign(region, { domain, access, virt, length, backing });
    if (region.context) this.adapter?.putRegion(region.context);
    return region;
  }

  /** A range that keeps changing is tried again after a while; the peer is told to wait meanwhile. */
  #serve(fault: AdapterPageFault, tries: number): void {
    const { id, key, address, length, write } = fault;
    if (tries === FAULT_TRIES) this.counts.faults++;
    try {
      this.bring(key, address, length, write);
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      const isBusy = error.errno === "EBUSY" || error.errno === "EAGAIN";
      if (isBusy && tries > 1 && this.#clock) {
        this.#clock.after(FAULT_PAUSE_MS, () => this.#serve(fault, tries - 1));
        return;
      }
      this.counts.refused++;
      this.adapter!.resume(id, false);
      return;
    }
    this.adapter!.resume(id, true);
  }
}
