/** Folders that look like /sys, /proc and /dev of a machine with an IOMMU and one NVMe disk; and a kernel that answers writes. */
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Sysfs } from "../../src/hosts/linux/index.ts";

export const DISK = "0000:00:04.0";
/** Of the disk's group, if the machine has one. */
export const NEIGHBOUR = "0000:00:04.1";
const AT = `/sys/bus/pci/devices/${DISK}`;
const BESIDE = `/sys/bus/pci/devices/${NEIGHBOUR}`;

const MOUNTS = {
  no: "",
  "by number": "36 20 259:2 / /home rw,noatime shared:1 - ext4 /dev/root rw",
  "by name": "36 20 0:31 /@home /home rw,noatime shared:1 - btrfs /dev/nvme0n1p2 rw",
};

export interface FakeMachineOptions {
  readonly iommu?: boolean;
  readonly nodes?: readonly string[];
  readonly driver?: string;
  /** vfio-pci refuses the device. */
  readonly refuses?: boolean;
  /** Its second partition is mounted: the kernel says which by its number, or by its name. */
  readonly mounted?: "by number" | "by name";
  readonly interfaceUp?: boolean;
  /** Its disk is seen as most server SSDs are: paths below the controller, the disk itself below the subsystem. */
  readonly multipath?: boolean;
  /** Block devices that somebody has claimed, in no file that the kernel shows: `nvme0n1p2`. */
  readonly claimed?: readonly string[];
  /** Files beside those of every machine, by path; under the names of a path its text. */
  readonly files?: Readonly<Record<string, string>>;
  /** There is a second function in the disk's group, bound to vfio-pci. */
  readonly neighbour?: boolean;
  readonly memlock?: string;
  /** Where its BARs lie: start, last byte and flags, a line each. */
  readonly resource?: string;
}

/** Binds and unbinds when the files are written that make the kernel do so. */
export class FakeMachine extends Sysfs implements Disposable {
  readonly #options: FakeMachineOptions;
  /** Disks that are open for one alone now. */
  readonly heldDisks: string[] = [];

  /** What was held when a driver was taken off. */
  heldAtUnbind: readonly string[] = [];

