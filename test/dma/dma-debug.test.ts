/** Checked mode: both sides of a finding, what is live, its bounds, Linux's own answers, and that correct use says nothing. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseDmaDump } from "../../src/analysis/index.ts";
import { DmaAddr, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import { type Direction, Dma, type DmaOptions } from "../../src/dma/index.ts";
import { DmaDebug, type DmaDebugOptions } from "../../src/dma-debug/index.ts";
import { SimulatedMemory, SimulatedUnit, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { DmaDomain } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { bytes, confidential, KiB4, peers, RAM, REQUESTER, setUp } from "./checked-stand.ts";

describe("a finding", () => {
  test("names both sides of a second unmap, and where the first one was", () => {
    const { debug, dma } = setUp();
    const address = dma.mapPhys(RAM, KiB4, "to-device");
    dma.unmapPhys(address, KiB4, "to-device");
    dma.unmapPhys(address, KiB4, "to-device");
    const [finding] = debug.report();
    expect(finding!.sites.map(({ what }) => what)).toEqual(["mapped at", "first unmapped at", "unmapped at"]);
    const lines = finding!.sites.map(({ where }) => Number(/:(\d+):\d+\)?$/.exec(where)![1]));
    expect([lines[1]! - lines[0]!, lines[2]! - lines[1]!]).toEqual([1, 1]);
  });

  test("reads as text, and as JSON, with its numbers", () => {
    const { debug, dma } = setUp();
    const address = dma.mapPhys(RAM, KiB4, "to-device");
    dma.unmapPhys(address, 2048, "to-device");
    const [finding] = debug.report();
    expect(String(finding).split("\n")[0]).toBe(
      `different-size (3) 0000:01:00.0: unmaps 2048 bytes at 0x${address.toString(16)}; 4096 bytes were mapped`,
    );
    expect(JSON.parse(JSON.stringify(finding))).toMatchObject({
      code: "different-size",
      number: 3,
      device: "0000:01:00.0",
      details: { address, length: 2048, mapped: 4096 },
    });
  });

  test("is there without sites when they are not taken", () => {
    const { debug, dma } = setUp({ callSites: false });
    dma.unmapPhys(dma.mapPhys(RAM, KiB4, "to-device"), 2048, "to-device");
    expect(debug.report()[0]!.sites).toEqual([]);
    expect(debug.live()).toEqual([]);
  });

  test("never throws: the first is printed, or all are, and each goes to who listens", () => {
    for (const [print, expected] of [
      ["first", 1],
      ["all", 3],
      ["none", 0],
    ] as const) {
      const [printed, heard]: [string[], string[]] = [[], []];
      const output = (text: string): void => void printed.push(text);
      const { dma } = setUp({ print, output, onFinding: ({ code }) => void heard.push(code) });
      for (let i = 0; i < 3; i++) dma.unmapPhys(DmaAddr(0x5000), 64, "to-device");
      expect([printed.length, heard]).toEqual([expected, Array(3).fill("free-unknown")]);
    }
  });

  test("says which mapping was hit by a wild unmap", () => {
    const { debug, dma } = setUp({}, { direct: true });
    dma.mapPhys(RAM, 2 * KiB4, "to-device");
    dma.unmapPhys(DmaAddr(RAM + KiB4), KiB4, "to-device");
    expect(debug.report()[0]!.message).toContain("the mapping there has 8192 bytes from 0x20001000 on");
  });
});

describe("memory of checked mode is bounded", () => {
  test("findings beyond the limit are counted, not kept", () => {
    const { debug, dma } = setUp({ maxFindings: 2 });
    for (let i = 0; i < 5; i++) dma.unmapPhys(DmaAddr(0x5000), 64, "to-device");
    expect([debug.report().length, debug.counters.findingsLost, debug.counters.errors]).toEqual([2, 3, 5]);
  });

  test("history beyond the limit is forgotten, the oldest first", () => {
    const { debug, dma } = setUp({ history: 1 });
    const gone = [RAM, PhysAddr(RAM + KiB4)].map((phys) => dma.mapPhys(phys, KiB4, "to-device"));
    for (const address of gone) dma.unmapPhys(address, KiB4, "to-device");
    for (const address of gone) dma.unmapPhys(address, KiB4, "to-device");
    expect(debug.report().map(({ message }) => message.split("; ")[1])).toEqual([
      "nothing is or was mapped there",
      expect.stringContaining("were unmapped before"),
    ]);
  });

  test("without entries it says so once, forgets, and lets every call go on", () => {
    const { debug, dma, domain } = setUp({ maxEntries: 3 });
    const range = dma.tryReserveIova({ length: 8 * KiB4 })!;
    for (let i = 0; i < 8; i++) range.link(i * KiB4, PhysAddr(RAM + i * KiB4), KiB4, "to-device");
    range.sync();
    dma.map(RAM, KiB4, "to-device").unmap();
    dma.unmapPhys(DmaAddr(0x5000), 64, "to-device");
    range.destroy();
    expect(debug.report().map(({ code }) => code)).toEqual(["store-full"]);
    expect([debug.disabled, debug.live(), debug.counters.live]).toEqual([true, [], 0]);
    expect(domain.counters.iovaFrees).toBe(2);
  });

  test("every entry comes back, of every kind", () => {
    const { debug, dma } = setUp({}, { machine: { pages: freshPages(), memory: new SimulatedMemory() } });
    const vecs = [0, 2, 5].map((i) => ({ phys: PhysAddr(RAM + i * KiB4), length: KiB4 }));
    const range = dma.tryReserveIova({ length: 4 * KiB4 })!;
    range.linkVecs(0, vecs, "to-device");
    range.sync(KiB4 / 2, KiB4);
    range.unlink(KiB4, KiB4);
    const batch = dma.batch("to-device", { maxBytes: 4 * KiB4 });
    batch.add(vecs[0]!);
    const live = [
      dma.map(RAM, 64, "to-device"),
      dma.mapScatterlist(vecs, "to-device"),
      dma.mapVecs(vecs, "to-device"),
      dma.mapLinear(vecs, "to-device"),
      dma.allocCoherent(KiB4),
      dma.allocPages(KiB4, "to-device"),
      dma.allocNoncontiguous(KiB4, "to-device"),
      range,
      batch,
    ];
    expect(debug.live()).toHaveLength(live.length);
    for (const each of live) each[Symbol.dispose]();
    expect([debug.live(), debug.counters.live, debug.report()]).toEqual([[], 0, []]);
  });
});

const freshPages = () => {
  let page = 0x9000;
  const allocatePages = (pages: number): PhysPage => {
    page += pages;
    return page as PhysPage;
  };
  return { allocatePages, freePages: () => {} };
};

describe("what is live", () => {
  test("has a row for each mapping and range: device, kind, both addresses, length, direction, attributes, site, age", () => {
    const clock = new VirtualClock();
    const { debug, dma } = setUp({ clock });
    const mapping = dma.map(RAM, 64, "from-device", { skipCpuSync: true });
    clock.advance(5);
    const range = dma.tryReserveIova({ length: 4 * KiB4 })!;
    range.link(0, RAM, KiB4, "to-device");
    const [first, second] = debug.live();
    expect(first).toMatchObject({
      device: "0000:01:00.0",
      kind: "phy",
      phys: RAM,
      address: mapping.address,
      length: 64,
      direction: "from-device",
      attributes: { skipCpuSync: true },
      ageMs: 5,
    });
    expect(first!.site).toMatch(/dma-debug\.test\.ts/);
    expect(first!.ageCalls).toBeGreaterThan(second!.ageCalls);
    expect(second).toMatchObject({
      kind: "two-step",
      length: 4 * KiB4,
      links: 1,
      linkedBytes: KiB4,
      direction: "to-device",
    });
    expect(debug.live(new Dma().device)).toEqual([]);
  });

  test("is written as the kernel writes it, bucket by bucket, two-step ranges left out", () => {
    const { debug, dma } = setUp({}, { direct: true });
    debug.driverBound(dma.device, "nvme");
    dma.map(PhysAddr(0x2000_4234), 512, "from-device");
    dma.map(RAM, KiB4, "to-device", { ignoreCacheLines: true });
    expect(debug.dump()).toEqual([
      "nvme 0000:01:00.0 phy idx 0 P=0x0000000020001000 D=20001000 L=1000 cln=0x0000000000800040 DMA_TO_DEVICE dma map error checked attrs=0x800",
      "nvme 0000:01:00.0 phy idx 2 P=0x0000000020004234 D=20004234 L=200 cln=0x0000000000800108 DMA_FROM_DEVICE dma map error checked attrs=0x0",
    ]);
    expect(() => parseDmaDump(debug.dump().join("\n"))).not.toThrow(); // what reads the kernel's reads ours
  });

  test("of several devices under one value, each keeps its own", () => {
    const debug = new DmaDebug({ print: "none" });
    const [a, b] = ["a", "b"].map((name) => new Dma({ name, debug }));
    const address = a!.mapPhys(RAM, 64, "to-device");
    b!.unmapPhys(address, 64, "to-device");
    expect(debug.live().map(({ device }) => device)).toEqual(["a"]);
    expect(debug.report().map(({ code, device }) => [code, device])).toEqual([["free-unknown", "b"]]);
  });
});

describe("where Linux's answer is a defect, linuxCompatible gives it and the default the better one", () => {
  const debugs = new WeakMap<Dma, DmaDebug>();
  /** What is found by default, and with `linuxCompatible`. */
  const both = (run: (dma: Dma) => void, device: DmaOptions = {}, options: DmaDebugOptions = {}): string[][] =>
    [false, true].map((linuxCompatible) => {
      const debug = new DmaDebug({ print: "none", ...options });
      const dma = new Dma({ ...device, debug, linuxCompatible });
      debugs.set(dma, debug);
      run(dma);
      return debug.report().map(({ code }) => code);
    });
  const mapped = (dma: Dma, direction: Direction, length = KiB4): DmaAddr => {
    const address = dma.mapPhys(RAM, length, direction);
    debugs.get(dma)!.errorChecked(address);
    return address;
  };

  test("10: overlapping cache lines are never reported", () =>
    expect(
      both((dma) => {
        mapped(dma, "from-device");
        mapped(dma, "from-device");
      }),
    ).toEqual([["overlapping-cache-line"], []]));

  test("11: is said once, and by default for each line", () =>
    expect(
      both((dma) => {
        for (const line of [0, 1])
          for (let i = 0; i < 9; i++)
            dma.mapPhys(PhysAddr(RAM + line * 64), 64, "from-device", { ignoreCacheLines: true });
      }),
    ).toEqual([["too-many-overlaps", "too-many-overlaps"], ["too-many-overlaps"]]));

  test("13: code is never reported", () =>
    expect(both((dma) => mapped(dma, "to-device"), {}, { text: [{ start: RAM, length: 64 }] })).toEqual([
      ["maps-text"],
      [],
    ]));

  test("17: a sync that ends outside is taken for a sync of nothing", () =>
    expect(both((dma) => dma.syncForCpu(DmaAddr(mapped(dma, "bidirectional") + 2048), KiB4, "bidirectional"))).toEqual([
      ["sync-outside"],
      ["sync-unknown"],
    ]));

  test("19 and 20: come only after an 18", () => {
    expect(both((dma) => dma.syncForCpu(mapped(dma, "to-device"), 64, "from-device"))).toEqual([
      ["sync-read-only-for-cpu"],
      ["sync-different-direction", "sync-read-only-for-cpu"],
    ]);
    expect(both((dma) => dma.syncForDevice(mapped(dma, "from-device"), 64, "to-device"))).toEqual([
      ["sync-write-only-for-device"],
      ["sync-different-direction", "sync-write-only-for-device"],
    ]);
  });

  test("2: an unmap that fits none of several mappings exactly is unknown; by default the nearest is compared", () =>
    expect(
      both((dma) => {
        mapped(dma, "to-device", 64);
        mapped(dma, "to-device", 128);
        dma.unmapPhys(DmaAddr(RAM), 32, "to-device");
      }),
    ).toEqual([["different-size"], ["free-unknown"]]));

  test("8: is asked of every one-shot mapping; by default of none, for a map that fails throws", () =>
    expect(both((dma) => dma.unmapPhys(dma.mapPhys(RAM, 64, "to-device"), 64, "to-device"))).toEqual([
      [],
      ["map-error-unchecked"],
    ]));

  test("two-step ranges are not seen: an unmap of their address is unknown", () => {
    const domain = () =>
      new DmaDomain({
        layout: vtdSecondStage(),
        unit: new SimulatedUnit(),
        clock: new VirtualClock(),
        mode: "strict",
      });
    expect(
      [false, true].map((linuxCompatible) => {
        const debug = new DmaDebug({ print: "none" });
        const dma = new Dma({ domain: domain(), debug, linuxCompatible });
        const range = dma.tryReserveIova({ length: KiB4 })!;
        range.link(0, RAM, KiB4, "to-device");
        const live = debug.live().length;
        dma.unmapPhys(range.address, KiB4, "to-device");
        return [live, debug.report().map(({ code }) => code)];
      }),
    ).toEqual([
      [1, ["wrong-function"]],
      [0, ["free-unknown"]],
    ]);
  });
});

