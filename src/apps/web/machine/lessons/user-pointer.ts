/** A user's memory in a device's address space, and part of it unmapped. */
import type { Lesson } from "./lesson.ts";

export const userPointer: Lesson = {
  name: "user-pointer",
  title: "A user's memory, unmapped in part",
  about:
    "A program gives its memory to a device by iommufd: pages are pinned and mapped where the program says. What was mapped as one area ends " +
    "as one; whoever wants to take back a part has to have mapped it as a part, or cut it first.",
  program: `import { MiB } from "dmalink";
import { vtdSecondStage } from "dmalink/iommu";
import { IommufdFile, PC_INTERRUPTS, UnitDevice, UnitIommu } from "dmalink/iommufd";
import { Frames, SimulatedProcess, UserAddr } from "dmalink/process";
import { DmaEngine, SimulatedHost } from "dmalink/sim";

const host = new SimulatedHost({ memoryBytes: 256 * MiB, iommu: {} });
const { machine, tablesUnit: unit } = host;
const engine = new DmaEngine();
const [pci] = host.plug("0.0", engine);
pci.setBusMaster(true);

// A program with 4 MiB in two huge pages, and 64 KiB in small ones.
const frames = new Frames({ pages: machine.ram, memory: machine.memory, hugetlbPages: 2 });
const program = new SimulatedProcess(frames, { memlockBytes: 64 * MiB });
const huge = program.memory.map({ address: UserAddr(2 ** 40), length: 4 * MiB, hugetlb: true });
const small = program.memory.map({ address: UserAddr(2 ** 41), length: 65536 });
program.memory.write(small, new TextEncoder().encode("user's own bytes"));

// It opens iommufd, binds the device, and gets an address space.
const file = new IommufdFile();
const descriptor = program.descriptors.install(file);
const { iommufd } = file;
const ioas = iommufd.createIoas();
const iommu = new UnitIommu({ unit, layout: vtdSecondStage() });
const device = iommufd.bind(new UnitDevice({ name: pci.name, iommu, requester: pci.requester, reserved: [PC_INTERRUPTS] }));
iommufd.attach(device, ioas.id);
const told = () => console.log(\`\${program.memory.pinned.pages} pages pinned, \${ioas.areas.length} areas\`);

await step("Map the small memory: 64 KiB at 1 MiB", "Sixteen entries, one a page, and sixteen pages that cannot move or be swapped.");
iommufd.map(ioas, program, BigInt(small), { iova: 0x100000n, length: 65536n });
told();

await step("Map the huge memory: 4 MiB at 4 MiB", "Two entries at level 1: one for each huge page of 2 MiB.");
iommufd.map(ioas, program, BigInt(huge), { iova: 0x400000n, length: BigInt(4 * MiB) });
told();

await step("The device reads the program's bytes", "At the address that the program chose.");
const bytes = new Uint8Array(16);
engine.read(0x100000, bytes);
console.log("the device read: " + new TextDecoder().decode(bytes));

await step("Unmap 4 KiB out of the middle", "Refused with ENOENT: the area was mapped as one. Nothing has changed, not even in part.");
try {
  ioas.unmap(0x104000n, 4096n);
} catch (error) {
  console.log(error.errno + ": " + error.message);
}
told();

await step("Unmap the whole small area", "Its entries are gone, and its pages are no longer pinned.");
ioas.unmap(0x100000n, 65536n);
told();

await step("Map it again, as four areas", "Four calls instead of one: now each quarter has an end of its own.");
for (let i = 0; i < 4; i++) iommufd.map(ioas, program, BigInt(small + i * 16384), { iova: BigInt(0x100000 + i * 16384), length: 16384n });
told();

await step("Unmap the second quarter", "A hole in the middle; the other three go on.");
ioas.unmap(0x104000n, 16384n);
told();

await step("The device reads across the hole", "Through the first quarter, and refused at the hole.");
engine.read(0x103ff0, new Uint8Array(32));

await step("The program ends", "Everything is unmapped and unpinned.");
iommufd.unbind(device);
program.descriptors.close(descriptor);
told();
`,
  breakages: [
    {
      title: "More than the program may pin",
      sentence:
        "RLIMIT_MEMLOCK is 64 KiB: the map of the huge pages is refused with ENOMEM, and nothing of it is left.",
      find: "memlockBytes: 64 * MiB",
      put: "memlockBytes: 65536",
    },
    {
      title: "Onto what is mapped",
      sentence: "The address is taken: EEXIST, and the first mapping stays as it was.",
      find: "iova: 0x400000n",
      put: "iova: 0x108000n",
    },
    {
      title: "Onto the interrupt window",
      sentence: "Writes there make interrupts and reach no memory: the address is reserved, EINVAL.",
      find: "iova: 0x400000n",
      put: "iova: 0xfee00000n",
    },
  ],
};
