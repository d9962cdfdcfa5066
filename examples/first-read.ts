/** One driver, two hosts: writes a disk and reads it back, on a simulated machine or on a real device (docs/real-hardware.md). */
import { Nvme } from "dmalink/nvme";
import { NvmeController, SimulatedHost } from "dmalink/sim";
import { openPlace } from "./hosts/place.ts";

// With --host linux the first blocks of the disk are overwritten: take one that holds nothing.
const place = openPlace(1, () => {
  const host = new SimulatedHost({ iommu: {} });
  return {
    host,
    names: host.plug("0.0", new NvmeController({ namespaces: [{ blocks: 65_536 }] })).map(({ name }) => name),
  };
});
using host = place.host;
const { device, dma } = host.openDevice(place.names[0]!);
const nvme = await host.run(Nvme.open(device, dma, { clock: host.clock }));
console.log(`${device.name}: ${nvme.identity.modelNumber}, ${nvme.disk.bytes} bytes`);

const [written, read] = [host.memory.allocate(65_536), host.memory.allocate(65_536)];
written.bytes.forEach((_, i, bytes) => {
  bytes[i] = (i * 7 + (i >> 8)) & 0xff;
});
await host.run(nvme.write(0, [{ phys: written.phys, length: written.length }]));
await host.run(nvme.read(0, [{ phys: read.phys, length: read.length }]));
if (read.bytes.some((byte, i) => byte !== written.bytes[i])) throw new Error("other bytes came back");
const { iovaAllocations, mapSyncs } = dma.counters;
console.log(`${written.length} bytes written and read back; ${iovaAllocations} ranges, ${mapSyncs} syncs`);
await host.run(nvme.close());
