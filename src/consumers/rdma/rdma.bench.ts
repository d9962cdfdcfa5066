/** Memory on demand: 512 pages faulted in for a device, and taken away by one invalidation, in the ways there are. */
import { type Bench, type Contender, fold, HASH } from "../../../bench/bench.ts";
import { MiB, PAGE_SIZE, type PhysAddr } from "../../base/index.ts";
import { Dma, type DmaMapping } from "../../dma/index.ts";
import { SimulatedMachine, SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { Frames, SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { UserAddr } from "../../platform/index.ts";
import { HMM } from "../hmm/index.ts";
import { OnDemandMemory } from "./index.ts";

const PAGES = 512;
const START = UserAddr(2 ** 32);

interface Stand {
  readonly memory: OnDemandMemory;
  readonly process: SimulatedProcess;
  readonly dma: Dma;
  readonly addresses: Float64Array;
}

/** Brings all pages for the device; what takes them away again, apart from what the process does. */
type Way = (stand: Stand) => () => void;

const allAtOnce: Way = ({ memory, addresses }) => {
  memory.fault(0, PAGES * PAGE_SIZE, { write: true }, (first, count) => memory.mapPages(first, count, addresses));
  return () => {};
};

const WAYS: Readonly<Record<string, { readonly batched: boolean; readonly way: Way }>> = {
  "one reservation, one sync, one flush": { batched: true, way: allAtOnce },
  "one reservation, one sync, a flush for each page": { batched: false, way: allAtOnce },
  "a one-shot mapping for each page": {
    batched: true,
    way: ({ memory, dma, addresses }) => {
      const mappings: DmaMapping[] = [];
      memory.fault(0, PAGES * PAGE_SIZE, { write: true }, (first, count) => {
        for (let i = first; i < first + count; i++) {
          const phys = (memory.words.page(i) * PAGE_SIZE) as PhysAddr;
          const mapping = dma.map(phys, PAGE_SIZE, "bidirectional", { requireCoherent: true });
          addresses[i] = mapping.address;
          mappings.push(mapping);
        }
      });
      return () => {
        for (const mapping of mappings) mapping.unmap();
      };
    },
  },
  "a scatterlist for each fault": {
    batched: true,
    way: ({ memory, dma, addresses }) => {
      const vecs: { phys: PhysAddr; length: number }[] = [];
      memory.fault(0, PAGES * PAGE_SIZE, { write: true }, (first, count) => {
        for (let i = first; i < first + count; i++)
          vecs.push({ phys: (memory.words.page(i) * PAGE_SIZE) as PhysAddr, length: PAGE_SIZE });
      });
      const mapping = dma.mapScatterlist(vecs, "bidirectional", { requireCoherent: true });
      addresses[0] = mapping.segments[0]!.address;
      return () => mapping.unmap();
    },
  },
};

function stand(batched: boolean): Stand {
  const { pages, memory: ram } = new SimulatedMachine({ memoryBytes: 64 * MiB, scattered: true });
  const process = new SimulatedProcess(new Frames({ pages, memory: ram }));
  process.memory.map({ address: START, length: PAGES * PAGE_SIZE });
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit: new SimulatedUnit(),
    clock: new VirtualClock(),
    mode: "strict",
  });
  const dma = new Dma({ domain, maxSegmentSize: 2 ** 31 });
  const length = PAGES * PAGE_SIZE;
  const memory = new OnDemandMemory({ process, address: START, length, dma, batched, forget: () => {} });
  return { memory, process, dma, addresses: new Float64Array(PAGES) };
}

const contender = (name: string, batched: boolean, way: Way): Contender => ({
  name,
  prepare: () => {
    const all = stand(batched);
    return (units) => {
      const rounds = Math.max(1, Math.round(units / PAGES));
      let hash = HASH;
      for (let i = 0; i < rounds; i++) {
        for (let page = 0; page < PAGES; page++) all.process.memory.touch(UserAddr(START + page * PAGE_SIZE), true);
        const takeAway = way(all);
        for (let page = 0; page < PAGES; page++) hash = fold(hash, all.memory.has(page, HMM.write) ? 1 : 0);
        takeAway();
        // The pages stay in place: they become read-only and writable again, which is what fork and write-protection do.
        all.process.memory.protect(START, PAGES * PAGE_SIZE, "r");
        all.process.memory.protect(START, PAGES * PAGE_SIZE, "rw");
      }
      return { units: rounds * PAGES, hash };
    };
  },
});

export const benches: readonly Bench[] = [
  {
    name: "512 pages on demand: fault, map, invalidate",
    unit: "page",
    smoke: 1024,
    full: 64 * 1024,
    contenders: Object.entries(WAYS).map(([name, { batched, way }]) => contender(name, batched, way)),
  },
];
