/** From a request to a data pointer, judged by the controller's own reading of it. */
import { describe, expect, test } from "vitest";
import { hex, KiB, MiB, PAGE_SIZE, Random } from "../../src/base/index.ts";
import { DmaIterator } from "../../src/consumers/block/index.ts";
import { CommandMapping, LARGE_BLOCK, type MapperOptions, SMALL_BLOCK } from "../../src/consumers/nvme/index.ts";
import { DataRuns, readSgl } from "../../src/hosts/simulated/devices/nvme/data.ts";
import { COMMAND, get64, NVME_STATUS, POINTERS, SGL_TYPE } from "../../src/layouts/nvme/index.ts";
import { many } from "../effort.ts";
import {
  A,
  Bench,
  intended,
  joined,
  LIMITS,
  PlainDoor,
  pages,
  type Run,
  requestOf,
  translated,
} from "./data-pointer-stand.ts";

describe("one segment", () => {
  const cases: [offset: number, length: number, prp1: string, prp2: string][] = [
    [0, 1, "0x10000000", "0x0"],
    [0, 4096, "0x10000000", "0x0"],
    [0, 4097, "0x10000000", "0x10001000"],
    [4, 4096, "0x10000004", "0x10001000"],
    [4092, 4, "0x10000ffc", "0x0"],
    [4092, 4100, "0x10000ffc", "0x10001000"],
    [0, 8192, "0x10000000", "0x10001000"],
  ];
  for (const [offset, length, prp1, prp2] of cases)
    test(`of ${length} bytes at offset ${offset} needs no list`, () => {
      const bench = new Bench(new PlainDoor());
      expect(bench.map(requestOf([[A + offset, length]]))).toBe("ok");
      expect([bench.prps, bench.mapping.form, bench.inUse]).toEqual([[prp1, prp2], "single", 0]);
    });

  for (const [offset, length] of [
    [4092, 4101],
    [0, 8193],
  ] as const)
    test(`of ${length} bytes at offset ${offset} does not fit two PRPs: a list of two, or one descriptor`, () => {
      const bench = new Bench(new PlainDoor());
      expect(bench.map(requestOf([[A + offset, length]]))).toBe("ok");
      const list = bench.mapping.blocks[0]!.view;
      expect([bench.prps[0], hex(get64(list, 0)), hex(get64(list, 8)), get64(list, 16)]).toEqual([
        hex(A + offset),
        "0x10001000",
        "0x10002000",
        0,
      ]);
      const withSgl = new Bench(new PlainDoor(), { sgls: true });
      expect(withSgl.map(requestOf([[A + offset, length]]))).toBe("ok");
      expect([withSgl.mapping.form, withSgl.command.getUint8(COMMAND.flags), withSgl.read(length).runs]).toEqual([
        "single",
        POINTERS.sgl,
        [[A + offset, length]],
      ]);
    });
});

describe("PRP lists of page-aligned requests", () => {
  const cases: [count: number, block: number, slots: number[]][] = [
    [1, 0, []],
    [2, 0, []],
    [3, SMALL_BLOCK, [2]],
    [33, SMALL_BLOCK, [32]],
    [34, LARGE_BLOCK, [33]],
    [512, LARGE_BLOCK, [511]],
    [513, LARGE_BLOCK, [512]],
    [514, LARGE_BLOCK, [512, 2]],
    [1024, LARGE_BLOCK, [512, 512]],
    [1025, LARGE_BLOCK, [512, 512, 2]],
    [2048, LARGE_BLOCK, [512, 512, 512, 512, 3]],
  ];
  const slotsOf = (view: DataView): number => {
    let slots = 0;
    while (slots * 8 < view.byteLength && get64(view, slots * 8) !== 0) slots++;
    return slots;
  };
  for (const [count, block, slots] of cases)
    test(`${count} pages: ${slots.length === 0 ? "no list" : `slots ${slots.join(", ")}`}`, () => {
      const bench = new Bench(new PlainDoor());
      expect(bench.map(requestOf([[A, count * PAGE_SIZE]]))).toBe("ok");
      expect(bench.mapping.blocks.slice(0, bench.mapping.blockCount).map(({ view }) => slotsOf(view))).toEqual(slots);
      for (const { view } of bench.mapping.blocks.slice(0, bench.mapping.blockCount))
        expect(view.byteLength).toBe(block);
      expect(bench.read(count * PAGE_SIZE)).toEqual({ status: 0, runs: [[A, count * PAGE_SIZE]] });
      bench.mapper.unmap(bench.mapping);
      expect(bench.inUse).toBe(0);
    });

  test("8 MiB that begin four bytes before a page's end need one slot more", () => {
    const bench = new Bench(new PlainDoor());
    expect(bench.map(requestOf([[A + 4092, 8 * MiB]]))).toBe("ok");
    expect(bench.mapping.blocks.slice(0, bench.mapping.blockCount).map(({ view }) => slotsOf(view))).toEqual([
      512, 512, 512, 512, 4,
    ]);
    expect(bench.read(8 * MiB).runs).toEqual([[A + 4092, 8 * MiB]]);
  });
});

