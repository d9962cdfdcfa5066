/** The DMA API over a virtio-iommu that refuses a mapping: every call fails whole, and leaves nothing. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import { DmaEngine, SimulatedHost } from "../../src/hosts/simulated/index.ts";
import { STATUS } from "../../src/layouts/virtio-iommu/index.ts";

const CALLS: Readonly<Record<string, (dma: Dma, memory: readonly PhysPage[]) => void>> = {
  "a mapping": (dma, [page]) => void dma.mapPhys(PhysPage.start(page!), PAGE_SIZE, "bidirectional"),
  "a list": (dma, memory) =>
    void dma.mapScatterlist(
      memory.map((page) => ({ phys: PhysPage.start(page), length: PAGE_SIZE })),
      "to-device",
    ),
  "coherent memory": (dma) => void dma.allocCoherent(3 * PAGE_SIZE),
  "two steps": (dma, memory) => {
    using range = dma.tryReserveIova({ length: memory.length * PAGE_SIZE })!;
    memory.forEach((page, i) => {
      range.link(i * PAGE_SIZE, PhysPage.start(page), PAGE_SIZE, "bidirectional");
    });
    range.sync();
  },
};

describe("a virtio-iommu that has no memory for one mapping more", () => {
  for (const mode of ["strict", "lazy"] as const)
    test.each(Object.entries(CALLS))(`${mode}: %s fails whole, and what was mapped before stays`, (_name, call) => {
      using host = new SimulatedHost({ iommu: { unit: "virtio", mode } });
      const device = host.plug("0.0", new DmaEngine())[0]!;
      const { dma } = host.openDevice(device.name);
      const { hardware } = host.virtio!;
      const memory = [0, 2, 4].map((n) => (host.machine.ram.allocatePages(8)! + n) as PhysPage);
      const kept = dma.mapPhys(PhysPage.start(memory[0]!), PAGE_SIZE, "bidirectional");
      const { counters } = dma;
      const balance = (): number[] => [
        counters.iovaAllocations - counters.iovaFrees,
        counters.leavesWritten - counters.leavesCleared,
        hardware.mappings,
        host.machine.ram.pagesInUse,
      ];
      const before = balance();
      let maps = 0;
      hardware.refuse = ({ type }) => (type === "map" && ++maps % 2 === 1 ? STATUS.noMemory : undefined);
      expect(() => call(dma, memory)).toThrow(expect.objectContaining({ code: "ERR_DMA_MAP", errno: "ENOMEM" }));
      hardware.refuse = undefined;
      host.clock.advance(1000);
      expect(balance()).toEqual(before);
      expect(dma.domain!.lookup(Math.floor(kept / PAGE_SIZE) as never)).toBe(memory[0]);
      call(dma, memory); // and there is room again
    });
});
