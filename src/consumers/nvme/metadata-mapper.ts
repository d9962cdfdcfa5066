/**
 * From the metadata of a request to the metadata pointer of its command, and back.
 *
 * Idea: one piece is a plain address, whose length both sides know. Several need an SGL, which some controllers take here: a small
 * block, whose first slot is what the command points at.
 * Promises: as those of the data (data-mapper.ts). Metadata has a range and a way to its memory of its own.
 * Specified by: NVM Express base specification 2.0, 4.2; behaviour of Linux 7.2 NVMe driver.
 */
import type { DmaAddr, PhysAddr } from "../../base/index.ts";
import { COMMAND, POINTERS, PRP_BYTES, put64, putSgl, SGL_BYTES, SGL_TYPE } from "../../layouts/nvme/index.ts";
import {
  attributesOfRoute,
  type BlockRequest,
  type BlockStatus,
  DmaIterator,
  type DmaOps,
  type QueueLimits,
  statusOfError,
  unmapRequest,
} from "../block/index.ts";
import type { CommandMapping } from "./command-mapping.ts";
import type { DescriptorPool } from "./descriptor-pool.ts";
import { type MapperCounters, type MapperOptions, RANGE_STATE_BYTES } from "./mapper-options.ts";
import { unmapDescriptors } from "./sgl-list.ts";

export class MetadataMapper {
  readonly #ops: DmaOps;
  readonly #limits: QueueLimits;
  readonly #options: MapperOptions;
  readonly #pool: DescriptorPool;
  readonly #counters: MapperCounters;
  readonly iterator: DmaIterator = new DmaIterator();

  /** @param pool of small blocks */
  constructor(
    ops: DmaOps,
    limits: QueueLimits,
    options: MapperOptions,
    pool: DescriptorPool,
    counters: MapperCounters,
  ) {
    this.#ops = ops;
    this.#limits = limits;
    this.#options = options;
    this.#pool = pool;
    this.#counters = counters;
  }

  /** Maps, after the data, whose form decides what is possible here. A request without metadata is "ok". */
  map(mapping: CommandMapping, request: BlockRequest, view: DataView, at: number, passthrough: boolean): BlockStatus {
    mapping.metadataForm = "none";
    mapping.metadata.range = undefined;
    mapping.metadata.peer = "none";
    if (request.integrityBytes === 0) return "ok";
    const usesSgl = (view.getUint8(at + COMMAND.flags) & POINTERS.mask) !== POINTERS.prp;
    const status =
      usesSgl && this.#options.metadataSgls && (request.integritySegments > 1 || passthrough)
        ? this.#writeSgl(mapping, request, view, at)
        : this.#mapPlain(mapping, request, view, at);
    if (status !== "ok") this.unmap(mapping);
    return status;
  }

  /** What {@link map} did. A second time does nothing. */
  unmap(mapping: CommandMapping): void {
    const { metadataForm, metadata, direction, metadataBlock } = mapping;
    mapping.metadataForm = "none";
    if (metadataForm === "none") return;
    if (!unmapRequest(this.#ops, metadata)) {
      if (metadataForm === "sgl")
        unmapDescriptors(this.#ops, metadataBlock!.view, 1, mapping.metadataEntries + 1, direction, metadata);
      else {
        const attributes = attributesOfRoute(metadata.peer);
        this.#ops.unmapPhys(mapping.metadataAddress as DmaAddr, mapping.metadataLength, direction, attributes);
      }
    }
    if (metadataBlock) this.#pool.give(metadataBlock);
    mapping.metadataBlock = undefined;
  }

  /** One address, with a length that both sides know. */
  #mapPlain(mapping: CommandMapping, request: BlockRequest, view: DataView, at: number): BlockStatus {
    const window = request.first!.integrity;
    let address: number;
    if (window.vecs!.provider !== undefined) {
      const status = this.#start(mapping, request);
      if (status !== "ok") return status;
      address = this.iterator.address;
    } else
      try {
        address = this.#ops.mapPhys(window.phys as PhysAddr, request.integrityBytes, mapping.direction);
      } catch (error) {
        this.iterator.cause = error;
        return statusOfError(error);
      }
    mapping.metadataForm = "single";
    mapping.metadataAddress = address;
    mapping.metadataLength = request.integrityBytes;
    this.#counters.metadataBytes += PRP_BYTES;
    put64(view, at + COMMAND.metadataPointer, address);
    return "ok";
  }

  /** Descriptors in a small block: slot 0 is what the command points at. */
  #writeSgl(mapping: CommandMapping, request: BlockRequest, view: DataView, at: number): BlockStatus {
    const status = this.#start(mapping, request);
    if (status !== "ok") return status;
    const iterator = this.iterator;
    mapping.metadataForm = "single";
    mapping.metadataAddress = iterator.address;
    mapping.metadataLength = iterator.length;
    const block = this.#pool.take();
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
    this.#counters.listBytes += (mapping.metadataEntries + 1) * SGL_BYTES;
    return iterator.status;
  }

  #start(mapping: CommandMapping, request: BlockRequest): BlockStatus {
    const iterator = this.iterator;
    const { first, integrityBytes: bytes, integrityGap: gap } = request;
    const { direction, metadata } = mapping;
    if (!iterator.start(this.#ops, first, "integrity", bytes, gap, this.#limits, direction, metadata))
      return iterator.failure;
    if (metadata.range) this.#counters.metadataBytes += RANGE_STATE_BYTES;
    return "ok";
  }
}
