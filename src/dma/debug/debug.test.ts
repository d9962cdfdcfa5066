/** Checked mode: every finding, triggered alone; both sides of it; the bound; and that correct use says nothing. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { parseDmaDump } from "../../analysis/index.ts";
import { DmaAddr, MiB, PhysAddr, PhysPage } from "../../base/index.ts";
import {
  DmaEngine,
  SimulatedMachine,
  SimulatedMemory,
  SimulatedUnit,
  VirtualClock,
} from "../../hosts/simulated/index.ts";
import { IommuDomain } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { ACS } from "../../platform/index.ts";
import { type Direction, Dma, DmaDebug, type DmaDebugOptions, type DmaOptions, FINDING_NUMBERS } from "../index.ts";

const KiB4 = 4096;
const RAM = PhysAddr(0x2000_1000);
const REQUESTER = 0x100;

/** A device behind an IOMMU, or without one, under checked mode; and an engine that plays the device. */
function setUp(
  options: DmaDebugOptions = {},
  device: DmaOptions & { direct?: boolean; mode?: "strict" | "lazy" } = {},
) {
  const debug = new DmaDebug({ print: "none", ...options });
  const unit = new SimulatedUnit();
  const memory = new SimulatedMemory();
  const { direct, mode = "strict", ...rest } = device;
  const domain = new IommuDomain({ layout: vtdSecondStage(), unit, clock: new VirtualClock(), mode });
  unit.attach(REQUESTER, domain.tables);
  const dma = new Dma({ name: "0000:01:00.0", ...(!direct && { domain }), debug, ...rest });
  const engine = new DmaEngine(REQUESTER, unit, memory);
  debug.knowAs(dma.device, REQUESTER);
  engine.onAccess = debug.accessed;
  const codes = (): string[] => debug.report().map(({ code }) => code);
  return { debug, dma, engine, unit, domain, codes };
}

const bytes = (length = 64): Uint8Array => new Uint8Array(length);
/** A machine whose two devices are below one switch, translated by a unit. */
function peers() {
  const machine = new SimulatedMachine({ memoryBytes: 64 * MiB, bridges: [{ rootPorts: [{ switch: [{}, {}] }] }] });
  const plug = (slot: string) => {
    const engine = new DmaEngine({ memoryBytes: 0x1_0000 });
    const device = machine.plug(slot, engine)[0]!;
    device.setBusMaster(true);
    return { engine, node: device.node };
  };
  const [client, owner] = [plug("0.0.0"), plug("0.0.1")];
  machine.peers.add(owner.node, owner.node.bars[0]!);
  const debug = new DmaDebug({ print: "none" });
  machine.fabric.onAccess = debug.accessed;
  const unit = new SimulatedUnit();
  const domain = new IommuDomain({ layout: vtdSecondStage(), unit, clock: machine.clock, mode: "strict" });
  unit.attach(client.node.requester, domain.tables);
  machine.fabric.translator = unit;
  const dma = new Dma({ domain, debug, machine, node: client.node });
  const redirect = (): void => {
    for (const { node } of [client, owner]) node.parent!.acsControl = ACS.requestRedirect | ACS.completionRedirect;
  };
  return { machine, debug, dma, client, redirect, bar: owner.node.bars[0]! };
}

function confidential(direct = false) {
  const machine = new SimulatedMachine({ memoryBytes: 64 * MiB, confidential: "refused", pool: { slots: 128 } });
  const engine = new DmaEngine();
  const device = machine.plug("0.0", engine)[0]!;
  device.setBusMaster(true);
  const debug = new DmaDebug({ print: "none" });
  machine.fabric.onAccess = debug.accessed;
  const unit = new SimulatedUnit();
  const domain = new IommuDomain({ layout: vtdSecondStage(), unit, clock: machine.clock, mode: "strict" });
  unit.attach(device.node.requester, domain.tables);
  if (!direct) machine.fabric.translator = unit;
  const forced = direct ? { forceBounce: true } : { domain };
  const dma = new Dma({ ...forced, debug, machine, node: device.node });
  const page = machine.ram.allocatePages(1)!;
  return { machine, engine, debug, dma, page, phys: PhysPage.start(page) };
}

type Trigger = () => DmaDebug;

