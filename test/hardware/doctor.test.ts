/** The doctor, and binding, on machines laid out in files. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, test, vi } from "vitest";
import { bind, unbind } from "../../src/apps/cli/machine/bind.ts";
import { doctor, doctorText } from "../../src/apps/cli/machine/doctor.ts";
import { bindToVfio, survey, systemCalls, unbindFromVfio } from "../../src/hosts/linux/index.ts";
import { refusal } from "./fake-kernel.ts";
import { DISK, FakeMachine, type FakeMachineOptions } from "./fake-machine.ts";

const AT = `/sys/bus/pci/devices/${DISK}`;
let hasSystemCalls = true;
try {
  systemCalls();
} catch {
  hasSystemCalls = false; // koffi was left out: the doctor says so
}

const machines: FakeMachine[] = [];
function machine(options: FakeMachineOptions = {}): FakeMachine {
  const made = new FakeMachine(options);
  machines.push(made);
  return made;
}
afterEach(() => {
  for (const made of machines.splice(0)) made[Symbol.dispose]();
  vi.restoreAllMocks();
});

describe("dmalink doctor", () => {
  test("says of a machine that has everything what it has", () => {
    const found = survey(machine());
    expect(found).toMatchObject({
      kernel: "7.2.0-test",
      units: [{ name: "dmar0", kind: "intel", addressBits: 39 }],
      groups: 1,
      bootOptions: ["intel_iommu=on"],
      iommufd: { available: true },
      type1: { available: true },
      entryBudget: 65_535,
      hugePages: [{ bytes: 2 ** 21, free: 3, total: 4 }],
      problems: [],
    });
    expect(found.devices).toMatchObject([
      {
        name: DISK,
        className: "NVMe controller",
        driver: "nvme",
        group: "7",
        reserved: [{ start: 0xfee0_0000, end: 0xfef0_0000, kind: "msi" }],
        obstacles: [],
        uses: [],
      },
    ]);
    expect(doctorText(found)).toMatch(/Real devices can be used here/);
    expect(doctorText(found)).toMatch(new RegExp(`dmalink bind ${DISK} --yes`));
  });

  test.each([
    ["no IOMMU", { iommu: false }, /no IOMMU: this machine has none/, /turn on VT-d or AMD-Vi/],
    ["no VFIO", { nodes: [] }, /no way to devices/, /CONFIG_VFIO_PCI/],
    ["little locked memory", { memlock: "65536" }, /64 KiB only/, /ulimit -l unlimited/],
  ])("says %s and the cure", (_what, options, what, cure) => {
    const found = survey(machine(options));
    expect(found.problems).toHaveLength(1);
    expect(found.problems[0]).toMatchObject({ what: expect.stringMatching(what), cure: expect.stringMatching(cure) });
    expect(doctorText(found)).toMatch(/missing: [\s\S]*cure: /);
  });

  test("answers 0 or 3, and as JSON with addresses as hex strings", async () => {
    const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    expect(await doctor({ root: machine().root })).toBe(hasSystemCalls ? 0 : 3);
    expect(await doctor({ root: machine({ iommu: false }).root, json: true })).toBe(3);
    await doctor({ root: machine().root, json: true });
    const said = JSON.parse(String(write.mock.calls.at(-1)?.[0]));
    expect(said).toMatchObject({
      schema: "dmalink.doctor/1",
      lockedMemory: { soft: "unlimited" },
      devices: [
        { vendor: "0x1b36", device: "0x10", reserved: [{ start: "0xfee00000", end: "0xfef00000", kind: "msi" }] },
      ],
    });
  });

  test("says that koffi is missing and how to get it", () => {
    expect(survey(machine(), "Cannot find module").problems).toMatchObject([{ cure: "npm install koffi@3" }]);
  });

  test("says what a device is used for", () => {
    for (const mounted of ["by number", "by name"] as const)
      expect(survey(machine({ mounted })).devices[0]?.uses).toEqual(["/dev/nvme0n1p2 is mounted at /home"]);
    expect(survey(machine({ interfaceUp: true })).devices[0]?.uses).toEqual(["network interface eth7 is up"]);
  });
});

describe("binding", () => {
  test("gives a device to vfio-pci, and back to the driver that had it", () => {
    const sysfs = machine();
    expect(bindToVfio(sysfs, DISK)).toEqual({ name: DISK, before: "nvme", after: "vfio-pci" });
    expect(sysfs.pciFunction(DISK)?.node).toBe("/dev/vfio/devices/vfio0");
    expect(bindToVfio(sysfs, DISK).before).toBe("vfio-pci"); // a second time changes nothing
    expect(unbindFromVfio(sysfs, DISK)).toEqual({ name: DISK, before: "vfio-pci", after: "nvme" });
    expect(sysfs.read(`/sys/bus/pci/devices/${DISK}/driver_override`)).toBe("");
  });

  test("refuses a disk that is in use, before anything is changed", () => {
    const sysfs = machine({ mounted: "by number" });
    expect(refusal(() => bindToVfio(sysfs, DISK))).toMatchObject({ code: "ERR_DMA_LINUX_BUSY", errno: "EBUSY" });
    expect(sysfs.pciFunction(DISK)?.driver).toBe("nvme");
    expect(sysfs.read(`/sys/bus/pci/devices/${DISK}/driver_override`)).toBe("(null)");
  });

  test.each<[string, FakeMachineOptions, RegExp]>([
    ["mounted, under multipath", { multipath: true, mounted: "by name" }, /nvme0n1p2 is mounted at \/home/],
    ["mounted by its number, under multipath", { multipath: true, mounted: "by number" }, /nvme0n1p2 is mounted/],
    [
      "one of several devices of a btrfs",
      { files: { "/sys/fs/btrfs/1b2c/devices/nvme0n1p2/size": "1" } },
      /nvme0n1p2 is part of the mounted btrfs 1b2c/,
    ],
    [
      "part of an array",
      { files: { "/sys/class/block/nvme0n1p2/holders/md127/size": "1" } },
      /nvme0n1p2 is part of md127/,
    ],
    ["swap", { files: { "/proc/swaps": "Filename Type\n/dev/nvme0n1p2 partition 1 0 -2\n" } }, /nvme0n1p2 is swap/],
    [
      "behind a loop device",
      { files: { "/sys/class/block/loop3/loop/backing_file": "/dev/nvme0n1\n" } },
      /nvme0n1 is behind \/dev\/loop3/,
    ],
    ["made into virtual functions", { files: { [`${AT}/sriov_numvfs`]: "4" } }, /4 virtual functions/],
    [
      "the way to a disk on USB",
      {
        files: {
          [`${AT}/usb1/1-1/1-1:1.0/host0/target0:0:0/0:0:0:0/block/sda/queue/depth`]: "1",
          "/sys/class/block/sda/dev": "8:0",
          "/proc/self/mountinfo": "36 20 8:0 / / rw - ext4 /dev/root rw\n",
        },
      },
      /sda is mounted at \//,
    ],
    ["claimed by who is in no file (a ZFS pool)", { claimed: ["nvme0n1p2"] }, /nvme0n1p2 is held by somebody/],
    ["claimed as a whole", { claimed: ["nvme0n1"] }, /nvme0n1p2 is held by somebody/],
    ["claimed, under multipath", { multipath: true, claimed: ["nvme0n1p2"] }, /nvme0n1p2 is held by somebody/],
  ])("refuses what is %s, and changes nothing", async (_what, options, reason) => {
    const sysfs = machine(options);
    expect(refusal(() => bindToVfio(sysfs, DISK))).toMatchObject({
      code: "ERR_DMA_LINUX_BUSY",
      message: expect.stringMatching(reason),
    });
    await expect(bind(DISK, { yes: false, sysfs })).rejects.toThrow(reason); // nor is it offered to be done by hand
    expect(sysfs.pciFunction(DISK)?.driver).toBe("nvme");
    expect(sysfs.read(`${AT}/driver_override`)).toBe("(null)");
    expect(sysfs.heldDisks).toEqual([]);
  });

  test.each([false, true])("holds the disk against others until its driver is off it (multipath: %s)", (multipath) => {
    const sysfs = machine({ multipath });
    expect(bindToVfio(sysfs, DISK).after).toBe("vfio-pci");
    expect(sysfs.heldAtUnbind).toEqual(["nvme0n1"]);
    expect(sysfs.heldDisks).toEqual([]);
  });

  test("refuses a disk that the kernel cannot be asked about", () => {
    const sysfs = machine();
    rmSync(join(sysfs.root, "/dev/nvme0n1"));
    expect(refusal(() => bindToVfio(sysfs, DISK))).toMatchObject({ code: "ERR_DMA_LINUX_BUSY", errno: "ENOENT" });
    expect(sysfs.pciFunction(DISK)?.driver).toBe("nvme");
  });

  test("gives the device back when vfio-pci does not take it", () => {
    const sysfs = machine({ refuses: true });
    expect(refusal(() => bindToVfio(sysfs, DISK))).toMatchObject({ code: "ERR_DMA_LINUX_BIND" });
    expect(sysfs.pciFunction(DISK)?.driver).toBe("nvme");
  });

  test("a disk that is in use is not even offered to be taken by hand", async () => {
    const sysfs = machine({ mounted: "by number" });
    expect(survey(sysfs).devices[0]?.commands).toEqual([]);
    await expect(bind(DISK, { yes: false, sysfs })).rejects.toThrow(/is mounted at \/home/);
  });

  test.each([
    ["a device that is not there", () => bindToVfio(machine(), "0000:00:09.0"), "ERR_DMA_LINUX_DEVICE"],
    ["a device without an IOMMU", () => bindToVfio(machine({ iommu: false }), DISK), "ERR_DMA_LINUX_IOMMU"],
    ["giving back what nobody took", () => unbindFromVfio(machine(), DISK), "ERR_DMA_LINUX_BIND"],
  ])("refuses %s", (_what, call, code) => {
    expect(refusal(call)?.code).toBe(code);
  });

  test("without --yes only says what would be done, with the commands", async () => {
    const sysfs = machine();
    await expect(bind("00:04.0", { yes: false, sysfs })).rejects.toThrow(
      /say --yes[\s\S]*driver_override[\s\S]*drivers_probe/,
    );
    expect(sysfs.pciFunction(DISK)?.driver).toBe("nvme");
    await expect(unbind(DISK, { yes: false, sysfs })).rejects.toThrow(/say --yes/);
    const write = vi.spyOn(process.stdout, "write").mockReturnValue(true);
    expect(await bind("00:04.0", { yes: true, sysfs })).toBe(0);
    expect(await unbind(DISK, { yes: true, json: true, sysfs })).toBe(0);
    expect(write.mock.calls[0]?.[0]).toBe(`${DISK}: nvme -> vfio-pci\n`);
    expect(JSON.parse(String(write.mock.calls[1]?.[0]))).toMatchObject({ before: "vfio-pci", after: "nvme" });
  });
});
