/**
 * Pieces as one output, or an error: for devices that take a single address.
 *
 * It works where the pieces can join: behind an IOMMU when inner edges lie on granules, without one when the memory is
 * adjacent, on the bus when all of it is one peer's. Else, if the caller allows it, the bytes are copied into one block.
 * Nothing is mapped on failure. Asked for on the Linux mailing lists (the "linear or fail" call) and never built there.
 */
import { DmaAddr, deviceWrites, type PhysAddr, PhysPage } from "../../base/index.ts";
import { BOUNCE_LIMIT } from "../../swiotlb/index.ts";
import type { DmaDevice } from "../device.ts";
import type { DevicePath } from "../device-path.ts";
import { edgesDoNotJoin, linearTooLong, machineLacks, noAddressSpace, peerUnreachable } from "../errors.ts";
import { allocateDirect, freeBlocks } from "../path/coherent.ts";
import type { Path } from "../path/path.ts";
import { reachedAs } from "../path/peers.ts";
import { type Terms, termsOf } from "../terms.ts";
import type { IovaRange } from "../two-step/iova-range.ts";
import { reserveRange } from "../two-step/reserve-range.ts";
import type { PhysVec } from "../vectors.ts";
import { DirectPieces, mappingOf, type Pieces, type VecsMapping } from "./map-vecs.ts";
import { type Piece, piecesOf } from "./pieces.ts";

/** What {@link Dma.mapLinear} may do where pieces do not join. */
export interface LinearOptions {
  /** Copy into one block, up to 256 KiB, what cannot be joined. */
  readonly allowBounce?: boolean;
  /** Refuse what is longer than the device's longest segment. */
  readonly withinSegment?: boolean;
}

export function mapLinear(
  devicePath: DevicePath,
  vecs: readonly PhysVec[],
  terms: Terms,
  options: LinearOptions,
): VecsMapping {
  const { device, granules, path } = devicePath;
  const total = vecs.reduce((sum, { length }) => sum + length, 0);
  if (options.withinSegment && total > device.maxSegmentSize) throw linearTooLong(total, device.maxSegmentSize);
  const pieces = piecesOf(device, vecs, terms.attributes);
  const first = pieces[0]!;
  const onBus = pieces.find(({ route }) => route.type === "bus-address");
  if (onBus !== undefined) {
    if (pieces.length > 1) throw peerUnreachable(device.name, onBus.phys);
    const output = { address: DmaAddr(first.phys + first.route.busOffset), length: total, bus: true };
    return mappingOf([output], new DirectPieces(path, terms));
  }
  const granule = granules?.granule ?? 1;
  const edge = pieces.findIndex(
    ({ phys }, i) => i > 0 && (!granules || phys % granule !== 0 || !endsOn(pieces[i - 1]!, granule)),
  );
  if (edge > 0 && !options.allowBounce) throw edgesDoNotJoin(edge, pieces[edge]!.phys, granule);
  let work: Pieces & { address: DmaAddr };
  if (edge > 0) work = new Linearised(device, path, vecs, total, terms);
  else if (granules) work = new JoinedRange(devicePath, granules.inside(first.phys), pieces, total, terms);
  else work = new Single(path, first, terms);
  return mappingOf([{ address: work.address, length: total }], work);
}

const endsOn = ({ phys, length }: Piece, granule: number): boolean => (phys + length) % granule === 0;

/** Adjacent memory, without an IOMMU. */
class Single extends DirectPieces {
  readonly address: DmaAddr;

  constructor(path: Path, piece: Piece, terms: Terms) {
    super(path, terms);
    this.address = this.add(piece);
  }
}

/** Pieces one after the other in one range. */
class JoinedRange implements Pieces {
  readonly address: DmaAddr;
  readonly #range: IovaRange;

  constructor(devicePath: DevicePath, inside: number, pieces: readonly Piece[], total: number, terms: Terms) {
    const { device } = devicePath;
    const range = reserveRange(devicePath, total, inside);
    if (range === undefined) throw noAddressSpace(total, device.reach(device.mask));
    this.#range = range;
    this.address = this.#range.address;
    try {
      let offset = 0;
      for (const piece of pieces) {
        const { direction, attributes } = reachedAs(piece.route, terms);
        this.#range.link(offset, piece.phys, piece.length, direction, attributes);
        offset += piece.length;
      }
      this.#range.sync();
    } catch (error) {
      this.#range.abort();
      throw error;
    }
  }

  reserve(): void {}

  add(): DmaAddr {
    return this.address;
  }

  seal(): void {}

  sync(to: "cpu" | "device"): void {
    if (to === "cpu") this.#range.syncForCpu();
    else this.#range.syncForDevice();
  }

  release(): void {
    this.#range.destroy();
  }
}

/** A copy in one block. */
class Linearised implements Pieces {
  readonly address: DmaAddr;
  readonly #device: DmaDevice;
  readonly #path: Path;
  readonly #vecs: readonly PhysVec[];
  readonly #total: number;
  readonly #terms: Terms;
  readonly #phys: PhysAddr;
  readonly #free: () => void;

  constructor(device: DmaDevice, path: Path, vecs: readonly PhysVec[], total: number, terms: Terms) {
    if (total > BOUNCE_LIMIT) throw linearTooLong(total, BOUNCE_LIMIT);
    if (!device.machine.memory) throw machineLacks("memory", "a linearising bounce");
    this.#device = device;
    this.#path = path;
    this.#vecs = vecs;
    this.#total = total;
    this.#terms = terms;
    const { blocks } = allocateDirect(device, total, Number.MAX_SAFE_INTEGER);
    this.#phys = PhysPage.start(blocks[0]!.page);
    this.#free = () => freeBlocks(device, blocks);
    this.#copy("in");
    try {
      this.address = path.mapPhys(this.#phys, total, terms);
    } catch (error) {
      this.#free();
      throw error;
    }
  }

  reserve(): void {}

  add(): DmaAddr {
    return this.address;
  }

  seal(): void {}

  sync(to: "cpu" | "device"): void {
    if (to === "device") this.#copy("in");
    const { direction } = this.#terms;
    if (to === "cpu") this.#path.syncForCpu(this.address, this.#total, direction);
    else this.#path.syncForDevice(this.address, this.#total, direction);
    if (to === "cpu" && deviceWrites(direction)) this.#copy("out");
  }

  release(): void {
    const { direction } = this.#terms;
    this.#path.unmapPhys(this.address, this.#total, termsOf(direction));
    if (deviceWrites(direction)) this.#copy("out");
    this.#free();
  }

  #copy(way: "in" | "out"): void {
    const memory = this.#device.machine.memory!;
    let at: number = this.#phys;
    for (const { phys, length } of this.#vecs) {
      const bytes = new Uint8Array(length);
      memory.read(way === "in" ? phys : (at as PhysAddr), bytes);
      memory.write(way === "in" ? (at as PhysAddr) : phys, bytes);
      at += length;
    }
    this.#device.counters.bouncedBytes += this.#total;
  }
}
