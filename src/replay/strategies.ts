/**
 * The strategies that a load is replayed under: the same request, mapped in different ways.
 *
 * A strategy is a value: how it maps one request, and what bookkeeping a driver has to keep for it. Metadata bytes are
 * those of Linux's structures: 32 B a scatterlist entry; 16 B (address and length) a segment that is unmapped by itself;
 * 16 B of state for an IOVA range, however many segments it has.
 */
import { PAGE_SIZE, PhysAddr } from "../base/index.ts";
import type { Direction, Dma, DmaMapping, DmaVec, PhysVec } from "../dma/index.ts";

/** A request as a driver sees it. */
export interface Load {
  readonly vecs: readonly PhysVec[];
  readonly length: number;
  readonly direction: Direction;
  /** Every inner edge lies on a page: one range of addresses can hold it. */
  readonly linear: boolean;
}

/** A mapped request: where the device finds its bytes, in order. */
export interface MappedLoad {
  readonly vecs: readonly DmaVec[];
  release(): void;
}

export interface Strategy {
  readonly name: "one-shot" | "scatterlist" | "two-step" | "two-step-vector";
  readonly summary: string;
  map(dma: Dma, load: Load): MappedLoad;
}

export const SCATTERLIST_ENTRY_BYTES = 32;
export const SEGMENT_RECORD_BYTES = 16;
export const RANGE_STATE_BYTES = 16;

/** Can one IOVA range hold these runs one after the other? */
export const isLinear = (vecs: readonly PhysVec[]): boolean =>
  vecs.every(
    ({ phys, length }, i) =>
      (i === 0 || phys % PAGE_SIZE === 0) && (i === vecs.length - 1 || (phys + length) % PAGE_SIZE === 0),
  );

const oneShot: Strategy = {
  name: "one-shot",
  summary: "dma.map for every segment",
  map(dma, { vecs, direction }) {
    const { counters } = dma;
    counters.metadataBytes += vecs.length * SEGMENT_RECORD_BYTES;
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
    return { vecs: mappings, release };
  },
};

const scatterlist: Strategy = {
  name: "scatterlist",
  summary: "dma.mapScatterlist of all segments",
  map(dma, { vecs, direction }) {
    dma.counters.metadataBytes += vecs.length * SCATTERLIST_ENTRY_BYTES;
    const mapping = dma.mapScatterlist(vecs, direction);
    return { vecs: mapping.segments, release: () => mapping.unmap() };
  },
};

/** As drivers do it: one segment, or inner gaps, or no room in the address space: each segment by itself. */
const twoStep = (name: "two-step" | "two-step-vector", summary: string, vector: boolean): Strategy => ({
  name,
  summary,
  map(dma, load) {
    const { vecs, direction, length } = load;
    const range =
      vecs.length > 1 && load.linear
        ? dma.tryReserveIova({ length, physOffset: vecs[0]!.phys % PAGE_SIZE })
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
    return { vecs: [range], release: () => range.destroy() };
  },
});

export const STRATEGIES: readonly Strategy[] = [
  oneShot,
  scatterlist,
  twoStep("two-step", "reserve once, dma link per segment, one sync", false),
  twoStep("two-step-vector", "reserve once, one link call for all segments, one sync", true),
];

/** The load of segments of physical memory. */
export function loadOf(
  segments: readonly { readonly phys: number; readonly length: number }[],
  direction: Direction,
): Load {
  const vecs = segments.map(({ phys, length }) => ({ phys: PhysAddr(phys), length }));
  return { vecs, length: vecs.reduce((sum, vec) => sum + vec.length, 0), direction, linear: isLinear(vecs) };
}
