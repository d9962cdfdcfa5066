import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { DmaError, type Errno, KiB, MiB } from "../../base/index.ts";
import {
  Bio,
  BlockRequest,
  combineGaps,
  DEFAULT_LIMITS,
  gapMask,
  isRetryable,
  junctionGap,
  PhysicalVectors,
  type QueueLimits,
  requestLimit,
  statusOfErrno,
  statusOfError,
  VectorList,
} from "./index.ts";

type Vec = readonly [phys: number, length: number];
const limits = (more: Partial<QueueLimits> = {}): QueueLimits => ({ ...DEFAULT_LIMITS, ...more });

function listOf(vecs: readonly Vec[], provider?: object): VectorList {
  const list = new VectorList();
  for (const [phys, length] of vecs) list.add(phys, length, provider);
  return list;
}

function bioOf(vecs: readonly Vec[], with_: QueueLimits = limits(), firstBlock = 0): Bio {
  const bio = new Bio();
  bio.set("read", firstBlock, listOf(vecs), with_);
  return bio;
}

/** All parts of a bio, as they would be sent. */
function split(bio: Bio, with_: QueueLimits): Bio[] {
  const parts: Bio[] = [];
  for (let more = true; more; ) {
    const part = new Bio();
    more = bio.split(with_, part);
    parts.push(part);
  }
  return parts;
}

function piecesOf(bio: Bio | undefined, with_: QueueLimits = limits(), what: "data" | "integrity" = "data"): Vec[] {
  const vectors = new PhysicalVectors();
  vectors.start(bio, with_, what);
  const pieces: Vec[] = [];
  while (vectors.next()) pieces.push([vectors.phys, vectors.length]);
  return pieces;
}

/** Where each 4 bytes lie, one by one: slow, and obviously right. */
const words = (pieces: readonly Vec[]): number[] =>
  pieces.flatMap(([phys, length]) => Array.from({ length: length / 4 }, (_, i) => phys + 4 * i));

/** Vectors of whole words in a small memory, so that neighbours and gaps both happen; block by block. */
const vectors = fc
  .array(
    fc.record({ page: fc.nat(6), offset: fc.nat(127), words: fc.integer({ min: 1, max: 1500 }), after: fc.boolean() }),
    { minLength: 1, maxLength: 14 },
  )
  .map((parts) => {
    const vecs: [number, number][] = [];
    for (const { page, offset, words: count, after } of parts) {
      const last = vecs.at(-1);
      vecs.push([after && last ? last[0] + last[1] : page * 4096 + offset * 32, count * 4]);
    }
    const total = vecs.reduce((sum, [, length]) => sum + length, 0);
    if (total % 512 !== 0) vecs.push([0x9000, 512 - (total % 512)]);
    return vecs as Vec[];
  });

describe("the gap mask", () => {
  const cases: [string, Vec[], number, boolean, boolean][] = [
    [
      "whole pages",
      [
        [0x1000, 4096],
        [0x5000, 4096],
      ],
      13,
      true,
      false,
    ],
    [
      "inside pages",
      [
        [0x1200, 1024],
        [0x5200, 1024],
      ],
      10,
      false,
      false,
    ],
    [
      "unaligned ends only",
      [
        [0x1064, 3996],
        [0x5000, 4096],
        [0x9000, 77],
      ],
      13,
      true,
      false,
    ],
    [
      "larger vectors",
      [
        [0x10000, 8192],
        [0x50000, 16384],
      ],
      14,
      true,
      false,
    ],
    [
      "one that ends early",
      [
        [0x1000, 4096],
        [0x5800, 2048],
        [0x9000, 4096],
      ],
      12,
      false,
      false,
    ],
    [
      "four pages each",
      [
        [0x10000, 16384],
        [0x50000, 16384],
      ],
      15,
      true,
      true,
    ],
    ["a single vector", [[0x1234, 100]], 0, true, true],
  ];
  for (const [name, vecs, stored, fits4, fits16] of cases)
    test(`${name}: 4 KiB ${fits4 ? "fits" : "does not"}, 16 KiB ${fits16 ? "fits" : "does not"}`, () => {
      const bio = bioOf(vecs, limits({ blockBytes: 1 }));
      const [part] = split(bio, limits({ blockBytes: 1 }));
      expect(part!.gap).toBe(stored);
      expect((gapMask(part!.gap) & 4095) === 0).toBe(fits4);
      expect((gapMask(part!.gap) & 16_383) === 0).toBe(fits16);
    });

  test("of two parts is that of the worse one; none is worse than nothing", () => {
    expect([combineGaps(0, 13), combineGaps(13, 0), combineGaps(10, 13), combineGaps(0, 0)]).toEqual([13, 13, 10, 0]);
  });

  test("is about places inside pages: neighbours that meet inside a page count, though the iterator joins them", () => {
    expect(junctionGap(0x1000, 1000, 0x1000 + 1000)).toBe(4);
    expect(
      piecesOf(
        bioOf(
          [
            [0x1000, 1000],
            [0x13e8, 1048],
          ],
          limits({ blockBytes: 1 }),
        ),
      ),
    ).toEqual([[0x1000, 2048]]);
  });
});

