/**
 * Private and shared memory of a confidential guest, as mapping must respect it.
 *
 * Idea: whether a page is private is the machine's to say, and asked only on machines that have private pages. A device
 * that proved itself (TDISP) reaches both kinds, any other only shared pages: streaming mappings bounce through the shared
 * pool, everything else is refused. While memory is mapped it cannot be converted: the owner unmaps, converts, maps again.
 * Goes beyond Linux 7.2, which has this on the direct path only.
 */

import type { DmaAttributes } from "../../base/index.ts";
import { type PhysAddr, PhysPage, pagesTouched } from "../../base/index.ts";
import type { MemoryEncryption } from "../../platform/index.ts";
import type { DmaDevice } from "../device.ts";
import { convertMapped, mixedMemory, privateMemory } from "../errors.ts";

/**
 * True if `device` must not reach [phys, + length) where it lies: some of it is private, and the device is outside the
 * trust.
 */
export function hiddenFrom(device: DmaDevice, phys: PhysAddr, length: number): boolean {
  const { encryption } = device.machine;
  return encryption !== undefined && device.tdi === "none" && touchesPrivate(encryption, phys, length);
}

/** True if some of [phys, + length) is private. */
function touchesPrivate(encryption: MemoryEncryption, phys: PhysAddr, length: number): boolean {
  const first = PhysPage.of(phys);
  const pages = pagesTouched(phys, length);
  for (let i = 0; i < pages; i++) if (encryption.isPrivate(PhysPage.add(first, i))) return true;
  return false;
}

/**
 * A piece that is mapped where it lies must be open to the device, and of one kind.
 *
 * @throws DmaError ERR_DMA_PRIVATE (EPERM; ENXIO if it mixes both kinds)
 */
export function checkPrivacy(device: DmaDevice, phys: PhysAddr, length: number, attributes?: DmaAttributes): void {
  const { encryption } = device.machine;
  if (encryption === undefined || attributes?.shared) return;
  const first = PhysPage.of(phys);
  const pages = pagesTouched(phys, length);
  const isPrivate = encryption.isPrivate(first);
  for (let i = 0; i < pages; i++) {
    const page = PhysPage.add(first, i);
    if (encryption.isPrivate(page) !== isPrivate) throw mixedMemory(device.name, PhysPage.start(page));
  }
  if (isPrivate && device.tdi === "none") throw privateMemory(device.name, phys);
}

/** Pages that devices can reach, and the only way to convert any page. */
export class ConfidentialMemory implements MemoryEncryption {
  readonly #encryption: MemoryEncryption;
  readonly #mappings = new Map<PhysPage, number>();

  /** Stands before `encryption`: all that convert pages or map them must come here from now on. */
  constructor(encryption: MemoryEncryption) {
    this.#encryption = encryption;
  }

  get sharedBit(): number | undefined {
    return this.#encryption.sharedBit;
  }

  isPrivate(page: PhysPage): boolean {
    return this.#encryption.isPrivate(page);
  }

  mapped(phys: PhysAddr, length: number): void {
    this.#count(phys, length, 1);
  }

  unmapped(phys: PhysAddr, length: number): void {
    this.#count(phys, length, -1);
  }

  /**
   * Converts whole pages; what they held is lost. False if the machine could not: the pages must not be used again then.
   *
   * @throws DmaError ERR_DMA_CONVERT (EBUSY) while a device can reach one of them
   */
  convert(page: PhysPage, pages: number, to: "shared" | "private"): boolean {
    for (let i = 0; i < pages; i++) {
      const mappings = this.#mappings.get(PhysPage.add(page, i)) ?? 0;
      if (mappings > 0) throw convertMapped(PhysPage.start(PhysPage.add(page, i)), mappings);
    }
    return this.#encryption.convert(page, pages, to);
  }

  #count(phys: PhysAddr, length: number, by: number): void {
    const first = PhysPage.of(phys);
    const pages = pagesTouched(phys, length);
    for (let i = 0; i < pages; i++) {
      const page = PhysPage.add(first, i);
      const count = (this.#mappings.get(page) ?? 0) + by;
      if (count > 0) this.#mappings.set(page, count);
      else this.#mappings.delete(page);
    }
  }
}
