/**
 * Storage for a device, while it moves chunk by chunk: every byte of the buffer keeps its place in one reserved range.
 *
 * Idea: the range is as long as the buffer, and a chunk is linked at its own offset. When a chunk moves, its part is unlinked and
 * linked anew, whatever kind of memory it came from and goes to; nothing else is touched, and no address changes unless a peer's
 * bus addresses come or go. What lies where is kept by chunks ({@link ChunkIndex}), never by pages.
 * Promises: from {@link InPlaceMapping.take} on the device reaches nothing of the part; a failed {@link InPlaceMapping.put} leaves it unlinked, and
 * everything else as it was. Only behind an IOMMU: without one an address is where the memory is. Not in Linux, where a move ends
 * every mapping.
 */
import type { Direction } from "../../base/index.ts";
import { ChunkIndex, type Dma, type DmaVec, type IovaRange } from "../../dma/index.ts";
import type { Importer } from "./importer.ts";
import { busAddressOf } from "./map-storage.ts";
import { appendRange, type BufferMapping, noBytes } from "./mapping.ts";
import { attributesOf, type RouteKind, routeOf } from "./routes.ts";
import type { StorageVec } from "./storage.ts";

/** A mapping whose chunks come and go. */
export class InPlaceMapping implements BufferMapping {
  readonly direction: Direction;
  readonly tableEntries = 0;
  readonly #dma: Dma;
  readonly #importer: string;
  readonly #range: IovaRange;
  /** Where each chunk is for the device (`phys` is that address), and how it is reached. */
  readonly #chunks = new ChunkIndex<RouteKind>();
  /** Plain devices hear of several unlinks at once. */
  readonly #lazy: boolean;

  private constructor({ dma, name }: Importer, range: IovaRange, direction: Direction) {
    this.#dma = dma;
    this.#importer = name;
    this.#range = range;
    this.direction = direction;
    this.#lazy = dma.device.coherent && !dma.device.untrusted;
  }

  /**
   * Maps `vecs`, a buffer of `lengthBytes`; undefined where there is no IOMMU, or no room in its address space.
   *
   * @throws DmaError ERR_DMA_BUF_UNREACHABLE (EINVAL); as `IovaRange.link`; nothing is mapped then
   */
  static tryMap(
    importer: Importer,
    vecs: readonly StorageVec[],
    lengthBytes: number,
    direction: Direction,
  ): InPlaceMapping | undefined {
    const range = importer.dma.tryReserveIova({ length: lengthBytes });
    if (range === undefined) return undefined;
    const mapping = new InPlaceMapping(importer, range, direction);
    try {
      mapping.put(0, vecs);
    } catch (error) {
      mapping.release(true);
      throw error;
    }
    return mapping;
  }

  /** Chunks there are: what the mapping costs in memory. */
  get chunks(): number {
    return this.#chunks.count;
  }

  get bytesBy(): Readonly<Record<RouteKind, number>> {
    const bytes = noBytes();
    for (const { kind, length } of this.#chunks) bytes[kind] += length;
    return bytes;
  }

  /** Chunks whose addresses go on from one another are one, though their memory is of several kinds. */
  get ranges(): readonly DmaVec[] {
    const ranges: DmaVec[] = [];
    let start = 0;
    let length = 0;
    const close = (): void => {
      appendRange(ranges, start, length, false);
      length = 0;
    };
    for (const chunk of this.#chunks) {
      if (chunk.kind === "bus") {
        close();
        appendRange(ranges, chunk.phys, chunk.length, true);
        continue;
      }
      if (start + length !== chunk.phys) close();
      if (length === 0) start = chunk.phys;
      length += chunk.length;
    }
    close();
    return ranges;
  }

  /** Takes [offset, + length) from the device, now, with one invalidation. What is not there is left out. */
  take(offset: number, length: number): void {
    const { direction } = this;
    for (const { offset: at, length: part, kind } of this.#chunks.within(offset, length)) {
      if (kind === "bus") continue;
      this.#range.unlink(at, part, { direction, attributes: attributesOf(kind), lazy: this.#lazy });
    }
    this.#range.flush();
    this.#chunks.clear(offset, length);
  }

  /** Links `vecs` from `offset` on, where nothing is linked: one sync. @throws DmaError as {@link tryMap}; none of them is linked then */
  put(offset: number, vecs: readonly StorageVec[]): void {
    let at = offset;
    let isTranslated = false;
    try {
      for (const vec of vecs) {
        const route = routeOf(this.#dma, this.#importer, vec);
        this.#chunks.set(at, vec.length, this.#place(at, vec, route), route);
        isTranslated ||= route !== "bus";
        at += vec.length;
      }
      if (isTranslated) this.#range.sync(offset, at - offset);
    } catch (error) {
      if (at > offset) this.take(offset, at - offset);
      throw error;
    }
  }

  syncForCpu(): void {
    this.#range.syncForCpu();
  }

  syncForDevice(): void {
    this.#range.syncForDevice();
  }

  release(atOnce: boolean): void {
    if (atOnce) this.#range.abort();
    else this.#range.destroy();
  }

  #place(offset: number, vec: StorageVec, route: RouteKind): number {
    if (route === "bus") return busAddressOf(vec);
    this.#range.link(offset, vec.phys, vec.length, this.direction, attributesOf(route));
    return this.#range.address + offset;
  }
}
