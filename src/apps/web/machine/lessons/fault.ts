/** A fault, and how it reads. */
import type { Lesson } from "./lesson.ts";

export const fault: Lesson = {
  name: "fault",
  title: "A fault, and how it reads",
  about:
    "A fault names a device, an address and a reason, and nothing else. The reason says where to look: at the direction, at the time, or at the " +
    "device. What the IOMMU lets through makes no fault: there only checked mode (DmaDebug) says something.",
  program: `import { DmaDebug, hex, requesterName } from "dmalink";
import { DmaEngine, SimulatedHost } from "dmalink/sim";

const host = new SimulatedHost({ iommu: { mode: "strict" } });
const engine = new DmaEngine();
const [pci] = host.plug("0.0", engine);
pci.setBusMaster(true);

// Checked mode looks over every call of this device, and is told of every access on the bus.
const debug = new DmaDebug({ print: "none", callSites: false });
const { dma } = host.openDevice(pci.name, { debug, limits: { mask: 2 ** 32 - 1 } });
debug.knowAs(dma.device, pci.requester);
host.machine.fabric.onAccess = debug.accessed;

const faults = () => host.tablesUnit.faults.splice(0).map(({ requester, page, access, reason }) =>
  \`fault: \${requesterName(requester)} \${access}s at \${hex(page * 4096)}: \${reason}\`);
const findings = () => debug.report().slice(-1).map(String);
const read = (address) => engine.read(address, new Uint8Array(8));

const first = host.memory.allocate(4096);
const second = host.memory.allocate(4096);

await step("Map two buffers", "One for the device to write, and it does; one for it to read.");
const writable = dma.map(first.phys, 4096, "from-device");
const readable = dma.map(second.phys, 4096, "to-device");
engine.write(writable.address, new Uint8Array(8));

await step("The device writes into the one it may only read", "not-permitted: the entry is there and has no w. Wrong direction at the map, or a confused device.");
engine.write(readable.address, new Uint8Array(8));
console.log([...faults(), ...findings()].join("\\n"));

await step("Unmap, and the device goes on", "not-present: nothing is at the address any more. The access was late; whose address it was, a trace of the maps and unmaps tells (dmalink check).");
writable.unmap();
engine.write(writable.address, new Uint8Array(8));
console.log([...faults(), ...findings()].join("\\n"));

await step("The device reads at an address that was never anybody's", "The same reason. Only who knows all maps can tell a wild address from a late one: the IOMMU cannot.");
read(0x12345000);
console.log([...faults(), ...findings()].join("\\n"));

await step("It reads past the end of its buffer", "The first page is answered; the next is not mapped. The fault's address is the page where it stopped, not where the buffer began.");
engine.read(readable.address + 4096 - 4, new Uint8Array(8));
console.log([...faults(), ...findings()].join("\\n"));

await step("The device is detached, and still tries", "not-attached: the IOMMU knows no tables of this device at all.");
readable.unmap();
host.close();
read(readable.address);
console.log(faults().join("\\n"));
`,
  breakages: [
    {
      title: "In lazy mode",
      sentence: "The late write goes through and makes no fault at all: only checked mode sees it, and says so.",
      find: `mode: "strict"`,
      put: `mode: "lazy"`,
    },
    {
      title: "The device was told to be quiet",
      sentence: "Without bus mastering nothing leaves it: no access, no fault, and the driver waits in vain.",
      find: "pci.setBusMaster(true);",
      put: "pci.setBusMaster(false);",
    },
  ],
};
