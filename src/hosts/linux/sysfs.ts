/**
 * What the kernel says of its devices in /sys, /proc and /dev, as values.
 *
 * Idea: one folder stands for the root, so that a test can lay out a machine in files.
 * Promises: what cannot be read is undefined or empty, never an exception: half of these files are missing on some machine.
 */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";

/** A PCI function, as the kernel lists it. */
export interface PciFunction {
  /** `ssss:bb:dd.f` */
  readonly name: string;
  /** Vendor id, 16 bits. */
  readonly vendor: number;
  /** Device id, 16 bits. */
  readonly device: number;
  /** Class, subclass and programming interface: 0x010802 for NVMe. */
  readonly classCode: number;
  /** Bound to it at present; undefined: none. */
  readonly driver: string | undefined;
  /** Its IOMMU group's number, if it has one. */
  readonly group: string | undefined;
  /** Its VFIO node's path, if the kernel has such nodes and vfio-pci the device. */
  readonly node: string | undefined;
}

/** What the kernel says of devices in /sys, /proc and /dev. What cannot be read is undefined or empty. */
export class Sysfs {
  /** The folder that stands for `/`. */
  readonly root: string;

  /** Reads nothing yet: each question is asked of the files. */
  constructor(root = "/") {
    this.root = root;
  }

  /** A file's text without the end of line; undefined if it cannot be read. */
  read(path: string): string | undefined {
    try {
      return readFileSync(join(this.root, path), "utf8").trimEnd();
    } catch {
      return undefined;
    }
  }

  /** Names in a folder, in order; none if there is no such folder. */
  list(path: string): string[] {
    try {
      return readdirSync(join(this.root, path)).sort();
    } catch {
      return [];
    }
  }

  /** Is there a file, folder or link target at `path`, counted from the root of this sysfs? */
  exists(path: string): boolean {
    return existsSync(join(this.root, path));
  }

  /** True if this user may read and write it. */
  isUsable(path: string): boolean {
    try {
      accessSync(join(this.root, path), constants.R_OK | constants.W_OK);
      return true;
    } catch {
      return false;
    }
  }

  /** The last part of what a link points to. */
  target(path: string): string | undefined {
    try {
      return basename(readlinkSync(join(this.root, path)));
    } catch {
      return undefined;
    }
  }

  /** @throws the error of the file system: the kernel's answer to what was written */
  write(path: string, text: string): void {
    writeFileSync(join(this.root, path), text);
  }

  /**
   * Opens a block device for this process alone: until it is disposed nobody can mount it or claim it otherwise.
   *
   * @throws the error of the file system: EBUSY if somebody has claimed it, or a part of it
   */
  openExclusively(path: string): Disposable {
    const fd = openSync(join(this.root, path), constants.O_RDONLY | constants.O_EXCL | constants.O_NONBLOCK);
    return { [Symbol.dispose]: () => closeSync(fd) };
  }

  /** The PCI function called `name` (`ssss:bb:dd.f`); undefined if there is none. */
  pciFunction(name: string): PciFunction | undefined {
    const at = `${PCI_DEVICES}/${name}`;
    if (!this.exists(at)) return undefined;
    const number = (file: string): number => Number(this.read(`${at}/${file}`) ?? 0);
    const node = this.list(`${at}/vfio-dev`)[0];
    return {
      name,
      vendor: number("vendor"),
      device: number("device"),
      classCode: number("class"),
      driver: this.target(`${at}/driver`),
      group: this.target(`${at}/iommu_group`),
      node: node === undefined ? undefined : `/dev/vfio/devices/${node}`,
    };
  }

  /** All PCI functions of the system, in the order of the listing. */
  pciFunctions(): PciFunction[] {
    return this.list(PCI_DEVICES).flatMap((name) => this.pciFunction(name) ?? []);
  }

  /** Where a function's memory BARs lie, and what a bridge passes on; half-open, bytes. */
  memoryOf(name: string): {
    /** First byte. */
    readonly start: number;
    /** The byte after the last. */
    readonly end: number;
  }[] {
    const lines = this.read(`${PCI_DEVICES}/${name}/resource`)?.split("\n") ?? [];
    return lines.flatMap((line) => {
      const [start = 0, last = 0, flags = 0] = line.split(" ").map(Number);
      return flags & RESOURCE_MEMORY && last > start ? [{ start, end: last + 1 }] : [];
    });
  }

  /** Devices of a group. */
  groupMembers(group: string): string[] {
    return this.list(`${IOMMU_GROUPS}/${group}/devices`);
  }
}

/** Flag of a resource that is memory and not I/O ports. */
const RESOURCE_MEMORY = 0x200;

export const PCI_DEVICES = "/sys/bus/pci/devices";
export const IOMMU_GROUPS = "/sys/kernel/iommu_groups";

/** A PCI function's name in full; `bb:dd.f` is of segment 0. Anything else as it is. */
export function fullName(name: string): string {
  return /^[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$/i.test(name) ? `0000:${name.toLowerCase()}` : name.toLowerCase();
}

/** Drivers that may have devices of a group beside ours. */
const HARMLESS: readonly string[] = ["vfio-pci", "pci-stub", "pcieport"];

/** Devices of a group that keep it from being used, with their drivers. */
export function groupObstacles(sysfs: Sysfs, group: string): string[] {
  return sysfs.groupMembers(group).flatMap((name) => {
    const driver = sysfs.target(`${PCI_DEVICES}/${name}/driver`);
    return driver === undefined || HARMLESS.includes(driver) ? [] : [`${name}: ${driver}`];
  });
}
