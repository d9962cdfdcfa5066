/** One buffer in the hands of four devices: it moves between RAM and its owner's memory while they work, and is taken back. */

import { BarPages, DeviceMemoryBuffers, type Importer } from "dmalink/dmabuf";
import { finish } from "dmalink/process";
import { DmaEngine, SimulatedHost } from "dmalink/sim";

// The owner and a neighbour below one switch, three others below root ports of their own.
const host = new SimulatedHost({
  bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{ switch: [{}, {}] }, {}, {}, {}] }],
  iommu: { mode: "lazy" },
});
const { memory, pages } = host.machine;
const [owner, ...others] = ["0.0.0", "0.0.1", "0.1", "0.2", "0.3"].map((slot) => {
  const engine = new DmaEngine({ memoryBytes: 65_536 });
  const [pci] = host.plug(slot, engine);
  pci!.setBusMaster(true);
  const provider = host.peers.add(pci!.node, pci!.node.bars[0]!);
  return { engine, provider, dma: host.openDevice(pci!.name).dma, name: pci!.name };
});
const { provider, name } = owner!;
const places = { devicePages: new BarPages(provider), systemPages: pages, memory };
const migrating = new DeviceMemoryBuffers({ name, provider, ...places }).allocate(8 * 4096, "system");
const { buffer } = migrating;
for (const [i, { phys }] of buffer.exporter.vectors().entries()) memory.write(phys, new Uint8Array(32_768).fill(i + 1));

// Each keeps its mapping while parts of the buffer move, and lets go when it is taken back.
const sharers = others.map(({ dma, name: its, engine }) => {
  const ops: Importer["ops"] = {
    peerToPeer: true,
    invalidated: ({ why }) => why === "revoke" && attachment.mapping && attachment.unmap(),
    movedInPlace: () => {},
  };
  const attachment = buffer.attach({ name: its, dma, ops });
  const mapping = buffer.reservation.locked(() => attachment.map("to-device"));
  let ranges = mapping.ranges;
  const read = (): Uint8Array | undefined => {
    if (attachment.mapping) ranges = mapping.ranges; // a bus address may have come or gone
    return engine.gather(ranges);
  };
  return { read, count: () => ranges.length };
});
function show(what: string): void {
  const seen = sharers.map(({ read, count }) => `${read()?.length ?? "no"} bytes, ${count()} runs`);
  console.log(`${what}: ${seen.join(" | ")}`);
}
show("in RAM");
finish(migrating.migrate(2 * 4096, 3 * 4096, "device"));
show("three pages are in the device");
finish(migrating.migrate(0, 8 * 4096, "system"));
show("back in RAM");
finish(buffer.revoke());
show("revoked");
if (sharers.some(({ read }) => read()) || buffer.counts.movedInPlace !== 8) throw new Error("not what was expected");
