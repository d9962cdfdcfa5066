/**
 * `dmalink record` on a real kernel with a load running: in every way it can record and end, what it wrote is read, and
 * nothing stays behind on the machine. Skipped, with the reason, where the lab is not built (lab/README.md).
 */
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readRequests, readStats } from "../../src/analysis/index.ts";
import { openTrace } from "../../src/trace/index.ts";
import { shareProgram } from "./share-program.ts";

const lab = join(import.meta.dirname, "lab");
const cache = process.env.LAB_CACHE ?? "";
const missing =
  cache === ""
    ? "LAB_CACHE is not set"
    : !existsSync(join(cache, "initrd-deb.cpio"))
      ? `no guest image in ${cache}: test/hardware/lab/build.sh deb`
      : spawnSync("qemu-system-x86_64", ["--version"]).status !== 0
        ? "qemu-system-x86_64 is not installed"
        : undefined;

describe.skipIf(missing)(`dmalink record on Linux 7.2${missing ? ` (skipped: ${missing})` : ""}`, () => {
  let share = "";
  let said = "";
  beforeAll(() => {
    share = mkdtempSync(join(tmpdir(), "dmalink-lab-"));
    chmodSync(share, 0o755); // one of the runs is not root's
    shareProgram(share);
    cpSync(join(lab, "guest/record.sh"), join(share, "record.sh"));
    const options = ["--kernel", "deb", "--iommu", "intel", "--append", "iommu.strict=1", "--share", share];
    const run = spawnSync(join(lab, "run.sh"), [...options, "--timeout", "240", "--", "sh /host/record.sh"], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "pipe"],
    });
    said = `${run.stdout}${run.stderr}`.replaceAll("\r", "");
  }, 280_000);
  afterAll(() => rmSync(share, { recursive: true, force: true }));

  const open = (name: string) => {
    const bytes = readFileSync(join(share, "out", name));
    const read = async (at: number, n: number) => bytes.subarray(at, at + n);
    return openTrace({ name, size: bytes.length, read });
  };
  const statsOf = async (name: string) => readStats(await open(name));
  const requestsOf = async (name: string) => readRequests(await open(name));
  const section = (name: string): string => said.split(/^== /m).find((part) => part.startsWith(`${name}\n`)) ?? said;
  const CLEAN = "left: instances=[] probes=0 parts=[] enabled=[]";

  test.each([
    ["tracefs-command", 0],
    ["tracefs-interrupted", 0],
    ["tracefs-after-kill", 0],
    ["not-root", 3],
    ["script", 0],
    ["trace-cmd", 0],
    ["trace-cmd-interrupted", 0],
    ["script-trace-cmd", 0],
  ])("%s ends with exit code %i and leaves nothing on the machine", (name, code) => {
    expect(section(name)).toContain(`exit: ${code}\n${CLEAN}`);
  });

  test("what was recorded of a whole load is judged by check: no error, no warning", () => {
    expect(section("check")).toMatch(/no errors, no warnings[\s\S]*exit: 0/);
  });

  test("who may not record is told what to do", () => {
    expect(section("not-root")).toMatch(/permission denied; recording events needs root/);
  });

  test.each(["command.dat", "timed.dat", "script.txt", "trace-cmd.dat", "script.dat"])(
    "%s is read: with probes every request has its device, none is lost",
    async (name) => {
      const { devices, lost, ambiguous } = await statsOf(name);
      expect(lost).toBe(0);
      const nvme = devices.find((device) => device.name === "0000:00:04.0");
      expect(nvme?.kinds["two-step"]).toBeGreaterThan(0);
      // Under load the first and last requests are cut by the recording's own edges.
      expect(ambiguous).toBeLessThanOrEqual(16);
    },
  );

  test("a recording that holds a whole load pairs every two-step range, and trace-cmd reads the same events", async () => {
    const { events } = await statsOf("command.dat");
    const requests = [...(await requestsOf("command.dat"))];
    expect(events.dma_iova_destroy).toBe(events.dma_iova_try_alloc);
    expect(requests.filter(({ kind, endNs }) => kind === "two-step" && endNs === undefined)).toEqual([]);
    const report = readFileSync(join(share, "out/command.report.txt"), "utf8");
    for (const [name, count] of Object.entries(events)) expect(report.split(` ${name}: `).length - 1).toBe(count);
  });
});
