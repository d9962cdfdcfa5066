/**
 * One recording, printed by the real tools under each of their options: every form gives the events of the binary file.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  bytesInput,
  type EventBatch,
  fieldBigint,
  fieldText,
  known,
  openTrace,
  type Trace,
} from "../../src/trace/index.ts";

const FOLDER = join(import.meta.dirname, "forms");
const bytesOf = (name: string): Uint8Array => new Uint8Array(gunzipSync(readFileSync(join(FOLDER, name))));
const open = (name: string): Promise<Trace> => openTrace(bytesInput(name, bytesOf(name)));

interface Row {
  readonly event: string;
  readonly task: string;
  readonly pid: number;
  readonly cpu: number;
  readonly ns: number;
  readonly chain: readonly string[];
}

/** What the tools print differently, and no verdict rests on: flags by name, hidden pointers, counts of shown entries. */
const LEFT_OUT = new Set(["flags", "virt_addr", "truncated", "full_nents", "full_ents"]);

function eventOf(trace: Trace, batch: EventBatch, row: number): string {
  const { name, fields } = trace.types[batch.type[row]!]!;
  const values = fields.map((field, index) => {
    if (field.kind === "string") return `${field.name}=${fieldText(trace, batch, row, index)}`;
    if (field.kind !== "array") return `${field.name}=${fieldBigint(batch, row, index)}`;
    const at = batch.start[row]! + index * 2;
    const items = { words: batch.words, start: [batch.words[at]!] } as unknown as EventBatch;
    return `${field.name}=${Array.from({ length: batch.words[at + 1]! }, (_, item) => fieldBigint(items, 0, item))}`;
  });
  const kept = values.filter((value) => !LEFT_OUT.has(value.slice(0, value.indexOf("="))));
  return `${name} ${kept.sort().join(" ")}`;
}

async function rowsOf(trace: Trace): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++)
      if (known(trace.types[batch.type[row]!]!))
        rows.push({
          event: eventOf(trace, batch, row),
          task: trace.strings[batch.task[row]!]!,
          pid: batch.pid[row]!,
          cpu: batch.cpu[row]!,
          ns: Number(trace.timeBase) + batch.timeNs[row]!,
          chain: trace.chains[batch.chain[row]!]!,
        });
  return rows;
}

const formsOf = (tool: string): string[] =>
  readdirSync(FOLDER).filter((name) => name.startsWith(`${tool}.`) && name.endsWith(".txt.gz"));

describe("trace-cmd report", () => {
  test.each(formsOf("trace-cmd"))("%s gives the events of the trace.dat", async (name) => {
    const whole = await rowsOf(await open("fault-virtio.dat.gz"));
    const trace = await open(name);
    const rows = await rowsOf(trace);
    expect(rows.length).toBeGreaterThan(120);
    const same = whole.slice(0, rows.length);
    expect(rows.map(({ event, pid, cpu }) => ({ event, pid, cpu }))).toEqual(
      same.map(({ event, pid, cpu }) => ({ event, pid, cpu })),
    );
    // The latency format cuts a name after eight characters.
    expect(rows.map(({ task }) => task)).toEqual(
      same.map(({ task }) => (/\.l\b/.test(name) ? task.slice(0, 8) : task)),
    );
    const shift = name.includes("align-ts") ? same[0]!.ns : 0;
    for (const [i, { ns }] of rows.entries()) expect(Math.abs(ns + shift - same[i]!.ns)).toBeLessThanOrEqual(1000);
    expect(trace.timing.kind).toBe(name.includes("raw-ts") ? "count" : "time");
    expect(trace.remarks.map(({ code }) => code)).toEqual(name.includes("raw-ts") ? ["clock"] : []);
    expect(trace.format).toBe("trace-cmd report");
  });
});

describe("perf script", () => {
  test.each(formsOf("perf"))("%s gives the events of the perf.data", async (name) => {
    const whole = await rowsOf(await open("strict-perf-mix7030.perf.data.gz"));
    const trace = await open(name);
    const rows = await rowsOf(trace);
    expect(rows.length).toBeGreaterThan(10);
    expect(trace.format).toBe("perf script");
    const same = whole.slice(0, rows.length);
    expect(rows.map(({ event }) => event)).toEqual(same.map(({ event }) => event));
    const fields = /[-.]F([a-z_]+)/.exec(name)?.[1]?.split("_");
    const says = (field: string): boolean => !fields || fields.includes(field);
    expect(rows.map(({ cpu }) => cpu)).toEqual(same.map(({ cpu }) => (says("cpu") ? cpu : 0)));
    if (says("tid")) expect(rows.map(({ pid }) => pid)).toEqual(same.map(({ pid }) => pid));
    if (says("comm")) expect(rows.map(({ task }) => task)).toEqual(same.map(({ task }) => task));
    const isShifted = /reltime|deltatime/.test(name);
    for (const [i, { ns }] of rows.entries())
      if (!says("time")) expect(ns).toBe(0);
      else {
        // Differences were rounded one by one.
        const most = name.includes("deltatime") ? 1000 * (i + 1) : 1000;
        expect(Math.abs(ns - (same[i]!.ns - (isShifted ? same[0]!.ns : 0)))).toBeLessThanOrEqual(most);
      }
    expect(trace.timing.kind).toBe(says("time") ? "time" : "none");
    const missing = ["cpu", "time", "tid"].filter((field) => !says(field) && !(field === "tid" && says("pid"))).length;
    expect(trace.remarks.filter(({ code }) => code === "not-said")).toHaveLength(missing);
    expect(trace.remarks.filter(({ code }) => code !== "not-said").map(({ code }) => code)).toEqual(
      name.includes("deltatime") ? ["clock"] : [],
    );
  });

  test("with call chains gives them as those of the perf.data, by address where no symbols are at hand", async () => {
    const whole = await rowsOf(await open("strict-perf-mix7030.perf.data.gz"));
    const rows = await rowsOf(await open("perf.default.txt.gz"));
    expect(rows.at(0)!.chain).toHaveLength(15);
    const wholeChains = rows.slice(0, -1).map(({ chain }) => chain); // the file is cut in the last one
    expect(wholeChains).toEqual(whole.slice(0, rows.length - 1).map(({ chain }) => chain));
  });
});

