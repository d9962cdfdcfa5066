/**
 * Who manages a device: which function can, which one does for another, and whom a walk over its functions meets.
 *
 * Idea: facts of the hardware and of the tree, and nothing that the core keeps.
 * Specified by: behaviour of the Linux 7.2 PCI TSM core.
 */
import type { SecurityFunction } from "../../../platform/index.ts";

/** It can be the security manager of its device: function 0 of an endpoint or of a switch, with IDE or the TEE bit. */
export function canManage(fn: SecurityFunction): boolean {
  if (fn.physical || (fn.requester & 7) !== 0) return false;
  const isKind = fn.kind === "endpoint" || fn.kind === "root-endpoint" || fn.kind === "upstream-port";
  return isKind && (fn.hasIde || fn.hasTee);
}

/**
 * Who would manage `fn`: itself if it can, else function 0 of its device if that is a manager now, else the upstream switch
 * port two levels up if that is one.
 */
export function managerOf(
  fn: SecurityFunction,
  all: readonly SecurityFunction[],
  isManager: (fn: SecurityFunction) => boolean,
): SecurityFunction | undefined {
  if (canManage(fn)) return fn;
  const slot = (fn.physical ?? fn).requester >>> 3;
  const first = all.find((each) => each.requester === slot * 8 && !each.physical);
  if (!first) return undefined;
  if (isManager(first)) return first;
  const above = fn.parent?.parent;
  return above?.kind === "upstream-port" && isManager(above) ? above : undefined;
}

/**
 * The functions that a manager is responsible for, besides itself, in the order of a walk: the others of its device, each
 * followed by its virtual ones; below a switch, everything, depth first.
 */
export function dependents(
  manager: SecurityFunction,
  all: readonly SecurityFunction[],
  isManager: boolean,
): SecurityFunction[] {
  const found: SecurityFunction[] = [];
  const slot = manager.requester >>> 3;
  for (const fn of all) {
    if (fn.physical || fn.requester >>> 3 !== slot) continue;
    if (fn !== manager) found.push(fn);
    found.push(...all.filter(({ physical }) => physical === fn));
  }
  const descend = (above: SecurityFunction): void => {
    for (const fn of all) {
      if (fn.parent !== above || fn.physical) continue;
      found.push(fn);
      descend(fn);
    }
  };
  if (manager.kind === "upstream-port" && isManager) descend(manager);
  return found;
}
