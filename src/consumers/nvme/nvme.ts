/**
 * NVMe: a driver over DMA mapping in two steps. `const disk = await Nvme.open(device, dma, { clock })`.
 *
 * Idea: the parts are put together here: the controller (controller.ts) and its queues, the mapper (data-mapper.ts) that makes data
 * pointers of requests, the dispatcher that joins them, and a namespace for each disk. It knows nothing but the platform's
 * interfaces, so the same driver runs on a simulated device and on a real one.
 * Promises: after `close`, nothing is mapped and no memory is held, whatever happened before.
 * Specified by: NVM Express base specification 2.0; behaviour of Linux 7.2 NVMe driver.
 */
import { MiB } from "../../base/index.ts";
import type { Dma, PhysVec } from "../../dma/index.ts";
import {
  type ControllerIdentity,
  decodeNamespace,
  decodeNamespaceList,
  IDENTIFY,
  SGL_SUPPORT,
} from "../../layouts/nvme/index.ts";
import type { PciBar, PciDevice } from "../../platform/index.ts";
import { DEFAULT_LIMITS, type DmaOps, type QueueLimits, requestLimit, TwoStepOps } from "../block/index.ts";
import type { Cmb } from "./cmb.ts";
import { Controller } from "./controller.ts";
import { DataMapper } from "./data-mapper.ts";
import { DescriptorPool, DescriptorPools, LARGE_BLOCK, SMALL_BLOCK } from "./descriptor-pool.ts";
import { Dispatcher } from "./dispatcher.ts";
import { badNamespace, closed } from "./errors.ts";
import { DEFAULT_SGL_THRESHOLD, type MapperCounters, type MapperOptions } from "./mapper-options.ts";
import { NvmeNamespace, type TransferOptions } from "./namespace.ts";
import { checkOptions, type NvmeOptions, type NvmeWarnings } from "./options.ts";
import { lend, type PeerMemory } from "./peer-memory.ts";
import { MAX_SEGMENTS, RecordPool } from "./segment-records.ts";

/** The longest request of the driver itself. */
const MOST_BYTES = 8 * MiB;
/** Metadata vectors that fit a small block beside the descriptor that the command points at. */
const MOST_METADATA_SEGMENTS = 15;
const CONTROLLER_PAGE_MASK = 4095;

/**
 * A driver for one NVMe controller: {@link Nvme.open} brings it up, reads and writes go to its namespaces, {@link
 * Nvme.close} lets it go. Requests that a reset interrupts are sent again. NVM Express base specification 2.0.
 */
export class Nvme {
  /** The PCI function that it drives. */
  readonly device: PciDevice;
  /** What the controller says of itself (Identify Controller). */
  readonly identity: ControllerIdentity;
  /** In order of their ids. */
  readonly namespaces: readonly NvmeNamespace[] = [];
  readonly #controller: Controller;
  readonly #dma: Dma;
  readonly #ops: DmaOps;
  readonly #settings: MapperOptions;
  readonly #mapper: DataMapper;
  readonly #pools: DescriptorPools;
  readonly #records: RecordPool;
  readonly #dispatcher: Dispatcher;
  #closing: Promise<void> | undefined;