describe("a list of vectors", () => {
  test("takes memory of one provider only", () => {
    const cmb = { name: "a peer" };
    const list = listOf([[0x1000, 4096]], cmb);
    expect(() => list.add(0x9000, 4096)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_BLOCK_MIXED", errno: "EINVAL" }),
    );
    expect(() => list.add(0x9000, 4096, {})).toThrow(expect.objectContaining({ code: "ERR_DMA_BLOCK_MIXED" }));
    expect(list.bytes).toBe(4096);
  });

  test("refuses what can be no memory", () => {
    for (const [phys, length] of [
      [-1, 4],
      [0.5, 4],
      [0, 0],
      [0, -4],
      [2 ** 53, 4],
      [0, Number.NaN],
    ] as Vec[])
      expect(() => listOf([[phys, length]])).toThrow(expect.objectContaining({ code: "ERR_DMA_BLOCK_VECTOR" }));
  });
});

describe("a bio", () => {
  test("is refused if it is not in whole blocks", () => {
    expect(() => bioOf([[0, 1000]])).toThrow(expect.objectContaining({ code: "ERR_DMA_BLOCK_ALIGNMENT" }));
    expect(() => new Bio().set("read", 0, new VectorList(), limits())).toThrow(
      expect.objectContaining({ code: "ERR_DMA_BLOCK_ALIGNMENT" }),
    );
  });

  test("with a peer's memory is refused by a queue that takes none", () => {
    const list = listOf([[0x1000, 4096]], {});
    expect(() => new Bio().set("read", 0, list, limits())).toThrow(
      expect.objectContaining({ code: "ERR_DMA_BLOCK_PEER", errno: "EREMOTEIO" }),
    );
    new Bio().set("read", 0, list, limits({ peerMemory: true }));
  });

  test("of 129 KiB behind an IOMMU becomes 128 KiB and 1 KiB", () => {
    const behind = limits({ maxBytes: 128 * KiB });
    const parts = split(bioOf([[0x10000, 129 * KiB]], behind, 100), behind);
    expect(parts.map(({ data, firstBlock }) => [data.bytes, firstBlock])).toEqual([
      [128 * KiB, 100],
      [1 * KiB, 356],
    ]);
  });

  test("is split where a device that knows only whole pages could not go on", () => {
    const pages = limits({ virtualBoundaryMask: 4095 });
    const parts = split(
      bioOf(
        [
          [0x1200, 1024],
          [0x5200, 1024],
        ],
        pages,
      ),
      pages,
    );
    expect(parts.map((part) => piecesOf(part))).toEqual([[[0x1200, 1024]], [[0x5200, 1024]]]);
  });

  test("of which not even one block fits is refused, and says why", () => {
    const pages = limits({ virtualBoundaryMask: 4095, blockBytes: 4096 });
    const bio = bioOf(
      [
        [0x1200, 1024],
        [0x5200, 3072],
      ],
      pages,
    );
    expect(() => split(bio, pages)).toThrow(expect.objectContaining({ code: "ERR_DMA_BLOCK_SPLIT" }));
  });

  test("split anywhere, is the same bytes in the same order, each part within the limits", () => {
    const limit = fc.record({
      maxBytes: fc.integer({ min: 1, max: 40 }).map((blocks) => blocks * 512),
      maxSegments: fc.integer({ min: 12, max: 20 }),
      maxSegmentBytes: fc.integer({ min: 128, max: 2000 }).map((count) => count * 4),
      segmentBoundaryMask: fc.constantFrom(4095, 8191, Number.MAX_SAFE_INTEGER),
    });
    fc.assert(
      fc.property(vectors, limit, (vecs, more) => {
        const with_ = limits({ ...more, maxSegments: more.maxSegments + 8 });
        const bio = bioOf(vecs, with_, 7);
        let parts: Bio[];
        try {
          parts = split(bio, with_);
        } catch (error) {
          expect((error as DmaError).code).toBe("ERR_DMA_BLOCK_SPLIT"); // a block in too many crumbs
          return;
        }
        expect(parts.flatMap((part) => words(piecesOf(part, with_)))).toEqual(words(vecs));
        let block = 7;
        for (const part of parts) {
          expect(part.firstBlock).toBe(block);
          block += part.data.bytes / 512;
          expect(part.data.bytes % 512).toBe(0);
          expect(part.data.bytes).toBeLessThanOrEqual(with_.maxBytes);
          expect(part.segments).toBeLessThanOrEqual(with_.maxSegments);
          expect(piecesOf(part, with_).length).toBeLessThanOrEqual(part.segments);
          for (const [phys, length] of piecesOf(part, with_)) {
            expect(length).toBeLessThanOrEqual(with_.maxSegmentBytes);
            if (with_.segmentBoundaryMask < 2 ** 40)
              expect(Math.floor(phys / (with_.segmentBoundaryMask + 1))).toBe(
                Math.floor((phys + length - 1) / (with_.segmentBoundaryMask + 1)),
              );
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test("takes its metadata along when it is split", () => {
    const with_ = limits({ maxBytes: 1024, maxIntegritySegments: 4 });
    const bio = new Bio();
    bio.set(
      "write",
      0,
      listOf([[0x1000, 4096]]),
      with_,
      listOf([
        [0x90000, 40],
        [0x98000, 24],
      ]),
      8,
    );
    const parts = split(bio, with_);
    expect(parts.map((part) => piecesOf(part, with_, "integrity"))).toEqual([
      [[0x90000, 16]],
      [[0x90010, 16]],
      [
        [0x90020, 8],
        [0x98000, 8],
      ],
      [[0x98008, 16]],
    ]);
    expect(parts.map(({ integritySegments }) => integritySegments)).toEqual([1, 1, 2, 1]);
  });

  test("with too much metadata, or in too many vectors, is refused", () => {
    const with_ = limits();
    const set = (...integrity: Vec[]) =>
      new Bio().set("write", 0, listOf([[0x1000, 1024]]), with_, listOf(integrity), 8);
    expect(() => set([0x90000, 24])).toThrow(expect.objectContaining({ code: "ERR_DMA_BLOCK_INTEGRITY" }));
    expect(() => set([0x90000, 8], [0x98000, 8])).toThrow(expect.objectContaining({ code: "ERR_DMA_BLOCK_INTEGRITY" }));
    set([0x90000, 16]);
  });
});

describe("a request", () => {
  const part = (firstBlock: number, ...vecs: Vec[]): Bio => {
    const front = new Bio();
    bioOf(vecs, limits(), firstBlock).split(limits(), front);
    return front;
  };

  test("takes bios on adjacent blocks, and is then all of their bytes", () => {
    const request = new BlockRequest();
    request.start(part(0, [0x1000, 4096]));
    expect(request.tryAppend(part(8, [0x5000, 4096], [0x9000, 512]), limits())).toBe(true);
    expect([request.bytes, request.segments, request.gap]).toEqual([8704, 3, 13]);
    expect(piecesOf(request.first)).toEqual([
      [0x1000, 4096],
      [0x5000, 4096],
      [0x9000, 512],
    ]);
  });

  test("skips the junction of two bios that are neighbours in memory: they become one vector", () => {
    const request = new BlockRequest();
    request.start(part(0, [0x1200, 512]));
    expect(request.tryAppend(part(1, [0x1400, 512]), limits())).toBe(true);
    expect([request.gap, request.segments]).toEqual([0, 2]);
    expect(piecesOf(request.first)).toEqual([[0x1200, 1024]]);
  });

  test("refuses what does not belong to it or would be too much", () => {
    const refused = (second: Bio, with_: QueueLimits = limits()): boolean => {
      const request = new BlockRequest();
      request.start(part(0, [0x1000, 4096]));
      const taken = request.tryAppend(second, with_);
      expect(request.bytes).toBe(taken ? 8192 : 4096);
      return !taken;
    };
    expect(refused(part(8, [0x5000, 4096]))).toBe(false);
    expect(refused(part(9, [0x5000, 4096]))).toBe(true); // not adjacent
    expect(refused(part(8, [0x5000, 4096]), limits({ maxBytes: 8191 }))).toBe(true);
    expect(refused(part(8, [0x5000, 4096]), limits({ maxSegments: 1 }))).toBe(true);
    expect(refused(part(8, [0x5200, 4096]), limits({ virtualBoundaryMask: 4095 }))).toBe(true);
    const write = part(8, [0x5000, 4096]);
    write.operation = "write";
    expect(refused(write)).toBe(true);
    const peer = new Bio();
    const all = new Bio();
    all.set("read", 8, listOf([[0x5000, 4096]], {}), limits({ peerMemory: true }));
    all.split(limits(), peer);
    expect(refused(peer)).toBe(true);
  });

  test("appended part by part after any split, is what it was before", () => {
    fc.assert(
      fc.property(vectors, fc.integer({ min: 1, max: 20 }), (vecs, blocks) => {
        const pieces = split(bioOf(vecs), limits({ maxBytes: blocks * 512 }));
        const ends = pieces.map((piece) => [piecesOf(piece)[0]!, piecesOf(piece).at(-1)!] as const);
        const request = new BlockRequest();
        request.start(pieces[0]!);
        for (const piece of pieces.slice(1)) expect(request.tryAppend(piece, limits())).toBe(true);
        expect(words(piecesOf(request.first))).toEqual(words(vecs));
        expect(request.bytes).toBe(vecs.reduce((sum, [, length]) => sum + length, 0));
        // Junctions are those inside the parts, and between two parts that are not neighbours in memory.
        let gap = 0;
        for (const [i, piece] of pieces.entries()) {
          gap = combineGaps(gap, piece.gap);
          const [before, after] = [ends[i - 1]?.[1], ends[i]![0]];
          if (before && before[0] + before[1] !== after[0]) gap = combineGaps(gap, junctionGap(...before, after[0]));
        }
        expect(request.gap).toBe(gap);
      }),
      { numRuns: 300 },
    );
  });
});

describe("limits", () => {
  test("a request is at most 128 KiB behind an IOMMU, 252 KiB bounced, 8 MiB direct, and never less than a block", () => {
    const none = Number.POSITIVE_INFINITY;
    expect(requestLimit(8 * MiB, { maxMappingSize: none, optMappingSize: 128 * KiB }, 512)).toBe(128 * KiB);
    expect(requestLimit(8 * MiB, { maxMappingSize: 252 * KiB, optMappingSize: 252 * KiB }, 512)).toBe(252 * KiB);
    expect(requestLimit(8 * MiB, { maxMappingSize: none, optMappingSize: none }, 512)).toBe(8 * MiB);
    expect(requestLimit(64 * KiB, { maxMappingSize: none, optMappingSize: 128 * KiB }, 512)).toBe(64 * KiB);
    expect(requestLimit(5000, { maxMappingSize: none, optMappingSize: none }, 4096)).toBe(4096);
    expect(requestLimit(8 * MiB, { maxMappingSize: none, optMappingSize: 128 * KiB }, 512, true)).toBe(8 * MiB);
  });
});

describe("block status", () => {
  test("says for each error of the mapping layer whether to try again", () => {
    const of = (errno: Errno) => statusOfErrno(errno);
    expect(of("ENOMEM")).toBe("resource");
    expect(of("EOPNOTSUPP")).toBe("not-supported");
    expect(of("EINVAL")).toBe("invalid");
    expect(of("EBUSY")).toBe("device-resource");
    expect(of("ENODEV")).toBe("offline");
    expect(of("EREMOTEIO")).toBe("target");
    for (const errno of ["EIO", "EPERM", "ENXIO", "ERANGE", "EADDRINUSE"] as const) expect(of(errno)).toBe("io-error");
    expect((["resource", "device-resource", "io-error", "invalid", "target"] as const).map(isRetryable)).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });

  test("is not made of a defect: that is thrown on", () => {
    expect(statusOfError(new DmaError("ERR_DMA_X", "ENOMEM", "x"))).toBe("resource");
    expect(() => statusOfError(new TypeError("a defect"))).toThrow(TypeError);
  });
});
