/**
 * Disjoint pieces in one call: joined where that is convenient, and never refused for lack of it.
 *
 * Idea: behind an IOMMU every run of memory takes whole granules of one range, so one reservation, one sync and one
 * invalidation serve them all; peers' bus addresses stay out of it. Without an IOMMU each run is an output. Then the
 * outputs are cut to the device's limits.
 * Asked for on the Linux mailing lists (the "disjoint" call) and never built there.
 */
import { DmaAddr, PAGE_SIZE } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";
import { noAddressSpace } from "../errors.ts";
import type { IovaRange } from "../two-step/iova-range.ts";
import type { Path } from "../path/path.ts";
import { type Piece, piecesOf } from "./pieces.ts";
import { reserveRange } from "../two-step/reserve-range.ts";
import { Segments } from "./segments.ts";
import type { TranslatedPath } from "../path/translated.ts";
import type { Direction, DmaAttributes, DmaVec, PhysVec } from "../vectors.ts";

/** What {@link Dma.mapVecs}, {@link Dma.mapLinear} and a batch give: the outputs, and the way to end them all. */
export interface VecsMapping extends Disposable {
  readonly vecs: readonly DmaVec[];
  syncForCpu(): void;
  syncForDevice(): void;
  /** One invalidation, or one entry of the flush queue. Cannot fail; a second time does nothing. */
  unmap(): void;
}

export function mapVecs(
  device: DmaDevice,
  translated: TranslatedPath | undefined,
  path: Path,
  vecs: readonly PhysVec[],
  direction: Direction,
  attributes?: DmaAttributes,
): VecsMapping {
  const pieces = piecesOf(device, vecs);
  const work = translated
    ? new TranslatedPieces(translated, direction, attributes)
    : new DirectPieces(path, direction, attributes);
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
  const { phys, length, way, busOffset } = piece;
  if (way === "bus") segments.add(phys + busOffset, length, true);
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
  readonly #path: TranslatedPath;
  readonly #direction: Direction;
  readonly #attributes: DmaAttributes | undefined;
  #range: IovaRange | undefined;
  /** Bytes of the range in use, whole granules. */
  #used = 0;

  constructor(path: TranslatedPath, direction: Direction, attributes?: DmaAttributes) {
    this.#path = path;
    this.#direction = direction;
    this.#attributes = attributes;
  }

  reserve(pieces: readonly Piece[]): void {
    let bytes = 0;
    for (const piece of pieces) if (piece.way !== "bus") bytes += this.sizeOf(piece);
    if (bytes > 0) this.reserveBytes(bytes);
  }

  reserveBytes(bytes: number): void {
    const { device } = this.#path;
    this.#range = reserveRange(this.#path, this.#path.pages(bytes) * PAGE_SIZE);
    if (this.#range === undefined) throw noAddressSpace(bytes, device.reach(device.mask));
  }

  /** Bytes of the granules that a piece fills. */
  sizeOf({ phys, length }: Piece): number {
    return this.#path.pages(this.#path.inside(phys) + length) * PAGE_SIZE;
  }

  get granule(): number {
    return this.#path.granule;
  }

  /** Bytes of the range that no piece has. */
  get left(): number {
    return (this.#range?.length ?? 0) - this.#used;
  }

  add(piece: Piece): DmaAddr {
    const range = this.#range!;
    const offset = this.#used + this.#path.inside(piece.phys);
    const attributes = piece.way === "host-bridge" ? { ...this.#attributes, mmio: true } : this.#attributes;
    range.place(offset, piece.phys, piece.length, this.#direction, attributes);
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
    if (failed) this.#range?.undo();
    else this.#range?.destroy();
    this.#range = undefined;
  }
}

/** Without an IOMMU: every piece by itself. */
export class DirectPieces implements Pieces {
  readonly #path: Path;
  readonly #direction: Direction;
  readonly #attributes: DmaAttributes | undefined;
  readonly #mapped: { address: DmaAddr; length: number; attributes: DmaAttributes | undefined }[] = [];

  constructor(path: Path, direction: Direction, attributes?: DmaAttributes) {
    this.#path = path;
    this.#direction = direction;
    this.#attributes = attributes;
  }

  reserve(): void {}

  add({ phys, length, way }: Piece): DmaAddr {
    const attributes = way === "host-bridge" ? { ...this.#attributes, mmio: true } : this.#attributes;
    const address = this.#path.mapPhys(phys, length, this.#direction, attributes);
    this.#mapped.push({ address, length, attributes });
    return address;
  }

  seal(): void {}

  sync(to: "cpu" | "device"): void {
    for (const { address, length, attributes } of this.#mapped) {
      if (attributes?.mmio) continue;
      if (to === "cpu") this.#path.syncForCpu(address, length, this.#direction);
      else this.#path.syncForDevice(address, length, this.#direction);
    }
  }

  release(): void {
    for (const { address, length, attributes } of this.#mapped.splice(0))
      this.#path.unmapPhys(address, length, this.#direction, attributes);
  }
}