describe("call chains", () => {
  test("of a trace.dat have their names from its symbols, and those of its report are the same", async () => {
    const binary = await rowsOf(await open("strict-stack-nvme.dat.gz"));
    const text = await rowsOf(await open("strict-stack-nvme.report.txt.gz"));
    expect(binary).toHaveLength(1534);
    for (const [i, { chain }] of binary.entries())
      expect(chain.slice(0, text[i]!.chain.length)).toEqual(text[i]!.chain);
    const [first] = binary;
    expect(first!.chain.length).toBeGreaterThan(8); // more than trace-cmd prints
    expect(first!.chain).toContain("nvme_prep_rq.part.0");
    expect(binary.every(({ chain }) => chain.length > 0)).toBe(true);
  });

  test("of a perf script whose reader had symbols", async () => {
    const rows = await rowsOf(await open("strict-perf-mix7030.perf.txt.gz"));
    expect(rows).toHaveLength(796);
    expect(rows[0]!.chain.slice(0, 4)).toEqual([
      "iommu_map_nosync",
      "blk_dma_map_iter_start",
      "nvme_prep_rq.part.0",
      "nvme_queue_rq",
    ]);
    // The frames of user space below are left out.
    expect(rows[0]!.chain.at(-1)).toBe("entry_SYSCALL_64_after_hwframe");
  });

  test("of tracefs stand behind each event, whatever the size of a batch", async () => {
    const rows = await rowsOf(await open("strict-stack-ftrace.ftrace.txt.gz"));
    expect(rows).toHaveLength(1600);
    expect(rows.every(({ chain }) => chain.length > 3)).toBe(true);
    const bytes = bytesOf("strict-stack-ftrace.ftrace.txt.gz");
    const small = await rowsOf(await openTrace(bytesInput("x", bytes), { batchSize: 7 }));
    expect(small).toEqual(rows);
  });

  test("of a trace.dat are the same, whatever the size of a batch", async () => {
    const bytes = bytesOf("strict-stack-nvme.dat.gz");
    const rows = await rowsOf(await openTrace(bytesInput("x", bytes)));
    for (const batchSize of [1, 3, 100])
      expect(await rowsOf(await openTrace(bytesInput("x", bytes), { batchSize }))).toEqual(rows);
  });
});

describe("an older kernel", () => {
  test("6.12: the report, with lists that libtraceevent could not format, equals the trace.dat", async () => {
    const binary = await rowsOf(await open("old612-swiotlb-mix7030.dat.gz"));
    const text = await rowsOf(await open("old612-swiotlb-mix7030.report.txt.gz"));
    expect(binary).toHaveLength(1086);
    expect(text.map(({ event }) => event)).toEqual(binary.map(({ event }) => event));
  });
});

describe("a perf.data", () => {
  test("says what it was recorded on, and its samples are in time order", async () => {
    const trace = await open("strict-perf-mix7030.perf.data.gz");
    const rows = await rowsOf(trace);
    expect({ ...trace, batches: undefined, system: trace.system, cpus: trace.cpus }).toMatchObject({
      format: "perf.data",
      system: "Linux 7.2.13+deb14-amd64 x86_64",
      clock: "perf",
      cpus: 2,
    });
    expect(trace.longBytes).toBe(8);
    expect(trace.lost).toBe(0);
    expect(trace.remarks).toEqual([]);
    const printed = await rowsOf(await open("strict-perf-mix7030.perf.txt.gz"));
    expect(rows.map(({ event, task, pid, cpu }) => ({ event, task, pid, cpu }))).toEqual(
      printed.map(({ event, task, pid, cpu }) => ({ event, task, pid, cpu })),
    );
    for (const [i, { ns }] of rows.entries()) expect(Math.abs(ns - printed[i]!.ns)).toBeLessThanOrEqual(1000);
  });

  test.each([
    ["perf-compressed.data.gz", 1426],
    ["perf-pipe.data.gz", 704],
    ["perf-pipe-compressed.data.gz", 659],
  ])("%s holds the samples that perf counts in it", async (name, samples) => {
    const trace = await open(name);
    let count = 0;
    for await (const batch of trace.batches())
      for (let row = 0; row < batch.count; row++) if (trace.types[batch.type[row]!]!.name === "perf_sample") count++;
    expect(count).toBe(samples);
    expect(trace.remarks.map(({ code }) => code)).toContain("note");
  });
});
