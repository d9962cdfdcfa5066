/** A GPU works in the memory of a process: by page faults, in its own memory, and by a user pointer of which a part goes. */

import { PhysPage } from "dmalink";
import { GpuDevice, GpuGroup, GpuMemory, SimulatedGpu } from "dmalink/gpu";
import { Frames, SimulatedDeviceMemory, SimulatedProcess, UserAddr } from "dmalink/process";
import { SimulatedHost } from "dmalink/sim";

const host = new SimulatedHost({ iommu: { mode: "strict" } });
const adapter = new SimulatedGpu({ memoryBytes: 2 ** 22 });
const [pci] = host.plug("0.0", adapter);
pci!.setBusMaster(true);
const { dma } = host.openDevice(pci!.name);
dma.setMask(2 ** 48 - 1);

// The GPU's memory is where pages of processes can be, too. They have numbers that no RAM has.
const { pages, memory: ram } = host.machine;
const frames = new Frames({ pages, memory: ram, settings: { quietSplits: true } });
const group = new GpuGroup("my GPU");
const firstPage = PhysPage.add(0 as PhysPage, 2 ** 36);
const gpuMemory = new GpuMemory({ adapter, dma, group, firstPage });
const own = { kind: "device-private", owner: group, firstPage, pages: adapter.memoryPages } as const;
gpuMemory.usePool(new SimulatedDeviceMemory({ frames, ...own, bytes: adapter.memory, driver: gpuMemory }));

// A program, and its address space on the GPU. Whatever the GPU touches of [start, end) is brought to it.
const process = new SimulatedProcess(frames);
const { memory } = process;
const [start, pointerAt] = [UserAddr(2 ** 32), UserAddr(2 ** 33)];
memory.map({ address: start, length: 2 ** 21 });
memory.map({ address: pointerAt, length: 2 ** 20 });
const gpu = new GpuDevice({ adapter, dma });
const space = gpu.openSpace(memory);
space.shareMemory({ start, end: start + 2 ** 21, gpuMemory, wantsGpuMemory: () => true });

console.log(gpu.run(space, { do: "fill", to: start, length: 65_536, seed: 7 }));
console.log(`${gpuMemory.counts.movedIn} pages moved to the GPU, after ${space.counts.faults} page fault`);
const byte = new Uint8Array(1);
memory.read(start, byte); // the CPU touches one: all that moved together comes back
console.log(`the CPU reads ${byte[0]}; ${gpuMemory.counts.movedOut} pages came back`);

// A user pointer: bound once, at an address of its own. The program unmaps a page of it.
const pointer = space.bindUserPointer({ start: pointerAt, length: 2 ** 20 });
pointer.bring();
const before = dma.counters.snapshot();
memory.unmap(UserAddr(pointerAt + 17 * 4096), 4096);
const { leavesCleared, invalidations } = dma.counters.since(before);
console.log(`a page of 256 goes: ${leavesCleared} entry cleared, ${invalidations} invalidation, the rest stays`);
const { status, bytes } = gpu.run(space, { do: "fill", to: pointerAt, length: 2 ** 20, seed: 1 });
console.log(`the GPU fills it: ${status} after ${bytes! / 4096} pages`);

gpu.close();
process.exit();
if (
  byte[0] !== 7 ||
  leavesCleared !== 1 ||
  bytes !== 17 * 4096 ||
  dma.counters.leavesWritten !== dma.counters.leavesCleared
)
  throw new Error("not what was expected");