/** Each finding by its number, triggered alone. */
const TRIGGERS: Readonly<Record<string, readonly [title: string, trigger: Trigger][]>> = {
  "store-full": [
    [
      "the entries run out",
      () => {
        const { debug, dma } = setUp({ maxEntries: 2 });
        for (let i = 0; i < 5; i++) dma.mapPhys(PhysAddr(RAM + i * KiB4), 64, "to-device");
        return debug;
      },
    ],
  ],
  "free-invalid": [
    [
      "an unmap of the kernel's error value, and of no number",
      () => {
        const { debug, dma } = setUp();
        dma.unmapPhys(DmaAddr(2 ** 64), KiB4, "to-device");
        return debug;
      },
    ],
    [
      "an unmap of an address that was never got",
      () => {
        const { debug, dma } = setUp();
        dma.unmapPhys(undefined as never, KiB4, "to-device");
        return debug;
      },
    ],
  ],
  "free-unknown": [
    [
      "a second unmap",
      () => {
        const { debug, dma } = setUp();
        const address = dma.mapPhys(RAM, KiB4, "to-device");
        dma.unmapPhys(address, KiB4, "to-device");
        dma.unmapPhys(address, KiB4, "to-device");
        return debug;
      },
    ],
    [
      "an unmap inside a mapping",
      () => {
        const { debug, dma } = setUp({}, { direct: true });
        dma.mapPhys(RAM, 2 * KiB4, "to-device");
        dma.unmapPhys(DmaAddr(RAM + KiB4), KiB4, "to-device");
        return debug;
      },
    ],
  ],
  "different-size": [
    [
      "an unmap that is too short",
      () => {
        const { debug, dma } = setUp();
        dma.unmapPhys(dma.mapPhys(RAM, 2048, "to-device"), 1024, "to-device");
        return debug;
      },
    ],
  ],
  "wrong-function": [
    [
      "a segment of a list unmapped as one-shot",
      () => {
        const { debug, dma } = setUp();
        const [segment] = dma.mapScatterlist([{ phys: RAM, length: KiB4 }], "to-device").segments;
        dma.unmapPhys(segment!.address, KiB4, "to-device");
        return debug;
      },
    ],
    [
      "a two-step range unmapped as one-shot",
      () => {
        const { debug, dma } = setUp();
        const range = dma.tryReserveIova({ length: KiB4 })!;
        dma.unmapPhys(range.address, KiB4, "to-device");
        return debug;
      },
    ],
  ],
  "different-cpu-address": [
    [
      "coherent memory freed as if it lay elsewhere",
      () => {
        const { debug, dma } = setUp();
        const watch = debug.of(dma.device)!;
        watch.allocated("coherent", 0x8000, KiB4, RAM, "bidirectional", undefined);
        watch.freeing("coherent", 0x8000, KiB4, RAM + KiB4, "bidirectional", undefined);
        return debug;
      },
    ],
  ],
  "different-entry-count": [
    [
      "a list unmapped with fewer entries",
      () => {
        const { debug, dma } = setUp({}, { direct: true });
        const list = [0, 2, 4].map((i) => ({ phys: PhysAddr(RAM + i * KiB4), length: KiB4 }));
        const { segments } = dma.mapScatterlist(list, "to-device");
        const [direction, attributes] = ["to-device", undefined] as const;
        dma.unmapList({ list: list.slice(0, 2), segments: segments.slice(0, 2), direction, attributes });
        return debug;
      },
    ],
    [
      "a bidirectional list synced with fewer entries, which Linux does not compare",
      () => {
        const { debug, dma } = setUp();
        const list = [0, 2, 4].map((i) => ({ phys: PhysAddr(RAM + i * KiB4), length: KiB4 }));
        const { segments } = dma.mapScatterlist(list, "bidirectional");
        dma.syncListForCpu({ list: list.slice(1), segments, direction: "bidirectional", attributes: undefined });
        return debug;
      },
    ],
  ],
  "different-direction": [
    [
      "an unmap with another direction",
      () => {
        const { debug, dma } = setUp();
        dma.unmapPhys(dma.mapPhys(RAM, KiB4, "to-device"), KiB4, "from-device");
        return debug;
      },
    ],
    [
      "an unlink with another direction",
      () => {
        const { debug, dma } = setUp();
        const range = dma.tryReserveIova({ length: KiB4 })!;
        range.link(0, RAM, KiB4, "to-device");
        range.unlink(0, KiB4, { direction: "from-device" });
        return debug;
      },
    ],
  ],
  "map-error-unchecked": [
    [
      "an unmap of what was never asked about, where drivers must ask",
      () => {
        const { debug, dma } = setUp({ mapErrors: true });
        const asked = dma.mapPhys(RAM, KiB4, "to-device");
        debug.errorChecked(asked);
        dma.unmapPhys(asked, KiB4, "to-device");
        dma.map(RAM, KiB4, "to-device").unmap();
        dma.unmapPhys(dma.mapPhys(RAM, KiB4, "to-device"), KiB4, "to-device");
        return debug;
      },
    ],
  ],
  "different-attributes": [
    [
      "an unmap as privileged of what was not",
      () => {
        const { debug, dma } = setUp();
        dma.unmapPhys(dma.mapPhys(RAM, KiB4, "to-device"), KiB4, "to-device", { privileged: true });
        return debug;
      },
    ],
    [
      "an unmap as shared behind an IOMMU, which does nothing: the mapping stays",
      () => {
        const { debug, dma } = setUp();
        dma.unmapPhys(dma.mapPhys(RAM, KiB4, "to-device"), KiB4, "to-device", { shared: true });
        expect(debug.live()).toHaveLength(1);
        return debug;
      },
    ],
  ],
  "overlapping-cache-line": [
    [
      "the same bytes mapped twice for writing",
      () => {
        const { debug, dma } = setUp();
        dma.mapPhys(RAM, 64, "from-device");
        dma.mapPhys(RAM, 64, "from-device");
        return debug;
      },
    ],
    [
      "an inner line shared on a device that does not look into caches",
      () => {
        const { debug, dma } = setUp({}, { coherent: false });
        dma.mapPhys(RAM, 250, "from-device");
        dma.mapPhys(PhysAddr(RAM + 250), 64, "from-device");
        return debug;
      },
    ],
  ],
  "too-many-overlaps": [
    [
      "the ninth mapping of one line, all known to share it",
      () => {
        const { debug, dma } = setUp();
        for (let i = 0; i < 10; i++) dma.mapPhys(RAM, 64, "from-device", { ignoreCacheLines: true });
        return debug;
      },
    ],
  ],
  "maps-stack": [
    [
      "a map of stack memory",
      () => {
        const { debug, dma } = setUp({ stacks: [{ start: RAM, length: 8192, name: "main" }] });
        dma.map(PhysAddr(RAM + 8000), 64, "to-device");
        dma.map(PhysAddr(RAM + 8192), 64, "to-device");
        return debug;
      },
    ],
    [
      "a link of stack memory",
      () => {
        const { debug, dma } = setUp({ stacks: [{ start: RAM, length: 8192 }] });
        dma.tryReserveIova({ length: KiB4 })!.link(0, RAM, KiB4, "to-device");
        return debug;
      },
    ],
  ],
  "maps-text": [
    [
      "a map of code",
      () => {
        const { debug, dma } = setUp({ text: [{ start: RAM, length: 8192 }] });
        dma.map(RAM, 64, "to-device");
        return debug;
      },
    ],
  ],
  "maps-invalid": [
    [
      "a map of what is no memory",
      () => {
        const { debug, dma } = setUp({ ramEnd: PhysAddr(RAM) });
        dma.map(RAM, 64, "to-device");
        dma.map(RAM, 64, "to-device", { mmio: true });
        return debug;
      },
    ],
  ],
  "mmio-of-ram": [
    [
      "a map of RAM as a device's memory",
      () => {
        const { debug, dma } = setUp({ isRam: (phys) => phys < 2 ** 31 });
        dma.map(RAM, 64, "to-device", { mmio: true });
        return debug;
      },
    ],
  ],
  "sync-unknown": [
    [
      "a sync after the unmap",
      () => {
        const { debug, dma } = setUp();
        const mapping = dma.map(RAM, KiB4, "bidirectional");
        mapping.unmap();
        dma.syncForCpu(mapping.address, 256, "bidirectional");
        return debug;
      },
    ],
  ],
  "sync-outside": [
    [
      "a sync that starts inside a mapping and ends outside",
      () => {
        const { debug, dma } = setUp();
        const { address } = dma.map(RAM, KiB4, "bidirectional");
        dma.syncForCpu(DmaAddr(address + 2048), KiB4, "bidirectional");
        return debug;
      },
    ],
  ],
  "sync-different-direction": [
    [
      "a sync with another direction",
      () => {
        const { debug, dma } = setUp();
        const { address } = dma.map(RAM, KiB4, "to-device");
        dma.syncForDevice(address, 256, "bidirectional");
        return debug;
      },
    ],
  ],
  "sync-read-only-for-cpu": [
    [
      "a sync for the CPU as written of what the device only reads",
      () => {
        const { debug, dma } = setUp();
        const { address } = dma.map(RAM, KiB4, "to-device");
        dma.syncForCpu(address, 256, "from-device");
        return debug;
      },
    ],
  ],
  "sync-write-only-for-device": [
    [
      "a sync for the device as read of what it only writes",
      () => {
        const { debug, dma } = setUp();
        const { address } = dma.map(RAM, KiB4, "from-device");
        dma.syncForDevice(address, 256, "to-device");
        return debug;
      },
    ],
  ],
  "segment-too-long": [
    [
      "a list with an entry longer than the device's longest segment",
      () => {
        const { debug, dma } = setUp({}, { maxSegmentSize: KiB4 });
        dma.mapScatterlist([{ phys: RAM, length: 2 * KiB4 }], "to-device");
        return debug;
      },
    ],
  ],
  "segment-across-boundary": [
    [
      "a list with a segment across the device's boundary",
      () => {
        const { debug, dma } = setUp({}, { direct: true, segmentBoundaryMask: 0xfff });
        dma.mapScatterlist([{ phys: PhysAddr(RAM + 2048), length: KiB4 }], "to-device");
        return debug;
      },
    ],
  ],
  "unbound-with-live": [
    [
      "a driver that lets go with a mapping live",
      () => {
        const { debug, dma } = setUp();
        dma.map(RAM, KiB4, "to-device");
        debug.driverUnbound(dma.device);
        return debug;
      },
    ],
    [
      "a driver that lets go with a range reserved",
      () => {
        const { debug, dma } = setUp();
        dma.tryReserveIova({ length: KiB4 });
        debug.driverUnbound(dma.device);
        return debug;
      },
    ],
  ],
  "link-outside-state": [
    [
      "a link past the end",
      () => {
        const { debug, dma } = setUp();
        const range = dma.tryReserveIova({ length: 2 * KiB4 })!;
        expect(() => range.link(KiB4, RAM, 2 * KiB4, "to-device")).toThrow();
        return debug;
      },
    ],
    [
      "a link past the end that nobody refuses",
      () => {
        const { debug, dma } = setUp({}, { checked: false });
        dma.tryReserveIova({ length: 2 * KiB4 })!.link(KiB4, RAM, 2 * KiB4, "to-device");
        return debug;
      },
    ],
    [
      "a link over another",
      () => {
        const { debug, dma } = setUp();
        const range = dma.tryReserveIova({ length: 4 * KiB4 })!;
        range.link(0, RAM, 2 * KiB4, "to-device");
        expect(() => range.linkVecs(KiB4, [{ phys: RAM, length: KiB4 }], "to-device")).toThrow();
        return debug;
      },
    ],
    [
      "a link in a range that was given back",
      () => {
        const { debug, dma } = setUp();
        const range = dma.tryReserveIova({ length: KiB4 })!;
        range.destroy();
        expect(() => range.link(0, RAM, KiB4, "to-device")).toThrow();
        return debug;
      },
    ],
  ],
  "unlink-hole": [
    [
      "an unlink of what is not linked",
      () => {
        const { debug, dma } = setUp();
        const range = dma.tryReserveIova({ length: 3 * KiB4 })!;
        range.link(0, RAM, KiB4, "to-device");
        range.link(2 * KiB4, RAM, KiB4, "to-device");
        expect(() => range.unlink(0, 3 * KiB4)).toThrow();
        return debug;
      },
    ],
  ],
  "destroy-wrong-length": [
    [
      "a destroy that says too little",
      () => {
        const { debug, dma } = setUp();
        const range = dma.tryReserveIova({ length: 2 * KiB4 })!;
        range.linkVecs(0, [{ phys: RAM, length: 2 * KiB4 }], "to-device");
        expect(() => range.destroy(KiB4)).toThrow();
        return debug;
      },
    ],
    [
      "a destroy of what is linked elsewhere too",
      () => {
        const { debug, dma } = setUp({}, { checked: false });
        const range = dma.tryReserveIova({ length: 4 * KiB4 })!;
        range.link(0, RAM, KiB4, "to-device");
        range.link(3 * KiB4, RAM, KiB4, "to-device");
        range.destroy(KiB4);
        return debug;
      },
    ],
  ],
  "access-before-sync": [
    [
      "the device reads what is linked and not synced",
      () => {
        const { debug, dma, engine } = setUp();
        const range = dma.tryReserveIova({ length: 2 * KiB4 })!;
        range.link(0, RAM, KiB4, "to-device");
        range.sync(0, KiB4);
        range.link(KiB4, RAM, KiB4, "to-device");
        engine.read(range.address, bytes());
        engine.read(DmaAddr(range.address + KiB4), bytes());
        return debug;
      },
    ],
  ],
  "access-after-unmap": [
    [
      "the device writes after the unmap, by an entry of the IOTLB that nobody threw out",
      () => {
        const { debug, dma, engine } = setUp({}, { mode: "lazy" });
        const mapping = dma.map(RAM, KiB4, "from-device");
        engine.write(mapping.address, bytes());
        mapping.unmap();
        expect(engine.write(mapping.address, bytes())).toBe(true);
        return debug;
      },
    ],
    [
      "the device reads after a lazy unlink",
      () => {
        const { debug, dma, engine } = setUp();
        const range = dma.tryReserveIova({ length: 2 * KiB4 })!;
        range.linkVecs(0, [{ phys: RAM, length: 2 * KiB4 }], "to-device");
        range.sync();
        engine.read(range.address, bytes());
        range.unlink(0, KiB4, { lazy: true });
        engine.read(range.address, bytes());
        return debug;
      },
    ],
    [
      "the device writes after the unmap, and no IOMMU is there to stop it",
      () => {
        const { debug, dma } = setUp({}, { direct: true });
        const mapping = dma.map(RAM, KiB4, "from-device");
        mapping.unmap();
        const { address } = mapping;
        debug.accessed({ requester: REQUESTER, address, length: 64, access: "write", wentThrough: true });
        return debug;
      },
    ],
  ],
  "bus-address-translated": [
    [
      "a peer's bus address, after the ports began to redirect",
      () => {
        const { debug, dma, client, redirect, bar } = peers();
        const [segment] = dma.mapScatterlist([{ phys: bar.phys, length: KiB4 }], "to-device").segments;
        expect([segment!.bus, client.engine.read(segment!.address, bytes())]).toEqual([true, true]);
        redirect();
        expect(client.engine.read(segment!.address, bytes())).toBe(false);
        return debug;
      },
    ],
  ],
  "private-to-untrusted": [
    [
      "a link of private memory",
      () => {
        const { debug, dma, phys } = confidential();
        const range = dma.tryReserveIova({ length: KiB4 })!;
        expect(() => range.link(0, phys, KiB4, "to-device")).toThrow();
        return debug;
      },
    ],
    [
      "a map of private memory that the caller calls shared",
      () => {
        const { debug, dma, phys } = confidential(true);
        dma.mapPhys(phys, KiB4, "to-device", { shared: true });
        return debug;
      },
    ],
    [
      "an access to memory that was made private while mapped",
      () => {
        const { debug, dma, engine, machine, page, phys } = confidential();
        machine.encryption!.convert(page, 1, "shared");
        const { address } = dma.map(phys, KiB4, "to-device");
        expect(engine.read(address, bytes())).toBe(true);
        machine.encryption!.convert(page, 1, "private");
        expect(engine.read(address, bytes())).toBe(false);
        return debug;
      },
    ],
  ],
};

