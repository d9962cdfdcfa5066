/**
 * Storage for a device, as it is now: one reservation for all that an IOMMU translates, whatever it is a mix of.
 *
 * Idea: the vectors are linked one after the other in one range; a peer's bus addresses stay out of it, since no IOMMU sees them.
 * Without an IOMMU, or without room in its address space, every vector is mapped by itself. One sync, one invalidation.
 * Promises: a failed map leaves nothing, neither entries nor addresses. Not for: storage that moves under the mapping
 * (in-place-mapping.ts).
 * Specified by: behaviour of Linux 7.2 dma_buf_phys_vec_to_sgt. Linux links every vector at offset 0, so that two of them collide, and
 * loses what it had reserved: only with `linuxCompatible`. Judged by test/golden (dmabuf).
 */
import { assert, type Direction } from "../../base/index.ts";
import type { Dma, DmaVec, IovaRange } from "../../dma/index.ts";
import { badVectors, vectorNotMapped } from "./errors.ts";
import type { Importer } from "./importer.ts";
import { appendRange, type BufferMapping, noBytes } from "./mapping.ts";
import { attributesOf, type RouteKind, routeOf } from "./routes.ts";
import type { StorageVec } from "./storage.ts";

/** A vector, and how the device reaches it. */
interface RoutedVec {
  readonly vec: StorageVec;
  readonly route: RouteKind;
}

/**
 * Maps `vecs`, which are a buffer of `lengthBytes`.
 *
 * @throws DmaError ERR_DMA_BUF_VECTORS, ERR_DMA_BUF_UNREACHABLE (EINVAL); as `IovaRange.link`; ERR_DMA_BUF_MAP (ENOMEM) where each vector is
 *   mapped by itself
 */
export function mapStorage(
  { dma, name }: Importer,
  vecs: readonly StorageVec[],
  lengthBytes: number,
  direction: Direction,
): BufferMapping {
  const routed = vecs.map((vec) => ({ vec, route: routeOf(dma, name, vec) }));
  if (routed.length === 0) throw badVectors("there is none");
  const { linuxCompatible } = dma.device;
  const translated = linuxCompatible ? lengthBytes : bytesToTranslate(routed);
  const isOnBus = routed.every(({ route }) => route === "bus");
  const range = isOnBus ? undefined : dma.tryReserveIova({ length: translated });
  if (range === undefined) return new VecByVec(dma, name, routed, direction);
  if (linuxCompatible) linkAsLinux(range, routed, direction);
  else linkAll(range, routed, direction);
  return new RangeMapping(range, routed, direction, linuxCompatible ? lengthBytes : undefined);
}

function bytesBy(routed: readonly RoutedVec[]): Record<RouteKind, number> {
  const bytes = noBytes();
  for (const { vec, route } of routed) bytes[route] += vec.length;
  return bytes;
}

function bytesToTranslate(routed: readonly RoutedVec[]): number {
  let bytes = 0;
  for (const { vec, route } of routed) if (route !== "bus") bytes += vec.length;
  return bytes;
}

function linkAll(range: IovaRange, routed: readonly RoutedVec[], direction: Direction): void {
  let offset = 0;
  try {
    for (const { vec, route } of routed) {
      if (route === "bus") continue;
      range.link(offset, vec.phys, vec.length, direction, attributesOf(route));
      offset += vec.length;
    }
    range.sync(0, offset);
  } catch (error) {
    range.abort();
    throw error;
  }
}

function linkAsLinux(range: IovaRange, routed: readonly RoutedVec[], direction: Direction): void {
  let mapped = 0;
  try {
    for (const { vec, route } of routed) {
      range.link(0, vec.phys, vec.length, direction, attributesOf(route));
      mapped += vec.length;
    }
    range.sync(0, mapped);
  } catch (error) {
    if (mapped > 0) range.destroy(mapped); // and if not, the addresses are lost
    throw error;
  }
}

