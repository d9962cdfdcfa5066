import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterEach, describe, expect, test, vi } from "vitest";
import { Requests, type RequestValue, readRequests } from "../analysis/index.ts";
import { type Direction, Random } from "../base/index.ts";
import { NvmeNamespace } from "../consumers/nvme/index.ts";
import { FORMAT_NAMES } from "../layouts/pagetable/index.ts";
import { openTrace } from "../trace/index.ts";
import { compare, type NvmeReplay, replayAsNvme } from "./index.ts";

const traces = join(import.meta.dirname, "../../test/golden/traces");

async function golden(name: string): Promise<Requests> {
  const bytes = gunzipSync(readFileSync(join(traces, name)));
  return readRequests(await openTrace({ name, size: bytes.length, read: async (at, n) => bytes.subarray(at, at + n) }));
}

/** One request of the recording: when it began and ended (never, if negative), which way, and its memory. */
type Made = readonly [
  startMs: number,
  endMs: number,
  direction: Direction,
  ...pieces: (readonly [phys: number, length: number])[],
];

function recorded(list: readonly Made[]): Requests {
  return Requests.of(
    list.map(
      ([startMs, endMs, direction, ...pieces]): RequestValue => ({
        device: "0000:00:04.0",
        kind: "two-step",
        direction,
        segments: pieces.map(([phys, length]) => ({ phys, length, iova: 0x10_0000 })),
        startNs: startMs * 1e6,
        endNs: endMs < 0 ? undefined : endMs * 1e6,
      }),
    ),
  );
}

/** Requests of up to 64 KiB in pieces, some at once, some on pages of others. Whole pages, and `ragged` ones of every kind. */
function random(seed: number, requests: number, ragged = true): Requests {
  const draw = Random.fromSeed(seed);
  const list = Array.from({ length: requests }, (_, i): Made => {
    const direction = draw.pick(["bidirectional", "to-device", "from-device"] as const);
    const pieces = Array.from({ length: draw.between(1, 16) }, (): readonly [number, number] => {
      const page = draw.between(1, 200) * 4096;
      const isWhole = !ragged || draw.chance(3, 4);
      return isWhole ? [page, 4096] : [page + 512 * draw.below(4), 512 * draw.between(1, 4)];
    });
    return [i, i + 0.5 + draw.below(8), direction, ...pieces];
  });
  return recorded(list);
}

const right = (result: NvmeReplay): unknown => [result.mismatches, result.failed, result.firstFailure, result.leaks];
const RIGHT = [0, 0, undefined, []];
const twoStepOf = ({ strategies }: NvmeReplay) => strategies.find(({ name }) => name === "two-step")!;

