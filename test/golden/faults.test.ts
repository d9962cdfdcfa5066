/** Recorded faults: every fault that the kernel printed is found with its owner and relation, from a trace alone and with a log. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { type CheckResult, checkTrace, type Finding, type KernelLog, readKernelLog } from "../../src/analysis/index.ts";
import { bytesInput, KernelLogTrace, openTrace, type Trace } from "../../src/trace/index.ts";

const FOLDER = join(import.meta.dirname, "faults");
const NAMES = readdirSync(FOLDER)
  .filter((file) => file.endsWith(".meta.json"))
  .map((file) => file.replace(".meta.json", ""));

interface Truth {
  readonly cause: string;
  readonly device: string;
  readonly address: string;
  readonly access: "read" | "write";
  readonly mapping?: string;
  readonly unmappedAt?: number;
  readonly printedLines: number;
}

const unpacked = (file: string): Uint8Array => gunzipSync(readFileSync(join(FOLDER, file)));
const traceOf = (file: string): Promise<Trace> => openTrace(bytesInput(file, unpacked(file)));
const logTrace = (name: string): KernelLogTrace => {
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    yield unpacked(`${name}.dmesg.txt.gz`);
  };
  return new KernelLogTrace(chunks(), 256);
};
const logOf = (name: string): Promise<KernelLog> => readKernelLog(logTrace(name));

/** What the module did: the faults of which the kernel printed something. */
function truthOf(name: string): readonly Truth[] {
  const { truth } = JSON.parse(readFileSync(join(FOLDER, `${name}.meta.json`), "utf8")) as {
    truth: { faults?: Truth[]; flood?: object };
  };
  if (truth.flood) return [];
  return truth.faults!.filter(({ printedLines }) => printedLines > 0);
}

/** The relation that each cause of the module is. */
const RELATIONS: Readonly<Record<string, string>> = {
  "never-mapped": "never",
  "mapped-by-another-device": "never",
  "use-after-unmap": "ended",
  "unmapped-while-busy": "ended",
  "write-to-read-only": "live",
  "past-the-end": "near",
  "address-cut": "cut",
};

const pageOf = (address: string): bigint => BigInt(address) >> 12n;
const faultsOf = ({ findings }: CheckResult): readonly Finding[] =>
  findings.filter(({ rule }) => rule === "device-fault");

/** Every printed fault of the truth is in a finding, and every finding is of the truth. */
function judge(name: string, result: CheckResult): void {
  const found = faultsOf(result);
  const truth = truthOf(name);
  const left = new Map(found.map((finding) => [finding, finding.fault!.count]));
  for (const { cause, device, address, access, mapping, unmappedAt, printedLines } of truth) {
    const fits = found.find(
      ({ fault, mapping: had }) =>
        fault!.device === device && fault!.address! >> 12n === pageOf(address) && had!.relation === RELATIONS[cause],
    );
    expect(fits, `${name}: ${cause} of ${device} at ${address}`).toBeDefined();
    left.set(fits!, left.get(fits!)! - printedLines);
    const { fault, mapping: had } = fits!;
    if (fault!.access !== "unknown") expect(access === "read" ? fault!.reads : fault!.writes).toBeGreaterThan(0);
    // Of several faults of one finding the first is told in full.
    if (mapping !== undefined && fault!.count === 1) expect(had!.iova).toBe(Number(mapping));
    if (unmappedAt !== undefined) expect(had!.endedNs).toBeDefined();
    expect(fits!.confidence).not.toBe("possible");
  }
  if (truth.length > 0) expect([...left.values()].every((count) => count === 0)).toBe(true);
}

