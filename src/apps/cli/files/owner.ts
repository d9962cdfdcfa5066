/**
 * Whose a file in passing is, in its name: so that what a killed process left can be told from what a living one writes.
 *
 * Idea: a process's number alone says little, since numbers are used again and every container has its own. With the namespace of
 * the numbers, the boot and the moment the process began it names one process of one machine for ever.
 * Promises: {@link isGone} is true only of a process that is no more for certain, as far as this process can see; of one in another
 * container or of another machine (a shared disk) it is not known, and it counts as living.
 * Specified by: proc_pid_stat(5) field 22, pid_namespaces(7).
 */
import { readFileSync, readlinkSync } from "node:fs";

/** `PID-START-PLACE`, in digits and small letters. */
export const OWNER: RegExp = /\d+-\d+-[0-9a-f]+/;

/** The name of this process, or of `pid` as it is now. */
export function ownerName(pid: number = process.pid): string {
  return `${pid}-${startOf(pid) ?? 0}-${place()}`;
}

/** True if the process of that name is no more; of one that cannot be seen from here, false. */
export function isGone(owner: string): boolean {
  const [pid, start, where] = owner.split("-");
  if (where !== place()) return false;
  if (start === "0") return !canBeSignalled(Number(pid));
  return startOf(Number(pid)) !== start;
}

/** Clock ticks after the boot at which the process began; undefined: there is none, or no /proc. */
function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the program's name in brackets, and may hold anything.
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

/** Which boot of which machine, and which of its namespaces. */
function place(): string {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").replaceAll("-", "").slice(0, 12);
    const space = /\d+/.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0";
    return `${boot}${Number(space).toString(16)}`;
  } catch {
    return "0";
  }
}

function canBeSignalled(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}
