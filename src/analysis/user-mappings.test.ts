/** Mappings of programs in traces: entries, leaves, superpages that could have been, unmaps that took back something else. */
import { describe, expect, test } from "vitest";
import { SampleTrace } from "./findings/sample-trace.ts";
import { readStats, type TraceStats } from "./stats.ts";
import type { UserMappings } from "./user-mappings.ts";

const PAGE = 4096;
const LARGE = 2 ** 21;
const A = 0x4000_0000;
const MEMORY = 0x1_0000_0000;

const statsOf = async (trace: SampleTrace): Promise<TraceStats> => readStats(await trace.open());
const usersOf = async (trace: SampleTrace): Promise<UserMappings> => (await statsOf(trace)).userMappings!;

/** Maps `pages` pages, each by a call of its own. */
function singly(trace: SampleTrace, iova: number, phys: number, pages: number): SampleTrace {
  for (let i = 0; i < pages; i++) trace.iommuMap(iova + i * PAGE, phys + i * PAGE, PAGE);
  return trace;
}

describe("mappings that no event names a device for", () => {
  test("are entries of a container: the most at once count, by who made them", async () => {
    const trace = new SampleTrace().on(0, "vmm-7");
    for (let i = 0; i < 5; i++) trace.iommuMap(A + i * LARGE, MEMORY + i * LARGE, LARGE);
    for (let i = 0; i < 2; i++) trace.iommuUnmap(A + i * LARGE, LARGE);
    trace.on(1, "spdk-9").iommuMap(A, MEMORY, LARGE);
    const { mappings, peak, budget, tasks } = await usersOf(trace);
    expect([mappings, peak, budget]).toEqual([6, 5, 65_535]);
    expect(tasks).toEqual({ vmm: 5, spdk: 1 });
  });

  test("one piece by piece, which one unmap takes back, is one entry", async () => {
    const trace = new SampleTrace().on(0, "vmm-7");
    for (let i = 0; i < 64; i++) trace.iommuMap(A + i * PAGE, MEMORY + i * 3 * PAGE, PAGE);
    trace.iommuUnmap(A, 64 * PAGE);
    expect(await usersOf(trace)).toMatchObject({ mappings: 1, peak: 1, leaves: { "4K": 64, "2M": 0, "1G": 0 } });
  });

  test("become leaves as large as address and memory allow together", async () => {
    const trace = new SampleTrace()
      .iommuMap(A - 2 * PAGE, MEMORY - 2 * PAGE, 2 * LARGE + 5 * PAGE)
      .iommuMap(0x1_0000_0000, 0x8_0000_0000, 2 ** 30 + LARGE);
    expect((await usersOf(trace)).leaves).toEqual({ "4K": 5, "2M": 3, "1G": 1 });
  });

  test("of the DMA API are none", async () => {
    const trace = new SampleTrace();
    trace.map("0000:00:04.0", A, 0x2000, PAGE).unmap("0000:00:04.0", A, PAGE);
    expect((await statsOf(trace)).userMappings).toBeUndefined();
  });
});

describe("leaves of 4 KiB over 2 MiB of contiguous memory", () => {
  const missedOf = async (trace: SampleTrace): Promise<UserMappings["missed"]> => (await usersOf(trace)).missed;

  test("are a superpage missed, where calls were too small", async () => {
    expect(await missedOf(singly(new SampleTrace(), A, MEMORY, 512))).toEqual({ fits: 1, misplaced: 0 });
    expect(await missedOf(singly(new SampleTrace(), A, MEMORY, 511))).toEqual({ fits: 0, misplaced: 0 });
    expect(await missedOf(singly(new SampleTrace(), A + PAGE, MEMORY + PAGE, 512))).toEqual({ fits: 0, misplaced: 0 });
  });

  test("or where the address is not aligned as the memory is, in one call or in many", async () => {
    const one = new SampleTrace().iommuMap(A + PAGE, MEMORY, 3 * LARGE);
    expect(await missedOf(one)).toEqual({ fits: 0, misplaced: 3 });
    expect(await missedOf(singly(new SampleTrace(), A + PAGE, MEMORY, 512))).toEqual({ fits: 0, misplaced: 1 });
  });

  test("are none if they were never there together", async () => {
    const trace = singly(new SampleTrace(), A, MEMORY, 256);
    for (let i = 0; i < 256; i++) trace.iommuUnmap(A + i * PAGE, PAGE);
    singly(trace, A + 256 * PAGE, MEMORY + 256 * PAGE, 256);
    expect(await missedOf(trace)).toEqual({ fits: 0, misplaced: 0 });
  });

  test("are none if their memory is scattered, or the same page again and again", async () => {
    const scattered = new SampleTrace();
    for (let i = 0; i < 512; i++) scattered.iommuMap(A + i * PAGE, MEMORY + ((i * 7) % 512) * PAGE, PAGE);
    expect(await missedOf(scattered)).toEqual({ fits: 0, misplaced: 0 });
    const again = new SampleTrace();
    for (let i = 0; i < 600; i++) again.iommuMap(A, MEMORY, PAGE).iommuUnmap(A, PAGE);
    expect(await missedOf(again)).toEqual({ fits: 0, misplaced: 0 });
  });

  test("are advice of check, with the place of the first", async () => {
    const [finding, ...others] = await singly(new SampleTrace().on(0, "vmm-7"), A, MEMORY, 1024).findings(
      "missed-superpage",
    );
    expect(others).toEqual([]);
    expect(finding).toMatchObject({ severity: "advice", iova: A });
    expect(finding!.message).toContain(
      "2 blocks of 2 MiB of contiguous memory: 2 where one leaf would do as things are",
    );
    expect(finding!.evidence[0]).toMatchObject({ event: "map", task: "vmm", pid: 7 });
    expect(await singly(new SampleTrace(), A, MEMORY, 511).findings("missed-superpage")).toEqual([]);
  });
});

describe("an unmap that takes back something else than asked", () => {
  test("is counted, less and more apart", async () => {
    const trace = new SampleTrace()
      .iommuMap(A, MEMORY, LARGE)
      .iommuUnmap(A, PAGE, LARGE)
      .iommuMap(A, MEMORY, 2 * PAGE)
      .iommuUnmap(A, 8 * PAGE, 2 * PAGE);
    const { short, long } = await usersOf(trace);
    expect([short, long]).toEqual([
      { unmaps: 1, bytes: 6 * PAGE },
      { unmaps: 1, bytes: LARGE - PAGE },
    ]);
  });

  test("is an error of check: what lies behind a page went with its leaf", async () => {
    const trace = new SampleTrace().iommuMap(A, MEMORY, LARGE).iommuUnmap(A, PAGE, LARGE);
    const [finding] = await trace.findings("long-unmap");
    expect(finding).toMatchObject({ severity: "error", iova: A, length: PAGE });
    expect(finding!.message).toContain("took back 2 MiB");
    const exact = new SampleTrace().iommuMap(A, MEMORY, LARGE).iommuUnmap(A, LARGE);
    expect(await exact.findings("long-unmap")).toEqual([]);
  });
});

test("a budget of entries counts mappings, not pieces of memory", async () => {
  const trace = new SampleTrace();
  for (let i = 0; i < 50_000; i++) trace.iommuMap(A + i * PAGE, MEMORY + i * 3 * PAGE, PAGE);
  trace.iommuUnmap(A, 50_000 * PAGE);
  expect(await trace.findings("entry-budget")).toEqual([]);
});
