/**
 * Judges take any file of their kind: other devices, other memory, several devices at once; and what they do not know is
 * pending with its reason, never an exception and never a pass.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import type { Header, Line } from "./judge.ts";
import { type FileVerdict, isClean, judgeFile, readGolden } from "./runner.ts";

const folder = mkdtempSync(join(tmpdir(), "dmalink-any-file-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Golden {
  readonly header: Header;
  readonly lines: readonly Line[];
}

const file = (name: string): Golden => {
  const where = name.startsWith("dma-api-") ? "dma-api" : name.startsWith("pt-") ? "pagetable" : "iova";
  return readGolden(join(import.meta.dirname, where, `${name}.jsonl.gz`));
};

function judge({ header, lines }: Golden): Promise<FileVerdict> {
  const path = join(folder, "changed.jsonl.gz");
  writeFileSync(path, gzipSync(`${[header, ...lines].map((line) => JSON.stringify(line)).join("\n")}\n`));
  return judgeFile(path);
}

/** All texts of a file changed. */
const changed = (golden: Golden, change: (text: string) => string): Golden =>
  JSON.parse(JSON.stringify(golden), (_key, value: unknown) =>
    typeof value === "string" ? change(value) : value,
  ) as Golden;

/** Numbers in hexadecimal that lie in [low, high), as addresses of memory, moved. */
const moved = (golden: Golden, low: bigint, high: bigint, by: bigint): Golden =>
  changed(golden, (text) => {
    if (!/^0x[0-9a-f]+$/.test(text)) return text;
    const value = BigInt(text);
    return value >= low && value < high ? `0x${(value + by).toString(16)}` : text;
  });

async function expectAllPassed(golden: Golden): Promise<void> {
  const { failure, pending, verdict } = await judge(golden);
  expect([failure, pending, verdict?.difference]).toEqual([undefined, undefined, undefined]);
  expect([verdict?.passed, verdict?.notJudged]).toEqual([golden.lines.length, {}]);
}

describe("the DMA API's judge takes", () => {
  const NAMES = [
    "dma-api-oneshot-strict-101",
    "dma-api-twostep-lazy-203",
    "dma-api-vectors-virtio",
    "dma-api-device-fl",
  ];
  test.each(NAMES)("%s of another device, with another number", async (name) => {
    for (const [device, short] of [
      ["0000:00:1f.3", "00:1f.3"],
      ["0000:83:00.1", "83:00.1"],
    ] as const) {
      const renamed = changed(file(name), (text) =>
        text.replaceAll("0000:00:06.0", device).replaceAll("00:06.0", short),
      );
      await expectAllPassed({
        ...renamed,
        lines: renamed.lines.map((line) => ("dev" in line ? { ...line, dev: 5 } : line)),
      });
    }
  });

  test.each([...NAMES.slice(0, 3), "dma-api-sg-cm-302"])("%s with its memory elsewhere", async (name) => {
    await expectAllPassed(moved(file(name), 0x2000_0000n, 0x3800_0000n, 0x800_0000n));
  });

  test("two devices at once, each with its domain", async () => {
    const [one, two] = [file("dma-api-sg-strict-102"), file("dma-api-sg-strict-112")];
    const second = two.lines.map((line) => {
      const text = JSON.stringify(line)
        .replaceAll('"id":', '"id":10')
        .replaceAll('"dev":0', '"dev":1')
        .replaceAll('["qi","0x5', '["qi","0x6'); // the next domain id
      return JSON.parse(text) as Line;
    });
    // Contents of memory are common, so the second script runs without them.
    const silent = second.filter(({ op }) => !/^(cpu|device[RW])/.test(op as string));
    const lines: Line[] = [];
    for (let i = 0; i < Math.max(one.lines.length, silent.length); i++)
      lines.push(...[one.lines[i], silent[i]].filter((line) => line !== undefined));
    await expectAllPassed({ header: one.header, lines });
  });
});

describe("page tables' judge takes", () => {
  test.each(["pt-vtdss-02", "pt-arm-s2-16k-02", "pt-riscv64-01"])("%s with its tables elsewhere", async (name) => {
    const { header, lines } = file(name);
    const tableBase = `0x${(BigInt(header["tableBase"] as string) + 0x400_0000n).toString(16)}`;
    const kept = lines.filter(({ op }) => op !== "image"); // names the places of tables
    const { verdict } = await judge({ header: { ...header, tableBase, root: tableBase }, lines: kept });
    // Two answers at a check name places; the digest that leaves them out is the same, and so is everything else.
    expect(verdict!.operations - verdict!.passed).toBe(kept.filter(({ op }) => op === "check").length);
    expect(verdict!.difference!.message).toMatch(/^root: [^;]*; raw: [^;]*$/);
  });
});

