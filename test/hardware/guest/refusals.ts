/** What a real kernel refuses, and whether a person would know what to do then. */
import { chmodSync } from "node:fs";
import { type BackEnd, bindToVfio, LinuxHost, type Sysfs, survey } from "../../../src/hosts/linux/index.ts";
import { answerOf, type ChildOptions, startChild } from "./child.ts";
import { equal, expect, type Report, thrown } from "./report.ts";

const NOBODY = 65_534;

export async function refusalCases(
  report: Report,
  host: LinuxHost,
  sysfs: Sysfs,
  name: string,
  backEnd: BackEnd,
): Promise<void> {
  const test = (what: string, work: () => unknown): Promise<void> => report.test(`${backEnd}: ${what}`, work);
  const { group, node } = sysfs.pciFunction(name)!;
  const nodes = backEnd === "type1" ? ["/dev/vfio/vfio", `/dev/vfio/${group}`] : ["/dev/iommu", node!];
  const ask = async (options: ChildOptions) => {
    const child = startChild("map", name, backEnd, options);
    const closed = new Promise((resolve) => child.once("close", resolve));
    const answer = await answerOf(child);
    await closed; // until then it may still have the device
    return answer;
  };

  await test("a process without the right is told so", async () => {
    for (const path of nodes) chmodSync(path, 0o600);
    const { errno, message } = await ask({ uid: NOBODY });
    equal(errno, "EACCES", "errno");
    expect(/Run as root/.test(message!), message!);
  });
  await test("locked memory that runs out is named, with the cure", async () => {
    for (const path of nodes) chmodSync(path, 0o666);
    const { errno, message } = await ask({ uid: NOBODY, lockedKiB: 64 });
    equal(errno, "ENOMEM", `errno (${message})`);
    expect(/ulimit -l/.test(message!), message!);
  });
  await test("with the limit raised the same user can map", async () => {
    equal(await ask({ uid: NOBODY, lockedKiB: 65_536 }), { ok: true }, "answer");
    for (const path of nodes) chmodSync(path, 0o600);
  });
  await test("a device that somebody has is refused, and its owner keeps it", async () => {
    const { device } = host.openDevice(name, { backEnd });
    const { code, message } = await ask({});
    expect(code === "ERR_DMA_SYSCALL" && /Another process|Somebody else|bound already/.test(message!), `${message}`);
    equal(device.readConfig(0, 2), 0x1234, "vendor of the edu device");
    device.close();
  });
}

/** Where the IOMMU is off. */
export async function withoutIommu(report: Report, sysfs: Sysfs, name: string): Promise<void> {
  await report.test("without an IOMMU the doctor says what to do", () => {
    const [first] = survey(sysfs).problems;
    expect(
      first !== undefined && /IOMMU/.test(first.what) && /firmware|intel_iommu=on/.test(first.cure),
      JSON.stringify(first),
    );
  });
  await report.test("without an IOMMU a device is neither bound nor opened, and the kernel keeps it", async () => {
    const driver = sysfs.pciFunction(name)?.driver;
    using host = new LinuxHost();
    for (const call of [() => bindToVfio(sysfs, name), () => host.openDevice(name)]) {
      const { code, message } = await thrown(call);
      equal(code, "ERR_DMA_LINUX_IOMMU", "code");
      expect(/intel_iommu=on/.test(message), message);
    }
    equal(sysfs.pciFunction(name)?.driver, driver, "driver");
  });
}
