/**
 * The program that runs inside the guest, as root, on a real kernel: gives devices to vfio-pci, runs every case on every
 * back end that the kernel has, and gives the devices back. What it found is in /host/results.json.
 */
import { execFileSync } from "node:child_process";
import { dirname, join } from "node:path";
import {
  type BackEnd,
  bindToVfio,
  IOMMU_GROUPS,
  LinuxHost,
  Sysfs,
  survey,
  unbindFromVfio,
} from "../../../src/hosts/linux/index.ts";
import { playRole } from "./child.ts";
import { conformanceCases } from "./conformance.ts";
import { figures, kernelFigures } from "./figures.ts";
import { mappingCases } from "./mapping.ts";
import { nvmeCases } from "./nvme.ts";
import { cmbCases } from "./nvme-cmb.ts";
import { refusalCases, withoutIommu } from "./refusals.ts";
import { removalCase } from "./removal.ts";
import { equal, expect, Report } from "./report.ts";
import { errorCase } from "./reported-errors.ts";
import { sharingCase } from "./sharing.ts";

const DISK = "0000:00:04.0";
const DISK2 = "0000:00:07.0";
const EDU = "0000:00:06.0";

const [role, ...roleArguments] = process.argv.slice(2);
if (role === "map" || role === "write-forever") {
  await playRole(role, roleArguments[0]!, roleArguments[1] as BackEnd, Number(roleArguments[2]));
  process.exit();
}
const wantsFigures = role === "figures";

const report = new Report("/host/results.json");
const sysfs = new Sysfs();
const modprobe = (name: string): void => {
  try {
    execFileSync("modprobe", ["-q", name]);
  } catch {
    // built in, or not there: the cases will tell
  }
};
for (const name of ["nvme", "iommufd", "vfio_iommu_type1", "vfio-pci"]) modprobe(name);
execFileSync("sh", ["-c", "echo 8 > /proc/sys/vm/nr_hugepages"]);

if (sysfs.list(IOMMU_GROUPS).length === 0) {
  await withoutIommu(report, sysfs, DISK);
  process.exit(report.failed ? 1 : 0);
}
if (wantsFigures) kernelFigures(report);
const had = sysfs.pciFunction(DISK)?.driver;
await report.test("the disk and the edu device go to vfio-pci", () => {
  for (const name of [DISK, EDU]) equal(bindToVfio(sysfs, name).after, "vfio-pci", name);
});
await report.test("the doctor finds nothing missing", () => equal(survey(sysfs).problems, [], "problems"));
const backEnds: readonly [BackEnd, string][] = [
  ["iommufd", "/dev/iommu"],
  ["type1", "/dev/vfio/vfio"],
];
for (const [backEnd, node] of backEnds) {
  if (!sysfs.exists(node)) {
    report.skip(`${backEnd}: everything`, `this kernel has no ${node}`);
    continue;
  }
  const host = new LinuxHost();
  try {
    await mappingCases(report, host, sysfs, EDU, backEnd);
    await conformanceCases(report, host, sysfs, EDU, backEnd);
    await refusalCases(report, host, sysfs, EDU, backEnd);
    await removalCase(report, host, sysfs, EDU, backEnd);
    await sharingCase(report, host, sysfs, backEnd);
    await errorCase(report, host, sysfs, backEnd);
    await nvmeCases(report, host, DISK, backEnd);
    await cmbCases(report, host, sysfs, [DISK, DISK2], backEnd);
    if (wantsFigures) await figures(report, host, DISK, backEnd);
  } catch (error) {
    await report.test(`${backEnd}: runs to its end`, () => {
      throw error;
    });
  } finally {
    host.close();
  }
}
const example = (name: string, devices: readonly string[]): string => {
  const program = join(dirname(process.argv[1]!), `${name}.mjs`);
  const flags = devices.flatMap((device) => ["--device", device]);
  return execFileSync(process.execPath, [program, "--host", "linux", ...flags], { encoding: "utf8" });
};
await report.test("an example that runs on a simulated machine runs on this one: the first read", () => {
  const said = example("first-read", [DISK]);
  expect(/QEMU NVMe[\s\S]*65536 bytes written and read back/.test(said), said);
});
if (sysfs.pciFunction(DISK2) !== undefined)
  await report.test("and so does the copy from disk to disk", () => {
    const had = bindToVfio(sysfs, DISK2).before;
    const said = example("nvme-copy", [DISK, DISK2]);
    expect(/1 MiB from disk to disk[\s\S]*after closing both: 0 entries/.test(said), said);
    equal(unbindFromVfio(sysfs, DISK2).after, had, "driver of the second");
  });
await report.test("the disk's old driver has it back", () => {
  equal(unbindFromVfio(sysfs, DISK).after, had, "driver");
});
process.exitCode = report.failed ? 1 : 0;
