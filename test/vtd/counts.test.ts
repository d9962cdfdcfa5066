/** What each path costs, row by row: submissions to the unit, and descriptors in them without the waits. */
import { describe, expect, test } from "vitest";
import type { PhysPage } from "../../src/base/index.ts";
import { VirtualClock } from "../../src/hosts/simulated/index.ts";
import { SimulatedVtdUnit, StaleWindows } from "../../src/hosts/simulated/units/vtd/index.ts";
import { DmaDomain, VtdUnit, VtdUnits } from "../../src/iommu/index.ts";
import { READ, vtdSecondStage, WRITE, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import type { TranslationUnit } from "../../src/platform/index.ts";
import { frame, page } from "./machine.ts";

const RW = READ | WRITE;
const PCI = { prefer32: true, busLimitPfn: 0 };

interface Setting {
  readonly mode: "strict" | "lazy";
  /** Devices with a TLB in the domain. */
  readonly ats: number;
  readonly units?: number;
  readonly erratum?: boolean;
  readonly cachingMode?: boolean;
  readonly scalableMode?: boolean;
}

function costs({ mode, ats, units = 1, erratum = false, cachingMode = false, scalableMode = false }: Setting) {
  const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
  const clock = new VirtualClock();
  const windows = new StaleWindows(clock);
  const { observer } = windows;
  const hardware = Array.from(
    { length: units },
    () => new SimulatedVtdUnit({ memory, clock, cachingMode, scalableMode, deviceTlb: true }),
  );
  const drivers = hardware.map((registers) => new VtdUnit({ registers, memory, clock, observer }));
  const all = new VtdUnits(drivers, (requester) => drivers[requester >>> 8]!);
  const unit: TranslationUnit = units === 1 ? drivers[0]! : all;
  const domain = new DmaDomain({
    layout: scalableMode ? x86_64() : vtdSecondStage(),
    unit,
    clock,
    mode,
    domainId: 5,
    tableMemory: memory,
    observer,
  });
  for (let i = 0; i < units; i++) {
    all.attach(i * 256, domain.tables); // one without a TLB behind every unit
    for (let device = 1; device <= ats; device++) {
      hardware[i]!.addDeviceTlb(i * 256 + device);
      all.attach(i * 256 + device, domain.tables, { ats: { queueDepth: 0, stu: 0, twice: erratum } });
    }
  }
  const sums = (): [number, number] => {
    let [submissions, descriptors] = [0, 0];
    for (const { counts } of hardware) {
      submissions += counts.submissions;
      descriptors += counts.descriptors.reduce((sum, n) => sum + n, 0);
    }
    return [submissions, descriptors];
  };
  /** Submissions and descriptors of one step. */
  const cost = (step: () => void): [submissions: number, descriptors: number] => {
    const before = sums();
    step();
    const after = sums();
    return [after[0] - before[0], after[1] - before[1]];
  };
  const map = (pages: number) => {
    const start = domain.reserve(pages, 0xfffff, PCI);
    domain.map(start, frame(0x1000), pages, RW);
    domain.sync(start, pages);
    return start;
  };
  return { domain, clock, cost, map, drivers, hardware, windows };
}

for (const scalableMode of [false, true])
  describe(`what is sent, in ${scalableMode ? "scalable" : "legacy"} mode`, () => {
    test.each([0, 1, 2, 14, 15, 16, 17, 31, 32])("strict unmap of any range, %i devices with a TLB", (ats) => {
      const { domain, cost, map } = costs({ mode: "strict", ats, scalableMode });
      for (const pages of [1, 3, 512, 777]) {
        const start = map(pages);
        expect(cost(() => domain.release(start, pages, pages))).toEqual([Math.ceil((1 + ats) / 16), 1 + ats]);
      }
    });

    test("strict unmap with a device that has to be told twice", () => {
      const { domain, cost, map } = costs({ mode: "strict", ats: 3, erratum: true, scalableMode });
      const start = map(1);
      expect(cost(() => domain.release(start, 1, 1))).toEqual([1, 1 + 2 * 3]);
    });

    test("strict unmap after devices were detached: those are told no more, and the domain's last one ends it", () => {
      const { domain, cost, map, drivers } = costs({ mode: "strict", ats: 2, scalableMode });
      const costOfUnmap = () => {
        const start = map(1);
        return cost(() => domain.release(start, 1, 1));
      };
      expect(costOfUnmap()).toEqual([1, 3]);
      drivers[0]!.detach(1);
      expect(costOfUnmap()).toEqual([1, 2]);
      drivers[0]!.detach(0);
      expect(costOfUnmap()).toEqual([1, 2]);
      drivers[0]!.detach(2);
      expect(costOfUnmap()).toEqual([0, 0]);
    });

    test("n one-shot unmaps, strict: n times as much", () => {
      const { domain, cost, map } = costs({ mode: "strict", ats: 1, scalableMode });
      const starts = Array.from({ length: 20 }, () => map(2));
      const unmapAll = () => {
        for (const start of starts) domain.release(start, 2, 2);
      };
      expect(cost(unmapAll)).toEqual([20, 40]);
    });

    test("two-step destroy, strict: as one", () => {
      const { domain, cost } = costs({ mode: "strict", ats: 1, scalableMode });
      const start = domain.reserve(20, 0xfffff, PCI);
      for (let i = 0; i < 20; i++) domain.map(page(start + i), frame(0x1000 + i * 3), 1, RW);
      domain.sync(start, 20);
      expect(cost(() => domain.release(start, 20, 20))).toEqual([1, 2]);
    });

    test.each([0, 1, 17])("lazy: nothing at an unmap, as one at a flush, %i devices with a TLB", (ats) => {
      const { domain, cost, map, clock } = costs({ mode: "lazy", ats, scalableMode });
      const starts = Array.from({ length: 20 }, () => map(2));
      const unmapAll = () => {
        for (const start of starts) domain.release(start, 2, 2);
      };
      expect(cost(unmapAll)).toEqual([0, 0]);
      expect(cost(() => clock.advance(10))).toEqual([Math.ceil((1 + ats) / 16), 1 + ats]);
    });

    test("map on an ordinary unit: nothing", () => {
      const { cost, map } = costs({ mode: "strict", ats: 1, scalableMode });
      expect(cost(() => map(100))).toEqual([0, 0]);
    });

    test("map sync in caching mode: one for the second stage, without devices; none for the first", () => {
      for (const ats of [0, 1, 20]) {
        const { cost, map } = costs({ mode: "strict", ats, cachingMode: true, scalableMode });
        expect(cost(() => map(100))).toEqual(scalableMode ? [0, 0] : [1, 1]);
      }
    });

    test.each([2, 3])("%i units: each as much", (units) => {
      const { domain, cost, map } = costs({ mode: "strict", ats: 1, units, scalableMode });
      const start = map(7);
      expect(cost(() => domain.release(start, 7, 7))).toEqual([units, units * 2]);
    });
  });

describe("what is counted", () => {
  test("pages asked for, and pages of the blocks that were named for them", () => {
    const { drivers, domain } = costs({ mode: "strict", ats: 0 });
    const [unit] = drivers;
    const unmap = (start: number, pages: number) => {
      domain.map(page(start), frame(0x1000), pages, RW);
      domain.unmapNow(page(start), pages);
    };
    unmap(0x100, 1);
    unmap(0x1ff, 2); // across a boundary of 512 pages
    unmap(0x1ffff, 2); // across one of 2^17
    unmap(0x3ffff, 2); // a block of 2^19 pages: beyond what the unit can name
    expect(unit!.counts).toMatchObject({
      pagesRequested: 1 + 2 + 2,
      pagesInvalidated: 1 + 1024 + 2 ** 18,
      wholeInvalidations: 1,
    });
  });

  test("the same by both sides of the queue", () => {
    const { drivers, hardware, domain, map, clock } = costs({ mode: "lazy", ats: 3 });
    for (let i = 0; i < 600; i++) domain.release(map(1 + (i % 5)), 1 + (i % 5), 1 + (i % 5));
    clock.advance(10);
    const { submissions, descriptors, waits } = drivers[0]!.counts;
    expect(hardware[0]!.counts).toEqual({ submissions, descriptors, waits });
  });

  test("how long unmapped pages stay within reach: not at all in strict mode, until the flush in lazy mode", () => {
    for (const mode of ["strict", "lazy"] as const) {
      const { domain, map, clock, windows } = costs({ mode, ats: 1 });
      const [first, second] = [map(4), map(2)];
      domain.release(first, 4, 4);
      clock.advance(4);
      domain.release(second, 2, 2);
      expect(windows.openPages).toBe(mode === "strict" ? 0 : 6);
      clock.advance(20);
      const flushedAfter = 10; // the queue's timer starts with its first entry
      expect([windows.openPages, windows.pageMs, windows.longestMs]).toEqual(
        mode === "strict" ? [0, 0, 0] : [0, 4 * flushedAfter + 2 * (flushedAfter - 4), flushedAfter],
      );
    }
  });
});