describe("correct use says nothing", () => {
  test("a buffer handed over both ways with its own direction", () => {
    for (const direction of ["to-device", "from-device", "bidirectional"] as const) {
      const { dma, codes } = setUp();
      const mapping = dma.map(RAM, KiB4, direction);
      mapping.syncForCpu(64, 128);
      mapping.syncForDevice(64, 128);
      mapping.unmap();
      expect(codes()).toEqual([]);
    }
  });

  test("neighbours in one cache line of a coherent device", () => {
    const { dma, codes } = setUp();
    dma.map(RAM, 32, "from-device");
    dma.map(PhysAddr(RAM + 32), 32, "from-device");
    expect(codes()).toEqual([]);
  });

  test("accesses to what is mapped, and refused ones to what is not", () => {
    const { dma, engine, codes } = setUp();
    const mapping = dma.map(PhysAddr(RAM + 256), 64, "bidirectional");
    engine.read(mapping.address, bytes());
    engine.write(DmaAddr(mapping.address + 64), bytes()); // beyond the buffer, in its granule: the IOMMU lets it
    mapping.unmap();
    expect(engine.read(mapping.address, bytes())).toBe(false);
    expect(codes()).toEqual([]);
  });

  test("an access of a device that is not under this value, or at an address that is another's now", () => {
    const { debug, dma, engine, codes } = setUp();
    debug.accessed({ requester: 7, address: 0x1000, length: 4, access: "read", wentThrough: true });
    const first = dma.map(RAM, KiB4, "from-device");
    first.unmap();
    const second = dma.map(RAM, KiB4, "from-device");
    expect([second.address, engine.write(second.address, bytes())]).toEqual([first.address, true]);
    expect(codes()).toEqual([]);
  });

  test("accesses to what another front door of the device, or another device of its domain, has mapped", () => {
    const { debug, dma, engine, domain, codes } = setUp();
    const gone = dma.map(RAM, KiB4, "from-device");
    gone.unmap();
    const other = new Dma({ domain, debug });
    const shared = other.map(RAM, KiB4, "from-device");
    expect([shared.address, engine.write(shared.address, bytes())]).toEqual([gone.address, true]);
    shared.unmap();
    const rebound = new Dma({ domain, debug });
    debug.knowAs(rebound.device, REQUESTER);
    engine.write(rebound.map(RAM, KiB4, "from-device").address, bytes());
    expect(codes()).toEqual([]);
  });

  test("a request with a PASID: its address is of another space", () => {
    const { debug, dma, client, machine } = peers();
    const { address } = dma.tryReserveIova({ length: KiB4 })!;
    client.engine.read(address, bytes());
    const calls = debug.counters.calls;
    machine.fabric.read(client.node, address, bytes(), 5);
    expect(debug.counters.calls).toBe(calls);
  });

  test("peers by their bus addresses", () => {
    const { debug, dma, client, bar } = peers();
    const list = dma.mapScatterlist([{ phys: bar.phys, length: KiB4 }], "bidirectional");
    client.engine.write(list.segments[0]!.address, bytes());
    expect(debug.counters.live).toBe(1);
    list.unmap();
    expect([debug.report(), debug.counters.live]).toEqual([[], 0]);
  });

  test("private memory through a bounce buffer", () => {
    const { debug, dma, phys, engine } = confidential(true);
    const mapping = dma.map(phys, KiB4, "bidirectional");
    expect(engine.read(mapping.address, bytes())).toBe(true);
    mapping.unmap();
    expect(debug.report()).toEqual([]);
  });

  test("random loads, strict and direct, with the device at work: no finding, no entry left, the same addresses", () => {
    const step = fc.record({
      what: fc.constantFrom("map", "list", "range", "end", "access"),
      page: fc.nat(200),
      length: fc.integer({ min: 1, max: 3 * KiB4 }),
      pick: fc.nat(),
      direction: fc.constantFrom<Direction>("to-device", "from-device", "bidirectional"),
    });
    fc.assert(
      fc.property(fc.boolean(), fc.array(step, { maxLength: 60 }), (direct, steps) => {
        const run = (withDebug: boolean): [number[], DmaDebug] => {
          const { debug, dma: checked, engine, domain } = setUp({}, { direct });
          const dma = withDebug ? checked : new Dma(direct ? {} : { domain });
          const live: { address: number; disposable: Disposable }[] = [];
          const seen: number[] = [];
          let next = 0;
          for (const { what, length, pick, direction } of steps) {
            const phys = PhysAddr(RAM + 16 * KiB4 * next++); // memory of its own
            if (what === "map") {
              const mapping = dma.map(PhysAddr(phys + 100), length, direction);
              live.push({ address: mapping.address, disposable: mapping });
              mapping.syncForCpu(0, length);
            } else if (what === "list") {
              const list = [length, KiB4].map((bytes, i) => ({ phys: PhysAddr(phys + i * 8 * KiB4), length: bytes }));
              const mapping = dma.mapScatterlist(list, direction);
              live.push({ address: mapping.segments[0]!.address, disposable: mapping });
              mapping.syncForDevice();
            } else if (what === "range") {
              const range = dma.tryReserveIova({ length: 4 * KiB4 });
              if (!range) continue;
              range.link(KiB4, phys, KiB4, direction);
              range.link(0, PhysAddr(phys + 4 * KiB4), KiB4, direction);
              range.link(2 * KiB4, phys, length > KiB4 ? 2 * KiB4 : length, direction);
              range.sync(0, KiB4);
              range.sync();
              range.unlink(KiB4, KiB4, { direction });
              live.push({ address: range.address, disposable: range });
            } else if (live.length > 0) {
              const at = pick % live.length;
              if (what === "end") live.splice(at, 1)[0]!.disposable[Symbol.dispose]();
              else if (!direct) engine.read(DmaAddr(live[at]!.address), new Uint8Array(1));
            }
            seen.push(live.at(-1)?.address ?? 0);
          }
          if (withDebug) expect(debug.counters.live >= live.length).toBe(true);
          for (const { disposable } of live) disposable[Symbol.dispose]();
          return [seen, debug];
        };
        const [with_, debug] = run(true);
        expect(debug.report().map(String)).toEqual([]);
        expect([debug.live(), debug.counters.live]).toEqual([[], 0]);
        expect(with_).toEqual(run(false)[0]);
      }),
      { numRuns: 150 },
    );
  });
});
