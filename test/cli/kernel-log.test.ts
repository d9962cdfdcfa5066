/** `dmalink check` with a kernel's log: alone, beside a trace, and what is said of it. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { dmalink } from "./in-process.ts";

const faults = new URL("../golden/faults/", import.meta.url).pathname;
const cases = new URL("../golden/cases/", import.meta.url).pathname;
const traces = new URL("../golden/traces/", import.meta.url).pathname;
const DISK = "0000:00:06.0";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-log-"));
});
afterAll(() => rmSync(folder, { recursive: true }));
const file = (name: string, bytes: string | Uint8Array): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
const flat = (text: string): string => text.replace(/\s+/g, " ");

describe("a log alone", () => {
  test.each([
    ["dmesg", "09-amdgpu-dmesg.txt", "5 faults of 1 device told"],
    ["journalctl", "59-journalctl.txt", "1 fault of 1 device told"],
    ["SMMUv3", "61-smmuv3-dmesg.txt", "1 fault told"],
    ["SMMUv2", "62-smmuv2-dmesg.txt", "1 fault told"],
  ])("%s: what it tells, exit code 1", async (_, name, told) => {
    const { code, out, err } = await dmalink("check", `${cases}${name}`);
    expect([code, err]).toEqual([1, ""]);
    expect(flat(out)).toContain("kernel log, ");
    expect(flat(out)).toContain(told);
    expect(out).toContain("error device-fault");
    expect(flat(out)).toContain("dmalink record");
  });

  test("through a pipe, and gzip", async () => {
    const bytes = readFileSync(`${faults}fault-read-only.dmesg.txt.gz`);
    expect((await dmalink("check", `${faults}fault-read-only.dmesg.txt.gz`)).code).toBe(1);
    const piped = spawnSync(process.execPath, ["--import", "tsx", "src/apps/cli/main.ts", "check", "-"], {
      input: gunzipSync(bytes),
      encoding: "utf8",
      cwd: new URL("../..", import.meta.url).pathname,
    });
    expect(piped.status).toBe(1);
    expect(flat(piped.stdout)).toContain("in the wrong direction");
  });

  test("in which nothing is wrong is clean, and says what that means", async () => {
    const { code, out } = await dmalink(
      "check",
      file("clean.txt", "[    1.000000] Linux version 6.12\n[    2.000000] DMAR: IOMMU enabled\n"),
    );
    expect(code).toBe(0);
    expect(flat(out)).toContain("No line of this log tells of a DMA fault");
    expect(out).not.toContain("no errors");
  });

  test("shows a line about an IOMMU that is not understood", async () => {
    const { code, out } = await dmalink(
      "check",
      file("new.txt", "[    1.000000] box\n[    2.000000] new-iommu 12.mmu: walk error 7 at 0x1000\n"),
    );
    expect(code).toBe(0);
    expect(flat(out)).toContain(
      "1 line about an IOMMU is not understood; the first (line 2): new-iommu 12.mmu: walk error 7 at 0x1000",
    );
  });

  test("as data has no mapping, and says which lines show it", async () => {
    const { out } = await dmalink("check", `${cases}59-journalctl.txt`, "--json");
    expect(JSON.parse(out)).toMatchObject({
      findings: [
        {
          rule: "device-fault",
          device: "0000:00:04.0",
          fault: { address: "0xffe31000", access: "write", count: 1, source: "kernel-log", unit: "vtd" },
          mapping: null,
          hypotheses: [],
          evidence: [{ line: 2, text: expect.stringContaining("DMAR: [DMA Write NO_PASID]") }],
        },
      ],
      traces: [{ kernel: { messages: 2, understood: 2, faults: 1 } }],
    });
  });

  test("as SARIF is a result like any other", async () => {
    const { out } = await dmalink("check", `${cases}59-journalctl.txt`, "--sarif");
    expect(JSON.parse(out).runs[0].results).toMatchObject([{ ruleId: "device-fault", properties: { mapping: null } }]);
  });
});

describe("a log beside a trace", () => {
  const trace = `${faults}fault-use-after-unmap.dat.gz`;
  const log = `${faults}fault-use-after-unmap.dmesg.txt.gz`;
  /** The recording without the kernel's lines. */
  const silent = (): string =>
    file(
      "silent.txt",
      gunzipSync(readFileSync(`${faults}fault-use-after-unmap.report.txt.gz`))
        .toString()
        .split("\n")
        .filter((line) => !line.includes(" console: "))
        .join("\n"),
    );

  test("is joined by the clock that is found", async () => {
    const { code, out } = await dmalink("check", trace, "--kernel-log", log);
    expect(code).toBe(1);
    expect(flat(out)).toMatch(/The log's clock is 0\.7200\d\d s behind the trace's, found from \d+ lines in both/);
    expect(flat(out)).toContain("unmapped 99.7 ms before by sh-164");
  });

  test.each(["0.72001", "0.72001s", "720.01ms", "720010us"])(
    "is joined by the difference that is given: %s",
    async (offset) => {
      const { out } = await dmalink("check", silent(), "--kernel-log", log, "--kernel-log-offset", offset);
      expect(flat(out)).toContain("unmapped 99.7 ms before by sh-164");
    },
  );

  test("is joined by address alone where the clocks cannot be compared, and says what helps", async () => {
    const { out } = await dmalink("check", silent(), "--kernel-log", log);
    expect(flat(out)).toContain("joined by address alone");
    expect(flat(out)).toContain("--kernel-log-offset");
  });

  test("is looked at with each of several traces", async () => {
    const { code, out } = await dmalink("check", trace, `${traces}strict-net.dat.gz`, "--kernel-log", log);
    expect(code).toBe(1);
    expect(out).toContain("2 traces");
  });

  test.each([
    [["check", trace, "--kernel-log-offset", "1s"], 2, "give --kernel-log too"],
    [["check", trace, "--kernel-log", log, "--kernel-log-offset", "soon"], 2, "a time such as 0.78s"],
    [["check", trace, "--kernel-log", "/nowhere"], 2, "no such file"],
    [["check", trace, "--kernel-log", trace], 2, "no line of it is the kernel's"],
    [["check", trace, "--device", "0000:00:99.0"], 2, "no event names it"],
  ])("is refused where it makes no sense: %j", async (words, code, message) => {
    const answer = await dmalink(...words);
    expect(answer.code).toBe(code);
    expect(answer.err).toContain(message);
  });
});

