/**
 * From a request to the data pointer of its command, and back.
 *
 * Idea: the DMA iterator gives segments; here they become PRPs or SGL descriptors, written straight into the command and
 * the lists. One short segment takes a path of its own, without range or list. What must be unmapped is kept in the {@link
 * CommandMapping}, in host memory only where the device could change it.
 * Promises: a failure leaves nothing mapped and no block in use, and says whether a later try can succeed. Unmapping cannot fail;
 * metadata goes first, and DMA mappings before descriptors.
 * Specified by: NVM Express base specification 2.0, 4.1; behaviour of Linux 7.2 NVMe driver. Unlike it, a request whose list could
 * not be built is unlinked in its whole length.
 */
import type { DmaAddr, PhysAddr } from "../../base/index.ts";
import {
  COMMAND,
  CONTROLLER_PAGE,
  get64,
  POINTERS,
  PRP_BYTES,
  PRPS_PER_PAGE,
  put64,
  putSgl,
  SGL_BYTES,
  SGL_TYPE,
} from "../../layouts/nvme/index.ts";
import {
  attributesOfRoute,
  type BlockRequest,
  type BlockStatus,
  DmaIterator,
  type DmaOps,
  directionOfOperation,
  gapMask,
  type QueueLimits,
  statusOfError,
  unmapRequest,
} from "../block/index.ts";
import type { CommandMapping } from "./command-mapping.ts";
import type { DescriptorBlock, DescriptorPools } from "./descriptor-pool.ts";
import { MapperCounters, type MapperOptions, RANGE_STATE_BYTES } from "./mapper-options.ts";
import { MetadataMapper } from "./metadata-mapper.ts";
import { RECORD_BYTES, type RecordPool } from "./segment-records.ts";
import { unmapDescriptors } from "./sgl-list.ts";

/** Maps a command's data, and writes its data pointer: PRP or SGL, whichever is right for it. */
export class DataMapper {
  /** What it did so far. */
  readonly counters: MapperCounters = new MapperCounters();
  readonly #ops: DmaOps;
  readonly #limits: QueueLimits;
  readonly #options: MapperOptions;
  readonly #pools: DescriptorPools;
  readonly #records: RecordPool;
  readonly #metadata: MetadataMapper;
  readonly #iterator = new DmaIterator();

  /** Takes descriptors and records from the pools as they are needed, and gives them back. */
  constructor(ops: DmaOps, limits: QueueLimits, options: MapperOptions, pools: DescriptorPools, records: RecordPool) {
    this.#ops = ops;
    this.#limits = limits;
    this.#options = options;
    this.#pools = pools;
    this.#records = records;
    this.#metadata = new MetadataMapper(ops, limits, options, pools.small, this.counters);
  }

  /** Why the last request that could not be mapped could not be, as the mapping call said it; once. */
  takeCause(): unknown {
    const cause = this.#iterator.cause ?? this.#metadata.iterator.cause;
    this.#iterator.cause = undefined;
    this.#metadata.iterator.cause = undefined;
    return cause;
  }

