/**
 * Who would lose something if a PCI function were taken away: what its disks and interfaces are used for.
 *
 * Idea: files of the kernel tell most users by name (mounts, swap, holders, btrfs, loops), which makes a message one can act on;
 * but no list of files is complete: a ZFS pool, a database on the raw disk or a file system of tomorrow is in none of them. So
 * the last word is the kernel's: a disk opened with O_EXCL is nobody else's, and stays so while it is open.
 * Promises: every disk below the function is looked at, however deep it lies (USB, SAS expanders, functions behind a function),
 * and those that the kernel shows elsewhere: the namespaces of an NVMe disk under multipath lie below its subsystem.
 * Not for: programs that have a disk open without O_EXCL, which the kernel would let anybody else use too.
 * Specified by: open(2) for O_EXCL on block devices; Linux 7.2 sysfs-block, sysfs-class-nvme; btrfs sysfs; proc_pid_mountinfo(5).
 */
import { noAnswer } from "./errors.ts";
import { PCI_DEVICES, type Sysfs } from "./sysfs.ts";

/** Of an interface's flags. */
const INTERFACE_UP = 1;
/** Deeper than any path of sysfs: a SAS disk behind an expander lies nine folders below its controller. */
const DEEPEST = 24;
/** Answers of an open that mean that there is nothing to be used: no medium, or a disk that is gone already. */
const NOTHING_THERE: readonly string[] = ["ENOMEDIUM", "ENXIO", "ENODEV"];

/** What would break if the function went away: mounts, swap, arrays and volumes on its disks; interfaces that are up; its VFs. */
export function usesOf(sysfs: Sysfs, name: string): string[] {
  const below = contentsOf(sysfs, `${PCI_DEVICES}/${name}`);
  const uses: string[] = [];
  const mounts = mountsOf(sysfs);
  const swaps = (sysfs.read("/proc/swaps") ?? "").split("\n").map((line) => line.split(/\s+/)[0]);
  const members = btrfsMembers(sysfs);
  const loops = loopsOf(sysfs);
  for (const disk of below.disks)
    for (const part of [disk, ...partitionsOf(sysfs, disk)]) {
      const number = sysfs.read(`/sys/class/block/${part}/dev`);
      for (const mount of mounts)
        if (mount.source === `/dev/${part}` || (number !== undefined && mount.number === number))
          uses.push(`/dev/${part} is mounted at ${mount.target}`);
      if (swaps.includes(`/dev/${part}`)) uses.push(`/dev/${part} is swap`);
      const volume = members.get(part);
      if (volume !== undefined) uses.push(`/dev/${part} is part of the mounted btrfs ${volume}`);
      const loop = loops.get(`/dev/${part}`);
      if (loop !== undefined) uses.push(`/dev/${part} is behind /dev/${loop}`);
      for (const holder of sysfs.list(`/sys/class/block/${part}/holders`))
        uses.push(`/dev/${part} is part of ${holder}`);
    }
  for (const net of below.interfaces)
    if (Number(sysfs.read(net.flags) ?? 0) & INTERFACE_UP) uses.push(`network interface ${net.name} is up`);
  const virtualFunctions = Number(sysfs.read(`${PCI_DEVICES}/${name}/sriov_numvfs`) ?? 0);
  if (virtualFunctions > 0)
    uses.push(`${virtualFunctions} virtual functions are made of it (sriov_numvfs), and would go with it`);
  return uses;
}

/** Disks that are held against everybody else. Release never fails. */
interface HeldDisks extends Disposable {
  /** Those that the kernel did not give: somebody uses them, and which part of them. */
  readonly uses: readonly string[];
}

/**
 * Takes every disk of the function for itself alone, so that nobody can begin to use one until it is disposed.
 *
 * @throws DmaError ERR_DMA_LINUX_BUSY (EACCES, ENOENT …): the kernel could not be asked
 */
export function holdDisks(sysfs: Sysfs, name: string): HeldDisks {
  const held: Disposable[] = [];
  const uses: string[] = [];
  const release = (): void => {
    for (const disk of held.splice(0)) disk[Symbol.dispose]();
  };
  try {
    for (const disk of contentsOf(sysfs, `${PCI_DEVICES}/${name}`).disks) {
      // A path below a multipath disk has no node: it is used through that disk, which is asked instead.
      if (sysfs.read(`/sys/class/block/${disk}/hidden`) === "1" || PATH_OF_MULTIPATH.test(disk)) continue;
      const whole = hold(sysfs, name, disk);
      if (whole === "empty") continue;
      if (whole !== "busy") {
        held.push(whole); // and its partitions with it: nobody can claim a part of what is claimed
        continue;
      }
      const busy = partitionsOf(sysfs, disk).filter((part) => {
        const one = hold(sysfs, name, part);
        if (typeof one !== "string") one[Symbol.dispose]();
        return one === "busy";
      });
      for (const one of busy.length > 0 ? busy : [disk])
        uses.push(
          `/dev/${one} is held by somebody (open with O_EXCL answers EBUSY): a file system, an array, a volume`,
        );
    }
  } catch (error) {
    release();
    throw error;
  }
  return { uses, [Symbol.dispose]: release };
}

