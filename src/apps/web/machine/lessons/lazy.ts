/** Lazy mode, and the window that it leaves open. */
import type { Lesson } from "./lesson.ts";

export const lazy: Lesson = {
  name: "lazy",
  title: "Lazy, and its window",
  about:
    "Invalidations are what costs, so lazy mode collects them: an unmap clears the entry and queues the addresses, and a flush of everything " +
    "comes later. In between the device may still reach memory that is no longer its own.",
  program: `import { DmaEngine, SimulatedHost } from "dmalink/sim";

const host = new SimulatedHost({ iommu: { mode: "lazy" } });
const engine = new DmaEngine();
const [pci] = host.plug("0.0", engine);
pci.setBusMaster(true);
const { dma } = host.openDevice(pci.name, { limits: { mask: 2 ** 32 - 1 } });
const text = new TextEncoder();

await step("Map a page, and the device writes to it", "The walk leaves a translation in the IOTLB.");
const secret = host.memory.allocate(4096);
const mapping = dma.map(secret.phys, 4096, "from-device");
engine.write(mapping.address, text.encode("a packet"));

await step("Unmap", "The entry is gone and no invalidation was waited for. The addresses wait in the flush queue, and the IOTLB still knows the way.");
mapping.unmap();

await step("The CPU uses the memory for something else", "It is the CPU's again, as the API promises.");
secret.bytes.set(text.encode("a secret"));

await step("The device writes again", "By the stale entry, straight into it. In strict mode this would have been refused.");
const late = engine.write(mapping.address, text.encode("OVERRUN!"));
console.log(late ? "the late write went through" : "the late write was refused");

await step("Ten milliseconds pass", "The flush queue's timer: everything of this address space is invalidated at once, and the addresses are free again.");
host.clock.advance(10);

await step("And once more", "Refused: the window is closed.");
const later = engine.write(mapping.address, text.encode("OVERRUN!"));
console.log(later ? "went through" : "refused");
`,
  breakages: [
    {
      title: "Strict mode instead",
      sentence: "The late write is refused, for the price of an invalidation at each unmap.",
      find: `mode: "lazy"`,
      put: `mode: "strict"`,
    },
    {
      title: "The device never touched it before",
      sentence: "What was never walked is in no IOTLB: even in lazy mode the late write is refused.",
      find: `engine.write(mapping.address, text.encode("a packet"));\n`,
      put: "",
    },
    {
      title: "Full of late unmaps",
      sentence: "The queue holds 256 entries: it is flushed when it is full, without waiting for the timer.",
      find: "host.clock.advance(10);",
      put: `for (let i = 0; i < 300; i++) dma.map(secret.phys, 4096, "from-device").unmap();`,
    },
  ],
};
