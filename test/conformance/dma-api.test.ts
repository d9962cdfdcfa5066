/**
 * What the DMA API promises, whichever way the memory is reached and whatever the format of the tables: one suite, run over
 * strict, lazy, bounced, non-coherent and confidential behind every page-table format, and over the same ways without an
 * IOMMU. What a way cannot do stands there with its reason.
 *
 * Bytes are compared on both sides of a simulated machine whose IOMMU walks the tables with its own code and forgets nothing
 * by itself, whose caches maintain nothing by themselves, and whose private pages no device outside can touch.
 */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Direction, deviceReads, deviceWrites, PhysAddr } from "../../src/base/index.ts";
import type { DmaVec, PhysVec } from "../../src/dma/index.ts";
import { outcome, pattern, type Stand } from "../dma/stand.ts";
import { build, directWays, translatedWays, type Way } from "./dma-ways.ts";
import { type Format, formats } from "./formats.ts";

const BOTH = "bidirectional";
const DIRECTIONS: readonly Direction[] = [BOTH, "to-device", "from-device"];

/** One seed for all properties: a failure prints it with the path to its case. */
const forAll = <T>(arbitrary: fc.Arbitrary<T>, numRuns: number, property: (value: T) => void): void =>
  fc.assert(fc.property(arbitrary, property), { seed: 0x5eed, numRuns });

/** Compares bytes, and names the first that differs. */
function expectBytes(actual: Uint8Array | undefined, expected: Uint8Array, what = "bytes"): void {
  if (!actual) expect.fail(`${what}: refused`);
  if (actual.length === expected.length && Buffer.compare(actual, expected) === 0) return;
  const at = expected.findIndex((byte, i) => actual[i] !== byte);
  expect.fail(`${what}: byte ${at} of ${expected.length} is ${actual[at]}, expected ${expected[at]}`);
}

/** Memory that is filled, and a copy of what must be in it. */
class Filled {
  readonly phys: PhysAddr;
  readonly bytes: Uint8Array;
  readonly #stand: Stand;

  constructor(stand: Stand, length: number, seed = 1, shared = true) {
    this.#stand = stand;
    this.phys = stand.block(length, shared);
    this.bytes = pattern(length, seed);
    stand.cpuWrite(this.phys, this.bytes);
  }