describe("the choice between PRPs and SGLs", () => {
  const flags = (options: Partial<MapperOptions>, vecs: readonly Run[], passthrough = false): number => {
    const bench = new Bench(new PlainDoor(), options);
    expect(bench.map(requestOf(vecs), passthrough)).toBe("ok");
    return bench.command.getUint8(COMMAND.flags);
  };

  test("a gap inside a page needs an SGL", () => {
    const gap: Run[] = [
      [A + 512, 1024],
      [A + 0x5200, 1024],
    ];
    expect(flags({ sgls: true }, gap)).toBe(POINTERS.sgl);
    expect(flags({ sgls: true, sglThreshold: 0 }, gap)).toBe(POINTERS.sgl);
  });

  test("a user's own command gets an SGL", () => expect(flags({ sgls: true }, pages(2), true)).toBe(POINTERS.sgl));

  test("segments of 32 KiB on average get an SGL; shorter ones, or none wanted, PRPs", () => {
    const long: Run[] = [
      [A, 32 * KiB],
      [A + 2 * MiB, 32 * KiB],
    ];
    expect(flags({ sgls: true }, long)).toBe(POINTERS.sgl);
    expect(flags({ sgls: true, sglThreshold: 0 }, long)).toBe(POINTERS.prp);
    expect(flags({ sgls: false }, long)).toBe(POINTERS.prp);
    expect(flags({ sgls: true }, pages(16))).toBe(POINTERS.prp);
    expect(flags({ sgls: true, sglThreshold: 4096 }, pages(16))).toBe(POINTERS.sgl);
  });

  test("256 scattered pages, direct: 255 PRPs in one page, or an SGL of 4096 bytes", () => {
    const prp = new Bench(new PlainDoor(), { sgls: true });
    expect(prp.map(requestOf(pages(256)))).toBe("ok");
    expect([prp.mapping.blockCount, prp.read(MiB).runs.length]).toEqual([1, 256]);
    const sgl = new Bench(new PlainDoor(), { sgls: true, sglThreshold: 4096 });
    expect(sgl.map(requestOf(pages(256)))).toBe("ok");
    expect([
      sgl.command.getUint32(COMMAND.dataPointer + 8, true),
      sgl.command.getUint8(COMMAND.dataPointer + 15),
    ]).toEqual([4096, SGL_TYPE.lastSegment]);
    expect(sgl.read(MiB).runs).toEqual(pages(256));
  });

  test("a request that PRPs cannot express is an error, and nothing stays mapped", () => {
    const ops = new PlainDoor();
    const bench = new Bench(ops);
    expect(
      bench.map(
        requestOf([
          [A + 512, 1024],
          [A + 0x5200, 1024],
        ]),
      ),
    ).toBe("io-error");
    expect([bench.inUse, ops.live.size]).toEqual([0, 0]);
  });
});

describe("descriptors that an untrusted device has written over", () => {
  for (const sgls of [false, true])
    test(`are not believed: what is unmapped is what was mapped (${sgls ? "SGL" : "PRPs"})`, () => {
      const ops = new PlainDoor();
      const bench = new Bench(ops, { sgls, sglThreshold: 4096, untrusted: true });
      expect(bench.map(requestOf(pages(20)))).toBe("ok");
      for (const { view } of bench.mapping.blocks)
        for (let at = 0; at < view.byteLength; at += 4) view.setUint32(at, 0xdeadbeef);
      bench.mapper.unmap(bench.mapping);
      expect([ops.live.size, bench.inUse]).toEqual([0, 0]);
    });
});

test("a request without data maps nothing, and that is no error", () => {
  const iterator = new DmaIterator();
  const mapped = new CommandMapping().data;
  expect(iterator.start(new PlainDoor(), undefined, "data", 0, 0, LIMITS, "to-device", mapped)).toBe(false);
  expect([iterator.status, mapped.range]).toEqual(["ok", undefined]);
});