  private constructor(controller: Controller, dma: Dma, options: NvmeOptions) {
    this.#controller = controller;
    this.#dma = dma;
    this.device = controller.device;
    this.identity = controller.identity;
    this.#ops = options.ops ?? new TwoStepOps(dma);
    const { descriptorLimit } = options;
    const share = (length: number) => controller.share(length);
    this.#pools = new DescriptorPools(
      new DescriptorPool(SMALL_BLOCK, share, descriptorLimit),
      new DescriptorPool(LARGE_BLOCK, share, descriptorLimit),
    );
    this.#records = new RecordPool();
    const { sgls } = controller.identity;
    const { untrusted } = dma.device;
    const hasSgls = (sgls & SGL_SUPPORT.mask) !== 0;
    this.#settings = {
      sgls: hasSgls,
      // Descriptors of metadata are the only record of what to unmap, and an untrusted device could change them.
      metadataSgls: hasSgls && (sgls & SGL_SUPPORT.metadata) !== 0 && !untrusted,
      sglThreshold: options.sglThreshold ?? DEFAULT_SGL_THRESHOLD,
      untrusted,
    };
    // Segment limits are the same for all namespaces: the mapper needs no others.
    this.#mapper = new DataMapper(this.#ops, DEFAULT_LIMITS, this.#settings, this.#pools, this.#records);
    this.#dispatcher = new Dispatcher(controller, this.#mapper, options.retries ?? 5);
  }

  /**
   * Brings a controller up and finds its namespaces.
   *
   * @throws DmaError (rejects) ERR_DMA_NVME_OPTION (EINVAL), ERR_DMA_NVME_ABSENT, ERR_DMA_NVME_NOT_READY, ERR_DMA_NVME_NAMESPACE (ENODEV), ERR_DMA_NVME_STATUS
   * (EIO), or for lack of memory; nothing is held then
   */
  static async open(device: PciDevice, dma: Dma, options: NvmeOptions): Promise<Nvme> {
    checkOptions(options);
    // A bounced buffer must keep its place in its page, or the PRPs would be others.
    dma.device.minAlignMask = Math.max(dma.device.minAlignMask, CONTROLLER_PAGE_MASK);
    const controller = await Controller.open(device, dma, options);
    const nvme = new Nvme(controller, dma, options);
    try {
      await nvme.#findNamespaces(options);
    } catch (error) {
      await nvme.close();
      throw error;
    }
    return nvme;
  }

  async #findNamespaces(options: NvmeOptions): Promise<void> {
    const controller = this.#controller;
    const dma = this.#dma;
    const ids = decodeNamespaceList(await controller.identify(IDENTIFY.activeNamespaces, 0));
    const host = {
      dispatcher: this.#dispatcher,
      ops: this.#ops,
      memory: this.device.memory,
      optionalCommands: this.identity.optionalCommands,
      checkOpen: () => {
        if (this.#closing || controller.state === "dead") throw closed(this.device.name);
      },
    };
    for (const id of ids) {
      const identity = decodeNamespace(await controller.identify(IDENTIFY.namespace, id));
      const format = identity.formats[identity.format];
      if (!format)
        throw badNamespace(id, `it says that it has format ${identity.format} of ${identity.formats.length}`);
      if (format.metadataBytes > 0 && identity.extendedBlocks)
        throw badNamespace(id, "its metadata lie between its blocks: this driver needs them in a buffer of their own");
      const limits = this.#limits(dma, format.blockBytes, options);
      (this.namespaces as NvmeNamespace[]).push(new NvmeNamespace(id, identity, limits, host));
    }
  }

  #limits(dma: Dma, blockBytes: number, options: NvmeOptions): QueueLimits {
    const { sgls, metadataSgls } = this.#settings;
    const deviceBytes = Math.min(MOST_BYTES, this.#controller.maxTransferBytes);
    return {
      ...DEFAULT_LIMITS,
      blockBytes,
      maxBytes: requestLimit(deviceBytes, dma, blockBytes, options.largeRequests),
      maxSegments: MAX_SEGMENTS,
      virtualBoundaryMask: sgls ? 0 : CONTROLLER_PAGE_MASK,
      maxIntegritySegments: metadataSgls ? MOST_METADATA_SEGMENTS : 1,
      peerMemory: dma.device.machine.peers !== undefined,
    };
  }

  /** The first namespace: what most controllers have one of. */
  get disk(): NvmeNamespace {
    const [first] = this.namespaces;
    if (!first) throw badNamespace(1, "the controller has none");
    return first;
  }

  /** @throws DmaError ERR_DMA_NVME_NAMESPACE (ENODEV) */
  namespace(id: number): NvmeNamespace {
    const found = this.namespaces.find((each) => each.id === id);
    if (!found) throw badNamespace(id, "the controller does not list it");
    return found;
  }

  /** {@link NvmeNamespace.read} of the first namespace. */
  read(firstBlock: number, buffers: readonly PhysVec[], options?: TransferOptions): Promise<void> {
    return this.disk.read(firstBlock, buffers, options);
  }

  /** {@link NvmeNamespace.write} of the first namespace. */
  write(firstBlock: number, buffers: readonly PhysVec[], options?: TransferOptions): Promise<void> {
    return this.disk.write(firstBlock, buffers, options);
  }

  /** {@link NvmeNamespace.flush} of the first namespace. */
  flush(): Promise<void> {
    return this.disk.flush();
  }

  /** The controller memory buffer, if there is one. */
  get cmb(): Cmb | undefined {
    return this.#controller.cmb;
  }

  /**
   * Lends the controller memory buffer to other devices, as far as queues do not lie in it. `bar` is where the host has put its
   * BAR. `undefined` if there is none, or it cannot hold data. Dispose of it before {@link close}.
   *
   * @throws DmaError ERR_DMA_P2P_BAR (EINVAL), ERR_DMA_P2P_OVERLAP (EEXIST)
   */
  lendMemory(bar: PciBar): PeerMemory | undefined {
    const { cmb, cmbTaken } = this.#controller;
    const { node, machine } = this.#dma.device;
    if (!cmb || !node || !machine.peers) return undefined;
    return lend(cmb, cmbTaken, bar, node, machine.peers);
  }

  /** What happened that should not have. */
  get warnings(): NvmeWarnings {
    return this.#controller.warnings;
  }

  /** What mapping did and needed. */
  get counters(): MapperCounters {
    return this.#mapper.counters;
  }

  /** Of the controller: `dead` after it was closed, removed, or could not be reset. */
  get state(): Controller["state"] {
    return this.#controller.state;
  }

  /** What is in use at this moment: all 0 when nothing is going on. */
  get inUse(): {
    /** Commands with the controller. */
    readonly commands: number;
    /** Descriptor blocks, small and large. */
    readonly descriptors: number;
    /** Segment records. */
    readonly records: number;
  } {
    return { commands: this.#controller.inFlight, descriptors: this.#pools.inUse, records: this.#records.inUse };
  }

  /**
   * Stops and starts the controller. Commands in flight are sent again afterwards.
   *
   * @throws DmaError (rejects) ERR_DMA_NVME_CLOSED (ENODEV) if it does not come back
   */
  reset(): Promise<void> {
    return this.#controller.reset();
  }

  /** Waits for what is under way, shuts the controller down and gives everything back. Cannot fail. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#dispatcher.idle();
    await this.#controller.close();
    this.#pools.destroy();
  }
}
