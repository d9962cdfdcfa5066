/** Fault records: what the unit writes about a refused request, and what the stack reads there. */
import { describe, expect, test } from "vitest";
import { READ, vtdSecondStage, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { FAULT_STATUS } from "../../src/layouts/vtd/index.ts";
import type { Arena } from "../../src/pagetable/index.ts";
import { DEVICE, frame, page, vtdMachine } from "./machine.ts";

/** The reasons of the faults so far. */
const reasons = ({ unit }: ReturnType<typeof vtdMachine>): number[] => {
  unit.readFaults();
  return unit.faults.drain().map((event) => (event.kind === "translation" ? event.reason : -1));
};

describe("a refused request", () => {
  test("is recorded with its device, PASID, page, access and time", () => {
    const machine = vtdMachine({ scalableMode: true, pasidBits: 20, faultRecords: 8 });
    const { unit, hardware, tables, clock } = machine;
    const domain = tables(1);
    unit.attach(DEVICE, domain.view, { pasid: 0xabcde });
    clock.advance(3);
    hardware.translate(DEVICE, page(0x3_4567_89ab), "write", 0xabcde);
    expect(unit.readFaults()).toBe(1);
    expect(unit.faults.drain()).toEqual([
      {
        kind: "translation",
        timeMs: 3,
        requester: DEVICE,
        pasid: 0xabcde,
        page: 0x3_4567_89ab,
        access: "write",
        reason: 0x71,
        meaning: "not mapped in the first stage",
      },
    ]);
  });

  test("names what is missing on the way, in legacy mode", () => {
    const machine = vtdMachine({ faultRecords: 16 });
    const { unit, hardware, tables } = machine;
    hardware.translate(DEVICE, page(5), "read");
    const domain = tables(1, vtdSecondStage({ levels: 3 }));
    domain.table.map(page(5), frame(9), 1, READ);
    unit.attach(DEVICE, domain.view);
    hardware.translate(DEVICE + 1, page(5), "read");
    hardware.translate(DEVICE, page(6), "write");
    hardware.translate(DEVICE, page(6), "read");
    hardware.translate(DEVICE, page(5), "write");
    hardware.translate(DEVICE, page(2 ** 27), "read");
    hardware.translate(DEVICE, page(5), "read", 3);
    expect(reasons(machine)).toEqual([0x01, 0x02, 0x05, 0x06, 0x05, 0x04, 0x31]);
  });

  test("names what is missing on the way, in scalable mode", () => {
    const machine = vtdMachine({ scalableMode: true, pasidBits: 20, faultRecords: 16 });
    const { unit, hardware, tables } = machine;
    hardware.translate(DEVICE, page(5), "read");
    const [first, second] = [tables(1, x86_64()), tables(2, vtdSecondStage())];
    first.table.map(page(5), frame(9), 1, READ);
    second.table.map(page(5), frame(9), 1, READ);
    unit.attach(DEVICE, first.view);
    unit.attach(DEVICE, second.view, { pasid: 2 });
    unit.attach(DEVICE + 2, first.view, { pasidBits: 0 });
    hardware.translate(DEVICE + 1, page(5), "read");
    hardware.translate(DEVICE + 2, page(5), "read", 2);
    hardware.translate(DEVICE, page(5), "read", 64);
    hardware.translate(DEVICE, page(5), "read", 3);
    hardware.translate(DEVICE, page(6), "write");
    hardware.translate(DEVICE, page(5), "write");
    hardware.translate(DEVICE, page(2 ** 35), "read");
    hardware.translate(DEVICE, page(6), "read", 2);
    hardware.translate(DEVICE, page(5), "write", 2);
    hardware.translate(DEVICE, page(2 ** 36), "write", 2);
    expect(reasons(machine)).toEqual([0x39, 0x41, 0x45, 0x51, 0x59, 0x71, 0x85, 0x80, 0x79, 0x79, 0x84]);
  });
});

describe("an entry that no table of the stack contains", () => {
  /** Where the entry of `at` is in tables of four levels. */
  const tableOf = (memory: Arena, root: number, at: number): number => {
    let table = root;
    for (let level = 3; level > 0; level--) {
      const index = Math.floor(at / 512 ** level) % 512;
      table = (memory.high(frame(table), index) >>> 0) * 2 ** 20 + (memory.low(frame(table), index) >>> 12);
    }
    return table;
  };

  test.each([
    ["a supervisor's page", 0, 0x9003, 0x81],
    ["a large page at a level that has none, in the first stage", 3, 0x80e7, 0x72],
    ["a large page at a level that has none, in the second stage", 3, 0x8083, 0x7a],
  ])("is refused with its own reason: %s", (_what, level, entry, reason) => {
    const machine = vtdMachine({ scalableMode: true });
    const { unit, memory, tables, hardware } = machine;
    const domain = tables(1, reason === 0x7a ? vtdSecondStage() : x86_64());
    domain.table.map(page(5), frame(9), 1, READ);
    unit.attach(DEVICE, domain.view);
    const { root } = domain.table;
    memory.store(frame(level === 3 ? root : tableOf(memory, root, 5)), level === 3 ? 0 : 5, entry, 0);
    expect([hardware.translate(DEVICE, page(5), "read"), reasons(machine)]).toEqual([-1, [reason]]);
  });
});

describe("fault records", () => {
  for (const faultRecords of [1, 4])
    test(`${faultRecords}: more faults than records are lost, which is said, and records are used again`, () => {
      const { unit, hardware } = vtdMachine({ faultRecords });
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 6; i++) hardware.translate(DEVICE, page(i), "read");
        expect(hardware.readFaultStatus() & FAULT_STATUS.overflow).toBe(FAULT_STATUS.overflow);
        expect(unit.readFaults()).toBe(faultRecords);
        const events = unit.faults.drain();
        expect(events.map((event) => (event.kind === "translation" ? event.page : event.kind))).toEqual([
          ...Array.from({ length: faultRecords }, (_, i) => i),
          "records-lost",
        ]);
        expect(hardware.readFaultStatus()).toBe(0);
      }
    });

  test("take nothing new while the overflow stands, also when one is free again", () => {
    const { hardware } = vtdMachine({ faultRecords: 1 });
    hardware.translate(DEVICE, page(1), "read");
    hardware.translate(DEVICE, page(2), "read");
    hardware.clearFaultRecord(0);
    hardware.translate(DEVICE, page(3), "read");
    expect(hardware.readFaultStatus()).toBe(FAULT_STATUS.overflow);
    hardware.clearFaultStatus(FAULT_STATUS.overflow);
    hardware.translate(DEVICE, page(4), "read");
    expect([hardware.readFaultStatus(), hardware.readFaultRecord(0, 0)]).toEqual([FAULT_STATUS.pending, 4 << 12]);
  });

  test("are read from the oldest on, around the end", () => {
    const { unit, hardware } = vtdMachine({ faultRecords: 4 });
    for (const pages of [[0, 1, 2], [3, 4, 5, 6], [7]]) {
      for (const n of pages) hardware.translate(DEVICE, page(n), "read");
      unit.readFaults();
      expect(unit.faults.drain().map((event) => event.kind === "translation" && event.page)).toEqual(pages);
    }
  });

  test("are none when there were no faults", () => {
    const { unit } = vtdMachine();
    expect([unit.readFaults(), unit.faults.length]).toEqual([0, 0]);
  });

  test("that nobody reads as events are counted", () => {
    const { unit, hardware } = vtdMachine();
    for (let i = 0; i < 1030; i++) {
      hardware.translate(DEVICE, page(i), "read");
      unit.readFaults();
    }
    expect([unit.faults.length, unit.faults.dropped]).toEqual([1024, 6]);
  });
});
