/** A check as data: the fields that programs rely on. */
import { expect, test } from "vitest";
import { DISK, SampleTrace } from "../../analysis/findings/sample-trace.ts";
import { RULES } from "../../analysis/index.ts";
import { checkJson } from "./check-json.ts";
import { checkSarif } from "./sarif.ts";

const sample = (): SampleTrace =>
  new SampleTrace().on(1, "fio-7").map(DISK, 0xffff_e000, 0x2000, 4096).unmap(DISK, 0xffff_e000, 512);

test("dmalink.check/1 has addresses as hex strings, times in seconds, and evidence with CPU and task", async () => {
  const trace = await sample().open();
  const result = await sample().check();
  expect(checkJson("a.dat", trace, result)).toMatchObject({
    schema: "dmalink.check/1",
    file: "a.dat",
    summary: { "size-mismatch": 1 },
    findings: [
      {
        rule: "size-mismatch",
        severity: "error",
        device: DISK,
        iova: "0xffffe000",
        length: 512,
        time: 1.000004,
        evidence: [
          { what: "mapped", event: "dma_map_phys", time: 1.000002, cpu: 1, task: "fio-7", iova: "0xffffe000" },
          { what: "unmapped", event: "dma_unmap_phys", time: 1.000004, length: 512 },
        ],
      },
    ],
    ambiguous: 0,
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
