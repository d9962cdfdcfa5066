/**
 * Defects of Linux that were found on the way, one test each: where it is safe to model, `linuxCompatible` gives Linux's
 * answer, and dmalink by itself gives the better one.
 *
 * Three lists: defects in the history of the two-step API, of page tables and scatterlists, and of the DMA API.
 */
import { describe, expect, test } from "vitest";
import { Counters, type IovaPage, PAGE_SIZE, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import {
  Bio,
  DEFAULT_LIMITS,
  DmaIterator,
  gapMask,
  junctionGap,
  TwoStepOps,
  VectorList,
} from "../../src/consumers/block/index.ts";
import type { Dma, PhysVec } from "../../src/dma/index.ts";
import { SimulatedPciTree } from "../../src/hosts/simulated/index.ts";
import { PAGE_RESPONSE, writePageGroupResponse } from "../../src/layouts/invalidation/index.ts";
import {
  amdV1,
  armLpae,
  CACHE,
  MMIO,
  READ,
  riscv,
  type TableLayout,
  vtdSecondStage,
  WRITE,
} from "../../src/layouts/pagetable/index.ts";
import { ACS } from "../../src/layouts/pci/index.ts";
import { P2pRouter } from "../../src/p2p/index.ts";
import { Arena, Gather, PageTable } from "../../src/pagetable/index.ts";
import { outcome, pattern } from "../conformance/outcome.ts";
import { Stand, type StandOptions } from "./stand.ts";

const layout = vtdSecondStage();
const arm4k = armLpae({ stage: 1, pageSizes: 0x4020_1000n, inputBits: 48, outputBits: 48, hardwareDirty: true })!;
const BOTH = "bidirectional";
/** As Linux is: with its defects, and without checks. */
const LINUX = { linuxCompatible: true, refusesMisuse: false } as const;
const AMD = [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{}, {}] }];
const translated = (options: Partial<StandOptions> = {}): Stand => new Stand({ layout, ...options });
const vecs = (...list: [phys: number, length: number][]): PhysVec[] =>
  list.map(([phys, length]) => ({ phys: PhysAddr(phys), length }));