/** One range, with bus addresses between its parts. */
class RangeMapping implements BufferMapping {
  readonly direction: Direction;
  readonly ranges: readonly DmaVec[];
  readonly bytesBy: Readonly<Record<RouteKind, number>>;
  readonly tableEntries = 0;
  #range: IovaRange | undefined;
  /** What Linux believes to be mapped. */
  readonly #believed: number | undefined;

  constructor(range: IovaRange, routed: readonly RoutedVec[], direction: Direction, believed: number | undefined) {
    this.#range = range;
    this.direction = direction;
    this.#believed = believed;
    this.ranges = rangesOf(range.address, routed);
    this.bytesBy = bytesBy(routed);
  }

  syncForCpu(): void {
    this.#range?.syncForCpu();
  }

  syncForDevice(): void {
    this.#range?.syncForDevice();
  }

  release(atOnce: boolean): void {
    const range = this.#range;
    this.#range = undefined;
    if (range === undefined) return;
    if (this.#believed !== undefined) range.destroy(this.#believed);
    else if (atOnce) range.abort();
    else range.destroy();
  }
}

/** Neighbours in the range are one range, until it is too long for one entry. */
function rangesOf(base: number, routed: readonly RoutedVec[]): DmaVec[] {
  const ranges: DmaVec[] = [];
  let offset = 0;
  let open = 0; // bytes of the range that are in no entry yet
  const close = (): void => {
    appendRange(ranges, base + offset - open, open, false);
    open = 0;
  };
  for (const { vec, route } of routed) {
    if (route === "bus") {
      close();
      appendRange(ranges, busAddressOf(vec), vec.length, true);
    } else {
      offset += vec.length;
      open += vec.length;
    }
  }
  close();
  return ranges;
}

/** A peer's address as the bus knows it: never the CPU's. */
export function busAddressOf({ phys, provider }: StorageVec): number {
  assert(provider !== undefined, "memory on the bus has a provider");
  return provider.busAddress(phys);
}

/** Every vector by itself: no IOMMU, or no room in it; or all of it on the bus, where there is nothing to map. */
class VecByVec implements BufferMapping {
  readonly direction: Direction;
  readonly ranges: readonly DmaVec[];
  readonly bytesBy: Readonly<Record<RouteKind, number>>;
  readonly tableEntries = 0;
  readonly #dma: Dma;
  readonly #mapped: { readonly address: DmaVec["address"]; readonly length: number; readonly route: RouteKind }[] = [];

  constructor(dma: Dma, importer: string, routed: readonly RoutedVec[], direction: Direction) {
    this.#dma = dma;
    this.direction = direction;
    this.bytesBy = bytesBy(routed);
    const ranges: DmaVec[] = [];
    for (const { vec, route } of routed) {
      const { phys, length } = vec;
      if (route === "bus") {
        appendRange(ranges, busAddressOf(vec), length, true);
        continue;
      }
      try {
        const address = dma.mapPhys(phys, length, direction, attributesOf(route));
        this.#mapped.push({ address, length, route });
        appendRange(ranges, address, length, false);
      } catch (cause) {
        this.release();
        throw vectorNotMapped(importer, phys, length, cause);
      }
    }
    this.ranges = ranges;
  }

  syncForCpu(direction: Direction): void {
    for (const { address, length, route } of this.#mapped)
      if (route === "memory") this.#dma.syncForCpu(address, length, direction);
  }

  syncForDevice(direction: Direction): void {
    for (const { address, length, route } of this.#mapped)
      if (route === "memory") this.#dma.syncForDevice(address, length, direction);
  }

  release(): void {
    for (const { address, length, route } of this.#mapped.splice(0)) {
      if (!this.#dma.device.linuxCompatible) {
        this.#dma.unmapPhys(address, length, this.direction, attributesOf(route));
        continue;
      }
      const entries: DmaVec[] = []; // Linux unmaps what its list says, which may be a vector in several parts
      appendRange(entries, address, length, false);
      for (const entry of entries)
        this.#dma.unmapPhys(entry.address, entry.length, this.direction, attributesOf(route));
    }
  }
}