  /** The CPU sees what must be there, to the last byte. */
  check(what = "memory"): void {
    expectBytes(this.#stand.cpuRead(this.phys, this.bytes.length), this.bytes, what);
  }
}

/** A part of `granules` granules, in whole lines. */
const part = (line: number, bytes: number): fc.Arbitrary<{ inside: number; length: number }> =>
  fc.tuple(fc.nat(bytes / line - 1), fc.nat(bytes / line - 1)).map(([a, b]) => ({
    inside: Math.min(a, b) * line,
    length: (Math.abs(a - b) + 1) * line,
  }));

/** Pieces of one block: some touch, some lie on granules, most do neither. */
const pieces = (line: number, granule: number): fc.Arbitrary<{ offset: number; length: number }[]> => {
  const most = Math.min(granule + 4096, 24_576) / line;
  const piece = fc.record({
    touches: fc.boolean(),
    whole: fc.boolean(),
    inside: fc.nat(granule / line - 1),
    length: fc.integer({ min: 1, max: most }),
  });
  return fc.array(piece, { minLength: 1, maxLength: 5 }).map((list) => {
    let end = 0;
    return list.map(({ touches, whole, inside, length }) => {
      const next = Math.ceil((end + 1) / granule) * granule;
      const offset = touches ? end : whole ? next : next + inside * line;
      const bytes = whole ? granule : length * line;
      end = offset + bytes;
      return { offset, length: bytes };
    });
  });
};

type Mapped = { outputs: readonly DmaVec[]; toCpu(): void; toDevice(): void; unmap(): void };

/** The calls that map pieces that lie anywhere. */
const CALLS: Readonly<Record<string, (stand: Stand, list: readonly PhysVec[], direction: Direction) => Mapped>> = {
  "one shot each": ({ dma }, list, direction) => {
    const all = list.map(({ phys, length }) => dma.map(phys, length, direction));
    return {
      outputs: all,
      toCpu: () => all.forEach((mapping) => void mapping.syncForCpu()),
      toDevice: () => all.forEach((mapping) => void mapping.syncForDevice()),
      unmap: () => all.forEach((mapping) => void mapping.unmap()),
    };
  },
  mapScatterlist: ({ dma }, list, direction) => {
    const mapping = dma.mapScatterlist(list, direction);
    return {
      outputs: mapping.segments,
      toCpu: () => mapping.syncForCpu(),
      toDevice: () => mapping.syncForDevice(),
      unmap: () => mapping.unmap(),
    };
  },
  mapVecs: ({ dma }, list, direction) => {
    const mapping = dma.mapVecs(list, direction);
    return {
      outputs: mapping.vecs,
      toCpu: () => mapping.syncForCpu(),
      toDevice: () => mapping.syncForDevice(),
      unmap: () => mapping.unmap(),
    };
  },
  "mapLinear, bouncing": ({ dma }, list, direction) => {
    const mapping = dma.mapLinear(list, direction, undefined, { allowBounce: true });
    return {
      outputs: mapping.vecs,
      toCpu: () => mapping.syncForCpu(),
      toDevice: () => mapping.syncForDevice(),
      unmap: () => mapping.unmap(),
    };
  },
  batch: ({ dma, granule }, list, direction) => {
    const batch = dma.batch(direction, { maxBytes: list.reduce((sum, { length }) => sum + length + 2 * granule, 0) });
    for (const vec of list) expect(batch.add(vec)).toBe("ok");
    return {
      outputs: batch.finalize(),
      toCpu: () => batch.syncForCpu(),
      toDevice: () => batch.syncForDevice(),
      unmap: () => batch.unmap(),
    };
  },
};

/** The call for pieces that meet on granules. */
const twoSteps = (stand: Stand, list: readonly PhysVec[], direction: Direction): Mapped => {
  const length = list.reduce((sum, piece) => sum + piece.length, 0);
  const range = stand.reserve(length, list[0]!.phys);
  range.linkVecs(0, list, direction);
  range.sync();
  return {
    outputs: [{ address: range.address, length }],
    toCpu: () => range.syncForCpu(),
    toDevice: () => range.syncForDevice(),
    unmap: () => range.destroy(),
  };
};

const gather = (stand: Stand, outputs: readonly DmaVec[]): Uint8Array | undefined => stand.engine.gather(outputs);
const concat = (list: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(list));

function suite(way: Way, format: Format | undefined): void {
  const make = (): Stand => build(way, format);
  const { line } = way;

  describe("one shot", () => {
    test("moves exactly the bytes of the mapping, both ways, and nothing outside", () => {
      const stand = make();
      const bytes = Math.min(3 * stand.granule, 65_536 + 4096);
      const memory = new Filled(stand, bytes);
      const before = stand.state;
      forAll(
        fc.tuple(part(line, bytes), fc.constantFrom(...DIRECTIONS), fc.nat(200)),
        8,
        ([{ inside, length }, direction, seed]) => {
          const mapping = stand.dma.map(PhysAddr(memory.phys + inside), length, direction);
          if (deviceReads(direction))
            expectBytes(
              stand.deviceRead(mapping.address, length),
              memory.bytes.slice(inside, inside + length),
              "device",
            );
          if (deviceWrites(direction)) {
            const written = pattern(length, seed);
            expect(stand.deviceWrite(mapping.address, written)).toBe(true);
            memory.bytes.set(written, inside);
          }
          mapping.unmap();
          memory.check();
          stand.flush();
          expect(stand.state).toEqual(before);
        },
      );
    });

    test("is given back once: a second unmap does nothing, a sync after it is refused", () => {
      const stand = make();
      const { phys } = new Filled(stand, 4096);
      const mapping = stand.dma.map(phys, 4096, BOTH);
      mapping.unmap();
      const after = [stand.state, stand.counters.snapshot()];
      mapping.unmap();
      mapping[Symbol.dispose]();
      expect([stand.state, stand.counters.snapshot()]).toEqual(after);
      for (const call of [() => mapping.syncForCpu(), () => mapping.syncForDevice()])
        expect(outcome(call)).toEqual(["ERR_DMA_RELEASED", "EINVAL"]);
    });

    test("refuses parts that the mapping does not have", () => {
      const stand = make();
      const mapping = stand.dma.map(stand.block(4096), 4096, BOTH);
      for (const [offset, length] of [
        [-1, 1],
        [0, 4097],
        [4096, 1],
        [4000, 97],
      ] as const)
        expect(outcome(() => mapping.syncForCpu(offset, length))).toEqual(["ERR_DMA_OFFSET", "EINVAL"]);
    });

    if (way.noRefusal === undefined)
      test("lets the device do only what the direction says", () => {
        const stand = make();
        const memory = new Filled(stand, stand.granule);
        const mapping = stand.dma.map(memory.phys, stand.granule, "to-device");
        expect(stand.deviceWrite(mapping.address, pattern(64, 9))).toBe(false);
        mapping.unmap();
        memory.check();
      });
    else test.skip(`lets the device do only what the direction says (cannot: ${way.noRefusal})`, () => {});
  });

  describe(`each side sees what the other wrote ${way.sees}`, () => {
    const length = 1024;
    const calls = { ...CALLS, ...(way.noTwoSteps === undefined && { "two steps": twoSteps }) };
    for (const [name, call] of Object.entries(calls)) {
      // A linearising call that need not bounce is like any other.
      test(name, () => {
        const stand = make();
        const memory = new Filled(stand, 4096);
        const piece = { phys: PhysAddr(memory.phys + 128), length };
        const mapped = call(stand, [piece], BOTH);
        const [first] = mapped.outputs;
        const [old, fresh, last] = [memory.bytes.slice(128, 128 + length), pattern(length, 2), pattern(length, 3)];
        expectBytes(gather(stand, mapped.outputs), old, "device at first");
        stand.cpuRead(piece.phys, length); // now the CPU's caches hold it
        stand.cpuWrite(piece.phys, fresh);
        expectBytes(gather(stand, mapped.outputs), way.sees === "at once" ? fresh : old, "device before the sync");
        mapped.toDevice();
        expectBytes(gather(stand, mapped.outputs), fresh, "device after the sync");
        stand.cpuRead(piece.phys, length);
        expect(stand.deviceWrite(first!.address, last)).toBe(true);
        expectBytes(stand.cpuRead(piece.phys, length), way.sees === "at once" ? last : fresh, "CPU before the sync");
        mapped.toCpu();
        expectBytes(stand.cpuRead(piece.phys, length), last, "CPU after the sync");
        mapped.unmap();
        memory.bytes.set(last, 128);
        memory.check("CPU after the end");
      });
    }

    test("of a part that is synced alone", () => {
      const stand = make();
      const memory = new Filled(stand, 4096);
      const mapping = stand.dma.map(PhysAddr(memory.phys + 128), length, BOTH);
      stand.cpuWrite(memory.phys + 128, pattern(length, 2));
      mapping.syncForDevice(256, 64);
      const seen = stand.deviceRead(mapping.address, length)!;
      expectBytes(seen.slice(256, 320), pattern(length, 2).slice(256, 320));
      if (way.sees === "by a sync") expectBytes(seen.slice(0, 256), memory.bytes.slice(128, 384));
    });
  });

  test("every call shows the device the same bytes for the same pieces, and the CPU the same in the end", () => {
    const stand = make();
    const block = 12 * stand.granule + 5 * 24_576;
    const memory = new Filled(stand, block);
    const before = stand.state;
    forAll(fc.tuple(pieces(line, stand.granule), fc.nat(200)), 4, ([list, seed]) => {
      const inputs = list.map(({ offset, length }) => ({ phys: PhysAddr(memory.phys + offset), length }));
      const total = list.reduce((sum, { length }) => sum + length, 0);
      for (const [i, [name, call]] of Object.entries(CALLS).entries()) {
        const mapped = call(stand, inputs, BOTH);
        const now = concat(list.map(({ offset, length }) => memory.bytes.slice(offset, offset + length)));
        expectBytes(gather(stand, mapped.outputs), now, `${name}: device`);
        const written = pattern(total, seed + i + 1);
        expect(stand.engine.scatter(mapped.outputs, written)).toBe(true);
        mapped.unmap();
        let at = 0;
        for (const { offset, length } of list) {
          memory.bytes.set(written.subarray(at, at + length), offset);
          at += length;
        }
        memory.check(name);
        stand.flush();
        expect(stand.state).toEqual(before);
      }
    });
  });

  test("pieces that meet on granules are one output, by every call that can join them", () => {
    const stand = make();
    const { granule } = stand;
    const memory = new Filled(stand, 6 * granule);
    const list = [5, 1, 3].map((n) => ({ phys: PhysAddr(memory.phys + n * granule), length: granule }));
    const now = concat([5, 1, 3].map((n) => memory.bytes.slice(n * granule, (n + 1) * granule)));
    if (way.noTwoSteps !== undefined) {
      expect(outcome(() => stand.dma.mapLinear(list, BOTH))).toEqual(["ERR_DMA_LINEAR", "ENXIO"]);
      expect(stand.dma.tryReserveIova({ length: granule })).toBeUndefined(); // it says so, and maps piece by piece
      return;
    }
    const before = stand.state;
    const linear = stand.dma.mapLinear(list, BOTH);
    const steps = twoSteps(stand, list, BOTH);
    for (const outputs of [linear.vecs, steps.outputs]) {
      expect(outputs.map(({ length }) => length)).toEqual([3 * granule]);
      expectBytes(gather(stand, outputs), now);
    }
    linear.unmap();
    steps.unmap();
    stand.flush();
    expect(stand.state).toEqual(before);
  });

  test("a linear mapping of pieces that do not join is refused, unless it may bounce", () => {
    const stand = make();
    const { phys } = new Filled(stand, 4 * stand.granule);
    const list = [0, 2].map((n) => ({ phys: PhysAddr(phys + n * stand.granule), length: 512 }));
    const before = stand.state;
    expect(outcome(() => stand.dma.mapLinear(list, BOTH))).toEqual(["ERR_DMA_LINEAR", "ENXIO"]);
    expect(stand.state).toEqual(before);
    const mapping = stand.dma.mapLinear(list, BOTH, undefined, { allowBounce: true });
    expect(mapping.vecs.map(({ length }) => length)).toEqual([1024]);
    mapping.unmap();
  });

  describe("a call that fails leaves nothing", () => {
    const calls: Readonly<Record<string, (stand: Stand, list: readonly PhysVec[]) => unknown>> = {
      ...Object.fromEntries(
        Object.entries(CALLS)
          .filter(([name]) => name !== "one shot each" && name !== "batch")
          .map(([name, call]) => [name, (stand, list) => call(stand, list, BOTH)]),
      ),
      map: ({ dma }, list) => dma.map(list.at(-1)!.phys, list.at(-1)!.length, BOTH),
      batch: ({ dma, granule }, list) => {
        const batch = dma.batch(BOTH, { maxBytes: 2 ** 20 + 4 * granule });
        for (const vec of list) batch.add(vec);
      },
    };
    for (const [name, call] of Object.entries(calls))
      test(name, () => {
        const stand = make();
        const memory = new Filled(stand, 4 * stand.granule);
        const good = [1, 3].map((n) => ({ phys: PhysAddr(memory.phys + n * stand.granule + 128), length: 1024 }));
        const warm = stand.dma.mapScatterlist(good, BOTH); // tables that stay, once they are there
        warm.unmap();
        stand.flush();
        const before = stand.state;
        expect(outcome(() => call(stand, [...good, way.bad(stand)]))).not.toBe("ok");
        expect(stand.state).toEqual(before);
        memory.check();
      });
  });

  if (way.noRefusal === undefined)
    describe("no access after the end and the flush", () => {
      const calls = { ...CALLS, "two steps": twoSteps };
      for (const [name, call] of Object.entries(calls))
        test(name, () => {
          const stand = make();
          const memory = new Filled(stand, 4 * stand.granule);
          const mapped = call(stand, [{ phys: memory.phys, length: 2 * stand.granule }], BOTH);
          expectBytes(gather(stand, mapped.outputs), memory.bytes.slice(0, 2 * stand.granule)); // cached by the IOMMU now
          const { address } = mapped.outputs[0]!;
          mapped.unmap();
          stand.flush();
          for (const at of [address, address + stand.granule, address + 2 * stand.granule - 1])
            expect(stand.reads(at)).toBe(false);
          expect(stand.deviceWrite(address, pattern(64, 9))).toBe(false);
          memory.check();
        });
    });
  else
    test(`after the end of a bounced mapping its memory is out of reach (unmapped memory that is not bounced: ${way.noRefusal})`, () => {
      const stand = build(way, format, { forceBounce: true, slots: 2048 });
      const memory = new Filled(stand, 4096);
      const mapping = stand.dma.map(memory.phys, 4096, BOTH);
      mapping.unmap();
      stand.deviceWrite(mapping.address, pattern(4096, 9));
      memory.check();
    });

  describe("memory of its own", () => {
    for (const call of ["allocCoherent", "allocPages", "allocNoncontiguous"] as const)
      test(`${call}: zeroed, on a granule, ${call === "allocCoherent" ? "seen by both at any time, " : ""}and all of it comes back`, () => {
        const stand = make();
        stand.cpuWrite(stand.block(65_536), pattern(65_536)); // neighbours are not zero
        const before = stand.state;
        const length = stand.granule + 5000;
        const memory = call === "allocCoherent" ? stand.dma.allocCoherent(length) : stand.dma[call](length, BOTH);
        expect(memory.address % stand.granule).toBe(0);
        expectBytes(stand.deviceRead(memory.address, length), new Uint8Array(length), "device at first");
        const seen = new Uint8Array(4);
        memory.read(length - 4, seen);
        expectBytes(seen, new Uint8Array(4));
        if (call === "allocCoherent") {
          memory.write(4094, Uint8Array.of(1, 2, 3, 4));
          expectBytes(stand.deviceRead(memory.address + 4094, 4), Uint8Array.of(1, 2, 3, 4), "device");
          stand.deviceWrite(memory.address + 4095, Uint8Array.of(5, 6, 7, 8));
          memory.read(4095, seen);
          expectBytes(seen, Uint8Array.of(5, 6, 7, 8), "CPU");
        }
        memory.free();
        memory.free();
        stand.flush();
        expect(stand.state).toEqual(before);
        expect(outcome(() => memory.read(0, seen))).toEqual(["ERR_DMA_RELEASED", "EINVAL"]);
        if (way.noRefusal === undefined) expect(stand.reads(memory.address)).toBe(false);
      });
  });

  if (way.confidential) {
    describe("private memory", () => {
      test("reaches a device outside the trust only as a copy that was made for it, and comes back by one", () => {
        const stand = make();
        const memory = new Filled(stand, 8192, 1, false);
        const before = stand.state;
        for (const call of ["one shot each", "mapScatterlist"]) {
          const mapped = CALLS[call]!(stand, [{ phys: PhysAddr(memory.phys + 100), length: 5000 }], BOTH);
          expectBytes(gather(stand, mapped.outputs), memory.bytes.slice(100, 5100), call);
          expect(stand.engine.scatter(mapped.outputs, pattern(5000, 7))).toBe(true);
          mapped.unmap();
          memory.bytes.set(pattern(5000, 7), 100);
          memory.check(call);
        }
        expect(stand.machine.encryption!.touches).toEqual([]);
        stand.flush();
        expect(stand.state).toEqual(before);
      });

      test("is touched in vain by a device that goes there by itself", () => {
        const stand = make();
        const memory = new Filled(stand, 8192, 1, false);
        if (stand.domain) {
          // Somebody below the API mapped it: encryption is what keeps the plaintext.
          const inside = build(way, format, { tdi: "run" });
          const secret = new Filled(inside, inside.granule, 1, false);
          const mapping = inside.dma.map(secret.phys, inside.granule, BOTH);
          inside.device.node.trusted = false;
          expect(inside.deviceRead(mapping.address, 64)).toBeUndefined();
        } else expect(stand.deviceRead(memory.phys, 64)).toBeUndefined();
        memory.check();
      });

      if (way.noRefusal === undefined)
        test("of one buffer is not seen around the copy of another", () => {
          const stand = make();
          const secret = new Filled(stand, 32_768, 200, false);
          for (let i = 0; i < 8; i++) secret.bytes.fill(0xa5);
          stand.cpuWrite(secret.phys, secret.bytes);
          const { pool } = stand.machine;
          const first = stand.dma.map(secret.phys, 32_768, BOTH);
          first.unmap();
          stand.flush();
          pool!.nextIndex = 0;
          const small = new Filled(stand, 4096, 1, false);
          small.bytes.fill(1);
          stand.cpuWrite(small.phys, small.bytes);
          const mapping = stand.dma.map(PhysAddr(small.phys), 100, BOTH);
          const start = Math.floor(mapping.address / stand.granule) * stand.granule;
          expect(stand.deviceRead(start, stand.granule)!.includes(0xa5)).toBe(false);
        });

      test("of a device inside the trust is mapped where it lies", () => {
        const stand = build(way, format, { tdi: "run" });
        const memory = new Filled(stand, 2 * stand.granule, 1, false);
        for (const [name, call] of Object.entries(CALLS)) {
          const mapped = call(stand, [{ phys: memory.phys, length: stand.granule }], BOTH);
          expectBytes(gather(stand, mapped.outputs), memory.bytes.slice(0, stand.granule), name);
          expect(stand.machine.pool!.used).toBe(0);
          mapped.unmap();
        }
      });

      if (way.noTwoSteps === undefined)
        test("is refused in two steps, because a link never copies what could be mapped in whole granules", () => {
          const stand = make();
          const memory = new Filled(stand, 2 * stand.granule, 1, false);
          const range = stand.reserve(2 * stand.granule);
          const list = [{ phys: memory.phys, length: stand.granule }];
          const before = stand.state;
          for (const call of [
            () => range.link(0, memory.phys, stand.granule, BOTH),
            () => range.linkVecs(0, list, BOTH),
            () => stand.dma.mapVecs(list, BOTH),
            () => stand.dma.mapLinear(list, BOTH),
          ])
            expect(outcome(call)).toEqual(["ERR_DMA_PRIVATE", "EPERM"]);
          expect(stand.state).toEqual(before);
        });
    });
  }

  if (way.noTwoSteps !== undefined) {
    test(`two steps: refuses, because ${way.noTwoSteps}; every piece is mapped by itself`, () => {
      const stand = make();
      expect(stand.dma.tryReserveIova({ length: 4096 })).toBeUndefined();
      expect(stand.dma.mergeBoundary).toBe(0);
    });
    return;
  }

  describe("two steps", () => {
    /** A range of `count` granules and memory for it, in another order. */
    const stage = (count: number, physOffset = 0) => {
      const stand = make();
      const { granule } = stand;
      const memory = new Filled(stand, count * granule);
      const before = stand.state;
      const range = stand.reserve(count * granule - physOffset, physOffset);
      const frame = (n: number): PhysAddr => PhysAddr(memory.phys + n * granule);
      const bytesOf = (n: number): Uint8Array => memory.bytes.slice(n * granule, (n + 1) * granule);
      const read = (n: number): Uint8Array | undefined => stand.deviceRead(range.address + n * granule, granule);
      return { stand, granule, memory, before, range, frame, bytesOf, read };
    };

    test("reach nothing before the first link, and nothing in a hole", () => {
      const { stand, granule, range, frame, read, bytesOf } = stage(3);
      for (const n of [0, 1, 2]) expect(stand.reads(range.address + n * granule)).toBe(false);
      range.link(0, frame(2), granule, BOTH);
      range.link(2 * granule, frame(0), granule, BOTH);
      range.sync();
      expectBytes(read(0), bytesOf(2));
      expect(stand.reads(range.address + granule)).toBe(false);
      expectBytes(read(2), bytesOf(0));
    });

    test("in any order, ragged at both ends, show the same bytes", () => {
      const inside = 5 * Math.max(64, line);
      const length = (granule: number): number => 5 * granule - inside - 3 * 64;
      forAll(fc.shuffledSubarray([0, 1, 2, 3, 4], { minLength: 5 }), 3, (order) => {
        const { stand, granule, memory, before, range, frame } = stage(5, inside);
        for (const n of order) {
          const start = n === 0 ? 0 : n * granule - inside;
          const end = n === 4 ? length(granule) : (n + 1) * granule - inside;
          // Frames lie in another order than the range.
          const phys = n === 0 ? frame(0) + inside : frame(5 - n);
          range.link(start, PhysAddr(phys), end - start, BOTH);
        }
        range.sync();
        const now = concat(
          [0, 4, 3, 2, 1].map((n) => memory.bytes.slice(n * granule + (n === 0 ? inside : 0), (n + 1) * granule)),
        ).slice(0, length(granule));
        expectBytes(stand.deviceRead(range.address, length(granule)), now);
        const written = pattern(length(granule), 5);
        expect(stand.deviceWrite(range.address, written)).toBe(true);
        range.destroy();
        let at = 0;
        for (const [i, n] of [0, 4, 3, 2, 1].entries()) {
          const start = n * granule + (i === 0 ? inside : 0);
          const piece = written.subarray(at, at + (i === 4 ? granule - 3 * 64 : (n + 1) * granule - start));
          memory.bytes.set(piece, start);
          at += piece.length;
        }
        memory.check();
        stand.flush();
        expect(stand.state).toEqual(before);
      });
    });

    test("unlink takes a part away at once, and only it; what is linked there next is reached", () => {
      const { stand, granule, memory, range, frame, read, bytesOf } = stage(4);
      range.link(0, frame(0), 3 * granule, BOTH);
      range.sync();
      for (const n of [0, 1, 2]) expectBytes(read(n), bytesOf(n)); // cached by the IOMMU now
      range.unlink(granule, granule);
      expect(stand.reads(range.address + granule)).toBe(false);
      expectBytes(read(0), bytesOf(0));
      expectBytes(read(2), bytesOf(2));
      range.link(granule, frame(3), granule, BOTH);
      range.sync(granule, granule);
      expectBytes(read(1), bytesOf(3));
      range.destroy();
      memory.check();
    });

    test(`a lazy unlink, ${way.noLazyUnlink ? `at once, because ${way.noLazyUnlink}` : "may be reached until the flush or the next link, and not after"}`, () => {
      for (const then of ["flush", "link", "linkVecs", "destroy"] as const) {
        const { stand, granule, range, frame, read, bytesOf } = stage(3);
        range.link(0, frame(0), 2 * granule, BOTH);
        range.sync();
        for (const n of [0, 1]) expectBytes(read(n), bytesOf(n));
        range.unlink(0, granule, { lazy: true });
        expect(stand.reads(range.address)).toBe(way.noLazyUnlink === undefined);
        if (then === "flush") range.flush();
        if (then === "link") range.link(0, frame(2), granule, BOTH);
        if (then === "linkVecs") range.linkVecs(0, [{ phys: frame(2), length: granule }], BOTH);
        if (then === "destroy") range.destroy();
        stand.flush();
        if (then === "link" || then === "linkVecs") expectBytes(read(0), bytesOf(2), then);
        else expect(stand.reads(range.address)).toBe(false);
        expect(stand.reads(range.address + granule)).toBe(then !== "destroy");
      }
    });

    test("a range grows within what was reserved, and not past it", () => {
      const stand = make();
      const { granule } = stand;
      const memory = new Filled(stand, 4 * granule);
      const before = stand.state;
      const range = stand.reserve(granule, 0, 4 * granule);
      expect(outcome(() => range.link(granule, PhysAddr(memory.phys + granule), granule, BOTH))).toEqual([
        "ERR_DMA_LINK_RANGE",
        "EINVAL",
      ]);
      range.link(0, memory.phys, granule, BOTH);
      expect(range.grow(3 * granule)).toBe(true);
      range.link(granule, PhysAddr(memory.phys + granule), 2 * granule, BOTH);
      range.sync();
      expectBytes(stand.deviceRead(range.address, 3 * granule), memory.bytes.slice(0, 3 * granule));
      expect(range.grow(range.capacity + 1)).toBe(false);
      expect(range.length).toBe(3 * granule);
      range.destroy();
      expect(range.grow(granule)).toBe(false);
      stand.flush();
      expect(stand.state).toEqual(before);
    });

    test("a release is final: a second does nothing, and every use after it is refused", () => {
      const { stand, granule, before, range, frame } = stage(2);
      range.link(0, frame(0), granule, BOTH);
      range.sync();
      range.destroy();
      stand.flush();
      const counted = stand.counters.snapshot();
      range.destroy();
      range.free();
      range[Symbol.dispose]();
      range.flush();
      expect(stand.counters.snapshot()).toEqual(counted);
      for (const call of [
        () => range.link(0, frame(0), granule, BOTH),
        () => range.linkVecs(0, [{ phys: frame(0), length: granule }], BOTH),
        () => range.sync(),
        () => range.unlink(0, granule),
      ])
        expect(outcome(call)).toEqual(["ERR_DMA_RELEASED", "EINVAL"]);
      expect(stand.state).toEqual(before);
    });

    test("a link that fails leaves the range as it was", () => {
      const { stand, granule, range, frame } = stage(4);
      range.link(2 * granule, frame(2), granule, BOTH);
      const before = stand.state;
      const { linkedPages } = range;
      const bad = way.bad(stand);
      const taken = ["ERR_DMA_MAP", format!.occupied === -98 ? "EADDRINUSE" : "EEXIST"];
      const answers: [() => void, unknown][] = [
        [() => range.link(3 * granule, frame(3), 2 * granule, BOTH), ["ERR_DMA_LINK_RANGE", "EINVAL"]],
        [() => range.link(-granule, frame(3), granule, BOTH), ["ERR_DMA_LINK_RANGE", "EINVAL"]],
        [() => range.link(granule, PhysAddr(frame(3) + 64), 64, BOTH), ["ERR_DMA_LINK_ALIGNMENT", "EIO"]],
        [() => range.link(0, PhysAddr(frame(3) + 64), 64, BOTH), ["ERR_DMA_LINK_ALIGNMENT", "ENXIO"]],
        [() => range.link(0, bad.phys, bad.length, BOTH), ["ERR_DMA_MAP", "ERANGE"]],
        [() => range.link(0, PhysAddr(-granule), granule, BOTH), ["ERR_DMA_ADDRESS", "EINVAL"]],
        [() => range.link(0, frame(0), granule, "none" as never), ["ERR_DMA_DIRECTION", "EINVAL"]],
        [() => range.link(2 * granule, frame(0), granule, BOTH), taken],
        [() => range.link(0, frame(0), 3 * granule, BOTH), taken],
        [
          () =>
            range.linkVecs(
              0,
              [0, 1, 3].map((n) => ({ phys: frame(n), length: granule })),
              BOTH,
            ),
          taken,
        ],
        [() => range.unlink(granule, 2 * granule), ["ERR_DMA_UNLINK_HOLE", "EINVAL"]],
        [() => range.destroy(granule), ["ERR_DMA_DESTROY", "EINVAL"]],
      ];
      for (const [call, answer] of answers) {
        expect([outcome(call), String(call)]).toEqual([answer, String(call)]);
        expect([stand.state, range.linkedPages]).toEqual([before, linkedPages]);
      }
    });

    test("equal a model of single granules, whatever is linked, unlinked, flushed and written", () => {
      const count = 6;
      const spot = fc.nat(count - 1);
      const step = fc.oneof(
        fc.record({
          do: fc.constant("link" as const),
          at: spot,
          frame: spot,
          granules: fc.integer({ min: 1, max: 3 }),
        }),
        fc.record({
          do: fc.constant("vecs" as const),
          at: spot,
          frames: fc.array(spot, { minLength: 1, maxLength: 3 }),
        }),
        fc.record({
          do: fc.constant("unlink" as const),
          at: spot,
          granules: fc.integer({ min: 1, max: 3 }),
          lazy: fc.boolean(),
        }),
        fc.record({ do: fc.constant("flush" as const) }),
        fc.record({ do: fc.constant("write" as const), at: spot, value: fc.nat(255) }),
      );
      forAll(fc.array(step, { minLength: 4, maxLength: 14 }), 4, (steps) => {
        const { stand, granule, memory, before, range, frame } = stage(count);
        /** Which frame every granule of the range reaches. */
        const model = new Array<number | undefined>(count).fill(undefined);
        const stale = new Set<number>();
        /** A frame is linked once at most: two copies of a bounced or cached one would be the caller's error. */
        const free = (at: number, frames: readonly number[]): boolean =>
          at + frames.length <= count &&
          frames.every(
            (n, i) => n < count && model[at + i] === undefined && !model.includes(n) && frames.indexOf(n) === i,
          );
        const put = (at: number, frames: readonly number[]): void => {
          frames.forEach((n, i) => {
            model[at + i] = n;
          });
          stale.clear();
        };
        for (const each of steps) {
          if (each.do === "link") {
            const frames = Array.from({ length: each.granules }, (_, i) => each.frame + i);
            if (!free(each.at, frames)) continue;
            range.link(each.at * granule, frame(each.frame), each.granules * granule, BOTH);
            put(each.at, frames);
          } else if (each.do === "vecs") {
            if (!free(each.at, each.frames)) continue;
            range.linkVecs(
              each.at * granule,
              each.frames.map((n) => ({ phys: frame(n), length: granule })),
              BOTH,
            );
            put(each.at, each.frames);
          } else if (each.do === "unlink") {
            const spots = Array.from({ length: each.granules }, (_, i) => each.at + i);
            const call = () => range.unlink(each.at * granule, each.granules * granule, { lazy: each.lazy });
            if (spots.some((n) => model[n] === undefined)) {
              expect(outcome(call)).not.toBe("ok");
              continue;
            }
            call();
            for (const n of spots) {
              model[n] = undefined;
              if (each.lazy && way.noLazyUnlink === undefined) stale.add(n);
            }
          } else if (each.do === "flush") {
            range.flush();
            stale.clear();
          } else if (model[each.at] !== undefined) {
            range.sync();
            const written = Uint8Array.of(each.value, each.value ^ 255);
            expect(stand.deviceWrite(range.address + each.at * granule, written)).toBe(true);
            memory.bytes.set(written, model[each.at]! * granule);
          }
          range.sync();
          model.forEach((linked, n) => {
            if (stale.has(n)) return;
            const seen = stand.deviceRead(range.address + n * granule, 16);
            if (linked === undefined) expect(seen).toBeUndefined();
            else expectBytes(seen, memory.bytes.slice(linked * granule, linked * granule + 16), `granule ${n}`);
          });
          expect(range.linkedPages).toBe((model.filter((n) => n !== undefined).length * granule) / 4096);
        }
        range.destroy();
        memory.check();
        stand.flush();
        expect(stand.state).toEqual(before);
      });
    });
  });

  test("a domain that ends gives every table back", () => {
    const stand = make();
    const memory = new Filled(stand, 3 * stand.granule);
    stand.dma.map(memory.phys, 2 * stand.granule, BOTH).unmap();
    const range = stand.reserve(stand.granule);
    range.link(0, memory.phys, stand.granule, BOTH);
    range.destroy();
    stand.flush();
    stand.domain!.destroy();
    expect(stand.arena.framesInUse).toBe(0);
  });
}

for (const way of directWays) describe(`the DMA API, ${way.name}`, () => suite(way, undefined));

for (const way of translatedWays)
  for (const format of formats) describe(`the DMA API, ${way.name}, on ${format.name}`, () => suite(way, format));
