/** Lifetimes: every legal history is clean, whatever its order, and each mapping is shown to the sink exactly once. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DISK, NIC, SampleTrace } from "../findings/sample-trace.ts";
import { KINDS } from "./table.ts";

const PAGE = 4096;
const KIND = ["one-shot", "list", "coherent", "range"] as const;

/** A plan: at each step an address of a device is toggled, mapped or unmapped, on some CPU. */
const plan = fc.array(
  fc.record({
    device: fc.constantFrom(DISK, NIC),
    place: fc.integer({ min: 0, max: 7 }),
    cpu: fc.integer({ min: 0, max: 3 }),
    kind: fc.constantFrom(...KIND),
    pages: fc.integer({ min: 1, max: 4 }),
  }),
  { maxLength: 120 },
);

describe("any legal history", () => {
  test("has no error, and shows every mapping once with its length", async () => {
    await fc.assert(
      fc.asyncProperty(plan, async (steps) => {
        const trace = new SampleTrace();
        const live = new Map<string, { kind: (typeof KIND)[number]; pages: number; state: number }>();
        const lengths: number[] = [];
        let state = 0;
        for (const { device, place, cpu, kind, pages } of steps) {
          trace.on(cpu);
          const key = `${device} ${place}`;
          const iova = 0xff00_0000 + place * 16 * PAGE;
          const phys = (device === DISK ? 0x1000_0000 : 0x2000_0000) + place * 16 * PAGE;
          const found = live.get(key);
          const size = (found?.pages ?? pages) * PAGE;
          const list = [{ phys, size }];
          if (found) {
            live.delete(key);
            if (found.kind === "one-shot") trace.unmap(device, iova, size);
            else if (found.kind === "list") trace.unmapList(device, iova, list);
            else if (found.kind === "coherent") trace.free(device, iova, size);
            else trace.destroy(device, found.state, iova, size);
            continue;
          }
          lengths.push(size);
          state++;
          live.set(key, { kind, pages, state });
          if (kind === "one-shot") trace.map(device, iova, phys, size);
          else if (kind === "list") trace.mapList(device, iova, list);
          else if (kind === "coherent") trace.alloc(device, iova, phys, size);
          else {
            trace.reserve(device, state, iova, size);
            for (let i = 0; i < pages; i++) trace.link(device, state, iova, i * PAGE, phys + i * PAGE, PAGE);
            trace.syncRange(device, state, iova, size);
          }
        }
        const shown: number[] = [];
        let ended = 0;
        const result = await trace.check({
          sinks: [
            {
              lifetime(table, row) {
                shown.push(table.length[row]!);
                if (table.endNs[row]! >= 0) ended++;
                expect(KINDS[table.kind[row]!]).toBeDefined();
              },
            },
          ],
        });
        expect(result.findings.filter(({ severity }) => severity === "error")).toEqual([]);
        expect(result.ambiguous).toBe(0);
        expect(shown.sort()).toEqual(lengths.sort());
        expect(ended).toBe(lengths.length - live.size);
        expect(result.liveAtEnd).toBe(live.size);
      }),
      { numRuns: 60 },
    );
  });
});

test("direct mappings that are never unmapped do not pile up, and their late unmaps are no errors", async () => {
  const trace = new SampleTrace({ iommu: false });
  const many = 2 ** 18 + 10;
  for (let i = 1; i <= many; i++) trace.map(NIC, i * PAGE, i * PAGE, 64);
  trace.unmapOnly(NIC, PAGE, 64);
  let most = 0;
  let shown = 0;
  const { findings, liveAtEnd } = await trace.check({
    sinks: [
      {
        lifetime(table) {
          most = Math.max(most, table.live);
          shown++;
        },
      },
    ],
  });
  expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
  expect([shown, liveAtEnd]).toEqual([many, many]);
  expect(most).toBeLessThanOrEqual(2 ** 18 + 1);
});

test("a direct mapping of the same memory many times is shown as often", async () => {
  const trace = new SampleTrace({ iommu: false });
  for (let i = 0; i < 3; i++) trace.map(NIC, 0x2000, 0x2000, 64 + i);
  const lengths: number[] = [];
  await trace.check({ sinks: [{ lifetime: (table, row) => void lengths.push(table.length[row]!) }] });
  expect(lengths).toEqual([64, 65, 66]);
});
