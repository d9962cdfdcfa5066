/**
 * What this machine has for real devices, and what is missing: IOMMU, VFIO, limits, devices.
 *
 * Idea: everything is read from files, so that it works without rights, without VFIO and on a laid-out machine in a test;
 * nothing is opened, bound or loaded. Each thing that is missing comes with the command that cures it.
 */

import { bindCommands } from "./binding.ts";
import { IOMMU_NODE } from "./iommufd.ts";
import { PCI_BRIDGE, pciClassName } from "./pci-classes.ts";
import { groupObstacles, IOMMU_GROUPS, type Sysfs } from "./sysfs.ts";
import { CONTAINER_NODE } from "./type1.ts";
import { usesOf } from "./uses.ts";

/** An IOMMU, as the kernel shows it. */
export interface SurveyedUnit {
  /** As the kernel lists it: `dmar0`. */
  readonly name: string;
  /** Whose; `other` where its files do not say. */
  readonly kind: "intel" | "amd" | "other";
  /** Width of the addresses it translates (second stage), where it says. */
  readonly addressBits: number | undefined;
}

/** Half-open, bytes. */
export interface ReservedRegion {
  /** First address. */
  readonly start: number;
  /** The address after the last. */
  readonly end: number;
  /** `msi`, `direct`, `reserved`, ... */
  readonly kind: string;
}

/** A PCI device, and whether it can be opened. */
export interface SurveyedDevice {
  /** `ssss:bb:dd.f` */
  readonly name: string;
  /** Vendor id, 16 bits. */
  readonly vendor: number;
  /** Device id, 16 bits. */
  readonly device: number;
  /** What it is, in words, by its class code. */
  readonly className: string;
  /** Bound to it at present; undefined: none. */
  readonly driver: string | undefined;
  /** Number of its IOMMU group; undefined: it has none. */
  readonly group: string | undefined;
  /** Addresses of its group where nothing can be mapped. */
  readonly reserved: readonly ReservedRegion[];
  /** What keeps its group from being used beside its own driver. */
  readonly obstacles: readonly string[];
  /** What would break if it were taken away. */
  readonly uses: readonly string[];
  /** To bind it by hand; none if it is bound or cannot be. */
  readonly commands: readonly string[];
}

/** One of the kernel's two interfaces, and whether it can be used. */
export interface SurveyedBackEnd {
  /** It can be used. */
  readonly available: boolean;
  /** Why not, and what to do. */
  readonly reason: string | undefined;
}

/** What is missing, and the command that cures it. */
export interface Problem {
  /** What is missing or in the way, in a sentence. */
  readonly what: string;
  /** What to type, or to change. */
  readonly cure: string;
}

/** What this machine has for driving devices from user space, and what is missing. */
export interface Survey {
  /** Its release, as `uname -r` prints it. */
  readonly kernel: string;
  /** IOMMUs that the kernel uses. */
  readonly units: readonly SurveyedUnit[];
  /** IOMMU groups; 0: no IOMMU is on. */
  readonly groups: number;
  /** IOMMU options that the kernel was booted with. */
  readonly bootOptions: readonly string[];
  /** The newer interface, /dev/iommu with device nodes. */
  readonly iommufd: SurveyedBackEnd;
  /** The older one, VFIO's container. */
  readonly type1: SurveyedBackEnd;
  /** Mappings that one type1 container may hold. */
  readonly entryBudget: number | undefined;
  /** Bytes that a process may lock; Infinity: no limit. */
  readonly lockedMemory: {
    /** The limit that applies to this process. */
    readonly soft: number;
    /** The limit to which it may raise that. */
    readonly hard: number;
    /** No limit counts for it (CAP_IPC_LOCK). */
    readonly exempt: boolean;
  };
  /** Huge pages, by size. */
  readonly hugePages: readonly {
    /** Bytes of one. */
    readonly bytes: number;
    /** Pages that nobody has. */
    readonly free: number;
    /** Pages in the pool. */
    readonly total: number;
  }[];
  /** PCI functions but for bridges, in the order of the kernel's list. */
  readonly devices: readonly SurveyedDevice[];
  /** What stands in the way, in the order to cure it. */
  readonly problems: readonly Problem[];
}

