/**
 * A fault of the adapter for pages that the process has, and the invalidation that takes them away again, make no objects: not the region's
 * own, nor those of address space, tables and page lists.
 */
import { expect, test } from "vitest";
import { PAGE_SIZE } from "../../src/base/index.ts";
import type { SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import { ACCESS } from "../../src/layouts/rdma/index.ts";
import { type Invalidation, type InvalidationCallback, UserAddr } from "../../src/platform/index.ts";
import { bytesPerCall, NOTHING } from "../models/heap-growth.ts";
import { ALL, Pair } from "./stand.ts";

const PAGES = 64;
/** Below 2 GiB: of a higher address the engine makes an object of 16 bytes where it crosses a call that is not inlined. */
const LOW = UserAddr(0x1000_0000);
const at = (page: number): UserAddr => UserAddr(LOW + page * PAGE_SIZE);

/** Calls what the region of `process` hears changes by, as the process itself would. */
function listening({ memory }: SimulatedProcess): { tell: InvalidationCallback } {
  const result = { tell: (() => true) as InvalidationCallback };
  const watch = memory.watch.bind(memory);
  memory.watch = (start, end, callback, own) => {
    result.tell = callback;
    return watch(start, end, callback, own);
  };
  return result;
}

for (const [mode, iommu] of [
  ["strict", { mode: "strict" }],
  ["lazy", { mode: "lazy" }],
  ["without an IOMMU", undefined],
] as const)
  for (const [what, pages] of [
    ["a page", 1],
    ["32 pages", 32],
  ] as const)
    test(`${mode}: a fault for ${what} and its invalidation make no garbage`, () => {
      const { a } = new Pair({ a: { host: { iommu }, pages: PAGES } });
      a.process.memory.map({ address: LOW, length: PAGES * PAGE_SIZE });
      a.process.memory.write(LOW, new Uint8Array(PAGES * PAGE_SIZE).fill(1));
      const heard = listening(a.process);
      const region = a.device.register(a.pd, {
        process: a.process,
        address: LOW,
        length: PAGES * PAGE_SIZE,
        access: ALL | ACCESS.onDemand,
      });
      a.device.bring(region.key, at(PAGES - 1), PAGE_SIZE, true); // the tables stay
      const lost: Invalidation = {
        kind: "clear",
        start: at(8),
        end: UserAddr(at(8) + pages * PAGE_SIZE),
        owner: undefined,
        mayBlock: true,
      };
      const { counters } = a.dma;
      const before = counters.leavesWritten;
      a.device.bring(region.key, at(8), pages * PAGE_SIZE, true);
      expect(counters.leavesWritten - before).toBe(iommu ? pages : 0);
      heard.tell(lost);
      const bytes = bytesPerCall(200, () => {
        a.device.bring(region.key, at(8), pages * PAGE_SIZE, true);
        heard.tell(lost);
      });
      expect(bytes).toBeLessThan(NOTHING);
    });
