/** One shot against two steps: the same pages, and what each way costs. */
import type { Lesson } from "./lesson.ts";

export const twoSteps: Lesson = {
  name: "two-steps",
  title: "One shot, two steps",
  about:
    "Four pages that lie anywhere in memory, for a device that wants one address. One shot maps each by itself; two steps reserve one " +
    "range, link the pages into it, and give it back with a single invalidation.",
  program: `import { PhysAddr } from "dmalink";
import { DmaEngine, SimulatedHost } from "dmalink/sim";

// A machine with an IOMMU; a device that reads and writes where it is told.
const host = new SimulatedHost({ iommu: { mode: "strict" } });
const engine = new DmaEngine();
const [pci] = host.plug("0.0", engine);
pci.setBusMaster(true);
const { dma } = host.openDevice(pci.name, { limits: { mask: 2 ** 32 - 1 } });

// Four pages, scattered: every third of a larger buffer.
const buffer = host.memory.allocate(12 * 4096);
const pages = [9, 3, 0, 6].map((n) => PhysAddr(buffer.phys + n * 4096));
const text = new TextEncoder();
pages.forEach((page, i) => buffer.bytes.set(text.encode("page number " + i), page - buffer.phys));

await step("Map each page in one shot", "Four addresses, and each map is its own call: reserve, write an entry, sync.");
let before = dma.counters.snapshot();
const mappings = pages.map((page) => dma.map(page, 4096, "to-device"));

await step("The device reads through each", "A walk of the tables for each page; what it found is now in the IOTLB.");
for (const { address } of mappings) engine.read(address, new Uint8Array(16));

await step("Unmap them", "Strict mode: each unmap clears its entry and waits until the IOTLB has forgotten it. Four invalidations, and they are what costs.");
for (const mapping of mappings) mapping.unmap();
const oneShot = dma.counters.since(before);

await step("Reserve a range for all four", "Addresses, and nothing else: no entry is written, the device reaches nothing.");
before = dma.counters.snapshot();
const range = dma.tryReserveIova({ length: 4 * 4096 });

await step("Link the four pages", "One entry each, into the same table. They are not promised yet: the device must not look.");
pages.forEach((page, i) => range.link(i * 4096, page, 4096, "to-device"));

await step("Sync", "From here on the device may look.");
range.sync();

await step("The device reads all of it", "One address, four pages: for the device it is one buffer of 16 KiB.");
engine.read(range.address, new Uint8Array(4 * 4096));

await step("Destroy the range", "All entries cleared, one invalidation, and only then are the addresses given back.");
range.destroy();
const twoStep = dma.counters.since(before);

const told = (c) => \`\${c.iovaAllocations} reservations, \${c.mapSyncs} syncs, \${c.invalidations} invalidations\`;
console.log("one shot:  " + told(oneShot));
console.log("two steps: " + told(twoStep));
`,
  breakages: [
    {
      title: "Link to an address twice",
      sentence: "A live entry is not overwritten: the link is refused with EADDRINUSE and leaves nothing behind.",
      find: `await step("Sync"`,
      put: `range.link(0, pages[1], 4096, "to-device");\nawait step("Sync"`,
    },
    {
      title: "The device writes where it may only read",
      sentence: "The entries of to-device say r and not w: the write is refused, a fault, and memory stays as it was.",
      find: "engine.read(range.address, new Uint8Array(4 * 4096));",
      put: "engine.write(range.address, new Uint8Array(4 * 4096).fill(0xee));",
    },
    {
      title: "The device goes on after the end",
      sentence: "Nothing is there any more, in the table or in the IOTLB: refused.",
      find: "const twoStep =",
      put: "engine.read(range.address, new Uint8Array(16));\nconst twoStep =",
    },
  ],
};
