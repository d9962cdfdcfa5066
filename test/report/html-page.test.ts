/** The report page of written and recorded traces, also as a browser shows it. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { escaped, readRecording, reportPage } from "../../src/report/index.ts";
import { golden, written } from "./written-trace.ts";

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-report-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("a report page", () => {
  test("needs nothing from outside, runs nothing, and says what was recorded", async () => {
    const page = reportPage("strict-net.dat.gz", await readRecording(await golden("strict-net.dat.gz")));
    expect(page).not.toMatch(/<script|https?:|src="(?!data:)|href="(?!data:)|@import|url\(/);
    expect(page).toContain("default-src 'none'");
    for (const word of ["0000:00:05.0", "3,672", "<svg", "data:image/png;base64,"]) expect(page).toContain(word);
  });

  test("escapes what the trace says", async () => {
    const evil = "<img src=x onerror=alert(1)>&\"'";
    const trace = await written([{ timeNs: 0, name: "dma_map_phys", address: 0x5000, device: evil }]);
    const page = reportPage(evil, await readRecording(trace));
    expect(page).not.toContain("<img");
    expect(page).toContain(escaped(evil));
  });

  const chromium = ["chromium-headless-shell", "chromium"].find((name) => spawnSync(name, ["--version"]).status === 0);
  test.skipIf(!chromium)(
    "is drawn by a browser, without a complaint (skipped where there is no chromium)",
    async () => {
      const target = join(folder, "report.html");
      writeFileSync(target, reportPage("strict-inflight", await readRecording(await golden("strict-inflight.dat.gz"))));
      const shot = join(folder, "report.png");
      const flags = [
        "--headless", // chromium itself wants a display without it
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--window-size=1100,900",
        `--screenshot=${shot}`,
      ];
      const { stderr } = spawnSync(chromium!, [...flags, `file://${target}`], { encoding: "utf8", timeout: 50_000 });
      expect(existsSync(shot)).toBe(true);
      expect(stderr).not.toMatch(/CONSOLE/);
    },
  );
});
