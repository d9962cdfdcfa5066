/** What live migration does to mappings: dirty bits, round by round. */
import type { Lesson } from "./lesson.ts";

export const migration: Lesson = {
  name: "migration",
  title: "What migration does",
  about:
    "A guest's memory is copied to another machine while its device goes on writing. Each round copies what was written since the last one: the " +
    "IOMMU sets a dirty bit in the entry of every page that the device writes, and the mover reads and clears them.",
  program: `import { PhysAddr } from "dmalink";
import { DmaEngine, SimulatedHost } from "dmalink/sim";

// A unit that sets dirty bits.
const host = new SimulatedHost({ iommu: { dirty: true } });
const engine = new DmaEngine();
const [pci] = host.plug("0.0", engine);
pci.setBusMaster(true);
const { dma, domain } = host.openDevice(pci.name, { limits: { mask: 2 ** 32 - 1 } });
const text = new TextEncoder();

// Eight pages of the guest's memory, and as many on the other machine.
const here = host.memory.allocate(8 * 4096);
const there = new Uint8Array(8 * 4096);
const range = dma.tryReserveIova({ length: 8 * 4096 });
// Page by page, so that there is an entry for each.
for (let i = 0; i < 8; i++) range.link(i * 4096, PhysAddr(here.phys + i * 4096), 4096, "bidirectional");
range.sync();
const first = range.address / 4096;
const write = (page, words) => engine.write(range.address + page * 4096, text.encode(words));
const copy = (page) => there.set(here.bytes.subarray(page * 4096, (page + 1) * 4096), page * 4096);
const differs = () => [0, 1, 2, 3, 4, 5, 6, 7].filter((page) => here.bytes.some((byte, i) => Math.floor(i / 4096) === page && byte !== there[i]));

// One round: which pages are dirty, and they are clean from here on.
function round(clear = true) {
  const dirty = [];
  domain.readDirty(first, 8, clear, (page, pages) => { for (let i = 0; i < pages; i++) dirty.push(page - first + i); });
  dirty.forEach(copy);
  console.log("copied pages: " + (dirty.join(", ") || "none"));
}

await step("The device writes to three pages", "Their entries say dirty now: the IOMMU set the bit by itself, with the walk.");
for (const page of [1, 4, 6]) write(page, "first words " + page);

await step("Round 1: everything is copied", "The bits are cleared, and the IOTLB has to forget: an entry in there would let the device write without being noted.");
for (let page = 0; page < 8; page++) copy(page);
round();

await step("The device goes on: two pages", "Only these are dirty: one was written before, one is new.");
write(4, "second words");
write(7, "new here");

await step("Round 2: only what was written", "Two pages instead of eight. Rounds get shorter, until the rest is small enough to stop for.");
round();

await step("The device writes once more, and is stopped", "Without bus mastering nothing leaves it: what is dirty now is the last of it.");
write(2, "the last word");
pci.setBusMaster(false);

await step("The last round, while it stands still", "One page: this is the time that the guest notices. What the device tries meanwhile does not leave it.");
round();
write(5, "too late");

await step("Compare", "Byte for byte.");
console.log(differs().length === 0 ? "both sides are equal" : "LOST: pages " + differs().join(", "));
`,
  breakages: [
    {
      title: "The IOTLB is not told",
      sentence:
        "The bits are cleared behind the unit's back: it believes that they are set, notes nothing, and a page is lost.",
      find: "const text = new TextEncoder();",
      put: "host.tablesUnit.invalidateRange = () => {};\nconst text = new TextEncoder();",
    },
    {
      title: "The device is not stopped",
      sentence: "It writes after the last round: the other side never hears of it.",
      find: "pci.setBusMaster(false);",
      put: "",
    },
  ],
};
