/** Devices with TLBs of their own: refilled through the IOTLB, told to forget, and what becomes of those that do not. */
import { describe, expect, test } from "vitest";
import { READ, WRITE, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { DEVICE, frame, OTHER, page, vtdMachine } from "./machine.ts";

const RW = READ | WRITE;
const ATS = { queueDepth: 0, stu: 0 };

for (const scalableMode of [false, true])
  describe(`a device TLB in ${scalableMode ? "scalable" : "legacy"} mode`, () => {
    function attached(options: Parameters<typeof vtdMachine>[1] = {}) {
      const machine = vtdMachine({ deviceTlb: true, scalableMode, pasidBits: 8 }, options);
      const tlb = machine.hardware.addDeviceTlb(DEVICE);
      const domain = machine.tables(7);
      domain.table.map(page(5), frame(9), 4, RW);
      machine.unit.attach(DEVICE, domain.view, { ats: ATS });
      return { ...machine, tlb, domain };
    }

    test("answers by itself, and forgets what it is told to forget", () => {
      const { tlb, domain, reach, hardware } = attached();
      expect([reach([5, 6]), tlb.size]).toEqual([[9, 10], 2]);
      domain.unmap(5, 1);
      expect([reach([5, 6]), tlb.size, tlb.invalidations]).toEqual([[-1, 10], 1, 1]);
      expect(hardware.counts.descriptors[3]).toBe(1);
    });

    test("that ignores an invalidation goes on using the page, though the unit has forgotten it", () => {
      const { tlb, domain, reach, hardware, unit } = attached();
      reach([5]);
      tlb.manners = "ignores";
      domain.unmap(5, 1);
      expect([reach([5]), hardware.cached, unit.faults.drain()]).toEqual([[9], 0, []]);
      unit.detach(DEVICE); // the context entry is gone: what it has translated itself is refused too
      expect(reach([5])).toEqual([-1]);
    });

    test("is of no use any more once the device is attached without one", () => {
      const { tlb, domain, reach, unit } = attached();
      reach([5, 6]);
      tlb.manners = "ignores";
      unit.detach(DEVICE);
      unit.attach(DEVICE, domain.view);
      unit.readFaults();
      unit.faults.drain();
      expect([reach([5]), tlb.size]).toEqual([[-1], 2]);
      unit.readFaults();
      expect(unit.faults.drain()).toMatchObject([{ requester: DEVICE, reason: scalableMode ? 0x44 : 0x0d }]);
    });

    test("of an untrusted device is never used", () => {
      const { tables, unit, hardware, reach } = vtdMachine({ deviceTlb: true, scalableMode });
      const tlb = hardware.addDeviceTlb(DEVICE);
      const domain = tables(7);
      domain.table.map(page(5), frame(9), 1, RW);
      unit.attach(DEVICE, domain.view, { ats: ATS, trusted: false });
      expect([reach([5]), tlb.size]).toEqual([[9], 0]);
      domain.unmap(5, 1);
      expect([reach([5]), hardware.counts.descriptors[3]]).toEqual([[-1], 0]);
    });

    test("with the erratum is told twice", () => {
      const { tables, unit, hardware } = vtdMachine({ deviceTlb: true, scalableMode });
      const tlb = hardware.addDeviceTlb(DEVICE);
      const domain = tables(7);
      domain.table.map(page(5), frame(9), 1, RW);
      unit.attach(DEVICE, domain.view, { ats: { ...ATS, twice: true } });
      domain.unmap(5, 1);
      expect(tlb.invalidations).toBe(2);
      unit.detach(DEVICE);
      expect(tlb.invalidations).toBe(4);
    });

    test("with another smallest unit than a page is refused", () => {
      const { tables, unit } = vtdMachine({ deviceTlb: true, scalableMode });
      const attach = () => unit.attach(DEVICE, tables(7).view, { ats: { queueDepth: 0, stu: 1 } });
      expect(attach).toThrow(expect.objectContaining({ code: "ERR_DMA_VTD_ATS", errno: "EINVAL" }));
    });

    test("that left the bus is given up at its first time-out, and nobody else waits for it", () => {
      const { tlb, domain, unit, hardware, reach, tables } = attached({ isGone: (requester) => requester === DEVICE });
      const second = hardware.addDeviceTlb(OTHER);
      unit.attach(OTHER, domain.view, { ats: ATS });
      reach([5, 6], OTHER);
      tlb.manners = "silent";
      domain.unmap(5, 1);
      expect(unit.faults.drain()).toEqual([{ kind: "device-given-up", timeMs: 0, requester: DEVICE, gone: true }]);
      expect([unit.broken, unit.counts.retries, reach([5, 6], OTHER)]).toEqual([undefined, 1, [-1, 10]]);
      domain.unmap(6, 1);
      expect([reach([6], OTHER), tlb.invalidations, unit.counts.retries]).toEqual([[-1], 1, 1]);
      // back again, it is told again
      tlb.manners = "obeys";
      unit.detach(DEVICE);
      unit.attach(DEVICE, tables(8).view, { ats: ATS });
      unit.invalidateRange(8, page(1), page(2), true);
      expect([tlb.invalidations, second.invalidations]).toEqual([2, 3]); // the second was told of page 5 twice
    });

    for (const hideSource of [false, true])
      test(`that is there and does not answer is found out and given up, ${hideSource ? "unnamed" : "named"}`, () => {
        const { tlb, domain, unit, hardware, reach } = attached();
        hardware.misbehaviour.hideSource = hideSource;
        const second = hardware.addDeviceTlb(OTHER);
        unit.attach(OTHER, domain.view, { ats: ATS });
        reach([5], OTHER);
        tlb.manners = "silent";
        domain.unmap(5, 1);
        expect(unit.faults.drain()).toEqual([{ kind: "device-given-up", timeMs: 0, requester: DEVICE, gone: false }]);
        expect([unit.broken, reach([5], OTHER), second.size]).toEqual([undefined, [-1], 0]);
      });

    test("that is told late is forgotten before anybody gets the page", () => {
      const { domain, hardware, reach, unit } = attached();
      hardware.misbehaviour.descriptorMs = 5;
      reach([5]);
      domain.unmap(5, 1);
      expect([reach([5]), unit.faults.drain()]).toEqual([[-1], []]);
    });
  });

test("a device TLB of a PASID is told of that PASID alone", () => {
  const { hardware, unit, tables, reach } = vtdMachine({ deviceTlb: true, scalableMode: true, pasidBits: 8 });
  const tlb = hardware.addDeviceTlb(DEVICE);
  const [own, other] = [tables(1, x86_64()), tables(2, x86_64())];
  for (const { table } of [own, other]) table.map(page(5), frame(9), 1, RW);
  unit.attach(DEVICE, own.view, { ats: ATS });
  unit.attach(DEVICE, other.view, { pasid: 3 });
  expect([reach([5]), reach([5], DEVICE, 3), tlb.size]).toEqual([[9], [9], 2]);
  other.unmap(5, 1);
  expect([reach([5]), reach([5], DEVICE, 3), tlb.size]).toEqual([[9], [-1], 1]);
  expect([hardware.counts.descriptors[3], hardware.counts.descriptors[8]]).toEqual([0, 1]);
});

test("a unit that asks for it is told the physical function, any other is not", () => {
  for (const needsPhysicalFunction of [false, true]) {
    const sent: string[] = [];
    const { unit, tables } = vtdMachine(
      { deviceTlb: true, needsPhysicalFunction },
      {
        observer: {
          descriptorsSubmitted: (words, at, count) => {
            for (let i = at; i < at + count * 4; i += 4)
              if ((words[i]! & 15) === 3) sent.push(`${words[i + 1]!.toString(16)} ${words[i]!.toString(16)}`);
          },
        },
      },
    );
    const domain = tables(7);
    unit.attach(0x1234, domain.view, { ats: { queueDepth: 8, stu: 0 } });
    unit.attach(0x1235, domain.view, { ats: { queueDepth: 8, stu: 0, physicalFunction: 0x1234 } });
    unit.invalidateRange(7, page(5), page(6), true);
    expect(sent).toEqual(needsPhysicalFunction ? ["12301234 84003", "12301235 84003"] : ["1234 80003", "1235 80003"]);
  }
});
