/**
 * Recorded traces of a real kernel without a fault: `check` finds no error in any, says the same of the binary file and of
 * its printed form, and finds what was done to bounce, to ambiguity and to the start.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  type CheckOptions,
  type CheckResult,
  checkTrace,
  readUnitTables,
  Snapshot,
  StartState,
} from "../../src/analysis/index.ts";
import { openTrace } from "../../src/trace/index.ts";

const TRACES = join(import.meta.dirname, "traces");
const SNAPSHOTS = join(import.meta.dirname, "snapshots");

async function check(folder: string, name: string, options: CheckOptions = {}): Promise<CheckResult> {
  const bytes = gunzipSync(readFileSync(join(folder, name)));
  const input = {
    name,
    size: bytes.length,
    read: async (at: number, length: number) => bytes.subarray(at, at + length),
  };
  return checkTrace(await openTrace(input), options);
}

const errorsOf = ({ findings }: CheckResult): string[] =>
  findings.filter(({ severity }) => severity === "error").map(({ rule, message }) => `${rule}: ${message}`);

const binary = readdirSync(TRACES).filter((name) => name.endsWith(".dat.gz"));
const printed = readdirSync(TRACES).filter((name) => name.endsWith(".ftrace.txt.gz"));

describe("a recording without a fault", () => {
  test.each([...binary, ...printed])("%s has no error", async (name) => {
    expect(errorsOf(await check(TRACES, name))).toEqual([]);
  });

  test.each(binary)("%s is judged as its printed form", async (name) => {
    const one = await check(TRACES, name);
    const other = await check(TRACES, name.replace(".dat.gz", ".report.txt.gz"));
    const facts = ({ summary, ambiguous, unknownStart, mappings, liveAtEnd }: CheckResult): object => ({
      summary,
      ambiguous,
      unknownStart,
      mappings,
      liveAtEnd,
    });
    expect(facts(one)).toEqual(facts(other));
  });

  test.each(readdirSync(SNAPSHOTS).filter((name) => name.endsWith(".trace.txt.gz")))(
    "%s, stopped in the middle of its load, has no error",
    async (name) => {
      expect(errorsOf(await check(SNAPSHOTS, name))).toEqual([]);
    },
  );
});

describe("what the recordings are known to hold", () => {
  test("the swiotlb ones were bounced by force", async () => {
    const { findings } = await check(TRACES, "swiotlb-mix7030.dat.gz", { rules: ["needless-bounce"] });
    expect(findings.map(({ severity, message }) => [severity, message.includes("4,825 mappings")])).toEqual([
      ["warning", true],
    ]);
  });

  test("a direct mapping that is never unmapped is no leak", async () => {
    const result = await check(TRACES, "pt-mix7030.dat.gz");
    expect(result.summary.leak).toBeUndefined();
    expect(result.liveAtEnd).toBeGreaterThan(1000);
  });

  test("user mappings of two domains are ambiguous", async () => {
    const { ambiguous, mapsOverLive } = await check(TRACES, "iommufd-vfio.dat.gz");
    expect(ambiguous).toBeGreaterThan(800);
    expect(mapsOverLive).toBeGreaterThan(500);
  });

  test("the one that begins under load ends three mappings from before, two of them by name", async () => {
    const { unknownStart, findings } = await check(TRACES, "strict-inflight.dat.gz", { rules: ["unknown-start"] });
    expect(unknownStart).toBe(3);
    expect(findings.map(({ message }) => message.split(" of ")[0])).toEqual([
      "0000:00:04.0: 2 ends",
      "an unknown device: 1 end",
    ]);
  });
});

test("a snapshot of the tables is a start state for what follows", async () => {
  const name = "legacy-inflight";
  const snapshot = Snapshot.parse(gunzipSync(readFileSync(join(SNAPSHOTS, `${name}.snap.gz`))));
  const { registers } = JSON.parse(readFileSync(join(SNAPSHOTS, `${name}.json`), "utf8"));
  const { devices } = readUnitTables(snapshot, { root: BigInt(registers.rtaddr), isRegister: true });
  const pages = devices.flatMap(({ bdf, space }) => (space ? [{ device: bdf, mappings: space.mappings }] : []));
  const { device, mappings } = pages.find((one) => one.mappings.length > 0)!;
  const [first] = mappings;
  const unmap = (page: number): Promise<CheckResult> => {
    const iova = (page * 4096).toString(16);
    const line = `  fio-1  [000]  1.000000: dma_unmap_phys: ${device} dir=FROM_DEVICE dma_addr=${iova} size=4096 attrs=\n`;
    const bytes = new TextEncoder().encode(`cpus=1\n${line}`);
    const input = {
      name,
      size: bytes.length,
      read: async (at: number, length: number) => bytes.subarray(at, at + length),
    };
    return openTrace(input).then((trace) => checkTrace(trace, { start: StartState.ofPages(pages) }));
  };
  expect(errorsOf(await unmap(first!.iova))).toEqual([]);
  expect(errorsOf(await unmap(12_345))).toHaveLength(1);
});