describe("a load as NVMe commands", () => {
  afterEach(() => void vi.restoreAllMocks());

  for (const iommu of FORMAT_NAMES)
    for (const mode of ["strict", "lazy"] as const)
      test(`moves and checks every byte, and gives everything back: ${iommu}, ${mode}`, async () => {
        const result = await replayAsNvme(random(5, 80), { iommu, mode });
        expect(right(result)).toEqual(RIGHT);
        // Those that may go either way are written in one run and read in the next; the others go the same way twice.
        expect([result.bothWays > 0, result.verifiedBytes]).toEqual([true, result.bytes * 2]);
        expect([result.commands, result.split]).toEqual([80, 0]);
      });

  test("invalidates and syncs as often as two-step does, in strict mode", async () => {
    const result = await replayAsNvme(random(6, 100, false));
    const twoStep = twoStepOf(result);
    expect([result.cost.invalidations, twoStep.invalidations]).toEqual([100, 100]);
    expect(result.cost.pteWrites).toBeGreaterThan(0);
    // Pages for lists are mapped when they are first needed, one of each size here.
    expect(result.cost.mapSyncs - twoStep.mapSyncs).toBeLessThanOrEqual(2);
    expect(result.cost.metadataBytes).toBeLessThanOrEqual(twoStep.metadataBytes);
  });

  test("lazy: entries of the flush queue, and few invalidations", async () => {
    const { cost } = await replayAsNvme(random(6, 100, false), { mode: "lazy" });
    expect(cost.flushQueueEntries).toBe(100);
    expect(cost.invalidations).toBeLessThan(cost.flushQueueEntries);
  });

  test("pieces that do not join are mapped one by one, neighbours in memory together", async () => {
    const apart: Made = [0, 1, "to-device", [0x5000, 512], [0x9200, 512], [0x9400, 512], [0xd000, 512]];
    const { cost, strategies, scattered } = await replayAsNvme(recorded([apart]));
    expect([cost.invalidations, scattered, ...strategies.map(({ invalidations }) => invalidations)]).toEqual([
      3, 1, 4, 1, 4,
    ]);
  });

  test("caching mode: every sync is an invalidation too, and lazy becomes strict", async () => {
    const plain = await replayAsNvme(random(6, 60));
    const caching = await replayAsNvme(random(6, 60), { cachingMode: true, mode: "lazy" });
    expect(right(caching)).toEqual(RIGHT);
    expect(caching.cost.invalidations - caching.cost.mapSyncs).toBe(plain.cost.invalidations);
  });

  test("reads where the device wrote, writes where it read", async () => {
    const result = await replayAsNvme(
      recorded([
        [0, 1, "from-device", [0x5000, 4096]],
        [2, 3, "to-device", [0x5000, 4096]],
        [4, 5, "to-device", [0x9000, 4096]],
      ]),
    );
    expect([result.reads, result.writes, result.bothWays]).toEqual([1, 2, 0]);
    expect(result.verifiedBytes).toBe(3 * 4096);
  });

  test("requests overlap as they did, and the queue is as deep as that", async () => {
    const at = (i: number): readonly [number, number] => [0x10_0000 + i * 0x1000, 4096];
    const four = [0, 1, 2, 3].map((i): Made => [i, 10 + i, "to-device", at(i)]);
    const after = [0, 1].map((i): Made => [20 + i * 10, 25 + i * 10, "from-device", at(i)]);
    const result = await replayAsNvme(recorded([...four, ...after]));
    expect([result.queueDepth, result.commandsAtOnce, result.queues]).toEqual([4, 4, 1]);
    expect([result.submissionDoorbells, result.completionDoorbells, result.interrupts]).toEqual([6, 6, 6]);
  });

  test("more at once than a queue holds: more queues", async () => {
    const many = Array.from({ length: 1500 }, (_, i): Made => [i, 5000 + i, "to-device", [0x10_0000 + i * 4096, 4096]]);
    const result = await replayAsNvme(recorded(many));
    expect([result.queueDepth, result.queues, ...(right(result) as unknown[])]).toEqual([1500, 2, ...RIGHT]);
  });

  test("requests that use the same memory at once agree about it", async () => {
    const result = await replayAsNvme(
      recorded([
        [0, 9, "to-device", [0x5000, 8192]],
        [1, 5, "from-device", [0x6000, 8192]],
        [2, 8, "bidirectional", [0x5200, 1024]],
        [3, 4, "from-device", [0x5000, 512]],
      ]),
    );
    expect(right(result)).toEqual(RIGHT);
  });

  test("what the recording left mapped is sent, and its end not counted", async () => {
    const result = await replayAsNvme(
      recorded([
        [0, -1, "to-device", [0x5000, 4096]],
        [1, 2, "to-device", [0x9000, 4096]],
      ]),
    );
    expect([result.commands, result.interrupts, result.cost.iovaOps, result.cost.invalidations]).toEqual([2, 1, 3, 1]);
    expect(right(result)).toEqual(RIGHT);
  });

  test("longer requests are split by the block layer, and counted", async () => {
    const requests = recorded([
      [0, 1, "to-device", [0x10_0000, 300 * 1024]],
      [2, 3, "from-device", [0x10_0000, 128 * 1024]],
      [4, 5, "to-device", ...Array.from({ length: 300 }, (_, i) => [0x20_0000 + i * 4096, 256] as const)],
    ]);
    const result = await replayAsNvme(requests);
    // 128 + 128 + 44 KiB; one; 256 and 44 pieces.
    expect([result.commands, result.split, result.maxBytes, result.commandsAtOnce]).toEqual([6, 2, 131_072, 3]);
    expect(right(result)).toEqual(RIGHT);
  });

  test("a request cap is the controller's longest transfer", async () => {
    const requests = recorded([[0, 1, "to-device", [0x10_0000, 64 * 1024]]]);
    const capped = async (requestCap: number): Promise<number[]> => {
      const { maxBytes, commands } = await replayAsNvme(requests, { requestCap });
      return [maxBytes, commands];
    };
    expect(await capped(16_384)).toEqual([16_384, 4]);
    expect(await capped(28_672)).toEqual([16_384, 4]);
    expect(await capped(4096)).toEqual([8192, 8]);
  });

  test.each([
    { name: "one page", pieces: [[0x5000, 4096]], prps: 1, sgls: 0, lists: 0 },
    { name: "two pages", pieces: [[0x5000, 8192]], prps: 2, sgls: 0, lists: 0 },
    { name: "two pages and a bit, in one piece", pieces: [[0x5000, 8704]], prps: 0, sgls: 1, lists: 0 },
    {
      name: "three scattered pages, which an IOMMU joins",
      pieces: [
        [0x5000, 4096],
        [0x9000, 4096],
        [0x7000, 4096],
      ],
      prps: 3,
      sgls: 0,
      lists: 1,
    },
    {
      name: "two pieces that do not join",
      pieces: [
        [0x5000, 512],
        [0x9200, 512],
      ],
      prps: 0,
      sgls: 3,
      lists: 1,
    },
    {
      name: "32 KiB in two pieces, which an IOMMU joins",
      pieces: [
        [0x10_0000, 16_384],
        [0x20_0000, 16_384],
      ],
      prps: 0,
      sgls: 1,
      lists: 0,
    },
  ] as const)("describes $name with $prps PRPs, $sgls descriptors and $lists lists", async ({ pieces, ...counts }) => {
    const { prpEntries, sglDescriptors, lists } = await replayAsNvme(recorded([[0, 1, "to-device", ...pieces]]));
    expect([prpEntries, sglDescriptors, lists]).toEqual([counts.prps, counts.sgls, counts.lists]);
  });

  test("memory anywhere: below 1 MiB, in the hole of PCs, beyond a terabyte", async () => {
    const places = [4096, 3.5 * 2 ** 30, 2 ** 40 + 4096, 2 ** 47];
    const result = await replayAsNvme(
      recorded(places.map((phys, i): Made => [i, i + 0.5, "from-device", [phys, 8192]])),
    );
    expect([result.requests, ...(right(result) as unknown[])]).toEqual([4, ...RIGHT]);
  });

  test("much memory one after the other is forgotten on the way, and still right", async () => {
    const big = Array.from({ length: 6 }, (_, i): Made => [i, i + 0.5, "bidirectional", [(i + 1) * 2 ** 25, 2 ** 25]]);
    expect(right(await replayAsNvme(recorded(big)))).toEqual(RIGHT);
  });

  test("a driver that maps another page than it was given is found out, with the address", async () => {
    for (const way of ["read", "write"] as const) {
      const honest = NvmeNamespace.prototype[way];
      const spy = vi.spyOn(NvmeNamespace.prototype, way).mockImplementation(function (
        this: NvmeNamespace,
        block,
        vecs,
      ) {
        return honest.call(this, block, [{ ...vecs[0]!, phys: (vecs[0]!.phys + 4096) as never }]);
      });
      const direction = way === "read" ? "from-device" : "to-device";
      const { mismatches, firstMismatch } = await replayAsNvme(recorded([[0, 1, direction, [0x5000, 4096]]]));
      spy.mockRestore();
      expect(mismatches).toBeGreaterThan(4000); // but for bytes that are equal by chance
      expect(firstMismatch).toMatchObject({ command: way, request: 0 });
      expect(firstMismatch!.phys).toBeLessThan(0x5010);
    }
  });

  test("a command for blocks of another request is found out", async () => {
    const honest = NvmeNamespace.prototype.write;
    vi.spyOn(NvmeNamespace.prototype, "write").mockImplementation(function (this: NvmeNamespace, block, vecs) {
      return honest.call(this, block + 1, vecs);
    });
    const { firstMismatch } = await replayAsNvme(recorded([[0, 1, "to-device", [0x5000, 4096]]]));
    expect(firstMismatch).toMatchObject({ command: "write", request: 0, found: undefined });
  });

  test("a request that the controller refuses has failed, with its status", async () => {
    const honest = NvmeNamespace.prototype.write;
    vi.spyOn(NvmeNamespace.prototype, "write").mockImplementation(function (this: NvmeNamespace, _block, vecs) {
      return honest.call(this, this.blocks, vecs);
    });
    const { failed, firstFailure } = await replayAsNvme(recorded([[0, 1, "to-device", [0x5000, 4096]]]));
    expect([failed, firstFailure]).toEqual([1, expect.stringContaining("block")]);
  });

  test("the same trace and seed give the same answer", async () => {
    expect(await replayAsNvme(random(9, 30), { seed: 3 })).toEqual(await replayAsNvme(random(9, 30), { seed: 3 }));
  });

  test("nothing to replay is an empty answer, not an error", async () => {
    const result = await replayAsNvme(Requests.of([]));
    expect([result.requests, result.commands, ...(right(result) as unknown[])]).toEqual([0, 0, ...RIGHT]);
  });
});

