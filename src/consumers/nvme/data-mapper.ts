/**
 * From a request to the data pointer of its command, and back.
 *
 * Idea: the DMA iterator gives runs of addresses; here they become PRPs or SGL descriptors, written straight into the command and
 * the lists. One short segment takes a path of its own, without range or list. What must be unmapped is kept in the
 * {@link CommandMapping}, in host memory only where the device could change it.
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
  SGL,
  SGL_BYTES,
  SGL_TYPE,
} from "../../layouts/nvme/index.ts";
import {
  attributesOf,
  type BlockRequest,
  type BlockStatus,
  DmaIterator,
  directionOf,
  gapMask,
  type MappingDoor,
  type QueueLimits,
  statusOfError,
  unmapRequest,
} from "../block/index.ts";
import type { CommandMapping } from "./command-mapping.ts";
import type { DescriptorBlock, DescriptorPools } from "./descriptor-pool.ts";
import { RECORD_BYTES, type RecordPool } from "./segment-records.ts";

export interface MapperOptions {
  /** What the controller says of SGLs (SGLS bits 1:0 not 0), on this queue. */
  readonly sgls: boolean;
  /** The metadata pointer may point at a descriptor (SGLS bit 19). */
  readonly metadataSgls: boolean;
  /** Mean segment from which on SGLs are preferred to PRPs, bytes; 0 for never. */
  readonly sglThreshold: number;
  /** Descriptors are not believed when they are read back: addresses are kept in host memory, too. */
  readonly untrusted: boolean;
}

export const DEFAULT_SGL_THRESHOLD = 32_768;
/** Two words: the reference to the range, and how memory is reached. */
const RANGE_STATE_BYTES = 16;

/** What mapping did and needed. */
export class MapperCounters {
  requests = 0;
  /** Requests that were one segment, one range, or several runs. */
  singles = 0;
  ranges = 0;
  scattered = 0;
  /** Bytes of lists that the controller reads. */
  listBytes = 0;
  /** Bytes kept in host memory until the request ends. */
  metadataBytes = 0;
}

export class DataMapper {
  readonly counters: MapperCounters = new MapperCounters();
  readonly #door: MappingDoor;
  readonly #limits: QueueLimits;
  readonly #options: MapperOptions;
  readonly #pools: DescriptorPools;
  readonly #records: RecordPool;
  readonly #iterator = new DmaIterator();

