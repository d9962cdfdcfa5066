/**
 * PASIDs: who gets which number, and when a device may be attached with one.
 *
 * Idea: numbers are global, so that one address space has the same PASID in every device; the lowest free one is given.
 * 0 belongs to requests without PASID and is never given out.
 * Specified by: behaviour of Linux 7.2 (drivers/iommu/iommu.c); PCIe 6.0, 6.20.
 */
import type { DmaError } from "../base/index.ts";
import { noPasidLeft, pasidBusy, pasidRefused, pasidUnsupported } from "./errors.ts";

/** PASIDs have 20 bits. */
export const PASID_LIMIT: number = 2 ** 20;

/**
 * Gives out PASIDs: the lowest free one, never 0. Numbers are global, so that an address space has one PASID in every
 * device.
 */
export class PasidAllocator {
  readonly #used = new Set<number>();
  /** No PASID below this one is free. */
  #lowest = 1;

  /** The lowest free PASID below `limit`, that of the device. @throws DmaError ERR_DMA_PASID_EXHAUSTED (ENOSPC) */
  allocate(limit: number = PASID_LIMIT): number {
    let pasid = this.#lowest;
    while (this.#used.has(pasid)) pasid++;
    this.#lowest = pasid;
    if (pasid >= Math.min(limit, PASID_LIMIT)) throw noPasidLeft(limit);
    this.#used.add(pasid);
    this.#lowest = pasid + 1;
    return pasid;
  }

  /** Gives a PASID back; one that is free stays free. Never fails. */
  free(pasid: number): void {
    if (this.#used.delete(pasid)) this.#lowest = Math.min(this.#lowest, pasid);
  }

  /** PASIDs that are given out. */
  get inUse(): number {
    return this.#used.size;
  }
}

/** What is known of a device when an address space is to be attached to one of its PASIDs. */
export interface PasidCandidate {
  /** The device: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** Which of its PASIDs, 20 bits. */
  readonly pasid: number;
  /** The unit and its driver can attach PASIDs at all. */
  readonly supported: boolean;
  /** PASIDs of the device are below this; 0 or 1 if it has none. */
  readonly limit: number;
  /** The PASID is attached already. */
  readonly inUse: boolean;
  /** The device's group; undefined if it has none. Devices of a group share their isolation. */
  readonly group: PasidGroup | undefined;
}

/** Devices that share their isolation, as far as PASIDs depend on it. */
export interface PasidGroup {
  /** How many it has. */
  readonly devices: number;
  /** Requests with PASID cannot go from one device of the group to another behind the unit's back. */
  readonly pasidIsolated: boolean;
  /** Who asks is who owns the group. */
  readonly owned: boolean;
  /** A device of the group is being recovered. */
  readonly recovering: boolean;
}

/** Why the PASID cannot be attached; undefined if it can. The first reason of several is Linux's. */
export function refusePasid(asked: PasidCandidate): DmaError | undefined {
  const { requester, pasid, group, limit } = asked;
  const refused = (errno: "ENODEV" | "EINVAL", why: string) => pasidRefused(requester, pasid, errno, why);
  if (!group) return refused("ENODEV", "it belongs to no group");
  if (!asked.supported) return pasidUnsupported(requester, pasid);
  if (!group.owned) return refused("EINVAL", "its group belongs to somebody else");
  if (group.devices > 1 && !group.pasidIsolated)
    return refused("EINVAL", `its group has ${group.devices} devices that are not isolated from one another`);
  if (limit <= 1) return refused("EINVAL", "it cannot send PASIDs");
  if (!(Number.isInteger(pasid) && pasid > 0 && pasid < limit))
    return refused("EINVAL", `PASIDs from 1 to ${limit - 1} are needed`);
  if (group.recovering || asked.inUse)
    return pasidBusy(requester, pasid, group.recovering ? "being recovered" : "attached");
  return undefined;
}
