/** Advanced Error Reporting: QEMU has a device behind a root port report an error, and the kernel tells who drives it. */
import {
  type BackEnd,
  bindToVfio,
  type LinuxHost,
  type Sysfs,
  unbindFromVfio,
} from "../../../src/hosts/linux/index.ts";
import { askMachine } from "./machine.ts";
import { equal, type Report } from "./report.ts";

/** Behind the port, and what QEMU calls it (run.ts). */
const REPORTER = { name: "0000:01:00.0", id: "reporter" };
const COMMAND = 4;
const COMMAND_SERR = 0x100;

export async function errorCase(report: Report, host: LinuxHost, sysfs: Sysfs, backEnd: BackEnd): Promise<void> {
  const { name, id } = REPORTER;
  const what = `${backEnd}: an error that the device reports is told, and the device can be used on`;
  if (sysfs.pciFunction(name) === undefined) {
    report.skip(what, `there is no ${name}`);
    return;
  }
  await report.test(what, async () => {
    const had = bindToVfio(sysfs, name).before;
    const { device } = host.openDevice(name, { backEnd });
    try {
      const identity = device.readConfig(0, 4);
      equal(device.reportedErrors, 0, "errors at first");
      device.writeConfig(COMMAND, 2, device.readConfig(COMMAND, 2) | COMMAND_SERR); // QEMU asks for it beside Device Control
      await askMachine(`pcie_aer_inject_error ${id} COMP_ABORT`);
      for (let wait = 0; wait < 5000 && device.reportedErrors === 0; wait++)
        await new Promise((resolve) => setTimeout(resolve, 1));
      equal([device.reportedErrors, device.removed], [1, false], "errors told, and whether it is gone");
      equal(device.readConfig(0, 4), identity, "identity");
    } finally {
      device.close();
      equal(unbindFromVfio(sysfs, name).after, had, `driver of ${name}`);
    }
  });
}
