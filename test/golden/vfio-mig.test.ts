/** The judge of vfio-mig notices a wrong answer in every field of every operation, and takes devices it has never heard of. */
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Header, Line } from "./judge.ts";
import { goldenFiles } from "./runner.ts";
import { judges } from "./vfio-mig.ts";

const judge = judges["vfio-mig"]!;
const header: Header = { kind: "vfio-mig", source: "", what: "" };

/** What the file says was answered, as against what was asked. */
const ANSWERS = new Set(
  "ret next fd state steps data pageSizeOut given calls bits crc32 head flags initial dirty length value newFdRead newFdWrite oldFd".split(
    " ",
  ),
);
/** Of these operations such a field is a question. */
const ASKED: Readonly<Record<string, ReadonlySet<string>>> = {
  nextState: new Set(["flags"]),
  setState: new Set(["flags"]),
  logReport: new Set(["length"]),
  dirty: new Set(["length"]),
  poke: new Set(["value"]),
  writeData: new Set(["crc32"]),
  unreachable: new Set(["flags", "state"]),
};

const wrong = (value: unknown): unknown => {
  if (typeof value === "number") return value + 1;
  if (typeof value === "boolean") return !value;
  if (Array.isArray(value)) return [...value, value[0] ?? 1];
  return value === null ? "STOP" : `${value}0`;
};

const FILES = goldenFiles(join(import.meta.dirname, "vfio-mig")).map(
  (file) => [basename(file, ".jsonl.gz"), file] as const,
);

describe.each(FILES)("%s", (_name, file) => {
  const [, ...lines] = gunzipSync(readFileSync(file))
    .toString()
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);
  /** One line of each kind of operation and outcome, and each answer of it. */
  const samples = new Map<string, [number, string]>();
  lines.forEach((line, i) => {
    for (const field of Object.keys(line))
      if (ANSWERS.has(field) && !ASKED[line["op"] as string]?.has(field)) {
        const key = `${line["op"]}.${field}, ${typeof line["ret"] === "number" && line["ret"] < 0 ? "refused" : "done"}`;
        if (!samples.has(key)) samples.set(key, [i, field]);
      }
  });
  test.each([...samples])("a wrong %s is a difference", async (_name, [at, field]) => {
    const changed = lines.map((line, i) => (i === at ? { ...line, [field]: wrong(line[field]) } : line));
    expect((await judge(header, changed)).difference).toBeDefined();
  });
});

test("a device with a name and flags that no file has yet is what its answers say", async () => {
  const feature = (index: number, rest: object): Line => ({
    op: "feature",
    dev: "card-x",
    index,
    get: 1,
    set: 0,
    probe: 0,
    argsz: 16,
    ...rest,
  });
  const verdict = await judge(header, [
    feature(1, { ret: 0, data: "0500000000000000" }),
    feature(9, { ret: 0, data: "4000000000000000" }),
    feature(2, { ret: 0, data: "02000000ffffffff" }),
    feature(12, { get: 0, set: 1, argsz: 8, ret: 0 }),
    feature(7, { get: 0, set: 1, argsz: 8, ret: -25 }),
  ]);
  expect(verdict).toMatchObject({ operations: 5, passed: 5 });
});
