/** Peers: one device reads another's memory, through a switch or not at all. */
import type { Lesson } from "./lesson.ts";

export const peers: Lesson = {
  name: "peers",
  title: "Peers through a switch",
  about:
    "Two devices below one switch, a third at a root port of its own. One lends its memory. Its neighbour gets a bus address, and the switch " +
    "turns the request around: no IOMMU sees it. Access control (ACS) at the switch changes that.",
  program: `import { DmaEngine, SimulatedHost } from "dmalink/sim";

const host = new SimulatedHost({
  iommu: { mode: "strict" },
  bridges: [{ rootPorts: [{ switch: [{}, {}] }, {}] }],
  peers: { followAcs: true },
});
const [lender, neighbour, stranger] = [["0.0.0", 65536], ["0.0.1", 0], ["0.1", 0]].map(([slot, memoryBytes]) => {
  const engine = new DmaEngine({ memoryBytes });
  const [pci] = host.plug(slot, engine);
  pci.setBusMaster(true);
  return { engine, pci, dma: host.openDevice(pci.name, { limits: { mask: 2 ** 48 - 1 } }).dma };
});

// The lender's BAR holds something, and is offered to peers.
const [bar] = lender.pci.node.bars;
host.machine.memory.write(bar.phys, new TextEncoder().encode("of the lender"));
const provider = host.peers.add(lender.pci.node, bar);
const told = (engine, address) => {
  const bytes = new Uint8Array(13);
  return engine.read(address, bytes) ? new TextDecoder().decode(bytes) : "nothing: refused";
};

await step("The neighbour maps the lender's memory", "It got the address that the BAR has on the bus: no reservation, no entry, nothing to invalidate.");
const near = neighbour.dma.mapScatterlist([{ phys: bar.phys, length: 4096 }], "to-device");
console.log("for it, mapped as " + host.peers.mapType(provider, neighbour.pci.node));

await step("The neighbour reads", "The switch sees that the address is below it, and turns the request around: it never comes to the IOMMU.");
console.log("the neighbour read: " + told(neighbour.engine, near.segments[0].address));

await step("A stranger behind another root port tries", "This root complex does not pass requests on between its ports: the map is refused, and the driver goes by RAM instead.");
let far;
try {
  far = stranger.dma.mapScatterlist([{ phys: bar.phys, length: 4096 }], "to-device");
} catch (error) {
  console.log(error.code + " (" + error.errno + "): " + error.message);
}

await step("It tries all the same", "With the bus address: the IOMMU knows no such address of this device. A fault.");
console.log("the stranger read: " + told(stranger.engine, (far ?? near).segments[0].address));

await step("The switch is told to send everything up", "ACS, request redirect: now the neighbour's request would go to the root complex, where nobody mapped it.");
for (const node of host.machine.tree.nodes()) if (node.kind === "downstream-port") node.acsControl = 0x1c;
console.log("the neighbour read: " + told(neighbour.engine, near.segments[0].address));

await step("Unmap", "There was nothing to take back in the tables.");
near.unmap();
far?.unmap();
`,
  breakages: [
    {
      title: "Access control from the start",
      sentence:
        "With redirection there is no direct way, and this root complex routes none: the neighbour's map is refused with EREMOTEIO.",
      find: "switch: [{}, {}]",
      put: "switch: [{ acsControl: 0x1c }, { acsControl: 0x1c }]",
    },
    {
      title: "A root complex that passes requests on",
      sentence:
        "The stranger's map succeeds: by an entry of its own table that leads to the BAR, so it costs what RAM costs.",
      find: "bridges: [{ rootPorts:",
      put: `bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts:`,
    },
    {
      title: "The lender is pulled out",
      sentence: "The neighbour's address leads nowhere from that moment on: refused.",
      find: `await step("A stranger`,
      put: `host.machine.unplug(lender.pci.node);\nconsole.log("the neighbour read: " + told(neighbour.engine, near.segments[0].address));\nawait step("A stranger`,
    },
  ],
};