describe("history of the two-step API", () => {
  describe("1: a bounced piece", () => {
    for (const [name, way] of [
      ["as Linux", { ...LINUX, minAlignMask: 0xfff }],
      ["as dmalink", {}],
    ] as const) {
      test(`with nothing between head and tail links two granules, ${name}`, () => {
        const stand = translated({ ...way, untrusted: true });
        const range = stand.reserve(0x1000, 0x800);
        stand.cpuWrite(0x1800, pattern(0x1000));
        range.link(0, PhysAddr(0x1800), 0x1000, BOTH);
        expect(stand.leaves).toHaveLength(2);
        expect(stand.deviceRead(range.address, 0x1000)).toEqual(pattern(0x1000));
      });

      test(`that fails in the middle undoes itself and not its neighbour, ${name}`, () => {
        const stand = translated({ ...way, untrusted: true });
        const range = stand.reserve(0x5000, 0x800);
        range.link(0x2800, PhysAddr(0x8000), 0x1000, BOTH);
        const { leaves } = stand;
        const { used } = stand.host.pool!;
        // Its head is linked already when its middle meets the fourth granule.
        expect(outcome(() => range.link(0, PhysAddr(0x1800), 0x3800, BOTH))[1]).toBe("EADDRINUSE");
        expect([stand.leaves, stand.host.pool!.used]).toEqual([leaves, used]);
        expect(range.linkedPages).toBe(1);
      });
    }
  });

  describe("2: peer memory through the host bridge", () => {
    const leafOf = (map: (dma: Dma, phys: PhysAddr) => unknown, options: Partial<StandOptions>): string => {
      const stand = new Stand({ layout: arm4k, bridges: AMD, ...options });
      const owner = stand.machine.tree.plug("0.1", 1)[0]!;
      stand.host.peers.add(owner, { index: 0, phys: PhysAddr(2 ** 40), length: 0x10000, busAddress: 2 ** 40 });
      map(stand.dma, PhysAddr(2 ** 40));
      return `${stand.leaves.map((leaf) => leaf.split(": ")[1]).join()}, maintenance ${stand.counters.cacheOperations}`;
    };
    const asPeer = (options: Partial<StandOptions>): string =>
      leafOf((dma, phys) => dma.map(phys, PAGE_SIZE, BOTH, { mmio: true }), options);
    const asMemory = (options: Partial<StandOptions>): string =>
      leafOf((dma, phys) => dma.map(phys, PAGE_SIZE, BOTH), options);
    const list = (dma: Dma, phys: PhysAddr) => dma.mapScatterlist([{ phys, length: PAGE_SIZE }], BOTH);

    test.each([{}, { coherent: false }])(
      "is device memory in a list too, and has no cache lines to maintain (%o)",
      (options) => {
        expect(asPeer(options)).not.toBe(asMemory(options));
        expect(leafOf(list, options)).toBe(asPeer(options));
        expect(leafOf(list, { ...options, ...LINUX })).toBe(asMemory(options));
        expect(leafOf((dma, phys) => dma.mapVecs([{ phys, length: PAGE_SIZE }], BOTH), options)).toBe(asPeer(options));
        expect(leafOf((dma, phys) => dma.mapLinear([{ phys, length: PAGE_SIZE }], BOTH), options)).toBe(
          asPeer(options),
        );
      },
    );

    test("without an IOMMU has no cache lines to maintain either, at either end", () => {
      const stand = new Stand({ bridges: AMD, coherent: false });
      const owner = stand.machine.tree.plug("0.1", 1)[0]!;
      stand.host.peers.add(owner, { index: 0, phys: PhysAddr(2 ** 40), length: 0x10000, busAddress: 2 ** 40 });
      const before = stand.state;
      const mapping = stand.dma.mapScatterlist(vecs([0x5000, 0x1000], [2 ** 40, 0x1000]), BOTH);
      mapping.syncForCpu();
      mapping.syncForDevice();
      mapping.unmap();
      expect(stand.counters.cacheOperations).toBe(4);
      expect(stand.state).toEqual(before);
    });

    test.each([
      ["untrusted", { untrusted: true }],
      ["outside a confidential guest's trust", { confidential: "refused" }],
      ["untrusted, non-coherent, lazy", { untrusted: true, coherent: false, mode: "lazy" }],
    ] as const)(
      "in a list that is mapped entry by entry is recognised by dmalink, and not by Linux (%s)",
      (_, options) => {
        const build = (way: Partial<StandOptions>, bridges = AMD) => {
          const stand = new Stand({ layout: arm4k, bridges, ...options, ...way });
          const [owner] = stand.machine.tree.plug("0.1", 1);
          const [own] = [stand.device.node];
          for (const [node, phys] of [
            [owner!, 2 ** 40],
            [own, 2 ** 41],
          ] as const)
            stand.host.peers.add(node, { index: 0, phys: PhysAddr(phys), length: 0x10000, busAddress: phys / 2 });
          return { stand, hidden: stand.block(4096, false) };
        };
        const { stand, hidden } = build({});
        const before = stand.state;
        const list = vecs([hidden + 64, 0x800], [2 ** 40, 0x1000], [2 ** 41 + 0x1000, 0x200]);
        const mapping = stand.dma.mapScatterlist(list, BOTH);
        expect(mapping.segments[2]).toEqual({ address: 2 ** 40 + 0x1000, length: 0x200, bus: true });
        expect(mapping.segments[1]!.bus).toBeUndefined();
        expect(stand.counters.iovaAllocations).toBe(2);
        const maintained = stand.counters.cacheOperations;
        mapping.syncForCpu();
        mapping.syncForDevice();
        mapping.unmap();
        stand.flush();
        expect(stand.state).toEqual(before);
        // One entry to maintain: at its map, twice for syncs, at its end; its padding apart.
        if (!stand.dma.device.coherent) expect(stand.counters.cacheOperations - maintained).toBe(3);
        const linux = build(LINUX);
        const peers = vecs([2 ** 40, 0x1000], [2 ** 41 + 0x1000, 0x1000], [linux.hidden, 0x1000]);
        expect(linux.stand.dma.mapScatterlist(peers, BOTH).segments.some(({ bus }) => bus)).toBe(false);
        // Unreachable: another root port of a processor that does not route.
        const other = build({}, [{ cpu: { vendor: "Intel", family: 6 }, rootPorts: [{}, {}] }]);
        const start = other.stand.state;
        expect(
          outcome(() => other.stand.dma.mapScatterlist(vecs([other.hidden + 64, 0x800], [2 ** 40, 0x1000]), BOTH)),
        ).toEqual(["ERR_DMA_PEER", "EREMOTEIO"]);
        expect(other.stand.state).toEqual(start);
      },
    );

    test("beside memory in one list keeps its own kind, and the list ends as one", () => {
      for (const coherent of [true, false]) {
        const stand = new Stand({ layout: arm4k, bridges: AMD, coherent });
        const owner = stand.machine.tree.plug("0.1", 1)[0]!;
        stand.host.peers.add(owner, { index: 0, phys: PhysAddr(2 ** 40), length: 0x10000, busAddress: 2 ** 40 });
        const before = stand.state;
        const mapping = stand.dma.mapScatterlist(
          vecs([0x5000, 0x1000], [2 ** 40, 0x1000], [2 ** 40 + 0x1000, 0x1000], [0x6000, 0x1000]),
          BOTH,
        );
        const attributes = [...stand.domain!.table.entries()]
          .filter((entry) => entry.leaf)
          .map(({ low }) => (low >>> 2) & 7);
        expect(attributes[1]).toBe(attributes[2]);
        expect(attributes[0]).toBe(attributes[3]);
        expect(attributes[0]).not.toBe(attributes[1]);
        expect(stand.counters.cacheOperations).toBe(coherent ? 0 : 2);
        mapping.syncForCpu();
        mapping.syncForDevice();
        mapping.unmap();
        expect(stand.counters.invalidations).toBe(1);
        expect(stand.state).toEqual(before);
      }
    });
  });

  test("3: several runs of peer memory go one behind the other; at one offset the second is refused", () => {
    for (const way of [LINUX, {}]) {
      const stand = translated(way);
      const range = stand.reserve(0x2000);
      range.link(0, PhysAddr(2 ** 40), 0x1000, BOTH, { mmio: true });
      expect(outcome(() => range.link(0, PhysAddr(2 ** 41), 0x1000, BOTH, { mmio: true }))).toEqual([
        "ERR_DMA_MAP",
        "EADDRINUSE",
      ]);
      range.link(0x1000, PhysAddr(2 ** 41), 0x1000, BOTH, { mmio: true });
      expect(stand.leaves).toHaveLength(2);
    }
    const { vecs: outputs } = translated().dma.mapVecs(vecs([2 ** 40, 0x1000], [2 ** 41, 0x1000]), BOTH, {
      mmio: true,
    });
    expect(outputs.map(({ length }) => length)).toEqual([0x2000]);
  });

  test("4: a bounced head without minAlignMask: Linux cannot link it (ENXIO); dmalink can", () => {
    for (const [way, answer] of [
      [LINUX, ["ERR_DMA_LINK_ALIGNMENT", "ENXIO"]],
      [{}, "ok"],
    ] as const) {
      const stand = translated({ ...way, untrusted: true });
      const range = stand.reserve(0x400, 0x234);
      expect(outcome(() => range.link(0, PhysAddr(0x1234), 0x400, BOTH))).toEqual(answer);
    }
  });

  test("5: an end with a shorter length: Linux loses the rest of the range; dmalink refuses, and loses nothing", () => {
    const four = (stand: Stand): number => stand.reserve(4 * PAGE_SIZE).address;
    const run = (way: Partial<StandOptions>) => {
      const stand = translated(way);
      const range = stand.reserve(4 * PAGE_SIZE);
      range.link(0, PhysAddr(0x1_0000), 2 * PAGE_SIZE, BOTH);
      return { stand, range };
    };
    const linux = run(LINUX);
    linux.range.destroy(2 * PAGE_SIZE);
    expect(four(linux.stand)).not.toBe(linux.range.address);
    const { stand, range } = run({});
    expect(outcome(() => range.destroy(PAGE_SIZE))).toEqual(["ERR_DMA_DESTROY", "EINVAL"]);
    range.destroy(2 * PAGE_SIZE);
    expect(four(stand)).toBe(range.address);
  });

  test("6: memory that is said to be shared, in lists and two steps: Linux ignores it; dmalink refuses", () => {
    for (const [way, answer] of [
      [LINUX, "ok"],
      [{}, ["ERR_DMA_SHARED", "EOPNOTSUPP"]],
    ] as const) {
      const stand = translated(way);
      const range = stand.reserve(PAGE_SIZE);
      expect(outcome(() => range.link(0, PhysAddr(0x1000), PAGE_SIZE, BOTH, { shared: true }))).toEqual(answer);
      expect(outcome(() => stand.dma.mapScatterlist(vecs([0x1000, 0x1000]), BOTH, { shared: true }))).toEqual(answer);
    }
    // Calls that Linux does not have.
    const { dma } = translated();
    const one = vecs([0x1000, 0x1000]);
    for (const call of [
      () => dma.mapVecs(one, BOTH, { shared: true }),
      () => dma.mapLinear(one, BOTH, { shared: true }),
      () => dma.batch(BOTH, { maxBytes: PAGE_SIZE }, { shared: true }),
    ])
      expect(outcome(call)).toEqual(["ERR_DMA_SHARED", "EOPNOTSUPP"]);
    const range = dma.tryReserveIova({ length: PAGE_SIZE })!;
    expect(outcome(() => range.linkVecs(0, one, BOTH, { shared: true }))).toEqual(["ERR_DMA_SHARED", "EOPNOTSUPP"]);
  });

  test("7: the way to a peer after access control changed: Linux remembers the old one; with followAcs it is asked anew", () => {
    const types = (followAcs: boolean): string[] => {
      const bridges = [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{ switch: [{}, {}] }] }];
      const tree = new SimulatedPciTree(bridges);
      const [client] = tree.plug("0.0.0", 1);
      const [owner] = tree.plug("0.0.1", 1);
      const router = new P2pRouter({ followAcs });
      const bar = { index: 0, phys: PhysAddr(2 ** 40), length: 0x10000, busAddress: 2 ** 40 };
      const provider = router.add(owner!, bar);
      const before = router.mapType(provider, client);
      owner!.parent!.acsControl = ACS.requestRedirect;
      return [before, router.mapType(provider, client)];
    };
    expect(types(false)).toEqual(["bus-address", "bus-address"]);
    expect(types(true)).toEqual(["bus-address", "through-host-bridge"]);
  });

  test("8: a page request that failed is answered by 15, as the bus has it, and not by Linux's 2", () => {
    const words = new Uint32Array(8);
    writePageGroupResponse(words, 0, 0x100, 5, PAGE_RESPONSE.failure, false, 0);
    expect(PAGE_RESPONSE.failure).toBe(15);
    expect((words[0]! >>> 12) & 15).toBe(15);
  });

  test("9: pieces that meet inside a granule are one gap, whatever the queue's own boundary", () => {
    const { dma } = translated();
    // A queue that only asks for multiples of 512 lets these through; the granule does not.
    const gap = junctionGap(0x1000, 0x200, 0x5200);
    expect(gapMask(gap) & 511).toBe(0);
    expect(gapMask(gap) & dma.mergeBoundary).not.toBe(0);
    const pieces = vecs([0x1000, 0x200], [0x5200, 0x200]);
    const range = dma.tryReserveIova({ length: 0x400 })!;
    range.link(0, pieces[0]!.phys, 0x200, BOTH);
    expect(outcome(() => range.link(0x200, pieces[1]!.phys, 0x200, BOTH))).toEqual(["ERR_DMA_LINK_ALIGNMENT", "EIO"]);
    expect(outcome(() => dma.mapLinear(pieces, BOTH))).toEqual(["ERR_DMA_LINEAR", "ENXIO"]);
    expect(dma.mapVecs(pieces, BOTH).vecs.map(({ length }) => length)).toEqual([0x200, 0x200]);
  });
});

