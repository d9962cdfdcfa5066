/**
 * A DMA engine: the plainest device there is. It reads and writes memory at the addresses it is given, nothing more.
 *
 * Every access goes page by page through the IOMMU. An access that the IOMMU refuses stops there and answers `false`,
 * as a device sees an aborted transaction; the fault is in the unit's queue.
 */
import { type DmaAddr, IovaPage, PAGE_SIZE, PhysAddr } from "../../base/index.ts";
import type { PhysicalMemory, Requester } from "../../platform/index.ts";
import type { SimulatedUnit } from "./unit.ts";

export class DmaEngine {
  /** Its name on the bus. */
  readonly requester: Requester;
  readonly #unit: SimulatedUnit;
  readonly #memory: PhysicalMemory;

  constructor(requester: Requester, unit: SimulatedUnit, memory: PhysicalMemory) {
    this.requester = requester;
    this.#unit = unit;
    this.#memory = memory;
  }

  /** Fills `into` from `address`; false if a page was refused. */
  read(address: DmaAddr, into: Uint8Array): boolean {
    return this.#transfer(address, into.length, "read", (phys, at, length) =>
      this.#memory.read(phys, into.subarray(at, at + length)),
    );
  }

  /** Puts `from` at `address`; false if a page was refused, and then the pages before it are written. */
  write(address: DmaAddr, from: Uint8Array): boolean {
    return this.#transfer(address, from.length, "write", (phys, at, length) =>
      this.#memory.write(phys, from.subarray(at, at + length)),
    );
  }

  #transfer(
    address: DmaAddr,
    length: number,
    access: "read" | "write",
    move: (phys: PhysAddr, at: number, length: number) => void,
  ): boolean {
    for (let at = 0; at < length; ) {
      const offset = (address + at) % PAGE_SIZE;
      const piece = Math.min(PAGE_SIZE - offset, length - at);
      const page = this.#unit.translate(this.requester, IovaPage.of((address + at) as DmaAddr), access);
      if (page < 0) return false;
      move(PhysAddr(page * PAGE_SIZE + offset), at, piece);
      at += piece;
    }
    return true;
  }
}
