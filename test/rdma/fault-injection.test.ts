/** Every allocation, mapping and link of a registration fails once: nothing is left, and without the fault all goes well. */
import { describe, expect, test } from "vitest";
import { MiB, PAGE_SIZE } from "../../src/base/index.ts";
import { RdmaDevice } from "../../src/consumers/rdma/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { ACCESS } from "../../src/layouts/rdma/index.ts";
import { ALL, at, beforeEachMap, Pair, START } from "./stand.ts";

class Planted extends Error {}

/** A front door whose k-th step fails. */
class FailingDma extends Dma {
  steps = 0;
  failAt = 0;

  #step(): void {
    if (++this.steps === this.failAt) throw new Planted("planted");
  }
  override mapScatterlist(...args: Parameters<Dma["mapScatterlist"]>): ReturnType<Dma["mapScatterlist"]> {
    this.#step();
    return super.mapScatterlist(...args);
  }
  override allocCoherent(...args: Parameters<Dma["allocCoherent"]>): ReturnType<Dma["allocCoherent"]> {
    this.#step();
    return super.allocCoherent(...args);
  }
  override tryReserveIova(...args: Parameters<Dma["tryReserveIova"]>): ReturnType<Dma["tryReserveIova"]> {
    this.#step();
    return super.tryReserveIova(...args);
  }
}

/** Steps above this number are entries that are mapped. */
const MAPS = 100;

function scenario(
  kind: number,
  failAt: number,
  failPage: number,
): { steps: number; pages: number; maps: number; failed: boolean } {
  let pagesTaken = 0;
  const pair = new Pair({
    a: {
      host: { iommu: {}, memoryBytes: 64 * MiB },
      frames: { mayAllocate: () => ++pagesTaken !== failPage },
    },
  });
  const { a } = pair;
  const dma = new FailingDma({ domain: a.domain!, machine: a.host.dmaMachine, node: a.pci.node });
  dma.failAt = failAt;
  const device = new RdmaDevice({ adapter: a.nic, dma, clock: pair.clock, capabilities: { implicitOnDemand: true } });
  const pd = device.allocateDomain();
  const before = [...a.domain!.table.entries()].filter(({ leaf }) => leaf).length;
  let maps = 0;
  beforeEachMap(a.domain!, () => {
    if (++maps + MAPS === failAt) throw new Planted("planted");
  });
  let failed = false;
  try {
    const access = kind === 0 ? ALL : ALL | ACCESS.onDemand;
    const region = device.register(pd, { process: a.process, address: START, length: 16 * PAGE_SIZE, access });
    if (kind === 1) for (const page of [0, 5, 9]) for (const _ of device.bringSteps(region.key, at(page), 1, true));
  } catch (error) {
    const isExpected = error instanceof Planted || (error as { code?: string }).code?.startsWith("ERR_DMA_");
    if (!isExpected) throw error;
    failed = true;
  }
  device.close();
  const leaves = [...a.domain!.table.entries()].filter(({ leaf }) => leaf).length;
  expect([leaves, a.process.memory.pinned.pages, device.regions]).toEqual([before, 0, 0]);
  a.process.exit();
  expect(a.frames.inUse).toBe(0);
  return { steps: dma.steps, pages: pagesTaken, maps, failed };
}

describe("a registration whose k-th step fails", () => {
  test.each([
    ["pinned", 0],
    ["on demand", 1],
  ] as const)("%s: leaves nothing", (_name, kind) => {
    const { steps, pages, maps, failed } = scenario(kind, 0, 0);
    expect([failed, steps > 0, pages > 0, maps > 1]).toEqual([false, true, true, true]);
    for (let k = 1; k <= steps; k++) expect(scenario(kind, k, 0).failed).toBe(true);
    // Pages that are short once: those that are pinned already stay so, and the rest is asked for again.
    for (let k = 1; k <= pages; k++) expect(scenario(kind, 0, k).failed).toBe(kind === 1 || k === 1);
    for (let k = 1; k <= maps; k++) expect(scenario(kind, MAPS + k, 0).failed).toBe(true);
  });
});
