/** Two disks and an IOMMU: write, read back, then copy from disk to disk through memory of the first, which no CPU touches. */

import { type Dma, MiB } from "dmalink";
import { Nvme } from "dmalink/nvme";
import { NvmeController, SimulatedHost } from "dmalink/sim";
import { openPlace } from "./hosts/place.ts";

/** A machine with a switch, and a disk at each of its ports; the first has 4 MiB of memory that others may use. */
function simulated(): ReturnType<typeof openPlace> {
  const host = new SimulatedHost({ iommu: {}, bridges: [{ rootPorts: [{ switch: [{}, {}] }] }] });
  const disk = (cmbBytes: number) => new NvmeController({ namespaces: [{ blocks: 65_536 }], cmbBytes });
  const plugged = [...host.plug("0.0.0", disk(4 * MiB)), ...host.plug("0.0.1", disk(0))];
  return { host, names: plugged.map(({ name }) => name) };
}

// With --host linux the first blocks of both disks are overwritten: take disks that hold nothing, the first with a memory buffer.
const { host, names } = openPlace(2, simulated);
const { memory, clock } = host;
const [a, b] = [host.openDevice(names[0]!), host.openDevice(names[1]!)];
const first = await host.run(Nvme.open(a.device, a.dma, { clock }));
const second = await host.run(Nvme.open(b.device, b.dma, { clock }));
console.log(`${a.device.name}, ${b.device.name}: ${first.identity.modelNumber}, ${first.disk.bytes / MiB} MiB`);

// Write 1 MiB of scattered pages and compare.
const buffer = memory.allocate(4 * MiB);
for (let i = 0; i < buffer.length; i++) buffer.bytes[i] = (i * 7 + (i >> 12)) & 0xff;
const page = (i: number) => ({ phys: (buffer.phys + i * 8192) as typeof buffer.phys, length: 4096 });
const scattered = Array.from({ length: 256 }, (_, i) => page((i * 167) % 256)); // every other page, in no order
const ranges = (dma: Dma): number => dma.counters.iovaAllocations;
const [beforeA, beforeB] = [a.dma.counters.snapshot(), ranges(b.dma)];
await host.run(first.write(0, scattered));
const { iovaAllocations, mapSyncs, leavesWritten } = a.dma.counters.since(beforeA);
const kept = `${first.counters.metadataBytes} bytes kept`;
console.log(
  `1 MiB of scattered pages: ${iovaAllocations} ranges, ${leavesWritten} entries, ${mapSyncs} syncs, ${kept}`,
);
if (!(await host.run(first.disk.compare(0, scattered)))) throw new Error("the disk holds other bytes");

// Copy it to the second disk: into the first one's memory, and from there. Below one switch nothing is mapped for it.
const bar = first.cmb && a.barMemory(first.cmb.bar);
using lent = bar && first.lendMemory(bar);
if (!lent) throw new Error("the first disk has no memory that the second could reach");
await host.run(first.read(0, [lent.vec(0, MiB)]));
await host.run(second.write(0, [lent.vec(0, MiB)]));
console.log(`1 MiB from disk to disk: ${ranges(b.dma) - beforeB} ranges of addresses for it`);
if (!(await host.run(second.disk.compare(0, scattered)))) throw new Error("the copy differs");

await host.run(Promise.all([first.close(), second.close()]));
const mapped = [a, b].reduce((sum, { dma: { counters } }) => sum + counters.leavesWritten - counters.leavesCleared, 0);
console.log(`after closing both: ${mapped} entries mapped`);
host.close();
if (mapped !== 0) throw new Error("something is still mapped");
