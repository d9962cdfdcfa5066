/**
 * A trace may say anything: events dropped, doubled, moved to another CPU, with wrong digits and sizes of exabytes. `check`
 * must answer, soon, and account for every mapping that it saw begin.
 */
import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { checkTrace } from "../../src/analysis/index.ts";
import { Random } from "../../src/base/index.ts";
import { openTrace } from "../../src/trace/index.ts";
import { many } from "../effort.ts";

const names = ["strict-sw1m-probes", "strict-net", "strict-mix7030", "swiotlb-net", "pt-mix7030", "iommufd-vfio"];
const traces = names.map((name) => {
  const file = new URL(`../golden/traces/${name}.report.txt.gz`, import.meta.url);
  return gunzipSync(readFileSync(file)).toString().split("\n").slice(0, 1200);
});

const DAMAGES: readonly ((line: string, random: Random) => string[])[] = [
  () => [],
  (line) => [line, line],
  (line, random) => [
    line.replace(/[0-9a-f]/g, (digit) => (random.chance(1, 40) ? random.below(16).toString(16) : digit)),
  ],
  (line, random) => [line.replace(/(size|mapped_len|offset)=\d+/, `$1=${2n ** BigInt(random.below(64))}`)],
  (line, random) => [
    line.replace(
      /(addr|iova|paddr|phys|state)=(0x)?[0-9a-f]+/,
      `$1=$2${(2n ** 64n - 1n - BigInt(random.bits())).toString(16)}`,
    ),
  ],
  (line, random) => [line.replace(/\[\d+\]/, `[00${random.below(9)}]`)],
  (line, random) => [line.replace(/0000:00:0[45]/, `0000:00:0${random.below(10)}`)],
  (line, random) => [`CPU:${random.below(4)} [LOST ${random.below(99)} EVENTS]`, line],
];

const seeds = many(25);

test(`${seeds} damaged traces are judged without a crash or a long wait, every mapping shown once`, {
  timeout: seeds * 5000,
}, async () => {
  const rules = new Set<string>();
  for (let seed = 1; seed <= seeds; seed++) {
    const random = Random.fromSeed(seed);
    const odds = 10 * (1 + random.below(20));
    const damaged = random
      .pick(traces)
      .flatMap((line, i) => (i > 0 && random.chance(1, odds) ? random.pick(DAMAGES)(line, random) : [line]));
    const bytes = new TextEncoder().encode(`${damaged.join("\n")}\n`);
    const stream = (async function* () {
      yield bytes;
    })();
    const trace = await openTrace({ name: `seed ${seed}`, stream }, { bestEffort: true });
    const ids = new Set<number>();
    let shown = 0;
    const { mappings, findings } = await checkTrace(trace, {
      sinks: [
        {
          lifetime(table, row) {
            if (table.startNs[row]! < 0) return; // of before the recording
            ids.add(table.id[row]!);
            shown++;
          },
        },
      ],
    });
    expect([ids.size, shown], `seed ${seed}`).toEqual([mappings, mappings]);
    for (const { rule, message } of findings) {
      rules.add(rule);
      expect(message, `seed ${seed}`).not.toMatch(/NaN|undefined|Infinity/);
    }
  }
  expect(rules.size).toBeGreaterThan(8); // the damage is seen
});
