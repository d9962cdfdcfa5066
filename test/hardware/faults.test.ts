/**
 * Faults on a real kernel: a device is driven into them while `dmalink record` records, and `check` says who had the address, from the trace
 * alone and with the kernel's log. Skipped, with the reason, where the lab is not built (lab/README.md).
 */
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type CheckResult, checkTrace, readKernelLog } from "../../src/analysis/index.ts";
import { bytesInput, KernelLogTrace, openTrace } from "../../src/trace/index.ts";
import { shareProgram } from "./share-program.ts";

const lab = join(import.meta.dirname, "lab");
const top = join(import.meta.dirname, "../..");
const cache = process.env.LAB_CACHE ?? "";
const missing =
  cache === ""
    ? "LAB_CACHE is not set"
    : !existsSync(join(cache, "initrd-deb.cpio"))
      ? `no guest image in ${cache}: test/hardware/lab/build.sh deb`
      : spawnSync("qemu-system-x86_64", ["--version"]).status !== 0
        ? "qemu-system-x86_64 is not installed"
        : undefined;

/** What the program in the guest did. */
interface Truth {
  readonly relation: string;
  readonly device: string;
  readonly address: number;
  readonly access: string;
  readonly iova?: number;
  readonly pid: number;
}

describe.skipIf(missing)(`faults on Linux 7.2${missing ? ` (skipped: ${missing})` : ""}`, () => {
  let share = "";
  let said = "";
  let truth: readonly Truth[] = [];
  beforeAll(() => {
    share = mkdtempSync(join(tmpdir(), "dmalink-lab-"));
    chmodSync(share, 0o755);
    shareProgram(share);
    cpSync(join(lab, "guest/faults.sh"), join(share, "faults.sh"));
    const bundler = join(top, "node_modules/tsdown/dist/run.mjs");
    const how = [
      "--no-config",
      "--format",
      "esm",
      "--platform",
      "node",
      "--external",
      "koffi",
      "--no-dts",
      "--no-clean",
    ];
    const program = join(import.meta.dirname, "guest/faults.ts");
    const command = [bundler, program, ...how, "--out-dir", share, "--log-level", "error"];
    const bundled = spawnSync(process.execPath, command, { cwd: top, encoding: "utf8" });
    if (bundled.status !== 0) throw new Error(`${bundled.stdout}${bundled.stderr}`);
    const options = [
      "--kernel",
      "deb",
      "--iommu",
      "intel",
      "--smp",
      "1",
      "--append",
      "iommu.strict=1",
      "--share",
      share,
    ];
    const kernel = ["--append", "vfio_iommu_type1.allow_unsafe_interrupts=1"];
    const run = spawnSync(
      join(lab, "run.sh"),
      [...options, ...kernel, "--timeout", "240", "--", "sh /host/faults.sh"],
      {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    said = `${run.stdout}${run.stderr}`.replaceAll("\r", "");
    const lines = readFileSync(join(share, "faults.jsonl"), "utf8").trim().split("\n");
    truth = lines.map((line) => JSON.parse(line) as Truth);
  }, 280_000);
  afterAll(() => rmSync(share, { recursive: true, force: true }));

  const trace = () => {
    const bytes = readFileSync(join(share, "out/faults.dat"));
    return openTrace(bytesInput("faults.dat", bytes));
  };
  const log = () => {
    const chunks = async function* (): AsyncGenerator<Uint8Array> {
      yield readFileSync(join(share, "out/faults.dmesg.txt"));
    };
    return new KernelLogTrace(chunks(), 4096);
  };
  const judge = ({ findings }: CheckResult): void => {
    const found = findings.filter(({ rule }) => rule === "device-fault");
    for (const { relation, device, address, access, iova, pid } of truth) {
      const fits = found.find(
        (finding) =>
          finding.device === device &&
          finding.mapping?.relation === relation &&
          Number(finding.fault!.address) >> 12 === address >> 12,
      );
      expect(fits, `${relation} at 0x${address.toString(16)}: ${said}`).toBeDefined();
      expect(fits!.fault!.access).toBe(access);
      if (iova === undefined) continue;
      expect(fits!.mapping!.iova).toBe(iova);
      expect(fits!.mapping!.mappedBy).toMatch(new RegExp(`-${pid}$`));
    }
    expect(found).toHaveLength(truth.length);
  };

  test("the guest did what was asked, and check found errors there too", () => {
    expect(truth.map(({ relation }) => relation)).toEqual(["live", "ended", "near", "never"]);
    expect(said).toContain("exit: 0");
    expect(said).toContain("check: 1");
    expect(said).toContain("check log: 1");
  });

  test("the trace alone tells who had each address", async () => {
    judge(await checkTrace(await trace()));
  });

  test("the trace and the kernel's log tell the same, on one clock", async () => {
    const result = await checkTrace(await trace(), { kernelLog: await readKernelLog(log()) });
    expect(result.kernel.clock).toMatchObject({ how: "found" });
    judge(result);
  });

  test("the log alone tells of each", async () => {
    const { kernel } = await checkTrace(log());
    expect(kernel.faults).toBeGreaterThanOrEqual(truth.length);
  });
});
