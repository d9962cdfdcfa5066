/**
 * The calls of the DMA API as one shape, so that one contract can judge them all; and bytes to judge them by.
 */
import fc from "fast-check";
import { expect } from "vitest";
import type { Direction, PhysAddr } from "../../src/base/index.ts";
import type { DmaVec, PhysVec } from "../../src/dma/index.ts";
import type { Stand } from "../dma/stand.ts";
import { many } from "../effort.ts";
import { pattern } from "./outcome.ts";

export const BOTH = "bidirectional" as const;
export const DIRECTIONS: readonly Direction[] = [BOTH, "to-device", "from-device"];

/** One seed for all properties: a failure prints it with the path to its case. */
export const forAll = <T>(arbitrary: fc.Arbitrary<T>, numRuns: number, property: (value: T) => void): void =>
  fc.assert(fc.property(arbitrary, property), { seed: 0x5eed, numRuns: many(numRuns / 2) });

/** Compares bytes, and names the first that differs. */
export function expectBytes(actual: Uint8Array | undefined, expected: Uint8Array, what = "bytes"): void {
  if (!actual) expect.fail(`${what}: refused`);
  if (actual.length === expected.length && Buffer.compare(actual, expected) === 0) return;
  const at = expected.findIndex((byte, i) => actual[i] !== byte);
  expect.fail(`${what}: byte ${at} of ${expected.length} is ${actual[at]}, expected ${expected[at]}`);
}

/** Memory that is filled, and a copy of what must be in it. */
export class Filled {
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
export const part = (line: number, bytes: number): fc.Arbitrary<{ inside: number; length: number }> =>
  fc.tuple(fc.nat(bytes / line - 1), fc.nat(bytes / line - 1)).map(([a, b]) => ({
    inside: Math.min(a, b) * line,
    length: (Math.abs(a - b) + 1) * line,
  }));

/** Pieces of one block: some touch, some lie on granules, most do neither. */
export const pieces = (line: number, granule: number): fc.Arbitrary<{ offset: number; length: number }[]> => {
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

export type Mapped = { outputs: readonly DmaVec[]; toCpu(): void; toDevice(): void; unmap(): void };

/** The calls that map pieces that lie anywhere. */
export const CALLS: Readonly<Record<string, (stand: Stand, list: readonly PhysVec[], direction: Direction) => Mapped>> =
  {
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
export const twoSteps = (stand: Stand, list: readonly PhysVec[], direction: Direction): Mapped => {
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

export const gather = (stand: Stand, outputs: readonly DmaVec[]): Uint8Array | undefined =>
  stand.engine.gather(outputs);
export const concat = (list: readonly Uint8Array[]): Uint8Array => Uint8Array.from(Buffer.concat(list));
