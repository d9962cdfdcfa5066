/** Hot removal: the system wants the device back while we drive it. It waits until we let go, so we must be told. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type BackEnd, bindToVfio, type LinuxHost, PCI_DEVICES, type Sysfs } from "../../../src/hosts/linux/index.ts";
import { Edu } from "./edu.ts";
import { equal, expect, type Report } from "./report.ts";

export async function removalCase(
  report: Report,
  host: LinuxHost,
  sysfs: Sysfs,
  name: string,
  backEnd: BackEnd,
): Promise<void> {
  await report.test(`${backEnd}: a device that is taken away is said to be gone, and comes back whole`, async () => {
    const { device } = host.openDevice(name, { backEnd });
    let told = 0;
    device.onRemoved(() => told++);
    const registers = device.bar(0)!;
    const removal = spawn("sh", ["-c", `echo 1 > ${PCI_DEVICES}/${name}/remove`], { stdio: "ignore" });
    const ended = once(removal, "close");
    for (let wait = 0; wait < 5000 && told === 0; wait++) await new Promise((resolve) => setTimeout(resolve, 1));
    equal([told, device.removed, registers.read32(0)], [1, true, 0xffff_ffff], "told, removed, a register");
    registers.write32(0x60, 1); // reaches nothing, and is no crash
    device.setBusMaster(true);
    device.close();
    await ended;
    expect(sysfs.pciFunction(name) === undefined, "the device is still there");
    sysfs.write("/sys/bus/pci/rescan", "1");
    bindToVfio(sysfs, name);
    const { device: again } = host.openDevice(name, { backEnd });
    equal(new Edu(again).identity & 0xff, 0xed, "identity");
    again.close();
  });
}