describe("recorded loads of disks as NVMe commands", () => {
  test.each([
    ["strict-mix7030.dat.gz", 8],
    ["strict-unaligned.dat.gz", 4],
    ["strict-rr4k-qd1.dat.gz", 1],
    ["lazy-rr4k-qd32.dat.gz", 32],
    ["strict-sw1m-probes.dat.gz", 16],
    ["virtio-mix7030.dat.gz", 8],
  ])("%s: a command a request, %i at once, and as many invalidations as two-step", async (name, depth) => {
    const requests = await golden(name);
    const result = await replayAsNvme(requests);
    expect(right(result)).toEqual(RIGHT);
    expect(result.commands).toBe([...requests].filter(({ kind }) => kind !== "coherent").length);
    expect([result.split, result.queueDepth, result.commandsAtOnce]).toEqual([0, depth, depth]);
    expect(result.cost.invalidations).toBe(twoStepOf(result).invalidations);
    const whole = compare(requests).strategies.find(({ name: strategy }) => strategy === "two-step")!;
    expect(result.cost.invalidations).toBe(whole.invalidations);
    expect(result.interrupts).toBe(result.commands);
  });

  test("packets are no blocks: a network's load is left out, and counted", async () => {
    const requests = await golden("strict-net.dat.gz");
    const { requests: replayed, leftOut, mismatches } = await replayAsNvme(requests);
    expect(leftOut).toMatchObject({ coherent: 2, notBlocks: 3527 });
    expect(replayed + 2 + 3527).toBe(requests.count);
    expect(mismatches).toBe(0);
  });

  test("a guest's whole RAM is split into commands of 128 KiB", async () => {
    const result = await replayAsNvme(await golden("iommufd-vfio.dat.gz"));
    expect(right(result)).toEqual(RIGHT);
    expect([result.requests, result.commands, result.split]).toEqual([817, 4731, 206]);
  });
});
