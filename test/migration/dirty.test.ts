/** Who knows of writes: the device's log, the IOMMU's dirty bits, both together, and what a failure means. */
import { describe, expect, test } from "vitest";
import { DmaError, KiB, MiB, PAGE_SIZE, Random } from "../../src/base/index.ts";
import {
  DirtyBitmap,
  type DirtySource,
  DirtyTracker,
  deviceLogSource,
  iommuSource,
  RamLayout,
} from "../../src/consumers/vfio/index.ts";
import { NIC_COMMAND, NIC_STATUS } from "../../src/layouts/nic/index.ts";
import { amdV1, type TableLayout, vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { packet, type Stand, type StandOptions, stand, startReceiving } from "./stand.ts";

const errnoOf = (call: () => unknown): string | undefined => {
  try {
    call();
    return undefined;
  } catch (error) {
    return (error as DmaError).errno;
  }
};

/** Three ranges of a guest's memory, and random writes of its device into them. What was written, page by page. */
function scribble(place: Stand, ram: RamLayout, random: Random, packets: number): Set<number> {
  const truth = new Set<number>();
  for (let i = 0; i < packets; i++) {
    const page = random.below(ram.pageCount);
    startReceiving(place.first, ram.addressOf(page), 1);
    place.first.model.receive(packet(i, 64));
    truth.add(page);
  }
  return truth;
}

const pagesOf = (source: DirtySource, ram: RamLayout): Set<number> => {
  const pages = new Set<number>();
  source.collect((first, count) => {
    for (let page = first; page < first + count; page++) pages.add(page);
  });
  return new Set([...pages].filter((page) => page < ram.pageCount));
};

const RANGES = [
  { start: 0, length: 2 * MiB },
  { start: 3 * MiB, length: 512 * KiB },
  { start: 6 * MiB, length: MiB + 64 * KiB },
];

describe.each([
  ["VT-d", vtdSecondStage({ leafSizes: [0] }), vtdSecondStage({ leafSizes: [0, 9] })],
  ["AMD", amdV1({ leafSizes: [0] }), amdV1({ leafSizes: [0, 9] })],
] as const)("random writes over three ranges, %s tables", (_name, small, large) => {
  const run = (
    layout: TableLayout,
    seed: number,
  ): { truth: Set<number>; device: Set<number>; iommu: Set<number>; ram: RamLayout } => {
    const place = stand({ guestBytes: 8 * MiB, layout });
    const ram = new RamLayout(RANGES);
    const device = deviceLogSource("device", place.first.logging, ram);
    const iommu = iommuSource("iommu", place.domain, ram);
    const random = Random.fromSeed(seed);
    scribble(place, ram, random, 20); // before the start: nobody's business
    device.start();
    iommu.start();
    const truth = scribble(place, ram, random, 60);
    const found = { truth, device: pagesOf(device, ram), iommu: pagesOf(iommu, ram), ram };
    expect([pagesOf(device, ram).size, pagesOf(iommu, ram).size]).toEqual([0, 0]); // told and forgotten
    const again = scribble(place, ram, random, 10);
    expect(pagesOf(device, ram)).toEqual(again);
    const iommuAgain = pagesOf(iommu, ram);
    expect([...again].every((page) => iommuAgain.has(page))).toBe(true);
    device.stop();
    expect(place.close()).toEqual([]);
    return found;
  };

  test("the device's log is the truth, and so are dirty bits of leaves of 4 KiB", () => {
    for (let seed = 0; seed < 8; seed++) {
      const { truth, device, iommu } = run(small, seed);
      expect(device).toEqual(truth);
      expect(iommu).toEqual(truth);
    }
  });

  test("dirty bits of leaves of 2 MiB say 512 pages for each that was written, and the device's log the truth", () => {
    for (let seed = 0; seed < 8; seed++) {
      const { truth, device, iommu, ram } = run(large, seed);
      expect(device).toEqual(truth);
      const leaves = new Set([...truth].map((page) => Math.floor(ram.addressOf(page) / (2 * MiB))));
      const rounded = new Set<number>();
      for (const leaf of leaves)
        ram.eachRun(leaf * 2 * MiB, 2 * MiB, (first, count) => {
          for (let page = first; page < first + count; page++) rounded.add(page);
        });
      expect(iommu).toEqual(rounded);
      expect(iommu.size).toBeLessThanOrEqual(512 * truth.size);
    }
  });
});

describe("all that is known, together", () => {
  const tracked = (
    options?: StandOptions,
    sources: DirtySource[] = [],
  ): { place: Stand; ram: RamLayout; tracker: DirtyTracker } => {
    const place = stand({ layout: vtdSecondStage({ leafSizes: [0] }), ...options });
    const ram = new RamLayout([{ start: 0, length: place.guestBytes }]);
    const tracker = new DirtyTracker(
      [deviceLogSource("device", place.first.logging, ram), iommuSource("iommu", place.domain, ram), ...sources],
      ram,
    );
    return { place, ram, tracker };
  };

  test("a page is dirty if anybody says so: another device's writes, the processors'", () => {
    const processors: DirtySource = { name: "processors", start() {}, stop() {}, collect: (mark) => mark(1000, 3) };
    const { place, ram, tracker } = tracked({ card: { functions: 2 } }, [processors]);
    tracker.start();
    const [a, b] = place.functions;
    startReceiving(a!, 5 * PAGE_SIZE, 1);
    startReceiving(b!, 9 * PAGE_SIZE, 1);
    a!.model.receive(packet(1));
    b!.model.receive(packet(2)); // its own log does not run: the IOMMU knows
    const bitmap = new DirtyBitmap(ram.pageCount);
    expect(tracker.collect(bitmap)).toBe(true);
    expect([5, 9, 1000, 1001, 1002].every((page) => bitmap.has(page))).toBe(true);
    expect(bitmap.count).toBe(5);
    expect(Object.fromEntries(tracker.counts)).toMatchObject({
      device: { pages: 1 },
      iommu: { pages: 2 },
      processors: { pages: 3 },
    });
    tracker.stop();
    expect(place.close()).toEqual([]);
  });

  test("a log that cannot be trusted means that everything is dirty, once; then it is started anew", () => {
    const { place, ram, tracker } = tracked();
    tracker.start();
    startReceiving(place.first, 0, 1);
    place.first.model.receive(packet(1));
    place.first.model.log!.isLost = true;
    const bitmap = new DirtyBitmap(ram.pageCount);
    expect(tracker.collect(bitmap)).toBe(false);
    expect(bitmap.count).toBe(ram.pageCount);
    place.first.model.receive(packet(2));
    bitmap.clear();
    expect(tracker.collect(bitmap)).toBe(true);
    expect(bitmap.count).toBe(1);
    expect(tracker.counts.get("device")!.failures).toBe(1);
    tracker.stop();
    expect(place.close()).toEqual([]);
  });

  test.each(["REPORT_LOG", "NEXT_MESSAGE"] as const)("a report that fails half-way (%s) is no report", (name) => {
    const { place, ram, tracker } = tracked();
    tracker.start();
    place.card.failing.set(NIC_COMMAND[name], { status: NIC_STATUS.REFUSED, count: 1 });
    const bitmap = new DirtyBitmap(ram.pageCount);
    expect(tracker.collect(bitmap)).toBe(false);
    expect(bitmap.count).toBe(ram.pageCount);
    tracker.stop();
    expect(place.close()).toEqual([]);
  });

  test("a source that does not start stops those before it", () => {
    const { place, tracker } = tracked({}, [
      {
        name: "never",
        stop() {},
        collect() {},
        start: () => {
          throw new DmaError("ERR_DMA_TEST", "EINVAL", "no");
        },
      },
    ]);
    expect(errnoOf(() => tracker.start())).toBe("EINVAL");
    expect(place.first.model.log).toBeUndefined();
    expect(place.close()).toEqual([]);
  });

  test("a table without dirty bits cannot tell: everything is dirty", () => {
    const { place, ram } = tracked();
    const source: DirtySource = iommuSource(
      "none",
      {
        readDirty: () => {
          throw new DmaError("ERR_DMA_DIRTY", "EOPNOTSUPP", "no dirty bits");
        },
      },
      ram,
    );
    expect(errnoOf(() => source.start())).toBe("EOPNOTSUPP");
    place.close();
  });
});

describe("the card's log", () => {
  const range = (iova: bigint, length: bigint) => () => ({ iova, length });

  test("runs once: a second start is refused, and so is a report of none", () => {
    const { first, close } = stand();
    expect(errnoOf(() => first.logging.report(0n, 4096n, 4096n, () => {}))).toBe("EINVAL");
    first.logging.start(4096n, 1, range(0n, 65_536n));
    expect(errnoOf(() => first.logging.start(4096n, 1, range(0n, 65_536n)))).toBe("EINVAL");
    first.logging.stop();
    first.logging.stop();
    first.logging.start(4096n, 1, range(0n, 65_536n));
    first.logging.stop();
    expect(close()).toEqual([]);
  });

  test.each([
    ["coarser than asked: bits are repeated", { minLogUnit: 16_384 }, 16_384n, [0, 1, 2, 3]],
    ["as asked", {}, 4096n, [1]],
  ] as const)("in units that the device chooses, %s", (_what, card, unit, pages) => {
    const place = stand({ card });
    expect(place.first.logging.start(4096n, 1, range(0n, 1_048_576n))).toBe(unit);
    startReceiving(place.first, 4096, 1);
    place.first.model.receive(packet(1));
    const found: number[] = [];
    place.first.logging.report(0n, 1_048_576n, 4096n, (first, last) => {
      for (let bit = first; bit <= last; bit++) found.push(bit);
    });
    expect(found).toEqual(pages);
    place.first.logging.stop();
    expect(place.close()).toEqual([]);
  });

  test("with more ranges than the device has, neighbours become one; what lies between is told too", () => {
    const place = stand({ card: { maxLogRanges: 2 } });
    const ranges = [0n, 16_384n, 262_144n].map((iova) => ({ iova, length: 4096n }));
    place.first.logging.start(4096n, 3, (i) => ranges[i]!);
    for (const address of [0, 8192, 16_384, 131_072, 262_144]) {
      startReceiving(place.first, address, 1);
      place.first.model.receive(packet(1));
    }
    const found: number[] = [];
    place.first.logging.report(0n, 1_048_576n, 4096n, (first) => found.push(first));
    expect(found).toEqual([0, 2, 4, 64]); // 2 lies between two that were asked for; 32 lies beyond
    place.close();
  });

  test("tells more writes than one message holds, and each once", () => {
    const place = stand({ guestBytes: 64 * MiB });
    place.first.logging.start(4096n, 1, range(0n, BigInt(64 * MiB)));
    startReceiving(place.first, 0, 16_000);
    for (let i = 0; i < 10_000; i++) place.first.model.receive(packet(i, 8));
    const seen = new DirtyBitmap(16_384);
    let told = 0;
    place.first.logging.report(0n, BigInt(64 * MiB), 4096n, (first, last) => {
      seen.set(first, last - first + 1);
      told++;
    });
    expect([told, seen.count]).toEqual([10_000, 10_000]);
    place.first.logging.stop();
    expect(place.close()).toEqual([]);
  });

  test("only what is asked for is told and forgotten", () => {
    const place = stand();
    place.first.logging.start(4096n, 1, range(0n, 1_048_576n));
    startReceiving(place.first, 0, 8);
    for (let i = 0; i < 8; i++) place.first.model.receive(packet(i));
    const bits = (iova: bigint, length: bigint): number[] => {
      const found: number[] = [];
      place.first.logging.report(iova, length, 4096n, (first) => found.push(first));
      return found;
    };
    expect(bits(8192n, 8192n)).toEqual([0, 1]);
    expect(bits(8192n, 8192n)).toEqual([]);
    expect(bits(0n, 65_536n)).toEqual([0, 1, 4, 5, 6, 7]);
    place.close();
  });
});
