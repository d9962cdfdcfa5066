/**
 * A trace may say anything: lines dropped, doubled, with wrong digits, sizes of exabytes, addresses that no memory has.
 * `compare` must answer, soon, and never with a wrong byte of its own making; as NVMe commands too.
 */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { readRequests } from "../../src/analysis/index.ts";
import { Random } from "../../src/base/index.ts";
import { compare, replayAsNvme } from "../../src/replay/index.ts";
import { openTrace } from "../../src/trace/index.ts";
import { many } from "../effort.ts";

const whole = new URL("../golden/traces/strict-mix7030.report.txt.gz", import.meta.url);
const lines = gunzipSync(readFileSync(whole)).toString().split("\n").slice(0, 1000);

const DAMAGES: readonly ((line: string, random: Random) => string[])[] = [
  () => [],
  (line) => [line, line],
  (line, random) => [
    line.replace(/[0-9a-f]/g, (digit) => (random.chance(1, 40) ? random.below(16).toString(16) : digit)),
  ],
  (line, random) => [line.replace(/size=\d+/, `size=${2 ** random.below(64)}`)],
  (line, random) => [line.replace(/paddr=\S+/, `paddr=0x${(2n ** 64n - 1n - BigInt(random.bits())).toString(16)}`)],
  (line, random) => [line.replace(/iova=0x\S+/, `iova=0x${random.bits().toString(16)}`)],
];

const seeds = many(5);

test(`${seeds} damaged traces are replayed without a wrong byte, a crash, or a long wait`, {
  timeout: seeds * 5000,
}, async () => {
  let leftOut = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    const random = Random.fromSeed(seed);
    const damaged = lines.flatMap((line, i) =>
      i > 0 && random.chance(1, 40) ? random.pick(DAMAGES)(line, random) : [line],
    );
    const bytes = new TextEncoder().encode(`${damaged.join("\n")}\n`);
    const stream = (async function* () {
      yield bytes;
    })();
    const trace = await openTrace({ name: `seed ${seed}`, stream }, { bestEffort: true });
    const requests = await readRequests(trace);
    const result = compare(requests);
    expect(result.firstMismatch, `seed ${seed}`).toBeUndefined();
    const { firstMismatch, firstFailure, leaks } = await replayAsNvme(requests);
    expect([firstMismatch, firstFailure, leaks], `seed ${seed}`).toEqual([undefined, undefined, []]);
    leftOut += result.leftOut;
  }
  expect(leftOut).toBeGreaterThan(0); // the damage does reach the replay
});
