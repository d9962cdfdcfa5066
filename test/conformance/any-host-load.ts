/** Random calls of every kind against a model that is an array of bytes; on a failure the seed and the step are said. */
import { equal } from "node:assert/strict";
import { Random } from "../../src/base/index.ts";
import type { DmaVec, PhysVec } from "../../src/dma/index.ts";
import { addressAt, type Case, type Memory, type Stage } from "./any-host.ts";

const BOTH = "bidirectional" as const;
const GRANULES = 24;
const STEPS = 300;
const MOST_LIVE = 16;
/** One step in so many is an access of the device: a real one is slow. */
const ACCESS = 25;

interface Live {
  readonly outputs: readonly DmaVec[];
  /** Where its bytes lie in memory, in order. */
  readonly pieces: readonly { offset: number; length: number }[];
  end(): void;
}

/** Pieces that lie anywhere. */
function anywhere(random: Random, granule: number, count: number): { offset: number; length: number }[] {
  return Array.from({ length: count }, () => {
    const offset = random.below((GRANULES - 4) * granule);
    return { offset, length: 1 + random.below(random.chance(1, 2) ? 200 : 4 * granule - 1) };
  });
}

/** Whole granules, each somewhere else. */
function scattered(random: Random, granule: number): { offset: number; length: number }[] {
  const all = Array.from({ length: GRANULES }, (_, n) => n);
  random.shuffle(all);
  return all.slice(0, 1 + random.below(6)).map((n) => ({ offset: n * granule, length: granule }));
}

function start(random: Random, { dma, granule }: Stage, memory: Memory): Live {
  const kinds = ["one", "list", "vecs", "batch", ...(dma.domain ? ["links", "linkVecs", "linear"] : [])] as const;
  const kind = random.pick(kinds);
  const total = (list: readonly { length: number }[]): number => list.reduce((sum, { length }) => sum + length, 0);
  const vecs = (list: readonly { offset: number; length: number }[]): PhysVec[] =>
    list.map(({ offset, length }) => ({ phys: memory.at(offset), length }));
  if (kind === "one") {
    const pieces = anywhere(random, granule, 1);
    const mapping = dma.map(memory.at(pieces[0]!.offset), pieces[0]!.length, BOTH);
    return { outputs: [mapping], pieces, end: () => mapping.unmap() };
  }
  if (kind === "list" || kind === "vecs" || kind === "batch") {
    const pieces = anywhere(random, granule, 1 + random.below(4));
    if (kind === "list") {
      const mapping = dma.mapScatterlist(vecs(pieces), BOTH);
      return { outputs: mapping.segments, pieces, end: () => mapping.unmap() };
    }
    if (kind === "vecs") {
      const mapping = dma.mapVecs(vecs(pieces), BOTH);
      return { outputs: mapping.vecs, pieces, end: () => mapping.unmap() };
    }
    const batch = dma.batch(BOTH, { maxBytes: total(pieces) + 2 * granule * pieces.length });
    for (const vec of vecs(pieces)) equal(batch.add(vec), "ok");
    return { outputs: batch.finalize(), pieces, end: () => batch.unmap() };
  }
  const pieces = scattered(random, granule);
  const length = total(pieces);
  if (kind === "linear") {
    const mapping = dma.mapLinear(vecs(pieces), BOTH);
    return { outputs: mapping.vecs, pieces, end: () => mapping.unmap() };
  }
  const range = dma.tryReserveIova({ length })!;
  if (kind === "linkVecs") range.linkVecs(0, vecs(pieces), BOTH);
  else {
    const order = pieces.map((_, n) => n);
    random.shuffle(order);
    for (const n of order) range.link(n * granule, memory.at(pieces[n]!.offset), granule, BOTH);
  }
  range.sync();
  const one = random.below(pieces.length);
  if (random.chance(1, 3) && kind === "links") {
    // One goes, and comes back.
    range.unlink(one * granule, granule, { lazy: random.chance(1, 2) });
    range.link(one * granule, memory.at(pieces[one]!.offset), granule, BOTH);
    range.sync();
  }
  return { outputs: [{ address: range.address, length }], pieces, end: () => range.destroy() };
}

/** Which bytes of memory [at, + length) of a mapping is. */
function placesOf({ pieces }: Live, at: number, length: number): number[] {
  const places: number[] = [];
  let start = 0;
  for (const piece of pieces) {
    for (let i = Math.max(at, start); i < Math.min(at + length, start + piece.length); i++)
      places.push(piece.offset + i - start);
    start += piece.length;
  }
  return places;
}

/** The device reads or writes a few bytes that lie in one output. */
async function access(random: Random, stage: Stage, memory: Memory, live: Live): Promise<void> {
  const total = live.pieces.reduce((sum, { length }) => sum + length, 0);
  const at = random.below(total);
  const address = addressAt(live.outputs, at);
  const output = live.outputs.find((each) => address >= each.address && address < each.address + each.length)!;
  const length = Math.min(1 + random.below(100), output.address + output.length - address);
  const places = placesOf(live, at, length);
  if (random.chance(1, 2)) {
    await stage.reads(
      address,
      Uint8Array.from(places, (place) => memory.bytes[place]!),
    );
    return;
  }
  const written = Uint8Array.from(places, () => random.below(256));
  await stage.writes(address, written);
  places.forEach((place, i) => {
    memory.bytes[place] = written[i]!;
  });
}

async function load(stage: Stage, seed: number): Promise<void> {
  const random = Random.fromSeed(seed);
  const memory = stage.memory(GRANULES * stage.granule, seed);
  const live: Live[] = [];
  let step = 0;
  try {
    for (; step < STEPS; step++) {
      if (live.length === MOST_LIVE || (live.length > 0 && random.chance(2, 5)))
        live.splice(random.below(live.length), 1)[0]!.end();
      else {
        const mapped = start(random, stage, memory);
        live.push(mapped);
        if (stage.dma.domain !== undefined) {
          let first = 0;
          for (const { offset, length } of mapped.pieces) {
            equal(stage.reached(addressAt(mapped.outputs, first)), memory.at(offset), "what a piece reaches");
            first += length;
          }
        }
      }
      if (live.length > 0 && random.chance(1, ACCESS)) await access(random, stage, memory, random.pick(live));
    }
    memory.check();
  } catch (error) {
    throw new Error(`seed ${seed}, step ${step}: ${(error as Error).message}`, { cause: error });
  } finally {
    for (const { end } of live) end();
  }
}

export const loadCases: readonly Case[] = [1, 2].map((seed) => ({
  name: `random calls of every kind equal a model of bytes (seed ${seed})`,
  run: (stage) => load(stage, seed),
}));