  constructor(
    door: MappingDoor,
    limits: QueueLimits,
    options: MapperOptions,
    pools: DescriptorPools,
    records: RecordPool,
  ) {
    this.#door = door;
    this.#limits = limits;
    this.#options = options;
    this.#pools = pools;
    this.#records = records;
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
    mapping.direction = directionOf(request.operation);
    this.counters.requests++;
    const forced = this.#sglForced(request, passthrough);
    if (request.segments === 1 && request.first!.data.vecs!.provider === undefined) {
      const status = this.#mapSingle(mapping, request, view, at, forced);
      if (status !== undefined) return status;
    }
    const iterator = this.#iterator;
    const { bytes, gap, first } = request;
    if (!iterator.start(this.#door, first, "data", bytes, gap, this.#limits, mapping.direction, mapping.data))
      return iterator.status === "ok" ? "io-error" : iterator.status;
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
    mapping.metadataForm = "none";
    mapping.metadata.range = undefined;
    mapping.metadata.peer = "none";
    if (request.integrityBytes === 0) return "ok";
    const usesSgl = (view.getUint8(at + COMMAND.flags) & POINTERS.mask) !== POINTERS.prp;
    const status =
      usesSgl && this.#options.metadataSgls && (request.integritySegments > 1 || passthrough)
        ? this.#writeMetadataSgl(mapping, request, view, at)
        : this.#mapPlainMetadata(mapping, request, view, at);
    if (status !== "ok") this.unmapMetadata(mapping);
    return status;
  }

  /** Takes all memory of a command away from the device: after its completion, or when the device can do nothing any more. */
  unmap(mapping: CommandMapping): void {
    this.unmapMetadata(mapping);
    this.unmapData(mapping);
  }

  /** What {@link mapData} did. A second time does nothing. */
  unmapData(mapping: CommandMapping): void {
    const { form, data, direction } = mapping;
    mapping.form = "none";
    if (form === "none") return;
    const attributes = attributesOf(data.peer);
    if (form === "single") {
      this.#door.unmapPhys(mapping.address as DmaAddr, mapping.length, direction);
      return;
    }
    const { records } = mapping;
    if (!unmapRequest(this.#door, data)) {
      if (records)
        for (let i = 0; i < records.count; i++)
          this.#door.unmapPhys(records.addresses[i]! as DmaAddr, records.lengths[i]!, direction, attributes);
      else if (form === "sgl") this.#unmapDescriptors(mapping);
    }
    if (records) {
      mapping.records = undefined;
      this.#records.give(records);
    }
    for (let i = 0; i < mapping.blocks.length; i++) this.#pools.give(mapping.blocks[i]!);
    mapping.blocks.length = 0;
  }

  /** What {@link mapMetadata} did. A second time does nothing. */
  unmapMetadata(mapping: CommandMapping): void {
    const { metadataForm, metadata, direction, metadataBlock } = mapping;
    mapping.metadataForm = "none";
    if (metadataForm === "none") return;
    if (!unmapRequest(this.#door, metadata)) {
      const attributes = attributesOf(metadata.peer);
      if (metadataForm === "single")
        this.#door.unmapPhys(mapping.metadataAddress as DmaAddr, mapping.metadataLength, direction, attributes);
      else
        for (let i = 0; i < mapping.metadataEntries; i++) {
          const { view } = metadataBlock!;
          const at = (i + 1) * SGL_BYTES;
          this.#door.unmapPhys(
            get64(view, at) as DmaAddr,
            view.getUint32(at + SGL.length, true),
            direction,
            attributes,
          );
        }
    }
    if (metadataBlock) this.#pools.give(metadataBlock);
    mapping.metadataBlock = undefined;
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
    const window = request.first!.data;
    const phys = window.vecs!.phys[window.index]! + window.offset;
    const { bytes } = request;
    const offset = phys % CONTROLLER_PAGE;
    const fitsPrps = offset + bytes <= 2 * CONTROLLER_PAGE;
    if (!fitsPrps && !this.#options.sgls) return undefined;
    let address: number;
    try {
      address = this.#door.mapPhys(phys as PhysAddr, bytes, mapping.direction);
    } catch (error) {
      statusOfError(error);
      return "resource";
    }
    mapping.form = "single";
    mapping.address = address;
    mapping.length = bytes;
    this.counters.singles++;
    this.counters.metadataBytes += PRP_BYTES;
    if (forced || !fitsPrps) {
      view.setUint8(at + COMMAND.flags, POINTERS.sgl);
      putSgl(view, at + COMMAND.dataPointer, address, bytes, SGL_TYPE.dataBlock);
      return "ok";
    }
    const first = CONTROLLER_PAGE - offset;
    view.setUint8(at + COMMAND.flags, POINTERS.prp);
    put64(view, at + COMMAND.dataPointer, address);
    put64(view, at + COMMAND.dataPointer + PRP_BYTES, bytes > first ? address + first : 0);
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
      if (left === 0) break;
      address += chunk;
      if (inRun === 0) {
        if (!iterator.next()) return iterator.status === "ok" ? "io-error" : iterator.status;
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
    return iterator.status;
  }

  #unmapDescriptors(mapping: CommandMapping): void {
    const { blocks, sglEntries } = mapping;
    if (blocks.length === 0) {
      this.#unmapRun(mapping, mapping.address, mapping.length);
      return;
    }
    const { view } = blocks[0]!;
    for (let i = 0; i < sglEntries; i++)
      this.#unmapRun(mapping, get64(view, i * SGL_BYTES), view.getUint32(i * SGL_BYTES + SGL.length, true));
  }

  #unmapRun(mapping: CommandMapping, address: number, length: number): void {
    this.#door.unmapPhys(address as DmaAddr, length, mapping.direction, attributesOf(mapping.data.peer));
  }

  /** Keeps the run that the iterator is at, if it has to be unmapped by itself. */
  #record(mapping: CommandMapping): void {
    if (mapping.data.range || mapping.data.peer === "bus-address" || !this.#door.needsUnmap) return;
    mapping.records ??= this.#records.take();
    mapping.records.add(this.#iterator.address, this.#iterator.length);
    this.counters.metadataBytes += RECORD_BYTES;
  }

  #takeBlock(mapping: CommandMapping, bytes: number): DescriptorBlock | undefined {
    const block = this.#pools.take(Math.min(bytes, CONTROLLER_PAGE));
    if (block) mapping.blocks.push(block);
    return block;
  }

  /** The metadata as one address with a length that both sides know. */
  #mapPlainMetadata(mapping: CommandMapping, request: BlockRequest, view: DataView, at: number): BlockStatus {
    const window = request.first!.integrity;
    let address: number;
    if (window.vecs!.provider !== undefined) {
      const status = this.#startMetadata(mapping, request);
      if (status !== "ok") return status;
      address = this.#iterator.address;
    } else
      try {
        const phys = window.vecs!.phys[window.index]! + window.offset;
        address = this.#door.mapPhys(phys as PhysAddr, request.integrityBytes, mapping.direction);
      } catch (error) {
        statusOfError(error);
        return "resource";
      }
    mapping.metadataForm = "single";
    mapping.metadataAddress = address;
    mapping.metadataLength = request.integrityBytes;
    this.counters.metadataBytes += PRP_BYTES;
    put64(view, at + COMMAND.metadataPointer, address);
    return "ok";
  }

  /** The metadata as descriptors in a small block: slot 0 is what the command points at. */
  #writeMetadataSgl(mapping: CommandMapping, request: BlockRequest, view: DataView, at: number): BlockStatus {
    const status = this.#startMetadata(mapping, request);
    if (status !== "ok") return status;
    const iterator = this.#iterator;
    mapping.metadataForm = "single";
    mapping.metadataAddress = iterator.address;
    mapping.metadataLength = iterator.length;
    const block = this.#pools.small.take();
    if (!block) return "resource";
    mapping.metadataForm = "sgl";
    mapping.metadataEntries = 0;
    mapping.metadataBlock = block;
    view.setUint8(at + COMMAND.flags, POINTERS.sglMetadata);
    put64(view, at + COMMAND.metadataPointer, block.address);
    do {
      mapping.metadataEntries++;
      putSgl(block.view, mapping.metadataEntries * SGL_BYTES, iterator.address, iterator.length, SGL_TYPE.dataBlock);
    } while (!mapping.metadata.range && iterator.next());
    if (mapping.metadataEntries === 1)
      putSgl(block.view, 0, mapping.metadataAddress, mapping.metadataLength, SGL_TYPE.dataBlock);
    else putSgl(block.view, 0, block.address + SGL_BYTES, mapping.metadataEntries * SGL_BYTES, SGL_TYPE.lastSegment);
    this.counters.listBytes += (mapping.metadataEntries + 1) * SGL_BYTES;
    return iterator.status;
  }

  #startMetadata(mapping: CommandMapping, request: BlockRequest): BlockStatus {
    const iterator = this.#iterator;
    const { first, integrityBytes, integrityGap } = request;
    const { direction, metadata } = mapping;
    if (
      !iterator.start(this.#door, first, "integrity", integrityBytes, integrityGap, this.#limits, direction, metadata)
    )
      return iterator.status === "ok" ? "io-error" : iterator.status;
    if (metadata.range) this.counters.metadataBytes += RANGE_STATE_BYTES;
    return "ok";
  }
}
