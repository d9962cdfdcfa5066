/**
 * The strategies that a load is replayed under: the same request, mapped in different ways.
 *
 * A strategy is a value: how it maps one request, and what bookkeeping a driver has to keep for it. Metadata bytes are
 * those of Linux's structures: 32 B a scatterlist entry; 16 B (address and length) a segment that is unmapped by itself; 16
 * B of state for an IOVA range, however many segments it has. Calls are those of a driver that maps through the kernel from
 * user space, where each map of a piece of memory is one, and each unmap.
 */
import { PAGE_SIZE, type PhysAddr } from "../base/index.ts";
import type { Direction, Dma, DmaMapping, DmaVec, PhysVec } from "../dma/index.ts";
import { Premapped } from "./premapped.ts";
import { isLinear, type ReplayRequest } from "./request.ts";
import type { TouchedPages } from "./touched-pages.ts";

/** A mapped request: where the device finds its bytes, in order. */
export interface MappedLoad {
  /** What the device is told. */
  readonly vecs: readonly DmaVec[];
  /** Map and unmap calls of a driver in user space, both ends. */
  readonly calls: number;
  /** Takes the memory from the device, as this strategy does it. Once. */
  release(): void;
}

/** What a strategy is called. */
export type StrategyName =
  | "one-shot"
  | "coalesced"
  | "scatterlist"
  | "two-step"
  | "two-step-vector"
  | "batch"
  | "linear"
  | "premapped";

/** One way to map a request. */
export interface Strategy {
  /** What options and reports call it. */
  readonly name: StrategyName;
  /** What it does, in a line. */
  readonly summary: string;
  /** Called once, before the first request; what it maps stays. The calls that it takes, and how much it maps. */
  prepare?(
    dma: Dma,
    touched: TouchedPages,
  ): {
    /** Map calls of a driver in user space. */
    readonly calls: number;
    /** Bytes that stay mapped. */
    readonly bytes: number;
  };
  /** Maps one request. @throws DmaError as the calls that it makes; nothing stays mapped then */
  map(dma: Dma, load: ReplayRequest): MappedLoad;
}

const SCATTERLIST_ENTRY_BYTES = 32;
const SEGMENT_RECORD_BYTES = 16;
const RANGE_STATE_BYTES = 16;

/** The same memory in as few runs as it has: neighbours joined. */
function joined(vecs: readonly PhysVec[]): readonly PhysVec[] {
  const runs: { phys: PhysAddr; length: number }[] = [];
  for (const { phys, length } of vecs) {
    const last = runs.at(-1);
    if (last && last.phys + last.length === phys) last.length += length;
    else runs.push({ phys, length });
  }
  return runs.length === vecs.length ? vecs : runs;
}

/** Bytes of the smallest thing that the device's IOMMU maps. */
const granuleOf = (dma: Dma): number => dma.domain?.granule ?? PAGE_SIZE;

/** One range can hold the request, on this device: its page may be larger than that of the recorded machine. */
const joins = (dma: Dma, { vecs, linear }: ReplayRequest): boolean =>
  granuleOf(dma) === PAGE_SIZE ? linear : isLinear(vecs, granuleOf(dma));

/** Each of `vecs` by itself. */
function mapEach(dma: Dma, vecs: readonly PhysVec[], direction: Direction): MappedLoad {
  dma.counters.metadataBytes += vecs.length * SEGMENT_RECORD_BYTES;
  const mappings: DmaMapping[] = [];
  const release = (): void => {
    for (const mapping of mappings) mapping.unmap();
  };
  try {
    for (const { phys, length } of vecs) mappings.push(dma.map(phys, length, direction));
  } catch (error) {
    release();
    throw error;
  }
  return { vecs: mappings, calls: vecs.length * 2, release };
}

const oneShot: Strategy = {
  name: "one-shot",
  summary: "dma.map for every segment",
  map: (dma, { vecs, direction }) => mapEach(dma, vecs, direction),
};

const coalesced: Strategy = {
  name: "coalesced",
  summary: "neighbours in memory joined first, then dma.map for each run",
  map: (dma, { vecs, direction }) => mapEach(dma, joined(vecs), direction),
};

