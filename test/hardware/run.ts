/**
 * `npm run test:hardware`: real Linux in QEMU, a real IOMMU driver, and our stack on top.
 *
 * Builds or takes the guest's image from a cache folder, bundles the program that runs inside, boots once, and says in one line
 * what passed, failed and was skipped. Exit 0 when nothing failed, 1 when something did, 3 when the machine lacks what is needed.
 *
 *     npm run test:hardware -- --kernel lab --iommu intel-sm --keep
 *
 * `--kernel debian` (VFIO type1; nothing to compile) or `lab` (iommufd besides; compiles a kernel the first time, some ten
 * minutes). `--iommu` as in lab/run.sh. `--figures` measures besides: our driver against the kernel's, and what mapping costs.
 * `--keep` leaves the folder that guest and host shared. `--build-only` makes the guest's image and boots nothing.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { basename, join } from "node:path";
import { parseArgs } from "node:util";
import type { CaseResult } from "./guest/report.ts";
import { serveMonitor } from "./monitor.ts";

const top = join(import.meta.dirname, "../..");
const lab = join(import.meta.dirname, "lab");
/** The lab's names for the kernels. */
const KERNELS: Readonly<Record<string, "deb" | "lab">> = { debian: "deb", lab: "lab" };

const { values: options } = parseArgs({
  options: {
    kernel: { type: "string", default: "debian" },
    iommu: { type: "string", default: "intel" },
    timeout: { type: "string", default: "420" },
    keep: { type: "boolean", default: false },
    figures: { type: "boolean", default: false },
    "build-only": { type: "boolean", default: false },
  },
});

function missing(message: string): never {
  process.stderr.write(`test:hardware: ${message}\n`);
  process.exit(3);
}

const kernel = KERNELS[options.kernel] ?? missing(`no kernel ${options.kernel}: debian or lab`);
if (process.platform !== "linux") missing("Linux is needed to build and boot the guest");
const { env } = process;
const cache =
  env.DMALINK_LAB_CACHE ?? env.LAB_CACHE ?? join(env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "dmalink/lab");
mkdirSync(cache, { recursive: true });
const environment = { ...env, LAB_CACHE: cache };

const hasQemu = spawnSync("qemu-system-x86_64", ["--version"]).status === 0;
if (!hasQemu || !existsSync(join(cache, `initrd-${kernel}.cpio`))) {
  process.stderr.write(`building the guest in ${cache} (once) ...\n`);
  const built = spawnSync(join(lab, "build.sh"), [kernel], { env: environment, stdio: ["ignore", 2, 2] });
  if (built.status !== 0)
    missing("the guest could not be built: see above. It needs Debian 12 or later with apt, and root to install QEMU");
}
if (options["build-only"]) process.exit();

const share = mkdtempSync(join(tmpdir(), "dmalink-hardware-"));
chmodSync(share, 0o755); // some of the guest's programs are not root's
const bundler = join(top, "node_modules/tsdown/dist/run.mjs");
const how = ["--no-config", "--format", "esm", "--platform", "node", "--external", "koffi", "--no-dts", "--no-clean"];
const examples = ["first-read", "nvme-copy"].map((name) => join(top, `examples/${name}.ts`));
for (const program of [join(import.meta.dirname, "guest/suite.ts"), ...examples]) {
  const command = [bundler, program, ...how, "--out-dir", share, "--log-level", "error"];
  const bundled = spawnSync(process.execPath, command, { cwd: top, encoding: "utf8" });
  if (bundled.status !== 0 || !existsSync(join(share, basename(program).replace(/\.ts$/, ".mjs"))))
    missing(`the program for the guest could not be bundled:\n${bundled.stdout}${bundled.stderr}`);
}

process.stderr.write(`booting Linux (${options.kernel}, IOMMU ${options.iommu}) in QEMU ...\n`);
const start = performance.now();
const file = join(share, "results.json");
/** Of run.sh: the guest went away without a word. */
const NO_STATUS = 125;
/** A device that can report errors, behind a port of its own: bus 1. */
const reporter = ["pcie-root-port,id=rp1,chassis=1,addr=8", "virtio-rng-pci,id=reporter,bus=rp1,aer=on"];
/** Two functions of a slot, which are one IOMMU group. */
const functions = ["edu,addr=9.0,multifunction=on", "edu,addr=9.1"];
const boot = async (): Promise<number | null> => {
  rmSync(file, { force: true });
  const child = spawn(
    join(lab, "run.sh"),
    ["--kernel", kernel, "--iommu", options.iommu, "--mods", "none", "--share", share, "--timeout", options.timeout]
      .concat(["--smp", options.figures ? "2" : "1"]) // one is slower, and does not meet QEMU's races
      .concat(options.figures ? [] : ["--nvme", "cmb_size_mb=64", "--disk2"]) // the kernel's driver would use it, too
      .concat([...reporter, ...functions].flatMap((device) => ["--qemu-arg", "-device", "--qemu-arg", device]))
      .concat(["--append", "vfio_iommu_type1.allow_unsafe_interrupts=1 iommufd.allow_unsafe_interrupts=1"])
      .concat(["--", `uname -r; node /host/suite.mjs${options.figures ? " figures" : ""}`]),
    { env: environment, stdio: ["ignore", "inherit", "inherit"] },
  );
  const stop = serveMonitor(share);
  const [code] = await once(child, "close");
  stop();
  return code;
};
let status = await boot();
if (status === NO_STATUS) {
  // Seen once in a while: an assertion of QEMU's own about its TLB, when registers move while another processor runs.
  process.stdout.write("QEMU itself gave up (see above): once more\n");
  status = await boot();
}
const seconds = ((performance.now() - start) / 1000).toFixed(0);

const bootSeconds = existsSync(join(share, "boot-seconds"))
  ? readFileSync(join(share, "boot-seconds"), "utf8").trim()
  : "?";
const results: CaseResult[] = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")).results : [];
const countOf = (result: CaseResult["result"]): number => results.filter((each) => each.result === result).length;
for (const { name, reason } of results.filter(({ result }) => result === "skipped"))
  process.stdout.write(`skipped: ${name}: ${reason}\n`);
const ended = status === 0 || status === 1;
if (!ended)
  process.stdout.write(`the guest did not come to an end (${status}); its console: ${join(share, "console.log")}\n`);
process.stdout.write(
  `hardware (${options.kernel}, ${options.iommu}): ${countOf("passed")} passed, ${countOf("failed")} failed, ` +
    `${countOf("skipped")} skipped; booted in ${bootSeconds} s, ${seconds} s in all\n`,
);
if (!options.keep && ended) rmSync(share, { recursive: true, force: true });
process.exitCode = ended && results.length > 0 && countOf("failed") === 0 ? 0 : 1;
