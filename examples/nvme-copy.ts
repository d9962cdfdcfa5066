/** Two disks and an IOMMU: write, read back, then copy from disk to disk through memory of the first, which no CPU touches. */
import { Nvme } from "../src/consumers/nvme/index.ts";
import { CMB_BAR, NvmeController, SimulatedMachine, SimulatedUnit } from "../src/hosts/simulated/index.ts";
import { Dma, IommuDomain, MiB, vtdSecondStage } from "../src/index.ts";

// A machine with a switch, and a disk at each of its ports; the first has 4 MiB of memory that others may use.
const unit = new SimulatedUnit();
const machine = new SimulatedMachine({ translator: unit, bridges: [{ rootPorts: [{ switch: [{}, {}] }] }] });
const { clock } = machine;

function plug(slot: string, domainId: number, cmbBytes: number) {
  const controller = new NvmeController({ namespaces: [{ blocks: 65_536 }], cmbBytes });
  const device = machine.plug(slot, controller)[0]!;
  const domain = new IommuDomain({ layout: vtdSecondStage(), unit, clock, mode: "strict", domainId });
  unit.attach(device.requester, domain.tables);
  return { device, dma: new Dma({ domain, name: device.name, node: device.node, machine }) };
}
const [a, b] = [plug("0.0.0", 1, 4 * MiB), plug("0.0.1", 2, 0)];
const first = await clock.run(Nvme.open(a.device, a.dma, { clock }));
const second = await clock.run(Nvme.open(b.device, b.dma, { clock }));
console.log(
  `${first.device.name} and ${second.device.name}: ${first.identity.modelNumber}, ${first.disk.bytes / MiB} MiB`,
);

// Write 1 MiB of scattered pages and read it back.
const buffer = machine.ram.allocate(4 * MiB);
for (let i = 0; i < buffer.length; i++) buffer.bytes[i] = (i * 7 + (i >> 12)) & 0xff;
const page = (i: number) => ({ phys: (buffer.phys + i * 8192) as typeof buffer.phys, length: 4096 });
const scattered = Array.from({ length: 256 }, (_, i) => page((i * 167) % 256)); // every other page, in no order
const before = a.dma.counters.snapshot();
await clock.run(first.write(0, scattered));
const { iovaAllocations, mapSyncs, leavesWritten, invalidations } = a.dma.counters.since(before);
console.log(
  `1 MiB from 256 scattered pages: ${iovaAllocations} ranges, ${leavesWritten} entries, ${mapSyncs} syncs, ` +
    `${invalidations} invalidations, ${first.counters.metadataBytes} bytes kept`,
);
if (!(await clock.run(first.disk.compare(0, scattered)))) throw new Error("the disk holds other bytes");

// Copy it to the second disk: into the first one's memory, and from there. Below one switch nothing is mapped for it.
using lent = first.lendMemory(a.device.node.bars.find(({ index }) => index === CMB_BAR)!)!;
const peers = b.dma.counters.snapshot();
await clock.run(first.read(0, [lent.vec(0, MiB)]));
await clock.run(second.write(0, [lent.vec(0, MiB)]));
const { iovaAllocations: ranges } = b.dma.counters.since(peers);
console.log(
  `1 MiB from disk to disk: ${ranges} ranges, ${machine.fabric.turnedAround} pieces turned around below the root`,
);
if (!(await clock.run(second.disk.compare(0, scattered)))) throw new Error("the copy differs");

await clock.run(Promise.all([first.close(), second.close()]));
const mapped = [a, b].reduce((sum, { dma: { counters } }) => sum + counters.leavesWritten - counters.leavesCleared, 0);
console.log(`after closing both: ${mapped} entries mapped, ${unit.faults.length} faults`);
if (mapped !== 0) throw new Error("something is still mapped");