describe("--device-bits", () => {
  test("finds mappings beyond a device's width before they fault", async () => {
    const { code, out } = await dmalink(
      ...["check", `${faults}fault-cut-address.dat.gz`, "--rule", "beyond-device-width"],
      ...["--device-bits", "0000:00:0b.0=28,00:0c.0=28"],
    );
    expect(code).toBe(1);
    expect(out).toContain("error beyond-device-width (2)");
    expect(flat(out)).toContain("would arrive as 0xffff000");
  });

  test.each(["0000:00:0b.0", "0000:00:0b.0=", "0000:00:0b.0=5", "0000:00:0b.0=99", "=28"])(
    "needs a device and its bits: %s",
    async (word) => {
      const { code, err } = await dmalink("check", `${faults}fault-cut-address.dat.gz`, "--device-bits", word);
      expect(code).toBe(2);
      expect(err).toContain("a device and its address bits are needed");
    },
  );
});

test("a device that only a fault names can be asked for", async () => {
  const { out } = await dmalink("check", `${faults}fault-flood.dat.gz`, "--device", DISK);
  expect(out).toContain(DISK);
  expect(out).not.toContain("0000:00:0b.0");
});

test.each(["stats", "export", "query"])("%s takes a log as what it is: lines of the kernel", async (command) => {
  const words: Record<string, string[]> = {
    stats: ["stats", `${faults}fault-flood.dmesg.txt.gz`],
    export: ["export", `${faults}fault-flood.dmesg.txt.gz`, "--html", join(folder, "x.html")],
    query: ["query", `${faults}fault-flood.dmesg.txt.gz`, "select count(*) as n from events"],
  };
  const { code, err } = await dmalink(...words[command]!);
  expect([code, err.includes("a fault of dmalink")]).toEqual([0, false]);
});
