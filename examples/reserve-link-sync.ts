/** Two steps: reserve addresses once, link scattered memory, sync, let the device look; then see it refused. */

import { Dma, hex, PhysAddr, requesterId } from "dmalink";
import { DmaDomain, vtdSecondStage } from "dmalink/iommu";
import { DmaEngine, SimulatedMemory, SimulatedUnit, VirtualClock } from "dmalink/sim";

// A machine: memory, an IOMMU that walks real VT-d tables, and a device behind it.
const memory = new SimulatedMemory();
const unit = new SimulatedUnit();
const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock: new VirtualClock(), mode: "strict" });
unit.attach(requesterId("01:00.0"), domain.tables);
const disk = new DmaEngine(requesterId("01:00.0"), unit, memory);

// Three pages, anywhere in memory.
const pages = [0x12345000, 0x7fee1000, 0x3d0b000].map(PhysAddr);
const text = "scattered in memory, in one piece for the device";
for (const [i, page] of pages.entries()) memory.write(page, new TextEncoder().encode(text.slice(i * 16, i * 16 + 16)));

const dma = new Dma({ domain });
const range = dma.tryReserveIova({ length: 3 * 4096 });
if (!range) throw new Error("no address space");
for (const [i, page] of pages.entries()) range.link(i * 4096, page, 4096, "to-device");
range.sync();

const heard = pages.map((_, i) => {
  const bytes = new Uint8Array(16);
  disk.read((range.address + i * 4096) as typeof range.address, bytes);
  return new TextDecoder().decode(bytes);
});
console.log(`the disk read at ${hex(range.address)}: "${heard.join("")}"`);
if (heard.join("") !== text) throw new Error("wrong bytes");

range.destroy();
const refused = !disk.read(range.address, new Uint8Array(16));
const fault = unit.faults.at(-1);
console.log(
  `after destroy: ${refused ? "refused" : "STILL READABLE"}, ${fault?.reason} at page ${hex(fault?.page ?? 0)}`,
);
const { iovaAllocations, pteWrites, mapSyncs, invalidations } = domain.counters;
console.log(
  `cost: ${iovaAllocations} IOVA allocation, ${pteWrites} entries, ${mapSyncs} sync, ${invalidations} invalidation`,
);
