/**
 * A trace may say anything: whatever it says, an export is a file that its readers read, and a page without a foreign word.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { asyncBufferFromFile, parquetReadObjects } from "hyparquet";
import { expect, test } from "vitest";
import { Outputs } from "../../src/apps/cli/files/output.ts";
import { claimTables, writeTables } from "../../src/apps/cli/files/table-files.ts";
import { UndoOnExit } from "../../src/apps/cli/files/undo-on-exit.ts";
import { Random } from "../../src/base/index.ts";
import { reportPage, writePerfetto } from "../../src/report/index.ts";
import { openTrace } from "../../src/trace/index.ts";
import { many } from "../effort.ts";
import { TraceProcessor } from "../models/trace-processor.ts";

const whole = new URL("../golden/traces/strict-sw1m-probes.report.txt.gz", import.meta.url);
const lines = gunzipSync(readFileSync(whole)).toString().split("\n").slice(0, 400);

const DAMAGES: readonly ((line: string, random: Random) => string[])[] = [
  () => [],
  (line) => [line, line],
  (line, random) => [
    line.replace(/[0-9a-f]/g, (digit) => (random.chance(1, 30) ? random.below(16).toString(16) : digit)),
  ],
  (line, random) => [line.replace(/size=\d+/, `size=${2n ** BigInt(random.below(64))}`)],
  (line, random) => [
    line.replace(/(iova|addr|paddr|phys)=0x\S+/, `$1=0x${(2n ** 64n - 1n - BigInt(random.bits())).toString(16)}`),
  ],
  (line) => [line.replace(/dev="[^"]*"/, 'dev="<script>&\\"x"')],
];

const seeds = many(5);

test(`${seeds} damaged traces are exported to files that can be read`, { timeout: seeds * 10_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "dmalink-fuzz-"));
  try {
    let mapped = 0;
    for (let seed = 1; seed <= seeds; seed++) {
      const random = Random.fromSeed(seed);
      const damaged = lines.flatMap((line, i) =>
        i > 0 && random.chance(1, 30) ? random.pick(DAMAGES)(line, random) : [line],
      );
      const stream = (async function* () {
        yield new TextEncoder().encode(`${damaged.join("\n")}\n`);
      })();
      const trace = await openTrace({ name: `seed ${seed}`, stream }, { bestEffort: true });
      const { recording, rows } = await writeTables(trace, claimTables(folder, new Outputs(new UndoOnExit())));
      for (const [name, count] of Object.entries(rows)) {
        const file = await asyncBufferFromFile(join(folder, `${name}.parquet`));
        expect(await parquetReadObjects({ file }), `seed ${seed}, ${name}`).toHaveLength(count);
      }
      const parts: Uint8Array[] = [];
      const { slices, leftOut } = writePerfetto(recording, (bytes) => void parts.push(bytes.slice()));
      expect(slices + leftOut).toBe(recording.mappings.count);
      const processor = await TraceProcessor.load(Buffer.concat(parts));
      const [{ n }] = processor.query(
        "select count(*) as n from slice join process_track as t on slice.track_id = t.id where t.name glob 'mappings*'",
      ) as [{ n: bigint }];
      expect(Number(n), `seed ${seed}`).toBe(slices);
      expect(reportPage("<b>", recording)).not.toMatch(/<script|<b>&|NaN|undefined|Infinity/);
      mapped += recording.mappings.count;
    }
    expect(mapped).toBeGreaterThan(seeds); // there is something in them
  } finally {
    rmSync(folder, { recursive: true });
  }
});