describe("history of the two-step API, on granules larger than a page", () => {
  test("9: whole pages that do not fill granules are one gap too, and the request goes piece by piece", () => {
    const arm16k = armLpae({ stage: 1, pageSizes: 0x200_4000n, inputBits: 47, outputBits: 48 })!;
    const stand = new Stand({ layout: arm16k });
    const list = new VectorList();
    for (const phys of [0x1000_0000, 0x1001_1000, 0x1002_2000]) list.add(phys, PAGE_SIZE, undefined);
    const bio = new Bio();
    bio.set("read", 0, list, DEFAULT_LIMITS);
    const iterator = new DmaIterator();
    const mapped = { range: undefined, spare: undefined, peer: "none" as const };
    const door = new TwoStepOps(stand.dma);
    const gap = junctionGap(0x1000_0000, PAGE_SIZE, 0x1001_1000);
    expect(iterator.start(door, bio, "data", 3 * PAGE_SIZE, gap, DEFAULT_LIMITS, "from-device", mapped)).toBe(true);
    const found = [[iterator.address % 16_384, iterator.length]];
    while (iterator.next()) found.push([iterator.address % 16_384, iterator.length]);
    expect([iterator.status, found]).toEqual([
      "ok",
      [
        [0, PAGE_SIZE],
        [PAGE_SIZE, PAGE_SIZE],
        [2 * PAGE_SIZE, PAGE_SIZE],
      ],
    ]);
  });
});