  /**
   * Maps the data of `request` and writes the data pointer of the command at `at` of `view`. `passthrough`: the command is a
   * user's own, and its memory must not be described by PRPs.
   */
  mapData(
    mapping: CommandMapping,
    request: BlockRequest,
    view: DataView,
    at: number,
    passthrough = false,
  ): BlockStatus {
    mapping.form = "none";
    mapping.data.range = undefined;
    mapping.data.peer = "none";
    mapping.bytes = request.bytes;
    mapping.sglEntries = 0;
    mapping.direction = directionOfOperation(request.operation);
    this.counters.requests++;
    const forced = this.#sglForced(request, passthrough);
    if (request.segments === 1 && request.first!.data.vecs!.provider === undefined) {
      const status = this.#mapSingle(mapping, request, view, at, forced);
      if (status !== undefined) return status;
    }
    const iterator = this.#iterator;
    const { bytes, gap, first } = request;
    if (!iterator.start(this.#ops, first, "data", bytes, gap, this.#limits, mapping.direction, mapping.data))
      return iterator.failure;
    const { counters } = this;
    if (mapping.data.range) {
      counters.ranges++;
      counters.metadataBytes += RANGE_STATE_BYTES;
    } else counters.scattered++;
    const status =
      forced || this.#sglPreferred(mapping, request)
        ? this.#writeSgl(mapping, request, view, at)
        : this.#writePrps(mapping, view, at);
    if (status !== "ok") this.unmapData(mapping);
    return status;
  }

  /** Maps the metadata of `request`, after its data, and writes the metadata pointer. */
  mapMetadata(
    mapping: CommandMapping,
    request: BlockRequest,
    view: DataView,
    at: number,
    passthrough = false,
  ): BlockStatus {
    return this.#metadata.map(mapping, request, view, at, passthrough);
  }

  /** Takes all memory of a command away from the device: after its completion, or when the device can do nothing any more. */
  unmap(mapping: CommandMapping): void {
    this.#metadata.unmap(mapping);
    this.unmapData(mapping);
  }

  /** What {@link mapData} did. A second time does nothing. */
  unmapData(mapping: CommandMapping): void {
    const { form, data, direction } = mapping;
    mapping.form = "none";
    if (form === "none") return;
    if (form === "single") {
      this.#ops.unmapPhys(mapping.address as DmaAddr, mapping.length, direction);
      return;
    }
    const { records } = mapping;
    if (!unmapRequest(this.#ops, data)) {
      const attributes = attributesOfRoute(data.peer);
      if (records)
        for (let i = 0; i < records.count; i++)
          this.#ops.unmapPhys(records.addresses[i]! as DmaAddr, records.lengths[i]!, direction, attributes);
      else if (form === "sgl" && mapping.blockCount > 0)
        unmapDescriptors(this.#ops, mapping.blocks[0]!.view, 0, mapping.sglEntries, direction, data);
      else if (form === "sgl") this.#ops.unmapPhys(mapping.address as DmaAddr, mapping.length, direction, attributes);
    }
    if (records) {
      mapping.records = undefined;
      this.#records.give(records);
    }
    for (let i = 0; i < mapping.blockCount; i++) this.#pools.give(mapping.blocks[i]!);
    mapping.blockCount = 0;
  }

  #sglForced(request: BlockRequest, passthrough: boolean): boolean {
    if (!this.#options.sgls) return false;
    return (gapMask(request.gap) & (CONTROLLER_PAGE - 1)) !== 0 || passthrough || request.integritySegments > 1;
  }

  #sglPreferred(mapping: CommandMapping, request: BlockRequest): boolean {
    const { sgls, sglThreshold } = this.#options;
    if (!sgls || sglThreshold === 0) return false;
    return Math.ceil(request.bytes / (mapping.data.range ? 1 : request.segments)) >= sglThreshold;
  }

  /** One segment, without iterator. `undefined` if it needs a list. */
  #mapSingle(
    mapping: CommandMapping,
    request: BlockRequest,
    view: DataView,
    at: number,
    forced: boolean,
  ): BlockStatus | undefined {
    const { phys } = request.first!.data;
    const { bytes } = request;
    const offset = phys % CONTROLLER_PAGE;
    const fitsPrps = offset + bytes <= 2 * CONTROLLER_PAGE;
    if (!fitsPrps && !this.#options.sgls) return undefined;
    let address: number;
    try {
      address = this.#ops.mapPhys(phys as PhysAddr, bytes, mapping.direction);
    } catch (error) {
      this.#iterator.cause = error;
      return statusOfError(error);
    }
    mapping.form = "single";
    mapping.address = address;
    mapping.length = bytes;
    this.counters.singles++;
    this.counters.metadataBytes += PRP_BYTES;
    if (forced || !fitsPrps) {
      view.setUint8(at + COMMAND.flags, POINTERS.sgl);
      putSgl(view, at + COMMAND.dataPointer, address, bytes, SGL_TYPE.dataBlock);
      this.counters.sglDescriptors++;
      return "ok";
    }
    const first = CONTROLLER_PAGE - offset;
    view.setUint8(at + COMMAND.flags, POINTERS.prp);
    put64(view, at + COMMAND.dataPointer, address);
    put64(view, at + COMMAND.dataPointer + PRP_BYTES, bytes > first ? address + first : 0);
    this.counters.prpEntries += bytes > first ? 2 : 1;
    return "ok";
  }

  #writePrps(mapping: CommandMapping, view: DataView, at: number): BlockStatus {
    mapping.form = "prp";
    view.setUint8(at + COMMAND.flags, POINTERS.prp);
    const iterator = this.#iterator;
    this.#record(mapping);
    let address: number = iterator.address;
    let inRun = iterator.length;
    let left = mapping.bytes;
    let chunk = Math.min(left, CONTROLLER_PAGE - (address % CONTROLLER_PAGE));
    put64(view, at + COMMAND.dataPointer, address);
    put64(view, at + COMMAND.dataPointer + PRP_BYTES, 0);
    let block: DescriptorBlock | undefined;
    let slot = 0;
    for (;;) {
      if (inRun < chunk) return "io-error"; // the request has a gap that PRPs cannot express
      inRun -= chunk;
      left -= chunk;
      this.counters.prpEntries++;
      if (left === 0) break;
      address += chunk;
      if (inRun === 0) {
        if (!iterator.next()) return iterator.failure;
        this.#record(mapping);
        address = iterator.address;
        inRun = iterator.length;
        if (address % CONTROLLER_PAGE !== 0) return "io-error";
      }
      chunk = left < CONTROLLER_PAGE ? left : CONTROLLER_PAGE;
      if (!block) {
        if (left <= CONTROLLER_PAGE) {
          put64(view, at + COMMAND.dataPointer + PRP_BYTES, address);
          continue;
        }
        block = this.#takeBlock(mapping, Math.ceil(left / CONTROLLER_PAGE) * PRP_BYTES);
        if (!block) return "resource";
        put64(view, at + COMMAND.dataPointer + PRP_BYTES, block.address);
      } else if (slot === PRPS_PER_PAGE) {
        const next = this.#takeBlock(mapping, CONTROLLER_PAGE);
        if (!next) return "resource";
        const last = (PRPS_PER_PAGE - 1) * PRP_BYTES;
        put64(next.view, 0, get64(block.view, last));
        put64(block.view, last, next.address);
        block = next;
        slot = 1;
        this.counters.listBytes += PRP_BYTES;
      }
      put64(block.view, slot++ * PRP_BYTES, address);
      this.counters.listBytes += PRP_BYTES;
    }
    return "ok";
  }

  #writeSgl(mapping: CommandMapping, request: BlockRequest, view: DataView, at: number): BlockStatus {
    mapping.form = "sgl";
    view.setUint8(at + COMMAND.flags, POINTERS.sgl);
    const iterator = this.#iterator;
    const pointer = at + COMMAND.dataPointer;
    if (this.#options.untrusted) this.#record(mapping);
    mapping.address = iterator.address;
    mapping.length = iterator.length;
    if (request.segments === 1 || mapping.data.range) {
      putSgl(view, pointer, iterator.address, iterator.length, SGL_TYPE.dataBlock);
      this.counters.sglDescriptors++;
      return "ok";
    }
    const block = this.#takeBlock(mapping, request.segments * SGL_BYTES);
    if (!block) return "resource";
    for (;;) {
      if (mapping.sglEntries === request.segments) return "io-error"; // more runs than were counted: a defect of the request
      putSgl(block.view, mapping.sglEntries++ * SGL_BYTES, iterator.address, iterator.length, SGL_TYPE.dataBlock);
      this.counters.listBytes += SGL_BYTES;
      if (!iterator.next()) break;
      if (this.#options.untrusted) this.#record(mapping);
    }
    putSgl(view, pointer, block.address, mapping.sglEntries * SGL_BYTES, SGL_TYPE.lastSegment);
    this.counters.sglDescriptors += mapping.sglEntries + 1;
    return iterator.status;
  }

  /** Keeps the segment that the iterator is at, if it has to be unmapped by itself. */
  #record(mapping: CommandMapping): void {
    if (mapping.data.range || mapping.data.peer === "bus-address" || !this.#ops.needsUnmap) return;
    mapping.records ??= this.#records.take();
    mapping.records.add(this.#iterator.address, this.#iterator.length);
    this.counters.metadataBytes += RECORD_BYTES;
  }

  #takeBlock(mapping: CommandMapping, bytes: number): DescriptorBlock | undefined {
    const block = this.#pools.take(Math.min(bytes, CONTROLLER_PAGE));
    if (!block) return undefined;
    mapping.blocks[mapping.blockCount++] = block;
    this.counters.lists++;
    return block;
  }
}
