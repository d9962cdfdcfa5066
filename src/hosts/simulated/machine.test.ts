import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Counters, type DmaAddr, type IovaPage, PhysAddr, type PhysPage } from "../../base/index.ts";
import {
  armLpae,
  CACHE,
  READ,
  riscv,
  type TableLayout,
  vtdSecondStage,
  WRITE,
  x86_64,
} from "../../layouts/pagetable/index.ts";
import { Arena, Gather, PageTable } from "../../pagetable/index.ts";
import { DmaEngine, FAULT_LIMIT, SimulatedMemory, SimulatedUnit, VirtualClock } from "./index.ts";

const DEVICE = 0x100;

function machine(layout: TableLayout = vtdSecondStage()) {
  const arena = new Arena({ basePage: (2 ** 35) as PhysPage });
  const table = new PageTable({ layout, memory: arena, counters: new Counters() });
  const unit = new SimulatedUnit();
  unit.attach(DEVICE, {
    domainId: 7,
    layout,
    memory: arena,
    root: () => table.root,
    topLevel: () => table.topLevel,
  });
  const memory = new SimulatedMemory();
  return { table, unit, memory, engine: new DmaEngine(DEVICE, unit, memory) };
}
const page = (n: number) => n as IovaPage;
const frame = (n: number) => n as PhysPage;

describe("the simulated IOMMU", () => {
  test("refuses a device that nobody attached", () => {
    const { unit } = machine();
    expect(unit.translate(0x200, page(1), "read")).toBe(-1);
    expect(unit.faults).toEqual([{ requester: 0x200, page: 1, access: "read", reason: "not-attached" }]);
  });

  test("keeps a translation until it is invalidated, whatever became of the tables", () => {
    const { table, unit } = machine();
    table.map(page(5), frame(9), 1, READ | WRITE);
    expect(unit.translate(DEVICE, page(5), "read")).toBe(9);
    const gather = new Gather();
    table.unmap(page(5), 1, gather);
    expect(unit.translate(DEVICE, page(5), "read")).toBe(9); // stale, as hardware is
    unit.invalidateRange(7, page(5), page(6));
    expect(unit.translate(DEVICE, page(5), "read")).toBe(-1);
  });

  test("forgets only what it is told to", () => {
    const { table, unit } = machine();
    for (const at of [5, 6, 7]) table.map(page(at), frame(at + 10), 1, READ);
    for (const at of [5, 6, 7]) unit.translate(DEVICE, page(at), "read");
    table.unmap(page(5), 3, new Gather());
    unit.invalidateRange(7, page(6), page(7));
    expect([5, 6, 7].map((at) => unit.translate(DEVICE, page(at), "read"))).toEqual([15, -1, 17]);
    unit.invalidateDomain(8); // another domain's
    expect(unit.translate(DEVICE, page(5), "read")).toBe(15);
    unit.invalidateDomain(7);
    expect(unit.translate(DEVICE, page(5), "read")).toBe(-1);
  });

  test("does not remember that something was absent", () => {
    const { table, unit } = machine();
    expect(unit.translate(DEVICE, page(5), "read")).toBe(-1);
    table.map(page(5), frame(9), 1, READ);
    expect(unit.translate(DEVICE, page(5), "read")).toBe(9);
  });

  test("logs so many faults and no more, and counts the rest", () => {
    const { unit } = machine();
    for (let i = 0; i < FAULT_LIMIT + 3; i++) unit.translate(DEVICE, page(i + 1), "write");
    expect([unit.faults.length, unit.faultsLost]).toEqual([FAULT_LIMIT, 3]);
  });

  const layouts: [string, TableLayout][] = [
    ["VT-d second stage", vtdSecondStage()],
    ["x86-64, 5 levels", x86_64({ levels: 5 })],
    ["RISC-V Sv48 with Svnapot", riscv({ svnapot: true })],
    ["Arm stage 1, 4K", armLpae({ stage: 1, pageSizes: 0x40201000n, inputBits: 48, outputBits: 48 })!],
  ];
  for (const [name, layout] of layouts)
    test(`its walk and the look-up of the stack agree: ${name}`, () => {
      fc.assert(
        fc.property(
          fc.array(fc.record({ at: fc.nat(3000), to: fc.nat(1 << 20), pages: fc.integer({ min: 1, max: 700 }) }), {
            minLength: 1,
            maxLength: 12,
          }),
          (maps) => {
            const { table, unit } = machine(layout);
            for (const { at, to, pages } of maps) {
              table.map(page(at + 1), frame(to), pages, READ | WRITE | CACHE);
            }
            for (let at = 0; at < 3800; at += 7)
              expect(unit.translate(DEVICE, page(at), "read")).toBe(table.lookup(page(at)));
          },
        ),
        { numRuns: 40 },
      );
    });
});

describe("a DMA engine", () => {
  test("moves bytes across pages that lie apart, and stops where it is refused", () => {
    const { table, memory, engine } = machine();
    table.map(page(1), frame(100), 1, READ | WRITE);
    table.map(page(2), frame(50), 1, READ | WRITE);
    const bytes = Uint8Array.from({ length: 8192 }, (_, i) => i);
    expect(engine.write(4096 as DmaAddr, bytes)).toBe(true);
    const back = new Uint8Array(4096);
    memory.read(PhysAddr(50 * 4096), back);
    expect(back).toEqual(bytes.subarray(4096));
    expect(engine.write(8192 as DmaAddr, new Uint8Array(4097).fill(1))).toBe(false);
    memory.read(PhysAddr(50 * 4096), back);
    expect(back.every((byte) => byte === 1)).toBe(true); // the page before the refused one was written
  });
});

describe("simulated memory", () => {
  test("costs nothing until it is touched, at any address, and untouched memory is zero", () => {
    const memory = new SimulatedMemory();
    const far = PhysAddr(2 ** 51 - 2);
    const into = new Uint8Array(4).fill(9);
    memory.read(far, into);
    expect([...into, memory.touchedPages]).toEqual([0, 0, 0, 0, 0]);
    memory.write(far, new Uint8Array([1, 2, 3, 4]));
    memory.read(far, into);
    expect([...into, memory.touchedPages]).toEqual([1, 2, 3, 4, 2]);
  });
});

describe("virtual time", () => {
  test("runs timers in order of due time, then of setting; also those set on the way", () => {
    const clock = new VirtualClock();
    const ran: string[] = [];
    clock.after(5, () => ran.push("late"));
    clock.after(2, () => {
      ran.push("early");
      clock.after(1, () => ran.push("between"));
    });
    clock.after(5, () => ran.push("later"));
    const cancelled = clock.after(3, () => ran.push("never"));
    cancelled.cancel();
    clock.advance(4);
    expect(ran).toEqual(["early", "between"]);
    clock.advance(1);
    expect(ran).toEqual(["early", "between", "late", "later"]);
    expect(clock.nowMs()).toBe(5);
  });
});

describe("table memory", () => {
  test("that a format's entries cannot point to is refused when the table is made", () => {
    const layout = armLpae({ stage: 1, pageSizes: 0x40201000n, inputBits: 48, outputBits: 48 })!;
    const memory = new Arena({ basePage: (2 ** 39) as PhysPage });
    expect(() => new PageTable({ layout, memory, counters: new Counters() })).toThrow(
      expect.objectContaining({ code: "ERR_DMA_TABLE_ARENA", errno: "ERANGE" }),
    );
    expect(memory.framesInUse).toBe(0);
  });
});
