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
import { deviceReads, deviceWrites, PhysAddr } from "../../src/base/index.ts";
import type { PhysVec } from "../../src/dma/index.ts";
import type { Stand } from "../dma/stand.ts";
import {
  BOTH,
  CALLS,
  concat,
  DIRECTIONS,
  expectBytes,
  Filled,
  forAll,
  gather,
  part,
  pieces,
  twoSteps,
} from "./dma-calls.ts";
import { privateSuite } from "./dma-private.ts";
import { twoStepSuite } from "./dma-two-steps.ts";
import { build, combinedWays, directWays, translatedWays, type Way } from "./dma-ways.ts";
import { type Format, formats } from "./formats.ts";
import { outcome, pattern } from "./outcome.ts";

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

    test("lets the device do only what the direction says", ({ skip }) => {
      skip(way.noRefusal !== undefined, way.noRefusal);
      const stand = make();
      const memory = new Filled(stand, stand.granule);
      const mapping = stand.dma.map(memory.phys, stand.granule, "to-device");
      expect(stand.deviceWrite(mapping.address, pattern(64, 9))).toBe(false);
      mapping.unmap();
      memory.check();
    });
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
          .filter(([name]) => name === "mapScatterlist" || name === "mapVecs")
          .map(([name, call]) => [name, (stand, list) => call(stand, list, BOTH)]),
      ),
      mapLinear: ({ dma, granule }, list) => {
        const whole = { phys: PhysAddr(list[0]!.phys - 128), length: granule };
        dma.mapLinear(way.noTwoSteps === undefined ? [whole, list.at(-1)!] : [list.at(-1)!], BOTH);
      },
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

  if (way.isolates)
    test("an untrusted device sees zeroes around its bytes, and never what is beside them in memory or was in the slot before", () => {
      const stand = build(way, format, { minAlignMask: 0xfff });
      const { granule } = stand;
      const { pool } = stand.host;
      stand.cpuWrite(pool!.start, new Uint8Array(pool!.slots * 2048).fill(0xa5));
      stand.machine.caches?.evict(pool!.start, pool!.slots * 2048);
      const memory = new Filled(stand, 3 * granule);
      for (const [inside, length] of [
        [0x234, granule - 0x300],
        [0, granule + 100],
        [granule - 100, 300],
      ] as const) {
        const piece = { phys: PhysAddr(memory.phys + inside), length };
        for (const [name, call] of Object.entries({ ...CALLS, "two steps": twoSteps })) {
          const mapped = call(stand, [piece], BOTH);
          const { address } = mapped.outputs[0]!;
          const start = Math.floor(address / granule) * granule;
          const bytes = Math.ceil((address + length - start) / granule) * granule;
          const expected = new Uint8Array(bytes);
          expected.set(memory.bytes.subarray(inside, inside + length), address - start);
          expectBytes(stand.deviceRead(start, bytes), expected, name);
          mapped.unmap();
        }
      }
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

  if (way.confidential) privateSuite(way, format);

  if (way.noTwoSteps !== undefined) {
    test(`two steps: refuses, because ${way.noTwoSteps}; every piece is mapped by itself`, () => {
      const stand = make();
      expect(stand.dma.tryReserveIova({ length: 4096 })).toBeUndefined();
      expect(stand.dma.mergeBoundary).toBe(0);
    });
    return;
  }

  twoStepSuite(way, format!);

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

for (const way of combinedWays)
  for (const name of ["VT-d second stage, 4 levels", "AMD v1", "Arm stage 1, 64 KiB"])
    describe(`the DMA API, ${way.name}, on ${name}`, () => suite(way, formats.find((each) => each.name === name)!));

for (const way of translatedWays)
  for (const format of formats) describe(`the DMA API, ${way.name}, on ${format.name}`, () => suite(way, format));