const CAP_IPC_LOCK = 14;
/** Less locked memory than this is a trap: one ring and a few requests. */
const USEFUL_LOCKED = 64 * 2 ** 20;
const ENTRY_LIMIT = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";

/**
 * Looks at the machine, and changes nothing.
 *
 * @param library why system calls cannot be made from JavaScript; undefined if they can
 */
export function survey(sysfs: Sysfs, library?: string): Survey {
  const kernel = sysfs.read("/proc/sys/kernel/osrelease") ?? "unknown";
  const units = sysfs.list("/sys/class/iommu").map((name) => unitOf(sysfs, name));
  const groups = sysfs.list(IOMMU_GROUPS).length;
  const iommufd = iommufdOf(sysfs, kernel);
  const type1 = type1Of(sysfs, kernel);
  const lockedMemory = lockedMemoryOf(sysfs);
  const budget = sysfs.read(ENTRY_LIMIT);
  const devices = sysfs
    .pciFunctions()
    .filter(({ classCode }) => classCode >>> 16 !== PCI_BRIDGE)
    .map((pci): SurveyedDevice => {
      const { name, vendor, device, classCode, driver, group } = pci;
      const uses = usesOf(sysfs, name);
      const free = driver !== "vfio-pci" && group !== undefined && uses.length === 0;
      return {
        name,
        vendor,
        device,
        className: pciClassName(classCode),
        driver,
        group,
        reserved: group === undefined ? [] : reservedOf(sysfs, group),
        obstacles: group === undefined ? [] : groupObstacles(sysfs, group).filter((one) => !one.startsWith(`${name}:`)),
        uses,
        commands: free ? bindCommands(pci) : [],
      };
    });
  const problems: Problem[] = [];
  if (groups === 0) problems.push(noGroups(units.length));
  if (!iommufd.available && !type1.available)
    problems.push({
      what: `no way to devices: ${type1.reason}`,
      cure: type1.reason?.includes("modprobe") ? "modprobe vfio-pci" : "use a kernel with CONFIG_VFIO_PCI",
    });
  if (library !== undefined) problems.push({ what: `koffi cannot be loaded: ${library}`, cure: "npm install koffi@3" });
  if (!lockedMemory.exempt && lockedMemory.soft < USEFUL_LOCKED)
    problems.push({
      what: `a process may lock ${lockedMemory.soft / 1024} KiB only, and DMA locks every page`,
      cure: "ulimit -l unlimited (as root), or LimitMEMLOCK=infinity of a service",
    });
  return {
    kernel,
    units,
    groups,
    bootOptions: bootOptions(sysfs),
    iommufd,
    type1,
    entryBudget: budget === undefined ? undefined : Number(budget),
    lockedMemory,
    hugePages: hugePagesOf(sysfs),
    devices,
    problems,
  };
}

function unitOf(sysfs: Sysfs, name: string): SurveyedUnit {
  const at = `/sys/class/iommu/${name}`;
  const capabilities = sysfs.read(`${at}/intel-iommu/cap`);
  if (capabilities !== undefined)
    return { name, kind: "intel", addressBits: vtdAddressBits(BigInt(`0x${capabilities}`)) };
  return { name, kind: sysfs.exists(`${at}/amd-iommu`) ? "amd" : "other", addressBits: undefined };
}

/** The wider of the second stages that a VT-d unit has, as far as its addresses go (VT-d specification, 11.4.2). */
function vtdAddressBits(capabilities: bigint): number {
  const most = Number((capabilities >> 16n) & 0x3fn) + 1;
  const levels = Number((capabilities >> 8n) & 0x1fn);
  const widths = [30, 39, 48, 57].filter((_, bit) => levels & (1 << bit));
  return Math.min(most, widths.at(-1) ?? most);
}