const scatterlist: Strategy = {
  name: "scatterlist",
  summary: "dma.mapScatterlist of all segments",
  map(dma, { vecs, direction }) {
    dma.counters.metadataBytes += vecs.length * SCATTERLIST_ENTRY_BYTES;
    const mapping = dma.mapScatterlist(vecs, direction);
    return { vecs: mapping.segments, calls: joined(vecs).length + 1, release: () => mapping.unmap() };
  },
};

/** As drivers do it: one segment, or inner gaps, or no room in the address space: each segment by itself. */
const twoStep = (name: "two-step" | "two-step-vector", summary: string, vector: boolean): Strategy => ({
  name,
  summary,
  map(dma, load) {
    const { vecs, direction, length } = load;
    const range =
      vecs.length > 1 && joins(dma, load)
        ? dma.tryReserveIova({ length, physOffset: vecs[0]!.phys % granuleOf(dma) })
        : undefined;
    if (!range) return oneShot.map(dma, load);
    dma.counters.metadataBytes += RANGE_STATE_BYTES;
    if (vector) range.linkVecs(0, vecs, direction);
    else
      for (let i = 0, offset = 0; i < vecs.length; i++) {
        range.link(offset, vecs[i]!.phys, vecs[i]!.length, direction);
        offset += vecs[i]!.length;
      }
    range.sync();
    return { vecs: [range], calls: (vector ? joined(vecs).length : vecs.length) + 1, release: () => range.destroy() };
  },
});

const batch: Strategy = {
  name: "batch",
  summary: "dma.batch: started for at most the request's pages, filled, finalized",
  map(dma, { vecs, direction }) {
    const granule = granuleOf(dma);
    const granules = vecs.reduce((sum, { phys, length }) => sum + Math.ceil(((phys % granule) + length) / granule), 0);
    const started = dma.batch(direction, { maxBytes: granules * granule });
    for (const vec of vecs)
      if (started.add(vec) === "full")
        throw new Error(`a batch of ${granules} granules is full before its request is in it`);
    const outputs = started.finalize();
    dma.counters.metadataBytes += RANGE_STATE_BYTES + outputs.length * SEGMENT_RECORD_BYTES;
    return { vecs: outputs, calls: vecs.length + 1, release: () => started.unmap() };
  },
};

const linear: Strategy = {
  name: "linear",
  summary: "dma.mapLinear: one address for all of it; dma.mapVecs where the pieces do not join",
  map(dma, load) {
    const { vecs, direction } = load;
    const isOne = joins(dma, load);
    const mapping = isOne ? dma.mapLinear(vecs, direction) : dma.mapVecs(vecs, direction);
    dma.counters.metadataBytes += RANGE_STATE_BYTES + (isOne ? 0 : mapping.vecs.length * SEGMENT_RECORD_BYTES);
    return { vecs: mapping.vecs, calls: joined(vecs).length + 1, release: () => mapping.unmap() };
  },
};

/** What stays mapped, by the device that it is mapped for. */
const standing = new WeakMap<Dma, Premapped>();

const premapped: Strategy = {
  name: "premapped",
  summary: "every page mapped once, before the first request, and kept",
  prepare(dma, touched) {
    const regions = new Premapped(dma, touched);
    standing.set(dma, regions);
    dma.counters.metadataBytes += regions.count * SEGMENT_RECORD_BYTES;
    return { calls: regions.count, bytes: regions.bytes };
  },
  map: (dma, { vecs }) => ({ vecs: standing.get(dma)!.vecsOf(vecs), calls: 0, release() {} }),
};

/** Every strategy, in the order of reports. */
export const STRATEGIES: readonly Strategy[] = [
  oneShot,
  coalesced,
  scatterlist,
  twoStep("two-step", "reserve once, dma link per segment, one sync", false),
  twoStep("two-step-vector", "reserve once, one link call for all segments, one sync", true),
  batch,
  linear,
  premapped,
];

/** Names of {@link STRATEGIES}. */
export const STRATEGY_NAMES: readonly StrategyName[] = STRATEGIES.map(({ name }) => name);
