/**
 * Bouncing, as both paths and the two-step API use it: takes and gives back slots, tells the observer, counts what the
 * device has bounced (its syncs are skipped only while that is 0), and zeroes what lies around the data in a slot.
 *
 * Promises: a bounce that fails changes nothing. Not for: finding slots and copying; that is `swiotlb/`.
 * Specified by: behaviour of Linux 7.2 swiotlb and DMA-IOMMU bounce.
 */
import { type PhysAddr, PhysAddr as physAddr } from "../../base/index.ts";
import type { PhysicalMemory } from "../../platform/index.ts";
import type { DmaDevice } from "../device.ts";
import { bounceFull, noBouncePool } from "../errors.ts";
import type { Terms } from "../terms.ts";
import { Ownership } from "./ownership.ts";

/**
 * Copies [phys, + length) into a slot and returns where.
 *
 * @param alignMask the slot's own alignment: granule - 1 behind an IOMMU, so that no two buffers share a granule
 * @param keepMask the low bits of `phys` that the slot's address must keep; what the device asks for, unless said
 * @throws DmaError ERR_DMA_BOUNCE_NONE, ERR_DMA_BOUNCE_FULL (ENOMEM)
 */
export function bounceIn(
  device: DmaDevice,
  phys: PhysAddr,
  length: number,
  alignMask: number,
  keepMask?: number,
): PhysAddr {
  const { pool } = device.machine;
  if (!pool) throw noBouncePool(device.name, phys, length);
  device.observer?.bounceAsked?.(phys + (alignMask === 0 ? device.busOffset : 0), length);
  const address = pool.map(phys, length, alignMask, device, keepMask);
  if (address === undefined) throw bounceFull(phys, length, pool.used, pool.slots);
  device.skipSync = false;
  device.bounces++;
  if (device.untrusted || (device.machine.encryption !== undefined && !device.linuxCompatible))
    clearPadding(device, address, length, alignMask + 1);
  return address;
}

/** Gives a slot back, after copying out what the device wrote. Does nothing if the address is not in the pool. */
export function bounceOut(
  device: DmaDevice,
  address: PhysAddr,
  length: number,
  { direction, attributes }: Terms,
): void {
  const { pool } = device.machine;
  if (!pool?.holds(address)) return;
  if (pool.original(address) !== undefined) device.bounces--;
  pool.unmap(address, length, direction, attributes?.skipCpuSync === true);
}

/**
 * Zeroes the rest of the granules that hold [address, + length): the device sees whole granules, and must not find old data
 * of somebody else there. Linux does this for untrusted devices, and not for those outside a confidential guest's trust.
 */
function clearPadding(device: DmaDevice, address: PhysAddr, length: number, granule: number): void {
  const { memory } = device.machine;
  if (!memory) return;
  const before = address % granule;
  const after = (granule - ((address + length) % granule)) % granule;
  if (before > 0) clear(device, memory, address - before, before);
  if (after > 0) clear(device, memory, address + length, after);
}

/** Zeroes as the device sees them: out of the CPU's caches, where it does not look. Linux leaves them there. */
function clear(device: DmaDevice, memory: PhysicalMemory, start: number, length: number): void {
  const at = physAddr(start);
  memory.write(at, new Uint8Array(length));
  if (device.coherent || device.linuxCompatible) return;
  const ownership = new Ownership(device);
  ownership.forDevice(at, length, "to-device");
  ownership.forCpu(at, length, "to-device");
  ownership.barrier();
}
