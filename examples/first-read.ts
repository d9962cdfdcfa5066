/** One driver, two hosts: writes a disk and reads it back, on a simulated machine or on a real device (docs/real-hardware.md). */
import { parseArgs } from "node:util";
import { Nvme } from "../src/consumers/nvme/index.ts";
import { LinuxHost } from "../src/hosts/linux/index.ts";
import { NvmeController, SimulatedMachine, SimulatedUnit } from "../src/hosts/simulated/index.ts";
import { Dma, IommuDomain, vtdSecondStage } from "../src/index.ts";
import type { Clock, HostMemory, PciDevice } from "../src/platform/index.ts";

const { values: options } = parseArgs({
  options: { host: { type: "string", default: "simulated" }, device: { type: "string" } },
});

/** What a driver needs, from either host; and how to wait, because a simulated clock is moved by hand. */
interface Place {
  readonly device: PciDevice;
  readonly dma: Dma;
  readonly memory: HostMemory;
  readonly clock: Clock;
  run<T>(work: Promise<T>): Promise<T>;
  close(): void;
}

function simulated(): Place {
  const unit = new SimulatedUnit();
  const machine = new SimulatedMachine({ translator: unit });
  const { clock, ram } = machine;
  const device = machine.plug("0.0", new NvmeController({ namespaces: [{ blocks: 65_536 }] }))[0]!;
  const domain = new IommuDomain({ layout: vtdSecondStage(), unit, clock, mode: "strict" });
  unit.attach(device.requester, domain.tables);
  const dma = new Dma({ domain, name: device.name, node: device.node, machine });
  return { device, dma, memory: ram, clock, run: (work) => clock.run(work), close: () => {} };
}

/** The first blocks of the disk are overwritten: take one that holds nothing. */
function linux(name: string): Place {
  const host = new LinuxHost();
  const device = host.openDevice(name);
  const dma = new Dma({ domain: device.domain, name, machine: host.machine });
  return { device, dma, memory: host.memory, clock: host.clock, run: (work) => work, close: () => host.close() };
}

if (options.host === "linux" && options.device === undefined)
  throw new Error("--host linux needs --device ssss:bb:dd.f");
const { device, dma, memory, clock, run, close } = options.host === "linux" ? linux(options.device!) : simulated();
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