  constructor(options: FakeMachineOptions = {}) {
    super(mkdtempSync(join(tmpdir(), "dmalink-machine-")));
    this.#options = options;
    const { iommu = true, nodes = ["/dev/iommu", "/dev/vfio/vfio"], driver = "nvme" } = options;
    this.#file("/proc/sys/kernel/osrelease", "7.2.0-test");
    this.#file("/proc/cmdline", "quiet intel_iommu=on");
    this.#file(
      "/proc/self/limits",
      `Max locked memory         ${options.memlock ?? "unlimited"}            unlimited            bytes`,
    );
    this.#file("/proc/self/status", "CapEff:\t0000000000000000");
    this.#file("/proc/self/mountinfo", `20 1 0:20 / /proc rw - proc proc rw\n${MOUNTS[options.mounted ?? "no"]}`);
    this.#file("/sys/class/block/nvme0n1/nvme0n1p2/size", "1");
    this.#file("/sys/class/block/nvme0n1p2/dev", "259:2");
    if (options.resource !== undefined) this.#file(`${AT}/resource`, options.resource);
    if (options.interfaceUp) this.#file(`${AT}/net/eth7/flags`, "0x1003");
    this.#file("/proc/swaps", "Filename Type\n");
    this.#file(`${AT}/vendor`, "0x1b36");
    this.#file(`${AT}/device`, "0x0010");
    this.#file(`${AT}/class`, "0x010802");
    this.#file(`${AT}/driver_override`, "(null)");
    this.#file("/sys/bus/pci/drivers_probe", "");
    for (const name of ["nvme", "vfio-pci"]) this.#file(`/sys/bus/pci/drivers/${name}/unbind`, "");
    this.#file("/dev/nvme0n1", "");
    this.#file("/dev/nvme0n1p2", "");
    if (options.multipath) {
      this.#file(`${AT}/nvme/nvme0/nvme0c0n1/queue/depth`, "1");
      this.#file("/sys/class/block/nvme0c0n1/hidden", "1");
      this.#file("/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/queue/depth", "1");
      mkdirSync(join(this.root, "/sys/class/nvme-subsystem"), { recursive: true });
      symlinkSync(
        "../../devices/virtual/nvme-subsystem/nvme-subsys0",
        join(this.root, "/sys/class/nvme-subsystem/nvme-subsys0"),
      );
      symlinkSync(
        `../../../../bus/pci/devices/${DISK}/nvme/nvme0`,
        join(this.root, "/sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0"),
      );
    } else this.#file(`${AT}/nvme/nvme0/nvme0n1/queue/depth`, "1");
    for (const [path, text] of Object.entries(options.files ?? {})) this.#file(path, text);
    this.#file("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "65535");
    this.#file("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "3");
    this.#file("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "4");
    for (const node of nodes) this.#file(node, "");
    if (iommu) {
      this.#file("/sys/class/iommu/dmar0/intel-iommu/cap", "d2008c22260206"); // 39 and 48 bits, 39 of address
      this.#file("/sys/kernel/iommu_groups/7/reserved_regions", "0x00000000fee00000 0x00000000feefffff msi\n");
      mkdirSync(join(this.root, `/sys/kernel/iommu_groups/7/devices/${DISK}`), { recursive: true });
      symlinkSync("../../../../kernel/iommu_groups/7", join(this.root, `${AT}/iommu_group`));
    }
    this.#bind(driver);
    if (options.neighbour) {
      mkdirSync(join(this.root, `/sys/kernel/iommu_groups/7/devices/${NEIGHBOUR}`));
      mkdirSync(join(this.root, `${BESIDE}/vfio-dev/vfio1`), { recursive: true });
      symlinkSync("../../../../kernel/iommu_groups/7", join(this.root, `${BESIDE}/iommu_group`));
      symlinkSync("../../drivers/vfio-pci", join(this.root, `${BESIDE}/driver`));
    }
  }

  override openExclusively(path: string): Disposable {
    const { claimed = [] } = this.#options;
    const own = path.slice("/dev/".length);
    // Who has a part has the whole, and the other way round; but not another part.
    const taken = [...claimed, ...this.heldDisks].some((one) => one.startsWith(own) || own === `${one}p2`);
    if (taken) throw Object.assign(new Error(`EBUSY: ${path}`), { code: "EBUSY" });
    const file = super.openExclusively(path);
    this.heldDisks.push(own);
    return {
      [Symbol.dispose]: () => {
        this.heldDisks.splice(this.heldDisks.indexOf(own), 1);
        file[Symbol.dispose]();
      },
    };
  }

  override write(path: string, text: string): void {
    super.write(path, text);
    if (path.endsWith("/driver/unbind")) {
      this.heldAtUnbind = [...this.heldDisks];
      this.#bind(undefined);
    }
    if (path.endsWith("/drivers_probe") && this.target(`${AT}/driver`) === undefined) {
      const override = this.read(`${AT}/driver_override`) ?? "";
      if (override === "vfio-pci") this.#bind(this.#options.refuses ? undefined : "vfio-pci");
      else this.#bind("nvme");
    }
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true });
  }

  #bind(driver: string | undefined): void {
    rmSync(join(this.root, `${AT}/driver`), { force: true });
    rmSync(join(this.root, `${AT}/vfio-dev`), { force: true, recursive: true });
    if (driver === undefined) return;
    symlinkSync(`../../drivers/${driver}`, join(this.root, `${AT}/driver`));
    if (driver === "vfio-pci") mkdirSync(join(this.root, `${AT}/vfio-dev/vfio0`), { recursive: true });
  }

  #file(path: string, text: string): void {
    const at = join(this.root, path);
    mkdirSync(dirname(at), { recursive: true });
    writeFileSync(at, text);
  }
}
