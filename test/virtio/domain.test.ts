/**
 * A virtio-iommu: the driver's domain and the simulated device, which share nothing but the bytes of requests, against a
 * plain map of pages.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type IovaPage, PAGE_SIZE, type PhysPage } from "../../src/base/index.ts";
import { SimulatedVirtioIommu, type SimulatedVirtioOptions, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { VirtioDmaDomain, type VirtioDmaDomainOptions, VirtioIommuUnit } from "../../src/iommu/index.ts";
import { CACHE, MMIO, READ, WRITE } from "../../src/layouts/pagetable/index.ts";
import { STATUS } from "../../src/layouts/virtio-iommu/index.ts";

const DEVICE = 0x0100;
const OTHER = 0x0200;
const RW = READ | WRITE | CACHE;
const page = (n: number): IovaPage => n as IovaPage;
const frame = (n: number): PhysPage => n as PhysPage;
const code = (code: string, errno: string) => expect.objectContaining({ code, errno });

function machine(options: SimulatedVirtioOptions = {}, more: Partial<VirtioDmaDomainOptions> = {}) {
  const clock = new VirtualClock();
  const hardware = new SimulatedVirtioIommu(options);
  const unit = new VirtioIommuUnit(hardware);
  const domain = new VirtioDmaDomain({ unit, clock, mode: "strict", ...more });
  unit.attach(DEVICE, domain);
  const reach = (pages: readonly number[], requester = DEVICE): number[] =>
    pages.map((each) => hardware.translate(requester, page(each), "read"));
  return { clock, hardware, unit, domain, reach };
}

describe("a domain of a virtio-iommu", () => {
  test("any number of maps and one sync is one notification; an unmap of any length is one request", () => {
    const { hardware, domain, reach } = machine();
    const before = { ...hardware.counts };
    for (let i = 0; i < 100; i++) domain.map(page(i), frame(1000 - 2 * i), 1, RW);
    expect(reach([0])).toEqual([-1]);
    domain.sync(page(0), 100);
    expect([hardware.counts.map - before.map, hardware.counts.submissions - before.submissions]).toEqual([100, 1]);
    expect(reach([0, 1, 99])).toEqual([1000, 998, 802]);
    expect(domain.unmapNow(page(0), 100)).toBe(100);
    expect([hardware.counts.unmap, hardware.mappings]).toEqual([1, 0]);
    expect(reach([0, 99])).toEqual([-1, -1]);
  });

  test("permits what was mapped for, and reports what is refused", () => {
    const { hardware, unit, domain } = machine();
    domain.map(page(1), frame(11), 1, READ);
    domain.map(page(2), frame(12), 1, WRITE);
    domain.sync(page(1), 2);
    const tried = [1, 2, 3].flatMap((n) =>
      (["read", "write"] as const).map((access) => hardware.translate(DEVICE, page(n), access)),
    );
    expect(tried).toEqual([11, -1, -1, 12, -1, -1]);
    expect(hardware.translate(OTHER, page(1), "read")).toBe(-1);
    expect(unit.readFaults()).toBe(5);
    expect(
      unit.faults.drain().map((fault) => fault.kind === "translation" && [fault.requester, fault.page, fault.reason]),
    ).toEqual([
      [DEVICE, 1, "mapping"],
      [DEVICE, 2, "mapping"],
      [DEVICE, 3, "mapping"],
      [DEVICE, 3, "mapping"],
      [OTHER, 1, "domain"],
    ]);
  });

  test("reports that the device has no buffer for are counted", () => {
    const { unit, reach } = machine({ faultBuffers: 2 });
    reach([1, 2, 3, 4]);
    unit.readFaults();
    expect(unit.faults.drain().at(-1)).toEqual({ kind: "reports-lost", count: 2 });
  });

  test("refuses what a table would refuse, and nothing is mapped", () => {
    const { domain, hardware } = machine({ inputBits: 39, mmio: false });
    domain.map(page(5), frame(5), 4, RW);
    domain.sync(page(5), 4);
    const map = (at: number, phys: number, pages: number, prot: number) => () =>
      domain.map(page(at), frame(phys), pages, prot);
    expect(map(8, 1, 2, RW)).toThrow(code("ERR_DMA_MAP", "EADDRINUSE"));
    expect(map(20, 1, 1, CACHE)).toThrow(code("ERR_DMA_MAP", "EINVAL"));
    expect(map(20, 1, 1, RW | MMIO)).toThrow(code("ERR_DMA_MAP", "EINVAL"));
    expect(map(20, 2 ** 40, 1, RW)).toThrow(code("ERR_DMA_MAP", "ERANGE"));
    expect(map(2 ** 27 - 1, 1, 2, RW)).toThrow(code("ERR_DMA_MAP", "ERANGE"));
    expect(map(20.5, 1, 1, RW)).toThrow(code("ERR_DMA_MAP", "ENXIO"));
    domain.sync(page(0), 100);
    expect([hardware.mappings, domain.mappings.length]).toEqual([1, 1]);
  });

  test("what the device refuses shows at the sync, which takes back all that it was for", () => {
    const { domain, hardware, reach } = machine({ mappingLimit: 3 });
    domain.map(page(1), frame(1), 1, RW);
    domain.sync(page(1), 1);
    for (const n of [10, 11, 12]) domain.map(page(n), frame(n), 1, RW);
    expect(() => domain.sync(page(10), 3)).toThrow(code("ERR_DMA_MAP", "ENOMEM"));
    expect([hardware.mappings, domain.mappings.length]).toEqual([1, 1]);
    expect(reach([1, 10, 11, 12])).toEqual([1, -1, -1, -1]);
    for (const n of [10, 11]) domain.map(page(n), frame(n), 1, RW);
    domain.sync(page(10), 2);
    expect(reach([10, 11])).toEqual([10, 11]);
  });

  test("does not split a mapping: part of it is refused, and all of it stays", () => {
    const { domain, reach } = machine();
    domain.map(page(4), frame(40), 4, RW);
    domain.sync(page(4), 4);
    for (const [at, pages] of [
      [4, 1],
      [5, 2],
      [6, 2],
      [2, 3],
    ] as const) {
      expect(() => domain.isolate(page(at), pages)).toThrow(code("ERR_DMA_SPLIT", "EOPNOTSUPP"));
      expect(domain.unmapNow(page(at), pages)).toBe(0);
    }
    domain.isolate(page(2), 8);
    expect(reach([4, 7])).toEqual([40, 43]);
    expect(domain.unmapNow(page(2), 8)).toBe(4);
    expect(reach([4, 7])).toEqual([-1, -1]);
  });

  test("lazy: unmapped ranges wait for a flush, and nobody gets their addresses before", () => {
    const { domain, clock, reach } = machine({}, { mode: "lazy" });
    const device = { prefer32: true, busLimitPfn: 0 };
    const first = domain.reserve(1, 0xfffff, device);
    domain.map(first, frame(7), 1, RW);
    domain.sync(first, 1);
    domain.release(first, 1, 1);
    expect(reach([first])).toEqual([7]);
    expect(domain.reserve(1, 0xfffff, device)).not.toBe(first);
    clock.advance(20);
    expect(reach([first])).toEqual([-1]);
    expect(domain.reserve(1, 0xfffff, device)).toBe(first);
  });

  test("holes in what is released are passed over with one invalidation", () => {
    const { domain, hardware } = machine();
    for (const n of [2, 5, 9]) domain.map(page(n), frame(n), 1, RW);
    domain.sync(page(2), 8);
    const { submissions } = hardware.counts;
    expect(domain.releaseSparse(page(0), 12, page(0), 12)).toBe(3);
    expect([hardware.mappings, hardware.counts.submissions - submissions]).toEqual([0, 1]);
    expect(domain.counters.rangeInvalidations).toBe(1);
  });
});

describe("endpoints", () => {
  test("that come are told of everything mapped; the last one takes it along", () => {
    const { hardware, unit, domain, reach } = machine();
    domain.map(page(1), frame(10), 2, RW);
    domain.sync(page(1), 2);
    unit.detach(DEVICE);
    expect([hardware.mappings, reach([1])]).toEqual([0, [-1]]);
    domain.map(page(5), frame(50), 1, RW);
    domain.sync(page(5), 1);
    unit.attach(OTHER, domain);
    unit.attach(DEVICE, domain);
    expect([reach([1, 2, 5]), reach([1, 2, 5], OTHER)]).toEqual([
      [10, 11, 50],
      [10, 11, 50],
    ]);
    unit.detach(OTHER);
    expect(reach([1])).toEqual([10]);
  });

  test("go from one domain to another at once", () => {
    const { clock, unit, domain, hardware, reach } = machine();
    domain.map(page(1), frame(10), 1, RW);
    domain.sync(page(1), 1);
    const next = new VirtioDmaDomain({ unit, clock, mode: "strict", domainId: 2 });
    next.map(page(1), frame(20), 1, RW);
    unit.attach(DEVICE, next);
    expect([reach([1]), hardware.mappings]).toEqual([[20], 1]);
    domain.unmapNow(page(1), 1);
    expect(unit.faults.length).toBe(0);
  });

  test("that the device does not take stay as they were", () => {
    const { clock, unit, hardware, domain, reach } = machine();
    domain.map(page(1), frame(10), 1, RW);
    domain.sync(page(1), 1);
    hardware.refuse = ({ type }) => (type === "attach" ? STATUS.unsupported : undefined);
    const next = new VirtioDmaDomain({ unit, clock, mode: "strict", domainId: 2 });
    expect(() => unit.attach(DEVICE, next)).toThrow(code("ERR_DMA_VIRTIO_ATTACH", "EOPNOTSUPP"));
    expect(reach([1])).toEqual([10]);
  });

  test("without a domain reach memory as it is where the machine lets them pass", () => {
    const { hardware, reach } = machine({ bypass: true });
    expect([reach([9], OTHER), reach([9])]).toEqual([[9], [-1]]);
    expect(hardware.translate(OTHER, page(9), "read", 3)).toBe(-1);
  });

  test("a domain needs a number that the device knows", () => {
    const { unit, clock } = machine();
    expect(() => new VirtioDmaDomain({ unit, clock, mode: "strict", domainId: -1 })).toThrow(
      code("ERR_DMA_DOMAIN", "EINVAL"),
    );
    expect(() => new VirtioDmaDomain({ unit, clock, mode: "eager" as never })).toThrow(
      code("ERR_DMA_DOMAIN", "EINVAL"),
    );
    expect(() => new VirtioDmaDomain({ unit: undefined as never, clock, mode: "strict" })).toThrow(
      code("ERR_DMA_DOMAIN", "EINVAL"),
    );
  });
});

describe("a device that misbehaves", () => {
  test("and refuses to forget is an event: release does not fail", () => {
    const { domain, unit, hardware } = machine();
    domain.map(page(1), frame(10), 1, RW);
    domain.sync(page(1), 1);
    hardware.refuse = ({ type }) => (type === "unmap" ? STATUS.ioError : undefined);
    expect(domain.release(page(1), 1, 1)).toBe(1);
    expect(unit.faults.drain()).toEqual([
      {
        kind: "request-refused",
        request: { type: "unmap", domain: 1, first: 1, last: 1 },
        meaning: "the device or its queue is out of order",
      },
    ]);
  });

  test("and answers nothing has done nothing", () => {
    const { domain, hardware } = machine();
    hardware.submit = () => {};
    domain.map(page(1), frame(10), 1, RW);
    expect(() => domain.sync(page(1), 1)).toThrow(code("ERR_DMA_MAP", "EIO"));
    expect(domain.lookup(page(1))).toBe(-1);
  });
});

describe("as Linux's driver", () => {
  const linux = () => machine({}, { linuxCompatible: true });

  test("a map is a request for each page size", () => {
    const { domain, hardware } = linux();
    domain.map(page(0x200), frame(0x400), 0x203, RW);
    domain.sync(page(0x200), 0x203);
    expect(domain.mappings.map(({ iova, length }) => [iova / PAGE_SIZE, length / PAGE_SIZE])).toEqual([
      [0x200, 0x200],
      [0x400, 2],
      [0x402, 1],
    ]);
    expect(hardware.counts.map).toBe(3);
  });

  test("a second mapping is taken, and the device refuses it unseen: the first one is reached", () => {
    const { domain, reach } = linux();
    domain.map(page(2), frame(20), 2, RW);
    domain.map(page(2), frame(30), 1, RW);
    domain.sync(page(2), 2);
    expect([reach([2, 3]), domain.lookup(page(2))]).toEqual([[20, 21], 20]);
    expect(domain.unmapNow(page(2), 2)).toBe(3);
    expect(reach([2])).toEqual([-1]);
  });

  test("an unmap of the front takes all; one of more than there is tells the device nothing", () => {
    const { domain, reach, hardware } = linux();
    domain.map(page(4), frame(41), 3, RW); // one request for three pages of the smallest size
    domain.sync(page(4), 3);
    expect([domain.unmapNow(page(5), 1), domain.unmapNow(page(4), 1), hardware.mappings]).toEqual([0, 3, 0]);
    domain.map(page(4), frame(40), 1, RW);
    domain.sync(page(4), 1);
    expect(domain.unmapNow(page(4), 2)).toBe(0);
    expect([domain.lookup(page(4)), reach([4])]).toEqual([-1, [40]]); // gone here, and not there
  });
});

describe("whatever is mapped and unmapped, in any order", () => {
  const step = fc.record({
    map: fc.boolean(),
    at: fc.integer({ min: 1, max: 40 }),
    pages: fc.integer({ min: 1, max: 9 }),
    phys: fc.integer({ min: 0, max: 10_000 }),
    sync: fc.boolean(),
  });

  test("driver, device and a plain map of pages agree after every sync", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const { domain, hardware, reach } = machine();
        const model = new Map<number, { phys: number; id: number }>();
        const all = Array.from({ length: 60 }, (_, n) => n);
        steps.forEach(({ map, at, pages, phys, sync }, id) => {
          const range = all.slice(at, at + pages);
          if (map) {
            const isFree = range.every((n) => !model.has(n));
            const mapIt = () => domain.map(page(at), frame(phys), pages, RW);
            if (!isFree) expect(mapIt).toThrow(code("ERR_DMA_MAP", "EADDRINUSE"));
            else {
              mapIt();
              range.forEach((n, i) => void model.set(n, { phys: phys + i, id }));
            }
          } else {
            const outside = new Set(all.filter((n) => !range.includes(n)).map((n) => model.get(n)?.id));
            const gone = range.filter((n) => model.has(n) && !outside.has(model.get(n)!.id));
            expect(domain.unmapNow(page(at), pages)).toBe(gone.length);
            for (const n of gone) model.delete(n);
          }
          expect(all.map((n) => domain.lookup(page(n)))).toEqual(all.map((n) => model.get(n)?.phys ?? -1));
          if (!sync) return;
          domain.sync(page(0), 60);
          expect(reach(all)).toEqual(all.map((n) => model.get(n)?.phys ?? -1));
          expect(hardware.mappings).toBe(domain.mappings.length);
        });
      }),
      { numRuns: 300 },
    );
  });
});
