/**
 * The DMA iterator: from a request to the addresses that its device uses, with no scatterlist in between.
 *
 * Idea: reserve one range of addresses for the whole request and link every piece of memory into it; the device then sees
 * one segment, and what has to be kept is one reference and one number. Where that cannot be (a gap, no translation, no
 * room), {@link DmaIterator.next} maps piece by piece, and the caller keeps what it must unmap. A peer's memory is
 * classified once, by the first piece: bus addresses need no mapping at all.
 * Promises: a failed start leaves nothing mapped by it. `start` may be false with status "ok": there is no data.
 * Specified by: behaviour of Linux 7.2 block layer. Unlike it, the whole linked length is always unlinked, a request that
 * needs no range never looks as if it had one, and a piece that can never be mapped is an error at once and not tried again.
 */
import { type Direction, type DmaAddr, PAGE_SIZE, type PhysAddr } from "../../base/index.ts";
import type { DmaAttributes } from "../../dma/index.ts";
import type { P2pMapType } from "../../p2p/index.ts";
import type { Bio } from "./bio.ts";
import type { DmaOps, RequestRange } from "./dma-ops.ts";
import { gapMask } from "./gap.ts";
import type { QueueLimits } from "./limits.ts";
import { PhysicalVectors } from "./physical-vectors.ts";
import { type BlockStatus, statusOfError } from "./status.ts";

/** What is kept of a mapped request: two words, and an object to use again. */
export interface MappedRequest {
  /** The range, if the whole request is one; its presence is what "coalesced" means. */
  range: RequestRange | undefined;
  /** A range that was given back, whose object serves again. */
  spare: RequestRange | undefined;
  /** How memory is reached, which the end of the mapping needs again. */
  peer: P2pMapType;
}

const MMIO: DmaAttributes = { mmio: true };

/** Attributes of memory that is reached so. */
export const attributesOfRoute = (peer: P2pMapType): DmaAttributes | undefined =>
  peer === "through-host-bridge" ? MMIO : undefined;

/**
 * Maps a request and goes over what the device is told, segment by segment: by one IOVA range where the pieces join,
 * each by itself where not.
 */
export class DmaIterator {
  /** Where the segment that {@link start} or {@link next} found begins for the device. */
  address: DmaAddr = 0 as DmaAddr;
  /** Bytes of that segment. */
  length = 0;
  /** How it goes: "ok", also at the end, until a map has failed. */
  status: BlockStatus = "ok";
  /** What the mapping call said, where it is one that failed; whoever has told it takes it out. */
  cause: unknown = undefined;
  #busOffset = 0;
  #ops: DmaOps | undefined = undefined;
  #direction: Direction = "from-device";
  #peer: P2pMapType = "none";
  readonly #vectors = new PhysicalVectors();
  readonly #ahead = new PhysicalVectors();

  /**
   * Maps what it can at once and finds the first segment. False with status "ok" if there is nothing to map, else with why not.
   *
   * `bytes` and `gap` are those of all that is walked. `mapped` is filled in for {@link unmapRequest}.
   * Cost: one reservation, one link a piece and one sync; or one one-shot mapping.
   */
  start(
    ops: DmaOps,
    first: Bio | undefined,
    what: "data" | "integrity",
    bytes: number,
    gap: number,
    limits: QueueLimits,
    direction: Direction,
    mapped: MappedRequest,
  ): boolean {
    this.status = "ok";
    mapped.range = undefined;
    mapped.peer = "none";
    this.#ops = ops;
    this.#direction = direction;
    const vectors = this.#vectors;
    vectors.start(first, limits, what);
    if (!vectors.next()) return false;
    this.#peer = "none";
    if (first![what].vecs!.provider !== undefined) {
      const route = ops.peerRoute(vectors.phys as PhysAddr);
      if (route.type === "not-supported") return this.#fail("invalid");
      this.#peer = route.type;
      this.#busOffset = route.busOffset;
    }
    mapped.peer = this.#peer;
    if (this.#peer === "bus-address") return this.#busRun();
    if (this.#joins(gap, first, what, limits)) {
      const range = ops.tryReserveIova(bytes, vectors.phys, mapped.spare);
      if (range) return this.#linkAll(range, mapped);
    }
    return this.#mapOne();
  }

  /** Finds the next run of a request that is not one range. False at the end, with status "ok", or if it could not be mapped. */
  next(): boolean {
    if (!this.#vectors.next()) return false;
    return this.#peer === "bus-address" ? this.#busRun() : this.#mapOne();
  }

  /** What a caller answers who needed a segment where {@link start} or {@link next} said false: there must have been one. */
  get failure(): BlockStatus {
    return this.status === "ok" ? "io-error" : this.status;
  }

  /** Does everything fit into one range without holes? */
  #joins(gap: number, first: Bio | undefined, what: "data" | "integrity", limits: QueueLimits): boolean {
    const { mergeBoundary } = this.#ops!;
    if (mergeBoundary < PAGE_SIZE) return (gapMask(gap) & mergeBoundary) === 0;
    // The gap tells places inside pages of 4 KiB only; larger granules need a look at every junction.
    const each = this.#ahead;
    each.start(first, limits, what);
    each.next();
    for (let end = each.phys + each.length; each.next(); end = each.phys + each.length)
      if (((end | each.phys) & mergeBoundary) !== 0) return false;
    return true;
  }

  #busRun(): boolean {
    this.address = (this.#vectors.phys + this.#busOffset) as DmaAddr;
    this.length = this.#vectors.length;
    return true;
  }

  #linkAll(range: RequestRange, mapped: MappedRequest): boolean {
    const vectors = this.#vectors;
    const attributes = attributesOfRoute(this.#peer);
    let at = 0;
    try {
      do {
        range.link(at, vectors.phys as PhysAddr, vectors.length, this.#direction, attributes);
        at += vectors.length;
      } while (vectors.next());
      range.sync(0, at);
    } catch (error) {
      range.destroy(); // everything linked so far, whatever has been described to the device
      return this.#fail(statusOfError(error), error);
    }
    mapped.range = range;
    this.address = range.address;
    this.length = at;
    return true;
  }

  #mapOne(): boolean {
    const { phys, length } = this.#vectors;
    try {
      this.address = this.#ops!.mapPhys(phys as PhysAddr, length, this.#direction, attributesOfRoute(this.#peer));
    } catch (error) {
      return this.#fail(statusOfError(error), error);
    }
    this.length = length;
    return true;
  }

  #fail(status: BlockStatus, cause?: unknown): false {
    this.status = status;
    this.cause = cause;
    return false;
  }
}

/**
 * Ends the mapping of a whole request. False if the caller must unmap each segment from its own records.
 *
 * Cannot fail. Only after the device has said that it is done.
 */
export function unmapRequest(ops: DmaOps, mapped: MappedRequest): boolean {
  const { range } = mapped;
  if (mapped.peer === "bus-address") return true;
  if (range) {
    mapped.range = undefined;
    range.destroy();
    mapped.spare = range;
    return true;
  }
  return !ops.needsUnmap;
}