describe.each(NAMES)("%s", (name) => {
  test("tells who had the address, from the trace alone", async () => {
    const result = await checkTrace(await traceOf(`${name}.dat.gz`));
    judge(name, result);
    expect(result.findings.filter(({ severity, rule }) => severity === "error" && rule !== "device-fault")).toEqual([]);
  });

  test("tells the same from what trace-cmd prints", async () => {
    const binary = faultsOf(await checkTrace(await traceOf(`${name}.dat.gz`)));
    const text = faultsOf(await checkTrace(await traceOf(`${name}.report.txt.gz`)));
    const facts = ({ device, fault, mapping }: Finding): object => ({
      device,
      address: fault!.address,
      count: fault!.count,
      relation: mapping!.relation,
      cause: mapping!.cause,
      iova: mapping!.iova,
    });
    expect(text.map(facts)).toEqual(binary.map(facts));
  });

  test("tells the same with the log beside it, and finds by how much its clock differs", async () => {
    const alone = await checkTrace(await traceOf(`${name}.dat.gz`));
    const beside = await checkTrace(await traceOf(`${name}.dat.gz`), { kernelLog: await logOf(name) });
    judge(name, beside);
    expect(beside.summary).toEqual(alone.summary);
    expect(beside.kernel.clock).toMatchObject({ how: "found" });
    expect(beside.kernel.suppressed).toEqual(alone.kernel.suppressed);
  });

  test("tells the same where only the log has the faults, by the difference that is given", async () => {
    const { clock } = (await checkTrace(await traceOf(`${name}.dat.gz`), { kernelLog: await logOf(name) })).kernel;
    if (clock?.how !== "found") throw new Error("no line is in both");
    const silent = new TextDecoder()
      .decode(unpacked(`${name}.report.txt.gz`))
      .split("\n")
      .filter((line) => !line.includes(" console: "))
      .join("\n");
    const trace = await openTrace(bytesInput(name, new TextEncoder().encode(silent)));
    const result = await checkTrace(trace, { kernelLog: await logOf(name), kernelLogOffsetNs: clock.offsetNs });
    judge(name, result);
    expect(faultsOf(result).every(({ fault }) => fault!.source === "kernel-log")).toBe(true);
  });

  test("from the log alone tells who, what, where and how often", async () => {
    const binary = faultsOf(await checkTrace(await traceOf(`${name}.dat.gz`)));
    const log = faultsOf(await checkTrace(logTrace(name)));
    const sum = (findings: readonly Finding[]): number => findings.reduce((all, { fault }) => all + fault!.count, 0);
    expect(sum(log)).toBe(sum(binary));
    expect(new Set(log.map(({ device }) => device))).toEqual(new Set(binary.map(({ device }) => device)));
    expect(log.every(({ mapping }) => mapping === undefined)).toBe(true);
  });
});

test("the clocks differ by what the recorder measured", async () => {
  const { clock } = (await checkTrace(await traceOf("fault-flood.dat.gz"), { kernelLog: await logOf("fault-flood") }))
    .kernel;
  expect(clock).toMatchObject({ how: "found" });
  expect(Math.abs((clock as { offsetNs: number }).offsetNs - 720_010_000)).toBeLessThan(100_000);
});

test("a flood of four devices is one finding for each that was printed, and what was kept back is counted", async () => {
  const result = await checkTrace(await traceOf("fault-flood.dat.gz"));
  const found = faultsOf(result);
  expect(found.map(({ device, fault }) => [device, fault!.count])).toEqual([
    ["0000:00:06.0", 3],
    ["0000:00:0b.0", 3],
    ["0000:00:0c.0", 1],
  ]);
  expect(found.every(({ mapping }) => mapping!.relation === "never" && mapping!.cause === "maps-nothing")).toBe(true);
  expect(result.kernel.suppressed).toEqual({ dmar_fault: 380 });
});

test("addresses beyond the devices' 28 bits are found before they fault", async () => {
  const deviceBits = new Map(["0b", "0c", "0d"].map((slot) => [`0000:00:${slot}.0`, 28]));
  const { findings } = await checkTrace(await traceOf("fault-cut-address.dat.gz"), {
    deviceBits,
    rules: ["beyond-device-width"],
  });
  expect(findings.map(({ device, iova }) => [device, iova])).toEqual(
    [...deviceBits.keys()].map((device) => [device, 0xfffff000]),
  );
  expect(findings[0]!.message).toContain("would arrive as 0xffff000");
});