describe("metadata", () => {
  const data: Run[] = [[A, 32 * KiB]];
  const three: Run[] = [
    [0x900_0000, 200],
    [0x910_0000, 200],
    [0x920_0000, 112],
  ];

  test("in three segments is a last segment of 48 bytes in slot 0 of a small block", () => {
    const ops = new PlainDoor();
    const bench = new Bench(ops, { sgls: true, metadataSgls: true });
    const request = requestOf(data, undefined, three);
    expect(bench.map(request)).toBe("ok");
    expect(bench.mapper.mapMetadata(bench.mapping, request, bench.command, 0)).toBe("ok");
    expect(bench.command.getUint8(COMMAND.flags)).toBe(POINTERS.sglMetadata);
    const block = bench.mapping.metadataBlock!;
    expect(get64(bench.command, COMMAND.metadataPointer)).toBe(block.address);
    expect([get64(block.view, 0), block.view.getUint32(8, true), block.view.getUint8(15)]).toEqual([
      block.address + 16,
      48,
      SGL_TYPE.lastSegment,
    ]);
    const runs = new DataRuns();
    expect(readSgl(bench.memory, block.view, 0, 512, runs, false)).toBe(NVME_STATUS.success);
    expect(runs.addresses).toEqual(three.map(([address]) => address));
    bench.mapper.unmap(bench.mapping);
    expect([bench.inUse, ops.live.size]).toEqual([0, 0]);
  });

  test("in one segment is a plain address", () => {
    const ops = new PlainDoor();
    const bench = new Bench(ops, { sgls: true, metadataSgls: true });
    const request = requestOf(data, undefined, [[0x900_0000, 512]]);
    expect(bench.map(request)).toBe("ok");
    expect(bench.mapper.mapMetadata(bench.mapping, request, bench.command, 0)).toBe("ok");
    expect([bench.command.getUint8(COMMAND.flags), get64(bench.command, COMMAND.metadataPointer)]).toEqual([
      POINTERS.sgl,
      0x900_0000,
    ]);
    bench.mapper.unmap(bench.mapping);
    expect(ops.live.size).toBe(0);
  });
});

describe("any request", () => {
  const cases = many(1500);

  /** A request that the queue would have built: for PRPs without gaps inside pages. */
  function randomRequest(random: Random, prpOnly: boolean, most: number): Run[] {
    const count = 1 + random.below(random.chance(1, 8) ? 60 : 8);
    const vecs: [number, number][] = [];
    let total = 0;
    for (let i = 0; i < count && total < most; i++) {
      const first = i === 0;
      const last = i === count - 1;
      const gapless = prpOnly || random.chance(1, 2);
      const page = A + random.below(2 ** 20) * PAGE_SIZE;
      const before = vecs.at(-1);
      const follows = before !== undefined && (before[0] + before[1]) % PAGE_SIZE === 0 && random.chance(1, 4);
      const offset = gapless && !first ? 0 : random.below(1024) * 4;
      let length = gapless && !last ? (1 + random.below(4)) * PAGE_SIZE - offset : 4 + random.below(4000) * 4;
      length = Math.max(4, Math.min(length, most - total));
      if (follows) vecs.push([before[0] + before[1], length]);
      else vecs.push([page + (gapless && !first ? 0 : offset), length]);
      total += length;
      if (prpOnly && !last && (vecs.at(-1)![0] + length) % PAGE_SIZE !== 0) break;
    }
    return vecs;
  }

  for (const way of ["direct", "behind an IOMMU"] as const)
    test(`${way}: the controller reads exactly the bytes that were meant, and nothing is left (${cases} cases)`, () => {
      const random = Random.fromSeed(0x5eed);
      const plain = new PlainDoor();
      const { ops, back, mapped } = translated();
      for (let i = 0; i < cases; i++) {
        const sgls = random.chance(1, 2);
        const options = { sgls, sglThreshold: random.pick([0, 4096, 32_768]), untrusted: random.chance(1, 4) };
        const bench = new Bench(way === "direct" ? plain : ops, options);
        const vecs = randomRequest(random, !sgls, way === "direct" && random.chance(1, 20) ? 4 * MiB : 128 * KiB);
        const request = requestOf(vecs);
        expect([i, bench.map(request)]).toEqual([i, "ok"]);
        const { status, runs } = bench.read(request.bytes);
        expect([i, status]).toEqual([i, NVME_STATUS.success]);
        expect(joined(way === "direct" ? runs : back(runs))).toEqual(intended(request));
        bench.mapper.unmap(bench.mapping);
        expect([i, bench.inUse, plain.live.size, mapped()]).toEqual([i, 0, 0, 0]);
      }
    });

  test("whichever allocation fails, it says resource, leaves nothing, and works the next time", () => {
    const random = Random.fromSeed(7);
    for (let i = 0; i < 200; i++) {
      const vecs = i === 0 ? pages(200).concat([[A + 2 ** 32, 2 * MiB]]) : randomRequest(random, true, 4 * MiB);
      for (let failAt = 1; ; failAt++) {
        const ops = new PlainDoor();
        const bench = new Bench(ops, { sgls: i % 2 === 1, sglThreshold: 1 });
        bench.memory.failAt = failAt;
        const status = bench.map(requestOf(vecs));
        if (status === "ok" && bench.memory.asked < failAt) break;
        expect([status, bench.inUse, ops.live.size]).toEqual(["resource", 0, 0]);
        expect(bench.map(requestOf(vecs))).toBe("ok");
      }
      for (let failAt = 1; ; failAt++) {
        const ops = new PlainDoor();
        const bench = new Bench(ops, { sgls: i % 2 === 1 });
        ops.failAt = failAt;
        const status = bench.map(requestOf(vecs));
        if (ops.calls < failAt) break;
        expect([status, bench.inUse, ops.live.size]).toEqual(["resource", 0, 0]);
      }
    }
  });
});
