/** Bounce buffers: a device that cannot reach the memory gets a copy. */
import type { Lesson } from "./lesson.ts";

export const bounce: Lesson = {
  name: "bounce",
  title: "Bounce",
  about:
    "No IOMMU, and a device with 32 address bits: memory above 4 GiB is out of its reach. A pool below stands in, and bytes are copied. " +
    "The copies happen at map, sync and unmap: who forgets a sync reads old bytes.",
  program: `import { Counters, PhysPage } from "dmalink";
import { DmaEngine, SimulatedHost } from "dmalink/sim";

// 8 GiB of memory and no IOMMU: addresses are physical. A bounce pool of 1 MiB below 3 GiB.
const GiB = 2 ** 30;
const counters = new Counters();
const host = new SimulatedHost({ memoryBytes: 8 * GiB, counters, pool: { slots: 512 } });
const engine = new DmaEngine();
const [pci] = host.plug("0.0", engine);
pci.setBusMaster(true);
const { dma } = host.openDevice(pci.name, { limits: { mask: 2 ** 32 - 1 } });
const [text, back] = [new TextEncoder(), new TextDecoder()];
const at = (phys) => { const bytes = new Uint8Array(8); host.machine.memory.read(phys, bytes); return back.decode(bytes); };

// One page is low; somebody else has the rest below 4 GiB, so the next one is high.
const low = host.memory.allocatePages(1);
for (const pages of [65536, 1024, 16, 1]) while (host.memory.allocatePages(pages, 4 * GiB / 4096 - 1) !== undefined);
const high = host.memory.allocatePages(1);
host.machine.memory.write(PhysPage.start(low), text.encode("low down"));
host.machine.memory.write(PhysPage.start(high), text.encode("up there"));

await step("Map a page that the device can reach", "Its address is the physical one, and nothing is copied.");
const near = dma.map(PhysPage.start(low), 4096, "to-device");

await step("Map one that it cannot reach", "The pool stands in for it: its bytes were copied there, and the address is the pool's.");
const far = dma.map(PhysPage.start(high), 4096, "bidirectional");

await step("The device reads both", "It sees the same bytes as the CPU: those of the copy.");
const seen = [near, far].map(({ address }) => { const bytes = new Uint8Array(8); engine.read(address, bytes); return back.decode(bytes); });
console.log("the device read " + seen.join(" and "));

await step("The device writes to the far one", "Into the pool. The page up there still has the old bytes.");
engine.write(far.address, text.encode("an echo!"));
console.log("the CPU sees: " + at(PhysPage.start(high)));

await step("Sync for the CPU", "Now they are copied out.");
far.syncForCpu();
console.log("the CPU sees: " + at(PhysPage.start(high)));

await step("Unmap both", "What the device may have written is copied out once more, and the place in the pool is free.");
near.unmap();
far.unmap();
console.log(counters.bouncedBytes + " bytes copied for two pages");
`,
  breakages: [
    {
      title: "The sync is forgotten",
      sentence: "The CPU reads old bytes: the device wrote to the copy, and nobody fetched them.",
      find: "far.syncForCpu();",
      put: "",
    },
    {
      title: "The buffer was mapped to-device",
      sentence: "Then nothing is ever copied out: what the device writes into the pool is lost.",
      find: `dma.map(PhysPage.start(high), 4096, "bidirectional")`,
      put: `dma.map(PhysPage.start(high), 4096, "to-device")`,
    },
    {
      title: "There is no pool",
      sentence: "The map fails: a device that cannot reach the memory cannot be given it.",
      find: ", counters, pool: { slots: 512 }",
      put: ", counters",
    },
    {
      title: "An IOMMU instead",
      sentence: "It maps the far page to an address below 4 GiB: no copy, an entry of a table.",
      find: "pool: { slots: 512 }",
      put: "iommu: {}",
    },
  ],
};
