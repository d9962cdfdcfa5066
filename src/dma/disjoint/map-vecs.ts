/**
 * Disjoint pieces in one call: joined where that is convenient, and never refused for lack of it.
 *
 * Idea: behind an IOMMU every piece takes whole granules of one range, so one reservation, one sync and one
 * invalidation serve them all; peers' bus addresses need none. Without an IOMMU each piece is an output. Then the
 * outputs are cut to the device's limits.
 * Asked for on the Linux mailing lists (the "disjoint" call) and never built there.
 */
import { DmaAddr, PAGE_SIZE } from "../../base/index.ts";
import type { DevicePath } from "../device-path.ts";
import { noAddressSpace } from "../errors.ts";
import type { Granules } from "../path/granules.ts";
import type { Path } from "../path/path.ts";
import { reachedAs } from "../path/peers.ts";
import type { Terms } from "../terms.ts";
import type { IovaRange } from "../two-step/iova-range.ts";
import { reserveRange } from "../two-step/reserve-range.ts";
import type { DmaVec, PhysVec } from "../vectors.ts";
import { type Piece, piecesOf } from "./pieces.ts";
import { Segments } from "./segments.ts";

/** What {@link Dma.mapVecs}, {@link Dma.mapLinear} and a batch give: the outputs, and the way to end them all. */
export interface VecsMapping extends Disposable {
  /** The outputs, in the order of the inputs; void once unmapped. */
  readonly vecs: readonly DmaVec[];
  /** The CPU may look at the memory, until it gives it back. Does nothing once unmapped. */
  syncForCpu(): void;
  /** The device may use the memory again. Does nothing once unmapped. */
  syncForDevice(): void;
  /** One invalidation, or one entry of the flush queue. Cannot fail; a second time does nothing. */
  unmap(): void;
}

export function mapVecs(devicePath: DevicePath, vecs: readonly PhysVec[], terms: Terms): VecsMapping {
  const { device, granules, path } = devicePath;
  const pieces = piecesOf(device, vecs, terms.attributes);
  const work = granules ? new TranslatedPieces(devicePath, granules, terms) : new DirectPieces(path, terms);
  const segments = new Segments(device);
  try {
    work.reserve(pieces);
    for (const piece of pieces) placePiece(work, segments, piece);
    work.seal();
  } catch (error) {
    work.release(true);
    throw error;
  }
  return mappingOf(segments.result, work);
}

/** Maps a piece, unless it is on the bus already, and appends its output. */
export function placePiece(work: Pieces, segments: Segments, piece: Piece): void {
  const { phys, length, route } = piece;
  if (route.type === "bus-address") segments.add(phys + route.busOffset, length, true);
  else segments.add(work.add(piece), length);
}

/** The handle over pieces that are mapped. */
export function mappingOf(vecs: readonly DmaVec[], work: Pieces): VecsMapping {
  let live = true;
  const unmap = (): void => {
    if (live) work.release();
    live = false;
  };
  return {
    vecs,
    syncForCpu: () => live && work.sync("cpu"),
    syncForDevice: () => live && work.sync("device"),
    unmap,
    [Symbol.dispose]: unmap,
  };
}

/** Pieces on their way to the device, by either path. */
export interface Pieces {
  /** @throws DmaError ERR_DMA_IOVA_EXHAUSTED (ENOMEM) */
  reserve(pieces: readonly Piece[]): void;
  /** The address of a piece, mapped. @throws DmaError; nothing of the piece is mapped then */
  add(piece: Piece): DmaAddr;
  /** All pieces are there: from now on the device may look. */
  seal(): void;
  sync(to: "cpu" | "device"): void;
  /** With `failed` at once, in lazy mode too. */
  release(failed?: boolean): void;
}

/** Behind an IOMMU: one range, every piece on granules of its own. */
export class TranslatedPieces implements Pieces {
  readonly #devicePath: DevicePath;
  readonly #granules: Granules;
  readonly #terms: Terms;
  #range: IovaRange | undefined;
  /** Bytes of the range in use, whole granules. */
  #used = 0;

  constructor(devicePath: DevicePath, granules: Granules, terms: Terms) {
    this.#devicePath = devicePath;
    this.#granules = granules;
    this.#terms = terms;
  }

  reserve(pieces: readonly Piece[]): void {
    let bytes = 0;
    for (const piece of pieces) if (piece.route.type !== "bus-address") bytes += this.sizeOf(piece);
    if (bytes > 0) this.reserveBytes(bytes);
  }

  reserveBytes(bytes: number): void {
    const { device } = this.#granules;
    this.#range = reserveRange(this.#devicePath, this.#granules.pages(bytes) * PAGE_SIZE);
    if (this.#range === undefined) throw noAddressSpace(bytes, device.reach(device.mask));
  }

  /** Bytes of the granules that a piece fills. */
  sizeOf({ phys, length }: Piece): number {
    return this.#granules.pages(this.#granules.inside(phys) + length) * PAGE_SIZE;
  }

  get granule(): number {
    return this.#granules.granule;
  }

  /** Bytes of the range that no piece has. */
  get left(): number {
    return (this.#range?.length ?? 0) - this.#used;
  }

  add(piece: Piece): DmaAddr {
    const range = this.#range!;
    const offset = this.#used + this.#granules.inside(piece.phys);
    range.linkAtAnyOffset(offset, piece.phys, piece.length, reachedAs(piece.route, this.#terms));
    this.#used += this.sizeOf(piece);
    return DmaAddr(range.address + offset);
  }

  seal(): void {
    if (this.#used > 0) this.#range!.sync(0, this.#used);
  }

  sync(to: "cpu" | "device"): void {
    if (to === "cpu") this.#range?.syncForCpu();
    else this.#range?.syncForDevice();
  }

  release(failed = false): void {
    if (failed) this.#range?.abort();
    else this.#range?.destroy();
    this.#range = undefined;
  }
}

/** Without an IOMMU: every piece by itself. */
export class DirectPieces implements Pieces {
  readonly #path: Path;
  readonly #terms: Terms;
  readonly #mapped: { address: DmaAddr; length: number; terms: Terms }[] = [];

  constructor(path: Path, terms: Terms) {
    this.#path = path;
    this.#terms = terms;
  }

  reserve(): void {}

  add({ phys, length, route }: Piece): DmaAddr {
    const terms = reachedAs(route, this.#terms);
    const address = this.#path.mapPhys(phys, length, terms);
    this.#mapped.push({ address, length, terms });
    return address;
  }

  seal(): void {}

  sync(to: "cpu" | "device"): void {
    for (const { address, length, terms } of this.#mapped) {
      if (terms.attributes?.mmio) continue;
      if (to === "cpu") this.#path.syncForCpu(address, length, terms.direction);
      else this.#path.syncForDevice(address, length, terms.direction);
    }
  }

  release(): void {
    for (const { address, length, terms } of this.#mapped.splice(0)) this.#path.unmapPhys(address, length, terms);
  }
}