describe("page tables and lists", () => {
  const table = (of: TableLayout) => {
    const memory = new Arena({ basePage: (2 ** 24) as PhysPage });
    return { memory, table: new PageTable({ layout: of, memory, counters: new Counters() }), gather: new Gather() };
  };
  const page = (n: number): IovaPage => n as IovaPage;
  const frame = (n: number): PhysPage => n as PhysPage;
  const dirty = (built: ReturnType<typeof table>, at: number, pages: number): number[][] => {
    const found: number[][] = [];
    built.table.readDirty(page(at), pages, false, built.gather, (first, count) => void found.push([first, count]));
    return found;
  };
  const write = (built: ReturnType<typeof table>, at: number): void => {
    const leaf = built.table.translate(page(at))!;
    built.memory.store(leaf.table, leaf.index, built.table.layout.dirty!.soil(leaf.low), leaf.high);
  };

  test("a dirty contiguous leaf is reported with its last item", () => {
    const built = table(amdV1());
    built.table.map(page(16), frame(16), 16, READ | WRITE);
    write(built, 31);
    expect(dirty(built, 16, 16)).toEqual([[16, 16]]);
  });

  test("dirty asked for from inside a block: no report goes past its end", () => {
    const built = table(arm4k);
    built.table.map(page(512), frame(512), 512, READ | WRITE | CACHE);
    write(built, 512);
    expect(dirty(built, 600, 10)).toEqual([[600, 1024 - 600]]);
  });

  test("a contiguous leaf that is refused because of something later leaves the tables before it alone", () => {
    const built = table(amdV1());
    const span = 512;
    // A leaf of 4 MiB takes two items of the second level: an empty table under the first, a live page under the other.
    built.table.map(page(2 * span + 3), frame(7), 1, READ);
    built.table.unmap(page(2 * span + 3), 1, built.gather);
    built.table.complete(built.gather);
    built.table.map(page(3 * span), frame(9), 1, READ);
    const image = JSON.stringify([...built.table.entries()]);
    expect(built.table.map(page(2 * span), frame(2 * span), 2 * span, READ)).toBeLessThan(0);
    expect(JSON.stringify([...built.table.entries()])).toBe(image);
  });

  test("an entry above the longest segment: Linux joins all that follows; dmalink never goes above the limit", () => {
    const list = vecs([0x2000_0000, 0x3000], [0x2001_0000, 0x2000], [0x2002_0000, 0x1000]);
    const lengths = (way: Partial<StandOptions>): number[] =>
      translated({ ...way, maxSegmentSize: 0x2000 })
        .dma.mapScatterlist(list, BOTH)
        .segments.map(({ length }) => length);
    expect(lengths(LINUX)).toEqual([0x6000]);
    expect(lengths({})).toEqual([0x3000, 0x2000, 0x1000]);
  });

  test("RISC-V memory types are there, though Linux's production build refuses them", () => {
    const leaf = (svpbmt: boolean, prot: number): number[] => {
      const built = table(riscv({ svpbmt }));
      built.table.map(page(1), frame(1), 1, prot);
      const { low, high } = built.table.translate(page(1))!;
      return [low, high];
    };
    expect(leaf(true, READ | MMIO)).not.toEqual(leaf(true, READ | CACHE));
    expect(leaf(false, READ | MMIO)).toEqual(leaf(false, READ | CACHE));
  });

  test("AMD tables without forced snooping can be built, though Linux always forces it", () => {
    const high = (forceCoherence: boolean): number => {
      const built = table(amdV1({ forceCoherence }));
      built.table.map(page(1), frame(1), 1, READ);
      return built.table.translate(page(1))!.high;
    };
    expect(high(true) & ~high(false)).toBe(1 << 28);
  });
});

