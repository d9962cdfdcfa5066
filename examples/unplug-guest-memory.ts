/** A guest's memory in the hands of a device: mapped block by block, one block unplugged, and the same by raw bytes (docs/user-mappings.md). */
import { MiB } from "dmalink";
import { vtdSecondStage } from "dmalink/iommu";
import { IOMMUFD_REQUESTS, IommufdFile, PC_INTERRUPTS, UnitDevice, UnitIommu } from "dmalink/iommufd";
import { Frames, SimulatedProcess, UserAddr } from "dmalink/process";
import { SimulatedMachine, SimulatedUnit } from "dmalink/sim";

const BLOCK = 2 * MiB;
const BLOCKS = 8;

// A machine with an IOMMU, a device behind it, and a process that runs a guest in huge pages.
const machine = new SimulatedMachine({ memoryBytes: 256 * MiB });
const frames = new Frames({ pages: machine.ram, memory: machine.memory, hugetlbPages: BLOCKS });
const vmm = new SimulatedProcess(frames, { memlockBytes: 64 * MiB });
const memory = vmm.memory.map({ address: UserAddr(2 ** 40), length: BLOCKS * BLOCK, hugetlb: true });
const iommu = new UnitIommu({ unit: new SimulatedUnit(), layout: vtdSecondStage() });
const nic = new UnitDevice({ name: "0000:01:00.0", iommu, requester: 0x100, reserved: [PC_INTERRUPTS] });

// The typed door.
const file = new IommufdFile();
const fd = vmm.descriptors.install(file);
const { iommufd } = file;
const ioas = iommufd.createIoas();
const device = iommufd.bind(nic);
const table = iommufd.attach(device, ioas.id).paging.table;
for (let i = 0; i < BLOCKS; i++)
  iommufd.map(ioas, vmm, BigInt(memory + i * BLOCK), { iova: BigInt(i * BLOCK), length: BigInt(BLOCK) });
const charged = () => `${vmm.user.locked.pages} pages charged`;
const leaf = (block: number) => table.leafAt((block * BLOCK) / table.unitBytes)?.leafUnits ?? 0;
console.log(`plugged: ${ioas.areas.length} areas, leaves of ${leaf(5)} pages, ${charged()}`);

console.log(`unplugged: ${ioas.unmap(BigInt(5 * BLOCK), BigInt(BLOCK))} bytes, ${charged()}`);
console.log(`block 5 has ${leaf(5)} pages, block 6 has ${leaf(6)}`);

// The other door: the same space, by the kernel's own structure.
const { number, layout } = IOMMUFD_REQUESTS.unmap;
const bytes = new Uint8Array(layout.bytes);
const view = new DataView(bytes.buffer);
view.setUint32(0, layout.bytes, true);
view.setUint32(layout.fields["ioas_id"]!.offset, ioas.id, true);
view.setBigUint64(layout.fields["iova"]!.offset, BigInt(6 * BLOCK), true);
view.setBigUint64(layout.fields["length"]!.offset, BigInt(4096), true); // would cut the block
console.log(`4 KiB of block 6, by bytes: ${file.ioctl(number, bytes, vmm)} (-2 is ENOENT)`);
view.setBigUint64(layout.fields["length"]!.offset, BigInt(BLOCK), true);
const answer = file.ioctl(number, bytes, vmm);
console.log(`all of it: ${answer}, ${view.getBigUint64(layout.fields["length"]!.offset, true)} bytes, ${charged()}`);

iommufd.unbind(device);
vmm.descriptors.close(fd);
console.log(`closed: ${charged()}, ${vmm.memory.pinned.pages} pages pinned`);
