/** Telling a unit to forget makes no garbage: it is done for every unmap, and where release cannot fail. */
import { expect, test } from "vitest";
import { Counters, type IovaPage, type PhysPage } from "../../src/base/index.ts";
import { VtdUnit } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { Arena, PageTable } from "../../src/pagetable/index.ts";
import { bytesPerCall, NOTHING } from "../models/heap-growth.ts";
import { PromptVtdUnit } from "../models/prompt-vtd-unit.ts";

test("an invalidation of an IOTLB and three device TLBs allocates nothing", () => {
  const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
  const registers = new PromptVtdUnit(memory);
  const unit = new VtdUnit({ registers, memory, clock: { nowMs: () => 0, after: () => ({ cancel: () => {} }) } });
  const layout = vtdSecondStage();
  const table = new PageTable({ layout, memory, counters: new Counters() });
  const tables = { domainId: 5, layout, memory, root: () => table.root, topLevel: () => table.topLevel };
  unit.attach(0x100, tables);
  for (const requester of [0x101, 0x102, 0x103]) unit.attach(requester, tables, { ats: { queueDepth: 8, stu: 0 } });
  const bytes = bytesPerCall(4096, (i) => {
    unit.invalidateRange(5, (0xf0000 + (i & 0xfff)) as IovaPage, (0xf0001 + (i & 0xfff)) as IovaPage, true);
  });
  expect(bytes).toBeLessThan(NOTHING);
  expect(unit.counts.descriptors[3]).toBe(unit.counts.pagesRequested * 3);
});