describe("the DMA API", () => {
  describe("a bounced piece ends: Linux frees its slot while the device still reaches it; dmalink after", () => {
    const end = (way: Partial<StandOptions>, how: "unlink" | "destroy") => {
      const stand = translated({ ...way, untrusted: true, minAlignMask: 0xfff });
      const range = stand.reserve(0x800, 0x800);
      range.link(0, PhysAddr(0x1800), 0x800, BOTH);
      stand.deviceWrite(range.address, pattern(0x800));
      const { pool } = stand.host;
      const held: number[] = [];
      const { unit } = stand;
      const invalidate = unit.invalidateRange.bind(unit);
      unit.invalidateRange = (...of) => {
        held.push(pool!.used);
        stand.deviceWrite(range.address, pattern(0x800, 2)); // the last moment
        invalidate(...of);
      };
      if (how === "unlink") range.unlink(0, 0x800, { direction: BOTH });
      else range.destroy(0x800, { direction: BOTH });
      return { held, memory: stand.cpuRead(0x1800, 0x800), reads: stand.reads(range.address) };
    };
    for (const how of ["unlink", "destroy"] as const)
      test(how, () => {
        expect(end(LINUX, how)).toEqual({ held: [0], memory: pattern(0x800), reads: false });
        expect(end({}, how)).toEqual({ held: [2], memory: pattern(0x800, 2), reads: false });
      });
  });

  test("a pad before a segment boundary: Linux maps somebody else's memory there; dmalink nothing", () => {
    const list = vecs([0x2000_0000, 0x3000], [0x2000_8000, 0x3000]);
    const reads = (way: Partial<StandOptions>): boolean => {
      const stand = translated({ ...way, segmentBoundaryMask: 0x3fff });
      return stand.reads(stand.dma.mapScatterlist(list, BOTH).segments[0]!.address + 0x3000);
    };
    expect([reads(LINUX), reads({})]).toEqual([true, false]);
  });

  test.each([
    ["translated", { layout }],
    ["direct", {}],
    ["bounced", { forceBounce: true }],
    [
      "as Linux, whose answers nobody can want: 4 GiB of addresses, a page that is not the buffer's, a crash",
      {
        layout,
        linuxCompatible: true,
      },
    ],
  ])("a length of 0 is refused everywhere, and nothing is left (%s)", (_, options) => {
    const stand = new Stand(options);
    const { dma } = stand;
    const before = stand.state;
    const nothing = vecs([0x1000, 0x1000], [0x5000, 0]);
    for (const call of [
      () => dma.map(PhysAddr(0x1000), 0, BOTH),
      () => dma.mapPhys(PhysAddr(0x1234), 0, BOTH),
      () => dma.mapScatterlist(nothing, BOTH),
      () => dma.mapScatterlist([], BOTH),
      () => dma.mapVecs(nothing, BOTH),
      () => dma.mapVecs([], BOTH),
      () => dma.mapLinear(nothing, BOTH),
      () => dma.batch(BOTH, { maxBytes: 0 }),
      () => dma.batch(BOTH, { maxBytes: PAGE_SIZE }).add(nothing[1]!),
      () => dma.allocCoherent(0),
      () => dma.allocPages(0, BOTH),
      () => dma.allocNoncontiguous(0, BOTH),
      () => dma.tryReserveIova({ length: 0 }),
    ])
      expect([outcome(call), String(call)]).toEqual([["ERR_DMA_LENGTH", "EINVAL"], String(call)]);
    expect(stand.state).toEqual(before);
    const range = dma.tryReserveIova({ length: PAGE_SIZE });
    if (range) expect(outcome(() => range.link(0, PhysAddr(0x1000), 0, BOTH))[1]).toBe("EINVAL");
  });

  test("a mask that is set while a bounced mapping lives: Linux's syncs copy no more; dmalink's do", () => {
    const seen = (way: Partial<StandOptions>): Uint8Array => {
      const stand = new Stand({ ...way, forceBounce: true });
      const mapping = stand.dma.map(PhysAddr(0x50_0000), 64, "to-device");
      stand.dma.setMask(2 ** 48 - 1);
      stand.cpuWrite(0x50_0000, pattern(64));
      mapping.syncForDevice();
      return stand.deviceRead(mapping.address, 64)!;
    };
    expect(seen(LINUX)).toEqual(new Uint8Array(64));
    expect(seen({})).toEqual(pattern(64));
  });

  test("an end whose first piece is not linked: Linux frees the address over live entries; dmalink refuses", () => {
    const run = (way: Partial<StandOptions>) => {
      const stand = translated(way);
      const range = stand.reserve(2 * PAGE_SIZE);
      range.link(PAGE_SIZE, PhysAddr(0x5000), PAGE_SIZE, BOTH);
      return { stand, range, answer: outcome(() => range.destroy(2 * PAGE_SIZE)) };
    };
    const linux = run(LINUX);
    expect([linux.answer, linux.stand.leaves.length]).toEqual(["ok", 1]);
    const next = linux.stand.reserve(2 * PAGE_SIZE);
    expect(next.address).toBe(linux.range.address);
    expect(outcome(() => next.link(PAGE_SIZE, PhysAddr(0x9000), PAGE_SIZE, BOTH))[1]).toBe("EADDRINUSE");
    const { stand, range, answer } = run({});
    expect(answer).toEqual(["ERR_DMA_DESTROY", "EINVAL"]);
    range.destroy();
    expect([stand.leaves, [...stand.ranges.live]]).toEqual([[], []]);
  });

  test("a second link, a direction that is none, an address that is too wide: errors on every unit, not success", () => {
    for (const way of [LINUX, {}]) {
      const stand = translated(way);
      const range = stand.reserve(2 * PAGE_SIZE);
      range.link(0, PhysAddr(0x5000), PAGE_SIZE, BOTH);
      const { leaves } = stand;
      expect(outcome(() => range.link(0, PhysAddr(0x6000), PAGE_SIZE, BOTH))).toEqual(["ERR_DMA_MAP", "EADDRINUSE"]);
      expect(outcome(() => range.link(PAGE_SIZE, PhysAddr(0x6000), PAGE_SIZE, "none" as never))[1]).toBe("EINVAL");
      expect(outcome(() => range.link(PAGE_SIZE, PhysAddr(2 ** 52), PAGE_SIZE, BOTH))).toEqual([
        "ERR_DMA_MAP",
        "ERANGE",
      ]);
      expect(stand.leaves).toEqual(leaves);
    }
  });

  test("a mapping of the first page of memory: Linux takes its physical address, 0, for none, and never unmaps it", () => {
    const run = (way: Partial<StandOptions>) => {
      const stand = translated(way);
      const address = stand.dma.mapPhys(PhysAddr(0), PAGE_SIZE, BOTH);
      stand.dma.unmapPhys(address, PAGE_SIZE, BOTH);
      return [stand.leaves.length, [...stand.ranges.live].length];
    };
    expect(run(LINUX)).toEqual([1, 1]);
    expect(run({})).toEqual([0, 0]);
  });
});
