/** Mapping the pieces of a buffer in each of the ways there are, behind one handle. */
import type { PhysAddr } from "../../base/index.ts";
import type { Direction, Dma, DmaVec, IovaRange, PhysVec } from "../../dma/index.ts";
import type { Step, Way } from "./plan.ts";
import type { WorldDevice } from "./world.ts";

export interface LiveMapping {
  readonly device: WorldDevice;
  readonly buffer: number;
  readonly offset: number;
  readonly length: number;
  readonly firstPage: number;
  readonly lastPage: number;
  readonly direction: Direction;
  readonly way: Way;
  /** Some of it may lie in another device's window. */
  readonly peer: boolean;
  readonly pieces: readonly PhysVec[];
  readonly vecs: readonly DmaVec[];
  syncForCpu(): void;
  syncForDevice(): void;
  unmap(): void;
  /** Takes one page out and puts it back; only where whole pages are linked one by one. */
  readonly relink?: (page: number, lazy: boolean) => void;
}

type Handle = Pick<LiveMapping, "vecs" | "syncForCpu" | "syncForDevice" | "unmap" | "relink">;

/** @throws DmaError as the way's own call */
export function mapPieces(device: WorldDevice, step: Step & { do: "map" }, pieces: PhysVec[]): LiveMapping {
  const { dma } = device;
  const { direction, way, offset, length, buffer, peer } = step;
  return {
    device,
    buffer,
    offset,
    length,
    firstPage: Math.floor(offset / 4096),
    lastPage: Math.floor((offset + length - 1) / 4096),
    direction,
    way,
    peer,
    pieces,
    ...handleOf(dma, way, pieces, direction, peer),
  };
}

function handleOf(dma: Dma, way: Way, pieces: PhysVec[], direction: Direction, peer: boolean): Handle {
  if (peer && !PEER_WAYS.has(way)) return vecsOf(dma.mapVecs(pieces, direction));
  switch (way) {
    case "one-shot":
      return oneByOne(dma, pieces, direction);
    case "scatterlist": {
      const mapping = dma.mapScatterlist(pieces, direction);
      return {
        vecs: mapping.segments,
        syncForCpu: () => mapping.syncForCpu(),
        syncForDevice: () => mapping.syncForDevice(),
        unmap: () => mapping.unmap(),
      };
    }
    case "two-step":
    case "two-step vector":
      return twoStep(dma, pieces, direction, way === "two-step vector") ?? oneByOne(dma, pieces, direction);
    case "vecs":
      return vecsOf(dma.mapVecs(pieces, direction));
    case "linear":
      return vecsOf(dma.mapLinear(pieces, direction));
    case "linear or bounce":
      return vecsOf(dma.mapLinear(pieces, direction, undefined, { allowBounce: true }));
    case "batch": {
      const total = pieces.reduce((sum, piece) => sum + piece.length, 0);
      const batch = dma.batch(direction, { maxBytes: total + 8192 });
      for (const piece of pieces) if (batch.add(piece) === "full") break;
      if (batch.bytes < total) {
        batch.abort();
        return vecsOf(dma.mapVecs(pieces, direction));
      }
      const vecs = batch.finalize();
      return {
        vecs,
        syncForCpu: () => batch.syncForCpu(),
        syncForDevice: () => batch.syncForDevice(),
        unmap: () => batch.unmap(),
      };
    }
  }
}

/** Ways that ask which way a peer is reached. */
const PEER_WAYS = new Set<Way>(["scatterlist", "vecs", "linear or bounce", "batch"]);

function vecsOf(mapping: ReturnType<Dma["mapVecs"]>): Handle {
  return {
    vecs: mapping.vecs,
    syncForCpu: () => mapping.syncForCpu(),
    syncForDevice: () => mapping.syncForDevice(),
    unmap: () => mapping.unmap(),
  };
}

function oneByOne(dma: Dma, pieces: readonly PhysVec[], direction: Direction): Handle {
  const mappings: ReturnType<Dma["map"]>[] = [];
  const unmap = (): void => {
    for (const mapping of mappings) mapping.unmap();
  };
  try {
    for (const { phys, length } of pieces) mappings.push(dma.map(phys, length, direction));
  } catch (error) {
    unmap();
    throw error;
  }
  return {
    vecs: mappings,
    syncForCpu: () => {
      for (const mapping of mappings) mapping.syncForCpu();
    },
    syncForDevice: () => {
      for (const mapping of mappings) mapping.syncForDevice();
    },
    unmap,
  };
}

function twoStep(dma: Dma, pieces: readonly PhysVec[], direction: Direction, vector: boolean): Handle | undefined {
  const granule = dma.mergeBoundary + 1;
  const joins = pieces.every(
    ({ phys, length }, i) =>
      (i === 0 || phys % granule === 0) && (i === pieces.length - 1 || (phys + length) % granule === 0),
  );
  if (!joins) return undefined;
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const range = dma.tryReserveIova({ length, physOffset: pieces[0]!.phys % granule });
  if (!range) return undefined;
  try {
    if (vector) range.linkVecs(0, pieces, direction);
    else linkEach(range, pieces, direction);
    range.sync();
  } catch (error) {
    range.destroy();
    throw error;
  }
  return {
    vecs: [range],
    syncForCpu: () => range.syncForCpu(),
    syncForDevice: () => range.syncForDevice(),
    unmap: () => range.destroy(),
    relink: (page, lazy) => relinkOne(range, pieces, direction, page, lazy),
  };
}

function linkEach(range: IovaRange, pieces: readonly PhysVec[], direction: Direction): void {
  let offset = 0;
  for (const { phys, length } of pieces) {
    range.link(offset, phys, length, direction);
    offset += length;
  }
}

function relinkOne(
  range: IovaRange,
  pieces: readonly PhysVec[],
  direction: Direction,
  page: number,
  lazy: boolean,
): void {
  const which = page % pieces.length;
  let offset = 0;
  for (let i = 0; i < which; i++) offset += pieces[i]!.length;
  const { phys, length } = pieces[which]!;
  range.unlink(offset, length, { lazy });
  range.link(offset, phys as PhysAddr, length, direction);
  range.sync(offset, length);
}
