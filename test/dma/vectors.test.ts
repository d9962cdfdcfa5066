/**
 * The numbered vectors of the specification, through the public API: the DMA API (1 to 18), bounce buffers (1 to 12), cache
 * maintenance by direction, and what a confidential guest allows. Each as Linux answers, and, where dmalink does better on
 * purpose, as it does.
 */
import { describe, expect, test } from "vitest";
import { type Direction, PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import type { DmaAttributes, PhysVec } from "../../src/dma/index.ts";
import { armLpae, READ, vtdSecondStage, WRITE } from "../../src/layouts/pagetable/index.ts";
import { outcome, pattern } from "../conformance/outcome.ts";
import { Stand, type StandOptions } from "./stand.ts";

const layout = vtdSecondStage();
const BOTH = "bidirectional";
/** As Linux is: with its defects, and without checks. */
const LINUX = { linuxCompatible: true, refusesMisuse: false } as const;
const WAYS: readonly [string, Partial<StandOptions>][] = [
  ["as Linux", LINUX],
  ["as dmalink", {}],
];
const translated = (options: Partial<StandOptions> = {}): Stand => new Stand({ layout, ...options });
const vecs = (...list: [phys: number, length: number][]): PhysVec[] =>
  list.map(([phys, length]) => ({ phys: PhysAddr(phys), length }));
const physOf = ({ domain }: Stand, address: number): number =>
  domain!.table.lookup(Math.floor(address / PAGE_SIZE) as never) * PAGE_SIZE;
const counts = ({ counters }: Stand): Record<string, number> => ({
  IA: counters.iovaAllocations,
  PTW: counters.leavesWritten,
  MSYNC: counters.mapSyncs,
  INV: counters.invalidations,
  BC: counters.bouncedBytes,
});

describe.each(WAYS)("DMA API, %s", (_, way) => {
  test("vector 1: the offset in the granule is kept, the length is rounded up", () => {
    const stand = translated(way);
    expect(stand.reserve(0x3000, 0x1234).address).toBe(0xffff_c234);
    expect([...stand.ranges.live]).toEqual([[0xffffc, 4]]);
    expect(counts(stand)).toEqual({ IA: 1, PTW: 0, MSYNC: 0, INV: 0, BC: 0 });
  });

  test.each(["strict", "lazy"] as const)(
    "vectors 2 and 3: three pieces, ragged at both ends, and their end (%s)",
    (mode) => {
      const stand = translated({ ...way, mode });
      const range = stand.reserve(0x3000, 0x1234);
      range.link(0, PhysAddr(0x1000_0234), 0xdcc, BOTH);
      range.link(0xdcc, PhysAddr(0x2000_0000), 0x1000, BOTH);
      range.link(0x1dcc, PhysAddr(0x3000_0000), 0x1234, BOTH);
      expect([0, 1, 2, 3].map((page) => physOf(stand, 0xffff_c000 + page * PAGE_SIZE))).toEqual([
        0x1000_0000, 0x2000_0000, 0x3000_0000, 0x3000_1000,
      ]);
      expect([stand.counters.leavesWritten, stand.counters.tableEntriesWritten]).toEqual([4, 3]);
      range.destroy(0x3000);
      expect([stand.counters.leavesCleared, stand.counters.invalidations]).toEqual([4, mode === "strict" ? 1 : 0]);
      expect([...stand.ranges.queued]).toEqual(mode === "strict" ? [] : [[0xffffc, 4]]);
    },
  );

  test("vector 4: an inner piece that starts inside a granule", () => {
    const stand = translated(way);
    const range = stand.reserve(0x3000, 0x1234);
    expect(outcome(() => range.link(0x1000, PhysAddr(0x2000_0010), 0x1000, BOTH))).toEqual([
      "ERR_DMA_LINK_ALIGNMENT",
      "EIO",
    ]);
  });

  test("vector 5: another place in the granule than was reserved", () => {
    const range = translated(way).reserve(0x2000);
    expect(outcome(() => range.link(0, PhysAddr(0x234), 0x1000, BOTH))).toEqual(["ERR_DMA_LINK_ALIGNMENT", "ENXIO"]);
  });

  test("vector 6: after a piece that ends inside a granule none can follow", () => {
    const range = translated(way).reserve(0x2000);
    range.link(0, PhysAddr(0x1000), 0x800, BOTH);
    expect(outcome(() => range.link(0x800, PhysAddr(0x5000), 0x800, BOTH))).toEqual([
      "ERR_DMA_LINK_ALIGNMENT",
      "ENXIO",
    ]);
  });

  test("vector 7: an untrusted device gets the ragged ends through slots, and the middle where it lies", () => {
    const stand = translated({ ...way, untrusted: true, minAlignMask: 0xfff });
    const range = stand.reserve(0x2000, 0x1800);
    range.link(0, PhysAddr(0x1800), 0x2000, BOTH);
    expect(counts(stand)).toMatchObject({ PTW: 3, BC: 0x1000 });
    expect(physOf(stand, range.address + 0x800)).toBe(0x2000);
    const { pool } = stand.host;
    expect([0, 0x1800].map((offset) => pool!.holds(PhysAddr(physOf(stand, range.address + offset))))).toEqual([
      true,
      true,
    ]);
    expect(range.hasBounced).toBe(true);
    range.destroy(0x2000, { direction: BOTH });
    expect(counts(stand)).toMatchObject({ BC: 0x2000, INV: 1 });
    expect(pool!.used).toBe(0);
  });

  test("vector 8: of a short piece there is only a head", () => {
    const stand = translated({ ...way, untrusted: true, minAlignMask: 0xfff });
    stand.reserve(0x2000, 0x1800).link(0, PhysAddr(0x1800), 0x800, BOTH);
    expect(counts(stand)).toMatchObject({ PTW: 1, BC: 0x800 });
  });

  test("vector 9: device memory is never bounced, so a ragged piece of it is refused", () => {
    const stand = translated({ ...way, untrusted: true });
    const range = stand.reserve(0x2000, 0x800);
    expect(outcome(() => range.link(0, PhysAddr(0x1800), 0x800, BOTH, { mmio: true }))).toEqual([
      "ERR_DMA_BOUNCE_FORBIDDEN",
      "EPERM",
    ]);
    expect(stand.host.pool!.used).toBe(0);
  });

  test("vector 10: device memory: no maintenance, another memory type where the format has one, no walk at the end", () => {
    const arm = armLpae({ stage: 1, pageSizes: 0x1000n, inputBits: 48, outputBits: 48 })!;
    const stand = translated({ ...way, layout: arm, coherent: false });
    const [peer, ram] = [stand.reserve(PAGE_SIZE), stand.reserve(PAGE_SIZE)];
    peer.link(0, PhysAddr(2 ** 40), PAGE_SIZE, BOTH, { mmio: true });
    expect(stand.counters.cacheOperations).toBe(0);
    ram.link(0, PhysAddr(2 ** 40), PAGE_SIZE, BOTH);
    expect(stand.counters.cacheOperations).toBe(1);
    const [a, b] = stand.leaves.map((leaf) => leaf.split(": ")[1]);
    expect(a).not.toBe(b);

    const walks: number[] = [];
    const watched = translated({ ...way, observer: { lookedUp: (iova) => void walks.push(iova) } });
    watched.dma.map(PhysAddr(2 ** 40), PAGE_SIZE, BOTH, { mmio: true }).unmap();
    expect(walks).toEqual([]);
    watched.dma.map(PhysAddr(0x5000), PAGE_SIZE, BOTH).unmap();
    expect(walks).toHaveLength(1);
  });

  test("vector 11: one shot: whole granules, the offset kept, one map sync", () => {
    const stand = translated(way);
    expect(stand.dma.map(PhysAddr(0x1234), 0x3000, BOTH).address).toBe(0xffff_c234);
    expect(counts(stand)).toMatchObject({ IA: 1, PTW: 4, MSYNC: 1 });
  });

  test("vector 12: a list that meets on granules is one segment", () => {
    const stand = translated(way);
    const { segments } = stand.dma.mapScatterlist(vecs([0x1000, 0x1000], [0x5000, 0x1000], [0x9000, 0x800]), BOTH);
    expect(segments).toEqual([{ address: 0xffff_c000, length: 0x2800 }]);
    expect([...stand.ranges.live]).toEqual([[0xffffc, 3]]);
    expect(counts(stand)).toMatchObject({ IA: 1, MSYNC: 1 });
  });

  test("vector 13: a ragged end ends a segment", () => {
    const stand = translated(way);
    const { segments } = stand.dma.mapScatterlist(vecs([0x1000, 0x1000], [0x5000, 0x800], [0x9000, 0x800]), BOTH);
    expect(segments.map(({ length }) => length)).toEqual([0x1800, 0x800]);
  });

  test("vector 14: a peer on the bus stays out of the range", () => {
    const stand = translated(way);
    const { peers } = stand.host;
    const { node } = stand.device;
    peers.add(node, { index: 0, phys: PhysAddr(2 ** 40), length: 0x10000, busAddress: 2 ** 39 });
    const list = vecs([0x1000, 0x1000], [2 ** 40 + 0x2000, 0x1000], [0x9000, 0x1000]);
    const { segments } = stand.dma.mapScatterlist(list, BOTH);
    expect(segments).toEqual([
      { address: 0xffff_e000, length: 0x1000 },
      { address: 2 ** 39 + 0x2000, length: 0x1000, bus: true },
      { address: 0xffff_f000, length: 0x1000 },
    ]);
    expect([...stand.ranges.live]).toEqual([[0xffffe, 2]]);
  });

  test("vector 15: memory that is said to be shared, in one shot behind an IOMMU: refused", () => {
    const stand = translated(way);
    const before = stand.state;
    expect(outcome(() => stand.dma.map(PhysAddr(0x1000), PAGE_SIZE, BOTH, { shared: true }))).toEqual([
      "ERR_DMA_SHARED",
      "EOPNOTSUPP",
    ]);
    expect(stand.state).toEqual(before);
  });

  test("vector 18: of an untrusted device's list every entry is by itself, and only a ragged one bounces", () => {
    const stand = translated({ ...way, untrusted: true });
    const list = vecs([0x5000, 0x1000], [0x6000, 0x1000], [0x9000, 0x800]);
    const mapping = stand.dma.mapScatterlist(list, BOTH);
    expect(mapping.segments).toHaveLength(3);
    expect(counts(stand)).toMatchObject({ IA: 3, MSYNC: 3, BC: 0x800 });
    mapping.unmap();
    expect(counts(stand)).toMatchObject({ INV: 3, BC: 0x1000 });
  });
});

test("vector 14, beyond Linux: an address on the bus that happens to follow an IOVA is an output of its own", () => {
  const stand = translated();
  const { node } = stand.device;
  stand.host.peers.add(node, { index: 0, phys: PhysAddr(2 ** 40), length: 0x10000, busAddress: 2 ** 32 });
  const { vecs: outputs } = stand.dma.mapVecs(
    vecs([0x5000, 0x1000], [2 ** 40, 0x1000], [2 ** 40 + 0x1000, 0x1000]),
    BOTH,
  );
  expect(outputs).toEqual([
    { address: 0xffff_f000, length: 0x1000 },
    { address: 2 ** 32, length: 0x2000, bus: true },
  ]);
});

describe("DMA API, where the answers differ", () => {
  test("vector 7 without minAlignMask: Linux cannot place the head (ENXIO); dmalink asks for the place explicitly", () => {
    const link = (way: Partial<StandOptions>) => {
      const stand = translated({ ...way, untrusted: true, minAlignMask: 0 });
      const range = stand.reserve(0x2000, 0x1800);
      return { stand, range, answer: outcome(() => range.link(0, PhysAddr(0x1800), 0x2000, BOTH)) };
    };
    const linux = link(LINUX);
    expect(linux.answer).toEqual(["ERR_DMA_LINK_ALIGNMENT", "ENXIO"]);
    expect([linux.stand.host.pool!.used, linux.stand.leaves]).toEqual([0, []]);
    const { stand, range, answer } = link({});
    expect(answer).toBe("ok");
    stand.cpuWrite(0x1800, pattern(0x2000));
    range.syncForDevice();
    expect(stand.deviceRead(range.address, 0x2000)).toEqual(pattern(0x2000));
  });

  test("vector 15: lists and two steps: Linux ignores that memory is said to be shared; dmalink refuses", () => {
    const answers = (way: Partial<StandOptions>) => {
      const stand = translated(way);
      const range = stand.reserve(0x1000);
      return [
        outcome(() => stand.dma.mapScatterlist(vecs([0x1000, 0x1000]), BOTH, { shared: true })),
        outcome(() => range.link(0, PhysAddr(0x1000), 0x1000, BOTH, { shared: true })),
      ];
    };
    expect(answers(LINUX)).toEqual(["ok", "ok"]);
    const refused = ["ERR_DMA_SHARED", "EOPNOTSUPP"];
    expect(answers({})).toEqual([refused, refused]);
  });

  test("vector 16: before a segment boundary Linux maps what lies behind the entry; dmalink leaves a gap", () => {
    const list = vecs([0x2000_0000, 0x3000], [0x2000_4000, 0x3000], [0x2000_8000, 0x1000], [0x2000_a000, 0x2000]);
    const map = (way: Partial<StandOptions>) => {
      const stand = translated({ ...way, segmentBoundaryMask: 0x3fff });
      const mapping = stand.dma.mapScatterlist(list, BOTH);
      return { stand, mapping, first: mapping.segments[0]!.address };
    };
    for (const [, way] of WAYS) {
      const { stand, mapping, first } = map(way);
      expect([...stand.ranges.live.values()]).toEqual([10]);
      expect(mapping.segments.map(({ address, length }) => [address - first, length])).toEqual([
        [0, 0x3000],
        [0x4000, 0x4000],
        [0x8000, 0x2000],
      ]);
      const pad = way.linuxCompatible ? 0x2000_3000 : -PAGE_SIZE;
      expect(physOf(stand, first + 0x3000)).toBe(pad);
      expect(stand.reads(first + 0x3000)).toBe(way.linuxCompatible === true);
      mapping.unmap();
      expect(counts(stand)).toMatchObject({ INV: 1 });
      expect(stand.leaves).toEqual([]);
      expect([...stand.ranges.live]).toEqual([]);
    }
  });

  test("vector 17: an entry longer than the longest segment: Linux joins without end; dmalink never past the limit", () => {
    const list = vecs([0x2000_0000, 0x3000], [0x2001_0000, 0x1000], [0x2002_0000, 0x1000]);
    const lengths = (way: Partial<StandOptions>): number[] =>
      translated({ ...way, maxSegmentSize: 0x2000 })
        .dma.mapScatterlist(list, BOTH)
        .segments.map(({ length }) => length);
    expect(lengths(LINUX)).toEqual([0x5000]);
    // An entry is the caller's: it is not cut. What follows it begins a segment of its own.
    expect(lengths({})).toEqual([0x3000, 0x2000]);
  });
});

/** Slots are counted from the pool's start; without an IOMMU, unless said. */
const bouncing = (options: Partial<StandOptions> = {}): Stand => new Stand({ forceBounce: true, ...options });
const at = ({ host }: Stand, address: number): number => address - host.pool!.start;

describe("bounce buffers, through the front door", () => {
  const map = (stand: Stand, phys: number, length: number): number =>
    at(stand, stand.dma.mapPhys(PhysAddr(phys), length, BOTH));

  test("vectors 1 to 4: small mappings after each other", () => {
    const stand = bouncing();
    expect(map(stand, 0x500_0123, 100)).toBe(0);
    expect(map(stand, 0x501_0123, 3000)).toBe(0x800);
    expect(map(stand, 0x502_0123, 4096)).toBe(0x2000);
    expect(map(stand, 0x503_0123, 100)).toBe(0x3000);
  });

  test("vector 5: minAlignMask keeps the low bits", () =>
    expect(map(bouncing({ minAlignMask: 0xfff }), 0x500_0a00, 0x200)).toBe(0xa00));

  test("vectors 6 and 7: behind an IOMMU a granule is the mapping's own, its offset as minAlignMask says", () => {
    for (const [minAlignMask, offset, inside] of [
      [0, 0, 0],
      [0xfff, 0x800, 0x800],
    ] as const) {
      const stand = translated({ untrusted: true, minAlignMask });
      const address = stand.dma.mapPhys(PhysAddr(0x1800), 0x800, BOTH);
      expect([at(stand, physOf(stand, address)) + inside, address % PAGE_SIZE]).toEqual([offset, inside]);
      expect(stand.host.pool!.used).toBe(2);
    }
  });

  test("vectors 8 and 9: 256 KiB fill a set, one byte more never fits", () => {
    const stand = bouncing();
    expect(map(stand, 0x500_0000, 262_144)).toBe(0);
    expect(map(stand, 0x600_0000, 262_144)).toBe(0x40000);
    expect(outcome(() => map(stand, 0x700_0000, 262_145))).toEqual(["ERR_DMA_BOUNCE_FULL", "ENOMEM"]);
  });

  test("vector 10: maxMappingSize is what always fits, whatever the address", () => {
    const stand = bouncing({ minAlignMask: 0xfff });
    expect(stand.dma.maxMappingSize).toBe(258_048);
    expect(map(stand, 0x500_0fff, 258_048)).toBe(0xfff);
  });

  test("vector 11: what a device that only writes left untouched is what was there", () => {
    const stand = bouncing();
    stand.cpuWrite(0x500_0000, pattern(2048));
    const mapping = stand.dma.map(PhysAddr(0x500_0000), 2048, "from-device");
    stand.deviceWrite(mapping.address, pattern(512, 2));
    mapping.unmap();
    expect(stand.cpuRead(0x500_0000, 2048)).toEqual(Uint8Array.of(...pattern(512, 2), ...pattern(2048).slice(512)));
  });

  test("vector 12: what the CPU writes later reaches the device by a sync, and not before", () => {
    const stand = bouncing();
    stand.cpuWrite(0x500_0000, pattern(2048));
    const mapping = stand.dma.map(PhysAddr(0x500_0000), 2048, "to-device");
    stand.cpuWrite(0x500_0000, pattern(2048, 2));
    expect(stand.deviceRead(mapping.address, 2048)).toEqual(pattern(2048));
    mapping.syncForDevice();
    expect(stand.deviceRead(mapping.address, 2048)).toEqual(pattern(2048, 2));
  });
});

describe("non-coherent devices: maintenance by event and direction", () => {
  for (const [name, options] of [
    ["direct", {}],
    ["translated", { layout }],
  ] as const)
    test.each(["to-device", "from-device", BOTH] as const)(
      `${name}, %s: one range and one barrier each way`,
      (direction) => {
        const calls: unknown[] = [];
        const observer = {
          cacheForDevice: (phys: number, length: number, way: Direction) =>
            void calls.push(["device", phys, length, way]),
          cacheForCpu: (phys: number, length: number, way: Direction) => void calls.push(["cpu", phys, length, way]),
          cacheBarrier: () => void calls.push("barrier"),
        };
        const stand = new Stand({ ...options, coherent: false, observer });
        const mapping = stand.dma.map(PhysAddr(0x500_0000), 8192, direction);
        mapping.syncForCpu(64, 128);
        mapping.syncForDevice(64, 128);
        mapping.unmap();
        expect(calls).toEqual([
          ["device", 0x500_0000, 8192, direction],
          "barrier",
          ["cpu", 0x500_0040, 128, direction],
          "barrier",
          ["device", 0x500_0040, 128, direction],
          "barrier",
          ["cpu", 0x500_0000, 8192, direction],
          "barrier",
        ]);
        expect(stand.caches.pending).toBe(0);
      },
    );

  test("skipCpuSync and device memory: none; requireCoherent: refused", () => {
    for (const options of [{}, { layout }]) {
      const stand = new Stand({ ...options, coherent: false });
      for (const attributes of [{ skipCpuSync: true }, { mmio: true }] as DmaAttributes[])
        stand.dma.map(PhysAddr(0x500_0000), 4096, BOTH, attributes).unmap();
      expect([stand.counters.cacheOperations, stand.counters.cacheBarriers]).toEqual([0, 0]);
      expect(outcome(() => stand.dma.map(PhysAddr(0x500_0000), 4096, BOTH, { requireCoherent: true }))).toEqual([
        "ERR_DMA_NOT_COHERENT",
        "EOPNOTSUPP",
      ]);
    }
  });

  test("device memory has no cache lines: a sync of it does nothing", () => {
    for (const options of [{}, { layout }]) {
      const stand = new Stand({ ...options, coherent: false });
      const mapping = stand.dma.map(PhysAddr(2 ** 40), 4096, BOTH, { mmio: true });
      mapping.syncForCpu();
      mapping.syncForDevice();
      mapping.unmap();
      expect([stand.counters.cacheOperations, stand.counters.cacheBarriers]).toEqual([0, 0]);
    }
  });

  test("a small buffer that shares its cache lines is bounced, unless the device only reads", () => {
    for (const options of [{}, { layout }]) {
      const stand = new Stand({ ...options, coherent: false, cacheLine: 64 });
      const used = (length: number, direction: Direction): number => {
        const mapping = stand.dma.map(PhysAddr(0x500_0000), length, direction);
        const slots = stand.host.pool!.used;
        mapping.unmap();
        return slots > 0 ? 1 : 0;
      };
      expect([used(32, "from-device"), used(32, BOTH), used(32, "to-device"), used(64, "from-device")]).toEqual([
        1, 1, 0, 0,
      ]);
    }
  });
});

describe("a confidential guest: what each kind of memory may do", () => {
  const guest = (options: Partial<StandOptions>) => {
    const stand = new Stand({ confidential: "refused", ...options });
    return { stand, hidden: stand.block(8192, false), open: stand.block(8192) };
  };
  const bounced = ({ host }: Stand): boolean => host.pool!.used > 0;

  for (const [name, options] of [
    ["direct", {}],
    ["translated", { layout }],
  ] as const) {
    test(`${name}: shared memory is mapped where it lies`, () => {
      const { stand, open } = guest(options);
      stand.dma.map(open, 8192, BOTH);
      expect(bounced(stand)).toBe(false);
    });

    test(`${name}: private memory bounces for a device outside the trust, and is mapped where it lies for one inside`, () => {
      const outside = guest(options);
      outside.stand.dma.map(outside.hidden, 8192, BOTH);
      expect(bounced(outside.stand)).toBe(true);
      const inside = guest({ ...options, tdi: "run" });
      const mapping = inside.stand.dma.map(inside.hidden, 8192, BOTH);
      expect(bounced(inside.stand)).toBe(false);
      expect(inside.stand.deviceWrite(mapping.address, pattern(8192))).toBe(true);
      expect(inside.stand.cpuRead(inside.hidden, 8192)).toEqual(pattern(8192));
    });

    test(`${name}: private memory without a bounce is refused: as device memory, and where coherence is required`, () => {
      const { stand, hidden } = guest(options);
      expect(outcome(() => stand.dma.map(hidden, 8192, BOTH, { mmio: true }))).toEqual(["ERR_DMA_PRIVATE", "EPERM"]);
      expect(outcome(() => stand.dma.map(hidden, 8192, BOTH, { requireCoherent: true }))[1]).toBe("EPERM");
    });

    test(`${name}: memory is not converted while a device reaches it`, () => {
      const { stand, open } = guest(options);
      const mapping = stand.dma.map(open, 8192, BOTH);
      const convert = () => outcome(() => stand.reach!.convert((open / PAGE_SIZE + 1) as never, 1, "private"));
      expect(convert()).toEqual(["ERR_DMA_CONVERT", "EBUSY"]);
      mapping.unmap();
      expect(convert()).toBe("ok");
    });
  }

  test("two steps: private memory is refused outside the trust (EPERM), a mix of both kinds always (ENXIO)", () => {
    const { stand, hidden } = guest({ layout });
    const range = stand.reserve(16384);
    const before = stand.state;
    expect(outcome(() => range.link(0, hidden, 8192, BOTH))).toEqual(["ERR_DMA_PRIVATE", "EPERM"]);
    const inside = guest({ layout, tdi: "run" });
    const pair = inside.stand.block(8192, false);
    inside.stand.machine.encryption!.convert((pair / PAGE_SIZE) as never, 1, "shared");
    const other = inside.stand.reserve(16384);
    expect(outcome(() => other.link(0, pair, 8192, BOTH))).toEqual(["ERR_DMA_PRIVATE", "ENXIO"]);
    expect(outcome(() => other.link(8192, inside.hidden, 8192, BOTH))).toBe("ok");
    expect(stand.state).toEqual(before);
  });
});

describe("what the permissions say in an entry", () => {
  test("to-device reads, from-device writes, bidirectional both; nothing is executable", () => {
    const prot = (direction: Direction): number => {
      const stand = translated();
      stand.dma.mapPhys(PhysAddr(0x1000), 4096, direction);
      const [leaf] = [...stand.domain!.table.entries()].filter((entry) => entry.leaf);
      return layout.prot(leaf!.low, leaf!.high) & (READ | WRITE);
    };
    expect([prot("to-device"), prot("from-device"), prot(BOTH)]).toEqual([READ, WRITE, READ | WRITE]);
  });
});
