/** Figures of shared memory, as counts: what a fault, a partial munmap, a reservation and a storm of moves cost, one way beside the other. */
import { Counters, KiB, MiB, PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import type { ReservationPolicy } from "../../src/consumers/gpu/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import { SimulatedGpu, SimulatedHost } from "../../src/hosts/simulated/index.ts";
import { type FormatName, layoutNamed } from "../../src/layouts/pagetable/index.ts";
import { type GpuRunCounts, runGpu, stormPlan } from "../../src/simulation/index.ts";
import { at, gpuRig, mapPages, START } from "./rig.ts";

/** What mapping and unmapping 2 MiB costs. */
export interface FaultCost {
  readonly calls: number;
  readonly ranges: number;
  readonly entries: number;
  readonly syncs: number;
  readonly invalidations: number;
}

/** A device for mapping alone, behind tables of a format. */
function mapper(format: FormatName): Dma {
  const host = new SimulatedHost({ memoryBytes: 64 * MiB, iommu: { mode: "strict", layout: layoutNamed(format) } });
  const [pci] = host.plug("0.0", new SimulatedGpu());
  const { dma } = host.openDevice(pci!.name, { counters: new Counters() });
  dma.setMask(2 ** 48 - 1);
  return dma;
}

/** 512 pages in runs of `run`, none of which follows the one before. */
export const runsOf = (run: number): { readonly phys: number; readonly pages: number }[] =>
  Array.from({ length: 512 / run }, (_, i) => ({ phys: 2 ** 15 + i * run * 2, pages: run }));

/** Maps 2 MiB in one shot for each page, or in two steps with a link for each run, and unmaps it. */
export function faultCost(
  way: "one shot" | "two steps",
  run: number,
  format: FormatName = "vtd-second-stage",
): FaultCost {
  const dma = mapper(format);
  const before = dma.counters.snapshot();
  const work = way === "one shot" ? oneShot(dma, run) : twoSteps(dma, run);
  const { iovaAllocations, leavesWritten, mapSyncs, invalidations } = dma.counters.since(before);
  return { calls: work, ranges: iovaAllocations, entries: leavesWritten, syncs: mapSyncs, invalidations };
}

function oneShot(dma: Dma, run: number): number {
  const addresses: number[] = [];
  for (const { phys, pages } of runsOf(run))
    for (let i = 0; i < pages; i++)
      addresses.push(dma.mapPhys(PhysPage.start((phys + i) as PhysPage), PAGE_SIZE, "bidirectional"));
  for (const address of addresses) dma.unmapPhys(address as never, PAGE_SIZE, "bidirectional");
  return addresses.length * 2;
}

function twoSteps(dma: Dma, run: number): number {
  const range = dma.tryReserveIova({ length: 2 * MiB })!;
  const runs = runsOf(run);
  let offset = 0;
  for (const { phys, pages } of runs) {
    range.link(offset, PhysPage.start(phys as PhysPage), pages * PAGE_SIZE, "bidirectional");
    offset += pages * PAGE_SIZE;
  }
  range.sync();
  range.destroy();
  return runs.length + 3;
}

/** Entries cleared, invalidations, entries written again for pages that had stayed, and what was left at the end. */
export interface MunmapCost {
  readonly cleared: number;
  readonly flushes: number;
  readonly linkedAgain: number;
  readonly left: readonly string[];
}

/** What a munmap of `gone` pages of 64 MiB costs, and what it costs to use the rest again. */
export function munmapCost(gone: number, wholeObject: boolean, quietSplits: boolean): MunmapCost {
  const pages = (64 * MiB) / PAGE_SIZE;
  const rig = gpuRig({ gpuBytes: 2 * MiB, frames: { settings: { quietSplits } } });
  mapPages(rig, pages);
  const space = rig.gpu.device.openSpace(rig.memory);
  const pointer = space.bindUserPointer({ start: START, length: 64 * MiB, wholeObject, leaves: "small" });
  pointer.bring();
  const { counters } = rig.gpu.dma;
  const before = counters.snapshot();
  rig.memory.unmap(at(777), gone * PAGE_SIZE);
  const spent = counters.since(before);
  rig.memory.map({ address: at(777), length: gone * PAGE_SIZE });
  const rebound = counters.snapshot();
  pointer.bring();
  const linked = counters.since(rebound).leavesWritten;
  rig.gpu.device.close();
  rig.process.exit();
  return {
    cleared: spent.leavesCleared,
    flushes: spent.invalidations,
    linkedAgain: linked - gone,
    left: rig.leftovers(),
  };
}

/** Address space, and what of it leads somewhere. */
export interface ReservationCost {
  readonly reservedBytes: number;
  readonly linkedBytes: number;
  readonly left: readonly string[];
}

/** Bytes reserved and bytes linked after one touch in each of eight places of an area of 64 MiB. */
export function reservationCost(policy: ReservationPolicy): ReservationCost {
  const rig = gpuRig({ gpuBytes: 2 * MiB });
  mapPages(rig, (64 * MiB) / PAGE_SIZE);
  const space = rig.gpu.device.openSpace(rig.memory);
  const shared = space.shareMemory({ policy, chunks: [64 * KiB, PAGE_SIZE] });
  for (let i = 0; i < 8; i++) shared.fault(at(i * 2000), true);
  const { reservedBytes, linkedBytes } = shared.reservation;
  rig.gpu.device.close();
  rig.process.exit();
  return { reservedBytes, linkedBytes, left: rig.leftovers() };
}

/** A storm of `steps` steps of eight threads over 4 MiB, with half as much memory in the GPU. */
export function stormCost(policy: ReservationPolicy, steps: number): GpuRunCounts {
  const part = { policy, threadPages: 128, pointerPages: 64, gpuMemoryBytes: 2 * MiB, chunks: [64 * KiB, PAGE_SIZE] };
  let counts: GpuRunCounts | undefined;
  const { violation } = runGpu(stormPlan(1, steps, part), {}, (all) => {
    counts = all;
  });
  if (violation) throw new Error(violation.message);
  return counts!;
}
