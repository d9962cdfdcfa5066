/** Two disks and an IOMMU: write, read back, then copy from disk to disk through memory of the first, which no CPU touches. */
import { Nvme } from "../src/consumers/nvme/index.ts";
import { NvmeController, SimulatedMachine, SimulatedUnit } from "../src/hosts/simulated/index.ts";
import { Dma, DmaDomain, MiB, vtdSecondStage } from "../src/index.ts";
import { openPlace, type Place } from "./hosts/place.ts";

/** A machine with a switch, and a disk at each of its ports; the first has 4 MiB of memory that others may use. */
function simulated(): Place {
  const unit = new SimulatedUnit();
  const machine = new SimulatedMachine({ translator: unit, bridges: [{ rootPorts: [{ switch: [{}, {}] }] }] });
  const { clock, ram } = machine;
  const seats = [4 * MiB, 0].map((cmbBytes, i) => {
    const device = machine.plug(`0.0.${i}`, new NvmeController({ namespaces: [{ blocks: 65_536 }], cmbBytes }))[0]!;
    const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock, mode: "strict", domainId: i + 1 });
    unit.attach(device.requester, domain.tables);
    const dma = new Dma({ domain, name: device.name, node: device.node, machine });
    return { device, dma, barMemory: (index: number) => device.node.bars.find((bar) => bar.index === index) };
  });
  return { seats, memory: ram, clock, run: (work) => clock.run(work), close: () => {} };
}

// With --host linux the first blocks of both disks are overwritten: take disks that hold nothing, the first with a memory buffer.
const { seats, memory, clock, run, close } = openPlace(2, simulated);
const [a, b] = [seats[0]!, seats[1]!];
const first = await run(Nvme.open(a.device, a.dma, { clock }));
const second = await run(Nvme.open(b.device, b.dma, { clock }));
console.log(`${a.device.name}, ${b.device.name}: ${first.identity.modelNumber}, ${first.disk.bytes / MiB} MiB`);

// Write 1 MiB of scattered pages and compare.
const buffer = memory.allocate(4 * MiB);
for (let i = 0; i < buffer.length; i++) buffer.bytes[i] = (i * 7 + (i >> 12)) & 0xff;
const page = (i: number) => ({ phys: (buffer.phys + i * 8192) as typeof buffer.phys, length: 4096 });
const scattered = Array.from({ length: 256 }, (_, i) => page((i * 167) % 256)); // every other page, in no order
const ranges = (dma: Dma): number => dma.counters.iovaAllocations;
const [beforeA, beforeB] = [a.dma.counters.snapshot(), ranges(b.dma)];
await run(first.write(0, scattered));
const { iovaAllocations, mapSyncs, leavesWritten } = a.dma.counters.since(beforeA);
const kept = `${first.counters.metadataBytes} bytes kept`;
console.log(
  `1 MiB of scattered pages: ${iovaAllocations} ranges, ${leavesWritten} entries, ${mapSyncs} syncs, ${kept}`,
);
if (!(await run(first.disk.compare(0, scattered)))) throw new Error("the disk holds other bytes");

// Copy it to the second disk: into the first one's memory, and from there. Below one switch nothing is mapped for it.
const bar = first.cmb && a.barMemory(first.cmb.bar);
using lent = bar && first.lendMemory(bar);
if (!lent) throw new Error("the first disk has no memory that the second could reach");
await run(first.read(0, [lent.vec(0, MiB)]));
await run(second.write(0, [lent.vec(0, MiB)]));
console.log(`1 MiB from disk to disk: ${ranges(b.dma) - beforeB} ranges of addresses for it`);
if (!(await run(second.disk.compare(0, scattered)))) throw new Error("the copy differs");

await run(Promise.all([first.close(), second.close()]));
const mapped = [a, b].reduce((sum, { dma: { counters } }) => sum + counters.leavesWritten - counters.leavesCleared, 0);
console.log(`after closing both: ${mapped} entries mapped`);
close();
if (mapped !== 0) throw new Error("something is still mapped");
