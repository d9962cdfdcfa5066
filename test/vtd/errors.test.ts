/** A VT-d unit that goes wrong: every error of its queue, a unit that does not answer, and memory that runs out. */
import { describe, expect, test } from "vitest";
import type { PhysPage } from "../../src/base/index.ts";
import { VirtualClock } from "../../src/hosts/simulated/index.ts";
import { SimulatedVtdUnit } from "../../src/hosts/simulated/units/vtd/index.ts";
import { DmaDomain, VtdUnit } from "../../src/iommu/index.ts";
import { READ, riscv, vtdSecondStage, WRITE, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import { DEVICE, frame, page, Tables, vtdMachine } from "./machine.ts";

const RW = READ | WRITE;

for (const scalableMode of [false, true]) {
  const mode = scalableMode ? "scalable" : "legacy";
  function attached(pollLimit = 2_000) {
    const machine = vtdMachine({ scalableMode }, { pollLimit });
    const domain = machine.tables(7);
    domain.table.map(page(5), frame(9), 8, RW);
    machine.unit.attach(DEVICE, domain.view);
    machine.reach([5, 6, 7]);
    return { ...machine, domain };
  }

  describe(`a queue in ${mode} mode`, () => {
    test("goes on after a descriptor that the unit refuses, and says which (IQE)", () => {
      const { unit, hardware, domain, reach } = attached();
      hardware.misbehaviour.refuse = 1;
      domain.unmap(5, 1);
      const [event, ...others] = unit.faults.drain();
      expect([event?.kind, others]).toEqual(["descriptor-refused", []]);
      expect(event).toMatchObject({ words: expect.arrayContaining([scalableMode ? 0x70036 : 0x700f2]) });
      expect([unit.broken, reach([5])]).toEqual([undefined, [9]]); // as the event says: it may still be cached
      domain.unmap(6, 1);
      expect([unit.faults.drain(), reach([6])]).toEqual([[], [-1]]);
    });

    test("goes on after a completion that nobody asked for (ICE)", () => {
      const { unit, hardware, domain, reach } = attached();
      hardware.misbehaviour.unexpected = 1;
      hardware.misbehaviour.descriptorMs = 0.01;
      domain.unmap(5, 1);
      expect(unit.faults.drain()).toEqual([{ kind: "unexpected-completion", timeMs: 0 }]);
      expect([unit.broken, reach([5])]).toEqual([undefined, [-1]]);
    });

    test("that loses an invalidation leaves the page reachable: nothing else could show it", () => {
      const { unit, hardware, domain, reach } = attached();
      hardware.misbehaviour.lose = 1;
      domain.unmap(5, 1);
      expect([unit.faults.drain(), reach([5])]).toEqual([[], [9]]);
      unit.invalidateDomain(7);
      expect(reach([5])).toEqual([-1]);
    });

    test("waits for a slow unit", () => {
      const { unit, hardware, domain, reach } = attached();
      hardware.misbehaviour.descriptorMs = 0.5;
      domain.unmap(5, 1);
      expect([unit.broken, reach([5])]).toEqual([undefined, [-1]]);
    });

    test("that is stuck is broken, once, and everything returns all the same", () => {
      const { unit, hardware, domain, tables } = attached();
      hardware.misbehaviour.stuck = true;
      domain.unmap(5, 1);
      expect(unit.broken).toContain("did not finish 1 invalidations");
      domain.unmap(6, 1);
      unit.invalidateDomain(7);
      unit.detach(DEVICE);
      expect(unit.faults.drain()).toEqual([{ kind: "unit-broken", timeMs: 0, reason: unit.broken }]);
      expect(() => unit.attach(DEVICE, tables(8).view)).toThrow(
        expect.objectContaining({ code: "ERR_DMA_VTD_BROKEN", errno: "EIO" }),
      );
      unit.destroy();
    });

    test("that breaks while a device is attached attaches nothing", () => {
      const { hardware, tables, unit, memory, reach } = vtdMachine(
        { scalableMode, cachingMode: true },
        { pollLimit: 100 },
      );
      const domain = tables(7);
      domain.table.map(page(5), frame(9), 1, RW);
      unit.attach(0x300, domain.view);
      const before = memory.framesInUse;
      hardware.misbehaviour.stuck = true;
      expect(() => unit.attach(0x301, domain.view)).toThrow(expect.objectContaining({ code: "ERR_DMA_VTD_BROKEN" }));
      expect([memory.framesInUse, reach([5], 0x301)]).toEqual([before, [-1]]);
    });

    test("runs around its ring as often as needed", () => {
      const { unit, hardware, domain, reach } = attached();
      for (let i = 0; i < 1000; i++) {
        domain.table.map(page(0x1000), frame(i), 1, RW);
        expect(reach([0x1000])).toEqual([i]);
        domain.unmap(0x1000, 1);
        expect(reach([0x1000])).toEqual([-1]);
      }
      expect([unit.broken, hardware.counts.waits]).toEqual([undefined, unit.counts.waits]);
    });
  });

  test(`a unit in ${mode} mode gives everything back when any allocation fails`, () => {
    for (let step = 1; ; step++) {
      const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
      const clock = new VirtualClock();
      const hardware = new SimulatedVtdUnit({ memory, clock, scalableMode, pasidBits: 20 });
      memory.failAt = step;
      let unit: VtdUnit | undefined;
      let inUse = 0;
      try {
        unit = new VtdUnit({ registers: hardware, memory, clock });
        const failAt = memory.failAt;
        memory.failAt = 0;
        const domain = new DmaDomain({
          layout: scalableMode ? x86_64() : vtdSecondStage(),
          unit,
          clock,
          mode: "strict",
          domainId: 1,
          tableMemory: memory,
        });
        inUse = memory.framesInUse;
        memory.failAt = failAt;
        unit.attach(DEVICE, domain.tables, scalableMode ? { pasid: 0x777 } : {});
        inUse = memory.framesInUse;
        if (scalableMode) unit.attach(DEVICE, domain.tables, { pasid: 0xfffff });
      } catch (error) {
        expect(error).toMatchObject({ code: "ERR_DMA_VTD_MEMORY", errno: "ENOMEM" });
        expect(memory.framesInUse).toBe(inUse);
        continue;
      }
      expect([step, memory.failAt]).toEqual([scalableMode ? 8 : 5, 1]);
      break;
    }
  });
}

test("a descriptor with anything in the upper half of a wide slot is refused", () => {
  class Watched extends SimulatedVtdUnit {
    queue = 0n;
    override writeQueueAddress(value: bigint): void {
      this.queue = value;
      super.writeQueueAddress(value);
    }
  }
  const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
  const clock = new VirtualClock();
  const registers = new Watched({ memory, clock, scalableMode: true });
  const unit = new VtdUnit({ registers, memory, clock });
  const domain = new Tables(unit, memory, x86_64(), 7);
  domain.table.map(page(5), frame(9), 1, RW);
  unit.attach(DEVICE, domain.view);
  const ring = Number(registers.queue >> 12n);
  for (let slot = 0; slot < 256; slot++) memory.store(frame(ring + Math.floor(slot / 128)), (slot % 128) * 4 + 3, 0, 1);
  domain.unmap(5, 1);
  expect(unit.faults.drain()).toMatchObject([{ kind: "descriptor-refused" }]);
});

test("a unit that follows no command is not taken into use, and keeps no memory", () => {
  class Deaf extends SimulatedVtdUnit {
    override readGlobalStatus(): number {
      return 0;
    }
  }
  const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
  const clock = new VirtualClock();
  const registers = new Deaf({ memory, clock });
  expect(() => new VtdUnit({ registers, memory, clock, pollLimit: 10 })).toThrow(
    expect.objectContaining({ code: "ERR_DMA_VTD_BROKEN", errno: "EIO" }),
  );
  expect(memory.framesInUse).toBe(0);
});

describe("tables that a unit cannot walk are refused", () => {
  test.each([
    ["first-stage tables in legacy mode", {}, () => x86_64()],
    ["tables of another architecture", { scalableMode: true }, () => riscv()],
    ["five levels of the second stage", {}, () => vtdSecondStage({ levels: 5 })],
    ["five levels of the first stage", { scalableMode: true }, () => x86_64({ levels: 5 })],
  ] as const)("%s", (_what, traits, layout) => {
    const { unit, tables } = vtdMachine(traits);
    const domain = tables(1, layout());
    expect(() => unit.attach(DEVICE, domain.view)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_VTD_TABLES", errno: "EINVAL" }),
    );
  });

  test("tables in memory that the unit does not see", () => {
    const { unit } = vtdMachine();
    const elsewhere = vtdMachine().tables(1);
    expect(() => unit.attach(DEVICE, elsewhere.view)).toThrow(/another table memory/);
  });

  test.each([
    [0x10000, 1],
    [-1, 1],
    [DEVICE, 0x10000],
    [DEVICE, -1],
  ])("requester %i with domain id %i", (requester, domainId) => {
    const { unit, tables } = vtdMachine();
    expect(() => unit.attach(requester, tables(domainId).view)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_VTD_RANGE", errno: "EINVAL" }),
    );
  });

  test("domain id 0 in caching mode, where it stands for what is absent", () => {
    const { unit, tables } = vtdMachine({ cachingMode: true });
    expect(() => unit.attach(DEVICE, tables(0).view)).toThrow(/domain id 0 cannot be used: .* from 1 to 65535/);
  });

  test("scalable mode of a unit that has none", () => {
    expect(() => vtdMachine({}, { scalable: true })).toThrow(
      expect.objectContaining({ code: "ERR_DMA_VTD_CAPABILITY", errno: "EOPNOTSUPP" }),
    );
  });
});

test("a unit that can do scalable mode also runs in legacy mode", () => {
  const { unit, tables, reach } = vtdMachine({ scalableMode: true }, { scalable: false });
  const domain = tables(7, vtdSecondStage());
  domain.table.map(page(5), frame(9), 1, RW);
  unit.attach(DEVICE, domain.view);
  expect(reach([5])).toEqual([9]);
});