describe("checked mode finds, alone,", () => {
  for (const [code, number] of Object.entries(FINDING_NUMBERS).sort(([, a], [, b]) => a - b))
    for (const [title, trigger] of TRIGGERS[code] ?? [])
      test(`${number} ${code}: ${title}`, () => {
        const found = trigger().report();
        expect(found.map((finding) => finding.code)).toEqual([code]);
        expect(found[0]!.number).toBe(number);
        for (const { where } of found[0]!.sites) expect(where).toMatch(/debug\.test\.ts:\d+:\d+/);
        expect(found[0]!.sites.length).toBeGreaterThan(0);
      });

  test("each of the thirty, and the end of its own room", () =>
    expect(Object.keys(TRIGGERS).sort()).toEqual(Object.keys(FINDING_NUMBERS).sort()));
});

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
    expect(first!.site).toMatch(/debug\.test\.ts/);
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
    expect([a!.debug, new Dma().debug]).toEqual([debug, undefined]);
  });
});

describe("where Linux's answer is a defect, linuxCompatible gives it and the default the better one", () => {
  /** What is found by default, and with `linuxCompatible`. */
  const both = (run: (dma: Dma) => void, device: DmaOptions = {}, options: DmaDebugOptions = {}): string[][] =>
    [false, true].map((linuxCompatible) => {
      const debug = new DmaDebug({ print: "none", ...options });
      const dma = new Dma({ ...device, debug, linuxCompatible });
      run(dma);
      return debug.report().map(({ code }) => code);
    });
  const mapped = (dma: Dma, direction: Direction, length = KiB4): DmaAddr => {
    const address = dma.mapPhys(RAM, length, direction);
    dma.debug!.errorChecked(address);
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
      new IommuDomain({
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
    list.unmap();
    expect(debug.report()).toEqual([]);
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
