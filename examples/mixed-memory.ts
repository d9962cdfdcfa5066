/** One range over three kinds of memory: RAM, a peer's memory through the host bridge, RAM again; and a peer below the same switch. */

import { hex, type PhysAddr, PhysPage } from "dmalink";
import { DmaEngine, SimulatedHost } from "dmalink/sim";

// A switch with two devices, and a third below a root port of its own; this processor routes between root ports.
const host = new SimulatedHost({
  bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{ switch: [{}, {}] }, {}] }],
  iommu: {},
});
const { machine, peers } = host;
const [nic, near, far] = ["0.0.0", "0.0.1", "0.1"].map((slot) => {
  const engine = new DmaEngine({ memoryBytes: 65_536 });
  const [pci] = host.plug(slot, engine);
  pci!.setBusMaster(true);
  peers.add(pci!.node, pci!.node.bars[0]!);
  return { engine, pci: pci!, window: pci!.node.bars[0]!.phys };
});
const { dma } = host.openDevice(nic!.pci.name);

const ram = PhysPage.start(machine.pages.allocatePages(2)!);
const pieces = [ram, far!.window, (ram + 4096) as PhysAddr].map((phys) => ({ phys, length: 4096 }));
pieces.forEach(({ phys }, i) => {
  machine.memory.write(phys, new Uint8Array(4096).fill(i + 1));
});

// Which way the device reaches the peer is asked once per piece; the peer's piece is linked as device memory.
const range = dma.tryReserveIova({ length: 3 * 4096 });
if (!range) throw new Error("no address space");
for (const [i, { phys, length }] of pieces.entries()) {
  const way = peers.stateOf({ type: undefined, provider: undefined }, phys, nic!.pci.node);
  console.log(`piece ${i} at ${hex(phys).padEnd(13)} ${way === "none" ? "RAM" : way}`);
  range.link(i * 4096, phys, length, "to-device", way === "none" ? undefined : { mmio: true });
}
range.sync();
const seen = new Uint8Array(3 * 4096);
if (!nic!.engine.read(range.address, seen)) throw new Error("refused");
console.log(`the device read ${[0, 1, 2].map((i) => seen[i * 4096])} through one range at ${hex(range.address)}`);
range.destroy();

// mapVecs does all of that by itself; a peer below the same switch stays out of the IOMMU.
const mapping = dma.mapVecs([pieces[0]!, { phys: near!.window, length: 4096 }], "to-device");
for (const { address, bus } of mapping.vecs) console.log(`${hex(address)} ${bus ? "on the bus" : "translated"}`);
mapping.unmap();
if (mapping.vecs.length !== 2 || dma.counters.iovaFrees !== 2) throw new Error("not what was expected");
