/** What `dmalink record` wrote from tracefs is read by trace-cmd and by us, and both see the same events. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { readRequests } from "../../src/analysis/index.ts";
import { type FileInput, fieldBigint, fieldText, openTrace } from "../../src/trace/index.ts";

const FOLDER = join(import.meta.dirname, "recorded");

function fileOf(name: string): FileInput {
  const bytes = gunzipSync(readFileSync(join(FOLDER, name)));
  return { name, size: bytes.length, read: async (offset, length) => bytes.subarray(offset, offset + length) };
}

/** Every event in a line: task, CPU, name, fields, time to the microsecond. */
async function linesOf(name: string): Promise<string[]> {
  const trace = await openTrace(fileOf(name));
  const lines: string[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      const type = trace.types[batch.type[row]!]!;
      const fields = type.fields
        .filter((field) => field.name !== "flags") // printed by names that depend on the kernel
        .map(({ name: field, kind }) => {
          const at = type.fields.findIndex((one) => one.name === field);
          return `${field}=${kind === "string" ? fieldText(trace, batch, row, at) : fieldBigint(batch, row, at)}`;
        });
      const microseconds = (trace.timeBase + BigInt(batch.timeNs[row]!) + 500n) / 1000n;
      lines.push(
        `${trace.strings[batch.task[row]!]} ${batch.cpu[row]} ${microseconds} ${type.name} ${fields.join(" ")}`,
      );
    }
  return lines;
}

describe("a recording straight from tracefs", () => {
  test("holds the events that trace-cmd reports of it, field by field", async () => {
    const ours = await linesOf("strict-mix-tracefs.dat.gz");
    expect(ours).toHaveLength(1836);
    expect(ours).toEqual(await linesOf("strict-mix-tracefs.report.txt.gz"));
  });

  test("says its clock, its machine, its CPUs, and that nothing was lost", async () => {
    const { format, clock, system, cpus, lost } = await openTrace(fileOf("strict-mix-tracefs.dat.gz"));
    expect({ format, clock, cpus, lost }).toEqual({ format: "trace.dat v6", clock: "mono", cpus: 2, lost: 0 });
    expect(system).toMatch(/^Linux \S+ 7\.2\.13/);
  });

  test("with probes every request has its device, and all but the driver's own pool is given back", async () => {
    const requests = await readRequests(await openTrace(fileOf("strict-mix-tracefs.dat.gz")));
    expect(requests.counts.ambiguous).toBe(0);
    expect([...requests].filter(({ kind }) => kind === "two-step")).toHaveLength(287);
    expect([...requests].filter(({ endNs }) => endNs === undefined).map(({ kind }) => kind)).toEqual(["coherent"]);
  });
});
