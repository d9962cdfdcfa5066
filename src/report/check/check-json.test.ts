/** A check as data: the fields that programs rely on. */
import { expect, test } from "vitest";
import { DISK, SampleTrace } from "../../analysis/findings/sample-trace.ts";
import { type CheckResult, RULES } from "../../analysis/index.ts";
import type { Trace } from "../../trace/index.ts";
import { checkJson } from "./check-json.ts";
import type { CheckedTrace } from "./check-text.ts";
import { checkSarif } from "./sarif.ts";

const sample = (): SampleTrace =>
  new SampleTrace().on(1, "fio-7").map(DISK, 0xffff_e000, 0x2000, 4096).unmap(DISK, 0xffff_e000, 512);

const checkedAs = (file: string, { format, timeBase }: Trace, result: CheckResult): CheckedTrace => ({
  file,
  format,
  timeBase,
  clock: undefined,
  damage: undefined,
  result,
});

test("dmalink.check/2 has addresses as hex strings, times in nanoseconds, and evidence with CPU and task", async () => {
  const trace = await sample().open();
  const result = await sample().check();
  expect(checkJson([checkedAs("a.dat", trace, result)])).toMatchObject({
    schema: "dmalink.check/2",
    summary: { "size-mismatch": 1 },
    findings: [
      {
        file: "a.dat",
        rule: "size-mismatch",
        severity: "error",
        device: DISK,
        iova: "0xffffe000",
        length: 512,
        timeNs: 1_000_004_000,
        evidence: [
          { what: "mapped", event: "dma_map_phys", timeNs: 1_000_002_000, cpu: 1, task: "fio-7", iova: "0xffffe000" },
          { what: "unmapped", event: "dma_unmap_phys", timeNs: 1_000_004_000, length: 512 },
        ],
      },
    ],
    traces: [{ file: "a.dat", ambiguous: 0 }],
    unread: [],
  });
});

test("SARIF has one run, every rule, and for each finding its rule, level, text and trace", async () => {
  const trace = await sample().open();
  const result = await sample().check();
  const { version, runs } = checkSarif([{ file: "my traces/a.dat", timeBase: trace.timeBase, result }], "1.2.3") as {
    version: string;
    runs: { tool: { driver: { version: string; rules: { id: string }[] } }; results: object[] }[];
  };
  expect(version).toBe("2.1.0");
  expect(runs).toHaveLength(1);
  expect(runs[0]!.tool.driver.rules.map(({ id }) => id)).toEqual(RULES.map(({ name }) => name));
  expect(runs[0]!.results).toMatchObject([
    {
      ruleId: "size-mismatch",
      ruleIndex: RULES.findIndex(({ name }) => name === "size-mismatch"),
      level: "error",
      locations: [{ physicalLocation: { artifactLocation: { uri: "my%20traces/a.dat" } } }],
    },
  ]);
});

test("every rule has a name of its own, a summary and advice that fit a sentence", () => {
  expect(new Set(RULES.map(({ name }) => name)).size).toBe(RULES.length);
  for (const { summary, advice } of RULES) {
    expect(summary).not.toMatch(/\.$/);
    expect(advice).toMatch(/\.$/);
  }
});

test("the data hold the fault and the mapping as they are documented", async () => {
  const trace = new SampleTrace().map(DISK, 0xfffe1000, 0x8000, 2048, "FROM_DEVICE").wait(10_000);
  trace.event("io_page_fault", `IOMMU:drv ${DISK} iova=0x00000000fffe1010 flags=0x0000`);
  const opened = await trace.open();
  const result = await trace.check();
  const { findings } = checkJson([checkedAs("t", opened, result)]) as { findings: Record<string, unknown>[] };
  expect(findings[0]).toMatchObject({
    rule: "device-fault",
    severity: "error",
    device: DISK,
    fault: {
      device: DISK,
      address: "0xfffe1010",
      access: "read",
      count: 1,
      source: "io_page_fault",
      firstNs: 1_010_003_000,
    },
    mapping: {
      relation: "live",
      iova: "0xfffe1000",
      length: 2048,
      direction: "from-device",
      mappedNs: 1_000_002_000,
      endedNs: null,
      distanceBytes: null,
      side: null,
      bits: null,
    },
  });
});
