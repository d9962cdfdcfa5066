/** The public API, checks on: 256 scattered pages mapped for a device and taken back, in each of the ways there are. */
import { type Bench, type Contender, fold, HASH } from "../../bench/bench.ts";
import { PhysAddr, type Random } from "../base/index.ts";
import { SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { DmaDomain } from "../iommu/index.ts";
import { amdV1, type TableLayout, vtdSecondStage, x86_64 } from "../layouts/pagetable/index.ts";
import { Dma, type PhysColumns, type PhysVec } from "./index.ts";

const PAGES = 256;

/** The columns of a list, made once: who keeps memory as columns has them. */
const COLUMNS = new WeakMap<readonly PhysVec[], PhysColumns>();

function columnsOf(vecs: readonly PhysVec[]): PhysColumns {
  let columns = COLUMNS.get(vecs);
  if (columns === undefined) {
    columns = { phys: Float64Array.from(vecs, ({ phys }) => phys), length: 4096 };
    COLUMNS.set(vecs, columns);
  }
  return columns;
}

/** One way to map `vecs` and take them back; what the device would have been told. */
type Way = (dma: Dma, vecs: readonly PhysVec[]) => number;

const WAYS: Readonly<Record<string, Way>> = {
  "two-step": (dma, vecs) => {
    const range = dma.tryReserveIova({ length: PAGES * 4096 })!;
    for (let i = 0; i < PAGES; i++) range.link(i * 4096, vecs[i]!.phys, 4096, "bidirectional");
    range.sync();
    range.destroy();
    return range.address;
  },
  "two-step, vector": (dma, vecs) => {
    const range = dma.tryReserveIova({ length: PAGES * 4096 })!;
    range.linkVecs(0, vecs, "bidirectional");
    range.sync();
    range.destroy();
    return range.address;
  },
  "two-step, vector of columns": (dma, vecs) => {
    const range = dma.tryReserveIova({ length: PAGES * 4096 })!;
    range.linkVecs(0, columnsOf(vecs), "bidirectional");
    range.sync();
    range.destroy();
    return range.address;
  },
  scatterlist: (dma, vecs) => {
    const mapping = dma.mapScatterlist(vecs, "bidirectional");
    mapping.unmap();
    return mapping.segments[0]!.address;
  },
  "one-shot": (dma, vecs) => {
    const mappings = vecs.map(({ phys, length }) => dma.map(phys, length, "bidirectional"));
    for (const mapping of mappings) mapping.unmap();
    return mappings[0]!.address;
  },
};

function contender(name: string, way: Way, layout: TableLayout): Contender {
  return {
    name,
    prepare: (random: Random) => {
      const domain = new DmaDomain({ layout, unit: new SimulatedUnit(), clock: new VirtualClock(), mode: "strict" });
      const dma = new Dma({ domain, maxSegmentSize: 2 ** 32 - 1 });
      const frames = random.shuffle(Array.from({ length: PAGES }, (_, i) => i * 2));
      const vecs = frames.map((frame) => ({ phys: PhysAddr((0x40000 + frame) * 4096), length: 4096 }));
      return (units) => {
        const requests = Math.max(1, Math.round(units / PAGES));
        let hash = HASH;
        for (let i = 0; i < requests; i++) hash = fold(hash, way(dma, vecs));
        return { units: requests * PAGES, hash };
      };
    },
  };
}

export const benches: readonly Bench[] = [
  ...(
    [
      ["x86-64", x86_64()],
      ["VT-d", vtdSecondStage()],
      ["AMD v1", amdV1()],
    ] as const
  ).map(
    ([name, layout]): Bench => ({
      name: `256 shuffled pages through the API, ${name}`,
      unit: "page",
      smoke: 1024,
      full: 512 * 1024,
      contenders: Object.entries(WAYS).map(([way, run]) => contender(way, run, layout)),
      goal: { number: 2, peer: "one-shot", atMost: 0.2 },
      sameHash: false, // one-shot's first page is the highest, a range's first page its lowest
    }),
  ),
];
