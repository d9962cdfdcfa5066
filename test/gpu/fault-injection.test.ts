/** What fails once, at every place where it can: nothing is left, the process is whole, and the same asked again works. */
import { describe, expect, test } from "vitest";
import { type DmaError, KiB, PAGE_SIZE } from "../../src/base/index.ts";
import type { ReservationPolicy } from "../../src/consumers/gpu/index.ts";
import type { Arena } from "../../src/pagetable/index.ts";
import { at, bytesAt, gpuRig, isSame, mapPages, pattern, START } from "./rig.ts";

const arenaOf = (domain: unknown): Arena => (domain as { arena: Arena }).arena;

describe("one failure", () => {
  test.each<ReservationPolicy>(["chunk", "area", "linux-7.2"])(
    "of memory for tables of the IOMMU, at each place: %s",
    (policy) => {
      let places = 0;
      for (let k = 1; k <= 6; k++) {
        const rig = gpuRig();
        mapPages(rig, 32);
        rig.memory.write(at(0), pattern(1, 16 * PAGE_SIZE));
        const space = rig.gpu.device.openSpace(rig.memory);
        const shared = space.shareMemory({ chunks: [64 * KiB, PAGE_SIZE], policy });
        const arena = arenaOf(rig.gpu.dma.domain);
        arena.failAt = k;
        try {
          shared.fault(START, true);
        } catch (error) {
          places++;
          expect([
            (error as DmaError).errno,
            rig.gpu.dma.counters.leavesWritten - rig.gpu.dma.counters.leavesCleared,
          ]).toEqual(["ENOMEM", 0]);
        }
        arena.failAt = 0;
        expect(rig.gpu.device.run(space, { do: "add", to: START, length: 4, value: 0 }).status).toBe("done");
        expect(isSame(bytesAt(rig.memory, 0, 16 * PAGE_SIZE), pattern(1, 16 * PAGE_SIZE))).toBe(true);
        rig.gpu.device.close();
        rig.process.exit();
        expect(rig.leftovers()).toEqual([]);
      }
      expect(places).toBeGreaterThan(0);
    },
  );

  test("of a page of the system, on the way back from the GPU, at each place: the CPU comes again, and has its bytes", () => {
    for (let k = 1; k <= 16; k++) {
      let left = Number.POSITIVE_INFINITY;
      const rig = gpuRig({ frames: { mayAllocate: () => left-- !== 1 } });
      mapPages(rig, 16);
      const space = rig.gpu.device.openSpace(rig.memory);
      const { memory: gpuMemory } = rig.gpu;
      space.shareMemory({ chunks: [64 * KiB, PAGE_SIZE], gpuMemory, wantsGpuMemory: () => true });
      const fill = { do: "fill", to: START, length: 16 * PAGE_SIZE, seed: 4 } as const;
      expect(rig.gpu.device.run(space, fill).status).toBe("done");
      left = k;
      expect(isSame(bytesAt(rig.memory, 0, 16 * PAGE_SIZE), pattern(4, 16 * PAGE_SIZE))).toBe(true);
      rig.gpu.device.close();
      rig.process.exit();
      expect(rig.leftovers()).toEqual([]);
    }
  });

  test("of the GPU's memory leaves the range in the system, where the GPU uses it", () => {
    const rig = gpuRig({ gpuBytes: 2 ** 21 });
    mapPages(rig, 16);
    rig.gpu.pool.allocate = () => undefined;
    const space = rig.gpu.device.openSpace(rig.memory);
    const { memory: gpuMemory } = rig.gpu;
    space.shareMemory({ chunks: [64 * KiB, PAGE_SIZE], gpuMemory, wantsGpuMemory: () => true });
    expect(rig.gpu.device.run(space, { do: "fill", to: START, length: 4096, seed: 4 }).status).toBe("done");
    expect(gpuMemory.counts.movedIn).toBe(0);
    rig.gpu.device.close();
    rig.process.exit();
    expect(rig.leftovers()).toEqual([]);
  });
});
