/** A path that tells checked mode of every call, and does what the path behind it does. */

import type { Direction, DmaAddr, PhysAddr } from "../base/index.ts";
import type { DmaVec, MappedList, Path, PhysVec, Terms } from "../dma/index.ts";

/** What a path tells of its calls: {@link DeviceDebug} has it. */
interface PathWatch {
  mapped(phys: number, length: number, terms: Terms, address: number): void;
  /** A map threw `error`. */
  refused(error: unknown, phys: number, length: number): void;
  unmapping(address: number, length: number, terms: Terms): void;
  syncing(to: "cpu" | "device", address: number, length: number, direction: Direction): void;
  listMapped(mapped: MappedList): void;
  listUnmapping(mapped: MappedList): void;
  listSyncing(to: "cpu" | "device", mapped: MappedList): void;
}

export class WatchedPath implements Path {
  readonly #path: Path;
  readonly #debug: PathWatch;

  constructor(path: Path, debug: PathWatch) {
    this.#path = path;
    this.#debug = debug;
  }

  mapPhys(phys: PhysAddr, length: number, terms: Terms): DmaAddr {
    let address: DmaAddr;
    try {
      address = this.#path.mapPhys(phys, length, terms);
    } catch (error) {
      this.#debug.refused(error, phys, length);
      throw error;
    }
    this.#debug.mapped(phys, length, terms, address);
    return address;
  }

  /** An address that no mapping can have stops here. */
  unmapPhys(address: DmaAddr, length: number, terms: Terms): void {
    this.#debug.unmapping(address, length, terms);
    if (Number.isSafeInteger(address)) this.#path.unmapPhys(address, length, terms);
  }

  syncForCpu(address: DmaAddr, length: number, direction: Direction): void {
    this.#debug.syncing("cpu", address, length, direction);
    this.#path.syncForCpu(address, length, direction);
  }

  syncForDevice(address: DmaAddr, length: number, direction: Direction): void {
    this.#debug.syncing("device", address, length, direction);
    this.#path.syncForDevice(address, length, direction);
  }

  mapList(list: readonly PhysVec[], terms: Terms): DmaVec[] {
    let segments: DmaVec[];
    try {
      segments = this.#path.mapList(list, terms);
    } catch (error) {
      for (const { phys, length } of list.slice(0, 1)) this.#debug.refused(error, phys, length);
      throw error;
    }
    this.#debug.listMapped({ list, segments, ...terms });
    return segments;
  }

  unmapList(mapped: MappedList): void {
    this.#debug.listUnmapping(mapped);
    this.#path.unmapList(mapped);
  }

  syncListForCpu(mapped: MappedList): void {
    this.#debug.listSyncing("cpu", mapped);
    this.#path.syncListForCpu(mapped);
  }

  syncListForDevice(mapped: MappedList): void {
    this.#debug.listSyncing("device", mapped);
    this.#path.syncListForDevice(mapped);
  }
}
