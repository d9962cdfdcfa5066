/** What checks cost: 256 scattered pages in two steps and one by one, unchecked, checked, and under checked mode. */
import { type Bench, type Contender, fold, HASH } from "../../bench/bench.ts";
import { PhysAddr, type Random } from "../base/index.ts";
import { Dma, type DmaOptions, type PhysVec } from "../dma/index.ts";
import { SimulatedUnit, VirtualClock } from "../hosts/simulated/index.ts";
import { DmaDomain } from "../iommu/index.ts";
import { vtdSecondStage } from "../layouts/pagetable/index.ts";
import { DmaDebug } from "./index.ts";

const PAGES = 256;

type Way = (dma: Dma, vecs: readonly PhysVec[]) => number;

const twoStep: Way = (dma, vecs) => {
  const range = dma.tryReserveIova({ length: PAGES * 4096 })!;
  for (let i = 0; i < PAGES; i++) range.link(i * 4096, vecs[i]!.phys, 4096, "bidirectional");
  range.sync();
  range.destroy();
  return range.address;
};

const oneShot: Way = (dma, vecs) => {
  const addresses = vecs.map(({ phys, length }) => dma.mapPhys(phys, length, "bidirectional"));
  for (const address of addresses) dma.unmapPhys(address, 4096, "bidirectional");
  return addresses[0]!;
};

const MODES: Readonly<Record<string, () => DmaOptions>> = {
  unchecked: () => ({ refusesMisuse: false }),
  checked: () => ({ refusesMisuse: true }),
  "debug, no call sites": () => ({ debug: new DmaDebug({ callSites: false }) }),
  debug: () => ({ debug: new DmaDebug() }),
};

function contender(name: string, way: Way, options: () => DmaOptions): Contender {
  return {
    name,
    prepare: (random: Random) => {
      const unit = new SimulatedUnit();
      const layout = vtdSecondStage();
      const domain = new DmaDomain({ layout, unit, clock: new VirtualClock(), mode: "strict" });
      const dma = new Dma({ domain, ...options() });
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

export const benches: readonly Bench[] = Object.entries({ "two-step": twoStep, "one-shot": oneShot }).map(
  ([name, way]): Bench => ({
    name: `checks: 256 shuffled pages, ${name}`,
    unit: "page",
    smoke: 1024,
    full: 128 * 1024,
    contenders: Object.entries(MODES).map(([mode, options]) => contender(mode, way, options)),
  }),
);