describe("what a judge does not know is pending, with the reason", () => {
  const some = (name: string): Golden => {
    const { header, lines } = file(name);
    return { header, lines: lines.slice(0, 40) };
  };

  test.each<[string, Golden, RegExp]>([
    [
      "a mode",
      { ...some("dma-api-sg-none-802"), header: { ...some("dma-api-sg-none-802").header, mode: "smmu" } },
      /smmu/,
    ],
    ["a machine", changed(some("dma-api-sg-none-802"), (text) => text.replace("2 GiB", "64 GiB")), /64 GiB/],
    [
      "a device in another segment",
      changed(some("dma-api-sg-none-802"), (text) => text.replace("0000:00:", "0001:00:")),
      /0001/,
    ],
    ["a page-table format", changed(some("pt-vtdss-02"), (text) => text.replace("vtdss", "dart")), /dart/],
    [
      "a feature of a format",
      changed(some("pt-riscv64-01"), (text) => text.replace("detailedGather", "svnapot2m")),
      /svnapot2m/,
    ],
    ["a width", { ...some("pt-vtdss-02"), header: { ...some("pt-vtdss-02").header, vaBits: 64 } }, /64 bits/],
    ["a granule", { ...some("iova-tree-01"), header: { ...some("iova-tree-01").header, granule: "0x800" } }, /2048/],
  ])("%s: the whole file", async (_what, golden, reason) => {
    const result = await judge(golden);
    expect([result.failure, result.verdict]).toEqual([undefined, undefined]);
    expect(result.pending).toMatch(reason);
    expect(isClean(result)).toBe(true);
  });

  test("an operation that changes nothing: that line alone", async () => {
    const { header, lines } = some("dma-api-sg-none-802");
    const { verdict } = await judge({
      header,
      lines: [...lines.slice(0, 20), { op: "weigh", dev: 0 }, ...lines.slice(20)],
    });
    expect(verdict).toMatchObject({
      passed: 40,
      operations: 40,
      notJudged: { 'the operation "weigh" is not known to the judge': 1 },
    });
  });

  test("an operation that changes something: that line, and all that follow", async () => {
    const { header, lines } = some("dma-api-sg-none-802");
    const unknown = { op: "weigh", dev: 0, events: [["trace", "dma_weigh"]] };
    const { verdict } = await judge({ header, lines: [...lines.slice(0, 20), unknown, ...lines.slice(20)] });
    const reason = 'the operation "weigh" is not known to the judge';
    expect(verdict).toMatchObject({ passed: 20, operations: 20, notJudged: { [reason]: 1, [`after: ${reason}`]: 20 } });
  });

  test.each(["pt-vtdss-02", "iova-tree-01"])("%s: an operation on it, and all that follow", async (name) => {
    const { header, lines } = some(name);
    const { verdict } = await judge({ header, lines: [...lines.slice(0, 30), { op: "weigh" }, ...lines.slice(30)] });
    expect([verdict?.operations, verdict?.passed]).toEqual([30, 30]);
    expect(Object.values(verdict!.notJudged)).toEqual([1, 10]);
  });

  test.each<[string, (line: Line) => Line]>([
    ["a limit", (line) => (line["op"] === "set" ? { ...line, what: "gravity" } : line)],
    ["an attribute", (line) => (line["op"] === "mapSg" ? { ...line, attrs: "FRAGILE" } : line)],
    ["a direction", (line) => (line["op"] === "mapSg" ? { ...line, dir: "UP" } : line)],
    ["a device", (line) => (line["op"] === "mapSg" ? { ...line, dev: 9 } : line)],
    ["a type of domain", (line) => (line["op"] === "domain" ? { ...line, type: "nested" } : line)],
  ])("%s that nobody named", async (_what, change) => {
    const { header, lines } = some("dma-api-sg-strict-102");
    const result = await judge({ header, lines: lines.map(change) });
    expect(result.verdict?.difference).toBeUndefined();
    expect(Object.keys(result.verdict!.notJudged).length).toBeGreaterThan(0);
  });
});
