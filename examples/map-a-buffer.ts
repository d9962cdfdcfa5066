/** One shot: map a buffer for a device that writes, unmap it, and count what three ways of mapping the same memory cost. */

import { Dma, PhysAddr } from "dmalink";
import { DmaDomain, x86_64 } from "dmalink/iommu";
import { SimulatedUnit, VirtualClock } from "dmalink/sim";

const vecs = Array.from({ length: 32 }, (_, i) => ({ phys: PhysAddr(0x1000_0000 + i * 0x3000), length: 4096 }));

function cost(way: (dma: Dma) => void): string {
  const unit = new SimulatedUnit();
  const domain = new DmaDomain({ layout: x86_64(), unit, clock: new VirtualClock(), mode: "strict" });
  way(new Dma({ domain }));
  const { iovaAllocations, mapSyncs, invalidations } = domain.counters;
  return `${String(iovaAllocations).padStart(2)} allocations, ${String(mapSyncs).padStart(2)} syncs, ${String(invalidations).padStart(2)} invalidations`;
}

const oneShot = cost((dma) => {
  const mappings = vecs.map(({ phys, length }) => dma.map(phys, length, "from-device"));
  for (const mapping of mappings) mapping.unmap();
});
const scatterlist = cost((dma) => dma.mapScatterlist(vecs, "from-device").unmap());
const twoStep = cost((dma) => {
  const range = dma.tryReserveIova({ length: 32 * 4096 });
  range?.linkVecs(0, vecs, "from-device");
  range?.sync();
  range?.destroy();
});
console.log(`one-shot     ${oneShot}\nscatterlist  ${scatterlist}\ntwo-step     ${twoStep}`);
if (!twoStep.startsWith(" 1 allocations,  1 syncs,  1")) throw new Error("two-step should cost one of each");
