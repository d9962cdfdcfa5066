/** Checked mode: every finding, triggered alone, by its number. */
import { describe, expect, test, vi } from "vitest";
import { DmaAddr, PhysAddr } from "../../src/base/index.ts";
import { termsOf } from "../../src/dma/index.ts";
import { type DmaDebug, FINDING_NUMBERS } from "../../src/dma-debug/index.ts";
import { bytes, confidential, KiB4, peers, RAM, REQUESTER, setUp } from "./checked-stand.ts";

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
        watch.allocated("coherent", 0x8000, KiB4, RAM, termsOf("bidirectional"));
        watch.freeing("coherent", 0x8000, KiB4, RAM + KiB4, termsOf("bidirectional"));
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
        dma.lists.unmap({ list: list.slice(0, 2), segments: segments.slice(0, 2), direction, attributes });
        return debug;
      },
    ],
    [
      "a bidirectional list synced with fewer entries, which Linux does not compare",
      () => {
        const { debug, dma } = setUp();
        const list = [0, 2, 4].map((i) => ({ phys: PhysAddr(RAM + i * KiB4), length: KiB4 }));
        const { segments } = dma.mapScatterlist(list, "bidirectional");
        dma.lists.syncForCpu({ list: list.slice(1), segments, direction: "bidirectional", attributes: undefined });
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
        const { debug, dma } = setUp({}, { refusesMisuse: false });
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
        const { debug, dma } = setUp({}, { refusesMisuse: false });
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
        for (const { where } of found[0]!.sites) expect(where).toMatch(/findings\.test\.ts:\d+:\d+/);
        expect(found[0]!.sites.length).toBeGreaterThan(0);
      });

  test("each of the thirty, and the end of its own room", () =>
    expect(Object.keys(TRIGGERS).sort()).toEqual(Object.keys(FINDING_NUMBERS).sort()));
});

describe("whoever is told of a finding", () => {
  test.each(["onFinding", "output"] as const)(
    "may throw (%s): what was called does what it does, and it is said once",
    (name) => {
      const said = vi.spyOn(console, "error").mockReturnValue(undefined);
      const broken = (): never => {
        throw new Error("the caller's own");
      };
      const { debug, dma, domain, codes } = setUp({ print: "all", output: () => undefined, [name]: broken });
      const address = dma.mapPhys(RAM, KiB4, "to-device");
      dma.unmapPhys(address, KiB4, "from-device"); // a finding, and an unmap all the same
      dma.unmapPhys(address, KiB4, "to-device");
      const again = dma.mapPhys(RAM, KiB4, "to-device");
      dma.unmapPhys(again, KiB4, "to-device");
      expect(codes().length).toBeGreaterThanOrEqual(2);
      expect(domain.counters.leavesCleared).toBe(domain.counters.leavesWritten);
      expect(domain.counters.iovaFrees).toBe(domain.counters.iovaAllocations);
      expect(debug.callbackErrors).toBeGreaterThanOrEqual(2);
      expect(said).toHaveBeenCalledTimes(1);
      said.mockRestore();
    },
  );
});
