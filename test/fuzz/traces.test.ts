/**
 * Damaged traces: whatever happens to the bytes, a reader answers with events or with one DmaError, in bounded time and
 * memory. A failure prints the seed and the number of the mutation.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { deflateSync, gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { DmaError, Random } from "../../src/base/index.ts";
import { type FileInput, openTrace } from "../../src/trace/index.ts";
import { many } from "../effort.ts";

const ROUNDS = many(120);
const SEED = 0x5eed;
const FOLDER = join(import.meta.dirname, "../golden/traces");
const golden = (name: string): Uint8Array => new Uint8Array(gunzipSync(readFileSync(join(FOLDER, name))));

const SAMPLES: Readonly<Record<string, () => Uint8Array>> = {
  "trace.dat v6": () => golden("strict-reload-e1000e.dat.gz"),
  "trace.dat v7, zstd": () => golden("strict-reload-nvme.dat.gz"),
  "trace-cmd report": () => withLastLine(golden("strict-reload-nvme.report.txt.gz").slice(0, 20_000)),
  "tracefs text": () => withLastLine(golden("lazy-mix7030-ftrace.ftrace.txt.gz").slice(0, 20_000)),
};

const withLastLine = (bytes: Uint8Array): Uint8Array => bytes.slice(0, bytes.lastIndexOf(10) + 1);

const inputOf = (bytes: Uint8Array): FileInput => ({
  name: "mutated",
  size: bytes.length,
  read: async (offset, length) => bytes.subarray(offset, offset + length),
});

/** One to four changes: bits, bytes, lengths, cuts, repeats. */
function mutate(original: Uint8Array, random: Random): Uint8Array {
  let bytes = original.slice();
  for (let change = 0; change <= random.below(4); change++) {
    // Half of all changes hit the first kilobytes, where the lengths are.
    const at = random.below(random.below(2) === 0 ? Math.min(bytes.length, 9000) : bytes.length);
    switch (random.below(7)) {
      case 0:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 1:
        bytes[at] = random.below(256);
        break;
      case 2:
        bytes.fill([0, 255, 0x7f, 0x80][random.below(4)]!, at, at + 1 + random.below(9));
        break;
      case 3:
        bytes = bytes.slice(0, at);
        break;
      case 4:
        bytes.copyWithin(at, random.below(bytes.length), bytes.length);
        break;
      case 5:
        for (let i = at; i < Math.min(at + 64, bytes.length); i++) bytes[i] = random.below(256);
        break;
      default:
        bytes = new Uint8Array([...bytes.slice(0, at), ...bytes.slice(at + 1 + random.below(16))]);
    }
    if (bytes.length === 0) return bytes;
  }
  return bytes;
}

interface Outcome {
  readonly events: number;
  readonly error: DmaError | undefined;
  readonly damaged: boolean;
}

async function outcomeOf(bytes: Uint8Array, bestEffort: boolean): Promise<Outcome> {
  let events = 0;
  try {
    const trace = await openTrace(inputOf(bytes), { bestEffort });
    for await (const batch of trace.batches()) {
      events += batch.count;
      expect(batch.words.length).toBeLessThan(1 << 26);
    }
    return { events, error: undefined, damaged: trace.damage !== undefined };
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    return { events, error, damaged: true };
  }
}

describe.each(Object.entries(SAMPLES))("a damaged %s", (name, sample) => {
  const original = sample();

  test(`gives events or a DmaError: ${ROUNDS} mutations`, { timeout: 30_000 + ROUNDS * 200 }, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const bytes = mutate(original, Random.fromSeed(SEED + round).fork(name));
      try {
        const strict = await outcomeOf(bytes, false);
        const lenient = await outcomeOf(bytes, true);
        expect(lenient.events).toBeGreaterThanOrEqual(strict.events);
        if (strict.error && !lenient.error) expect(lenient.damaged).toBe(true);
        if (strict.error) expect(strict.error.details.offset).toEqual(expect.any(Number));
      } catch (cause) {
        throw new Error(`seed ${SEED}, mutation ${round} of ${name}`, { cause });
      }
    }
  });

  test("cut anywhere: an error that names the cut, and best effort keeps what was before it", async () => {
    const whole = await outcomeOf(original, false);
    expect(whole.error).toBeUndefined();
    let last = 0;
    const step = Math.max(1, Math.floor(original.length / 40));
    for (let length = 1; length < original.length; length += step) {
      const cut = original.slice(0, length);
      const strict = await outcomeOf(cut, false);
      const lenient = await outcomeOf(cut, true);
      // What is read behind the last event (names of sections, the rest of a page) may be missing; an event may not.
      if (!strict.error) expect(strict.events).toBe(name.includes("dat") ? whole.events : lenient.events);
      else expect(strict.error.details.offset as number).toBeLessThanOrEqual(length);
      expect(lenient.events).toBeGreaterThanOrEqual(last);
      expect(lenient.events).toBeLessThanOrEqual(whole.events);
      last = lenient.events;
    }
    expect(last).toBeGreaterThan(whole.events / 2);
  });
});

describe("what is no trace", () => {
  const random = Random.fromSeed(SEED);
  const noise = Uint8Array.from({ length: 100_000 }, () => random.below(256));
  const foreign: Readonly<Record<string, Uint8Array>> = {
    "an empty file": new Uint8Array(0),
    "one byte": new Uint8Array([0x17]),
    "binary garbage": noise,
    "a gzip file": gunzipFree(),
    "a page of zeros": new Uint8Array(4096),
    prose: new TextEncoder().encode("Dear reader,\nthis is not a trace.\n"),
    "one endless line": new Uint8Array(300_000).fill(65),
    "the magic alone": new Uint8Array([0x17, 8, 0x44, ...new TextEncoder().encode("tracing")]),
    "another version": new Uint8Array([0x17, 8, 0x44, ...new TextEncoder().encode("tracing8\0\0\x08")]),
  };
  test.each(Object.entries(foreign))("%s is refused with a DmaError", async (_name, bytes) => {
    await expect(openTrace(inputOf(bytes))).rejects.toBeInstanceOf(DmaError);
  });

  test("a trace.dat on a stream says to give a file", async () => {
    const bytes = SAMPLES["trace.dat v6"]!();
    const stream = (async function* () {
      yield bytes.subarray(0, 3);
      yield bytes.subarray(3, 5000);
    })();
    await expect(openTrace({ name: "pipe", stream })).rejects.toMatchObject({ code: "ERR_DMA_TRACE_NEEDS_FILE" });
  });
});

function gunzipFree(): Uint8Array {
  return new Uint8Array([0x1f, 0x8b, 8, 0, ...deflateSync(new Uint8Array(100))]);
}
