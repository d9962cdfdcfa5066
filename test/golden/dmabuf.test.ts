/** The judge of shared buffers finds every answer that is changed, and takes files whose devices have other names. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import type { Header, Line } from "./judge.ts";
import { type FileVerdict, judgeFile, readGolden } from "./runner.ts";

const folder = mkdtempSync(join(tmpdir(), "dmalink-dmabuf-"));
afterAll(() => rmSync(folder, { recursive: true }));

function judge(header: Header, lines: readonly Line[]): Promise<FileVerdict> {
  const path = join(folder, "changed.jsonl.gz");
  writeFileSync(path, gzipSync(`${[header, ...lines].map((line) => JSON.stringify(line)).join("\n")}\n`));
  return judgeFile(path);
}

const { header, lines } = readGolden(join(import.meta.dirname, "dmabuf/dmabuf-vfio-strict-amd-root.jsonl.gz"));
const at = (what: (line: Line) => boolean): number => lines.findIndex(what);

describe("the judge of shared buffers finds", () => {
  const mapped = at(({ op, ret, events }) => op === "map" && ret === 0 && events !== undefined);
  const changes: readonly (readonly [string, number, Partial<Line>])[] = [
    ["another result", at(({ op, ret }) => op === "attach" && ret === -95), { ret: 0 }],
    ["another errno", at(({ op, ret }) => op === "vfioExport" && ret === -75), { ret: -22 }],
    ["another size", at(({ op, size }) => op === "vfioExport" && size !== undefined), { size: 1 }],
    ["another list", mapped, { list: [["0xbc001000", 67_108_864]] }],
    ["another number of entries", mapped, { entries: 2 }],
    ["another translation", mapped, { translates: ["exp.2+0x1000"] }],
    ["an address of a device without a history", mapped, { events: [["iovaAlloc", 16_384, "0xfffff", "0xb8000"]] }],
    ["events that did not happen", at(({ op }) => op === "detach"), { events: [["inv", "0x0", 4096]] }],
    ["calls in another order", at(({ callbacks }) => callbacks !== undefined), { callbacks: [0, 1, 2] }],
    ["another distance", at(({ op }) => op === "p2pDistance"), { distance: 3 }],
  ];
  test.each(changes)("%s", async (_what, index, change) => {
    const changed = lines.map((line, i) => (i === index ? { ...line, ...change } : line));
    const { verdict } = await judge(header, changed);
    expect(verdict?.difference?.line).toBe(index + 2);
  });
});

describe("the judge of shared buffers takes", () => {
  test("devices of other names, and says what it does not know", async () => {
    const rename = (text: string): string => text.replace(/^a(\.\d|$)/, "importer$1");
    const renamed = (value: unknown): unknown => {
      if (typeof value === "string") return rename(value);
      if (Array.isArray(value)) return value.map(renamed);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [rename(key), renamed(each)]));
    };
    const { verdict } = await judge(renamed(header) as Header, lines.map(renamed) as Line[]);
    expect([verdict?.difference, verdict?.passed]).toEqual([undefined, lines.length]);
    const unknown = await judge(header, [{ op: "teleport" }, ...lines]);
    expect(unknown.verdict?.notJudged).toMatchObject({ 'the operation "teleport" is not known to the judge': 1 });
    const elsewhere = await judge({ ...header, name: "vfio-quantum-root" }, lines);
    expect(elsewhere.pending).toContain("quantum");
  });
});