function hold(sysfs: Sysfs, name: string, disk: string): Disposable | "busy" | "empty" {
  try {
    return sysfs.openExclusively(`/dev/${disk}`);
  } catch (error) {
    const { code = "EIO" } = error as NodeJS.ErrnoException;
    if (code === "EBUSY") return "busy";
    if (NOTHING_THERE.includes(code)) return "empty";
    throw noAnswer(name, `/dev/${disk}`, code);
  }
}

/** `nvme0c1n2`: how namespace 2 of subsystem 0 is reached through controller 1. */
const PATH_OF_MULTIPATH = /^(nvme\d+)c\d+(n\d+)$/;

interface Contents {
  readonly disks: readonly string[];
  readonly interfaces: readonly { readonly name: string; readonly flags: string }[];
}

/** Disks and interfaces below a function's folder: `nvme/nvme0/nvme0n1`, `ata1/host0/target0:0:0/0:0:0:0/block/sda`. */
function contentsOf(sysfs: Sysfs, folder: string): Contents {
  const disks = new Set<string>();
  const interfaces: { name: string; flags: string }[] = [];
  const walk = (at: string, depth: number): void => {
    for (const entry of sysfs.list(at)) {
      const path = `${at}/${entry}`;
      if (sysfs.target(path) !== undefined) continue; // a link leads elsewhere
      if (sysfs.exists(`/sys/class/block/${entry}`) && sysfs.exists(`${path}/queue`)) {
        disks.add(entry);
        const path = PATH_OF_MULTIPATH.exec(entry);
        const shared = path === null ? undefined : `${path[1]}${path[2]}`;
        if (shared !== undefined && sysfs.exists(`/sys/class/block/${shared}`)) disks.add(shared);
        continue;
      }
      if (at.endsWith("/net") && sysfs.exists(`${path}/flags`))
        interfaces.push({ name: entry, flags: `${path}/flags` });
      if (at.endsWith("/nvme")) for (const disk of multipathDisksOf(sysfs, entry)) disks.add(disk);
      if (depth < DEEPEST) walk(path, depth + 1);
    }
  };
  walk(folder, 0);
  return { disks: [...disks], interfaces };
}

/** Disks of the NVMe subsystem that a controller is a path to: they lie below the subsystem, not below the controller. */
function multipathDisksOf(sysfs: Sysfs, controller: string): string[] {
  return ["/sys/class/nvme-subsystem", "/sys/devices/virtual/nvme-subsystem"].flatMap((folder) =>
    sysfs.list(folder).flatMap((subsystem) => {
      const entries = sysfs.list(`${folder}/${subsystem}`);
      if (!entries.includes(controller)) return [];
      return entries.filter((entry) => sysfs.exists(`/sys/class/block/${entry}`));
    }),
  );
}

const partitionsOf = (sysfs: Sysfs, disk: string): string[] =>
  sysfs.list(`/sys/class/block/${disk}`).filter((entry) => entry.startsWith(disk));

/** `36 35 259:2 / /home rw,noatime shared:1 - ext4 /dev/nvme0n1p2 rw`: some file systems tell the device only by name. */
function mountsOf(
  sysfs: Sysfs,
): { number: string | undefined; target: string | undefined; source: string | undefined }[] {
  return (sysfs.read("/proc/self/mountinfo") ?? "").split("\n").map((line) => {
    const [, , number, , target] = line.split(" ");
    return { number, target, source: line.split(" - ")[1]?.split(" ")[1] };
  });
}

/** Of each device of a mounted btrfs the file system's name: of several devices mountinfo names one. */
function btrfsMembers(sysfs: Sysfs): Map<string, string> {
  const folder = "/sys/fs/btrfs";
  return new Map(
    sysfs
      .list(folder)
      .flatMap((volume) =>
        sysfs.list(`${folder}/${volume}/devices`).map((device): [string, string] => [device, volume]),
      ),
  );
}

/** Loop devices by what lies behind them. */
function loopsOf(sysfs: Sysfs): Map<string, string> {
  const found = new Map<string, string>();
  for (const loop of sysfs.list("/sys/class/block").filter((name) => name.startsWith("loop"))) {
    const behind = sysfs.read(`/sys/class/block/${loop}/loop/backing_file`);
    if (behind !== undefined) found.set(behind, loop);
  }
  return found;
}