function bootOptions(sysfs: Sysfs): string[] {
  return (sysfs.read("/proc/cmdline") ?? "")
    .split(/\s+/)
    .filter((word) => /iommu|intremap|unsafe_interrupts/.test(word));
}

function noGroups(units: number): Problem {
  if (units > 0)
    return {
      what: "there is an IOMMU, but no device is behind it",
      cure: "boot with intel_iommu=on (Intel) or without iommu=off",
    };
  return {
    what: "no IOMMU: this machine has none, or it is off",
    cure: "turn on VT-d or AMD-Vi in the firmware, and boot with intel_iommu=on (Intel); a virtual machine needs a virtual IOMMU",
  };
}

function iommufdOf(sysfs: Sysfs, kernel: string): SurveyedBackEnd {
  if (sysfs.exists(IOMMU_NODE)) {
    if (sysfs.isUsable(IOMMU_NODE)) return { available: true, reason: undefined };
    return { available: false, reason: `${IOMMU_NODE} is there, but not for this user: run as root` };
  }
  const reason = hasModule(sysfs, kernel, "iommufd")
    ? "not loaded: modprobe iommufd"
    : "this kernel has none (CONFIG_IOMMUFD)";
  return { available: false, reason };
}

function type1Of(sysfs: Sysfs, kernel: string): SurveyedBackEnd {
  if (sysfs.exists(CONTAINER_NODE)) {
    if (sysfs.isUsable(CONTAINER_NODE)) return { available: true, reason: undefined };
    return { available: false, reason: `${CONTAINER_NODE} is there, but not for this user: run as root` };
  }
  const reason = hasModule(sysfs, kernel, "vfio[-_]pci")
    ? "VFIO is not loaded: modprobe vfio-pci"
    : "this kernel has no VFIO (CONFIG_VFIO_PCI)";
  return { available: false, reason };
}

function hasModule(sysfs: Sysfs, kernel: string, name: string): boolean {
  const pattern = new RegExp(`/${name}\\.ko`, "m");
  return ["modules.dep", "modules.builtin"].some((file) =>
    ["/lib/modules", "/usr/lib/modules"].some((folder) =>
      pattern.test(sysfs.read(`${folder}/${kernel}/${file}`) ?? ""),
    ),
  );
}

function lockedMemoryOf(sysfs: Sysfs): Survey["lockedMemory"] {
  const [, soft = "0", hard = "0"] =
    /^Max locked memory\s+(\S+)\s+(\S+)/m.exec(sysfs.read("/proc/self/limits") ?? "") ?? [];
  const [, effective = "0"] = /^CapEff:\s+([0-9a-f]+)/m.exec(sysfs.read("/proc/self/status") ?? "") ?? [];
  const bytes = (text: string): number => (text === "unlimited" ? Number.POSITIVE_INFINITY : Number(text));
  const exempt = ((BigInt(`0x${effective}`) >> BigInt(CAP_IPC_LOCK)) & 1n) === 1n;
  return { soft: bytes(soft), hard: bytes(hard), exempt };
}

function hugePagesOf(sysfs: Sysfs): Survey["hugePages"] {
  const folder = "/sys/kernel/mm/hugepages";
  return sysfs.list(folder).map((name) => ({
    bytes: Number(/(\d+)kB/.exec(name)?.[1] ?? 0) * 1024,
    free: Number(sysfs.read(`${folder}/${name}/free_hugepages`) ?? 0),
    total: Number(sysfs.read(`${folder}/${name}/nr_hugepages`) ?? 0),
  }));
}

function reservedOf(sysfs: Sysfs, group: string): ReservedRegion[] {
  return (sysfs.read(`${IOMMU_GROUPS}/${group}/reserved_regions`) ?? "").split("\n").flatMap((line) => {
    const [start, last, kind] = line.split(" ");
    return kind === undefined ? [] : [{ start: Number(start), end: Number(last) + 1, kind }];
  });
}
