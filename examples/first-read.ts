/** One driver, two hosts: writes a disk and reads it back, on a simulated machine or on a real device (docs/real-hardware.md). */
import { Nvme } from "../src/consumers/nvme/index.ts";
import { NvmeController, SimulatedMachine, SimulatedUnit } from "../src/hosts/simulated/index.ts";
import { Dma, DmaDomain, vtdSecondStage } from "../src/index.ts";
import { openPlace, type Place } from "./hosts/place.ts";

function simulated(): Place {
  const unit = new SimulatedUnit();
  const machine = new SimulatedMachine({ translator: unit });
  const { clock, ram } = machine;
  const device = machine.plug("0.0", new NvmeController({ namespaces: [{ blocks: 65_536 }] }))[0]!;
  const domain = new DmaDomain({ layout: vtdSecondStage(), unit, clock, mode: "strict" });
  unit.attach(device.requester, domain.tables);
  const dma = new Dma({ domain, name: device.name, node: device.node, machine });
  const seats = [{ device, dma, barMemory: () => undefined }];
  return { seats, memory: ram, clock, run: (work) => clock.run(work), close: () => {} };
}

// With --host linux the first blocks of the disk are overwritten: take one that holds nothing.
const { seats, memory, clock, run, close } = openPlace(1, simulated);
const { device, dma } = seats[0]!;
const nvme = await run(Nvme.open(device, dma, { clock }));
console.log(`${device.name}: ${nvme.identity.modelNumber}, ${nvme.disk.bytes} bytes`);

const [written, read] = [memory.allocate(65_536), memory.allocate(65_536)];
written.bytes.forEach((_, i, bytes) => {
  bytes[i] = (i * 7 + (i >> 8)) & 0xff;
});
await run(nvme.write(0, [{ phys: written.phys, length: written.length }]));
await run(nvme.read(0, [{ phys: read.phys, length: read.length }]));
if (read.bytes.some((byte, i) => byte !== written.bytes[i])) throw new Error("other bytes came back");
const { iovaAllocations, mapSyncs } = dma.counters;
console.log(`${written.length} bytes written and read back; ${iovaAllocations} ranges, ${mapSyncs} syncs`);
await run(nvme.close());
close();
