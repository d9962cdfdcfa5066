/** A path that tells checked mode of every call, and does what the path behind it does. */
import type { Direction, DmaAddr, PhysAddr } from "../base/index.ts";
import type { MappedList, Path } from "../dma/path/path.ts";
import type { DmaAttributes, DmaVec, PhysVec } from "../dma/vectors.ts";
import type { DeviceDebug } from "./device-debug.ts";

export class DebuggedPath implements Path {
  readonly #path: Path;
  readonly #debug: DeviceDebug;

  constructor(path: Path, debug: DeviceDebug) {
    this.#path = path;
    this.#debug = debug;
  }

  mapPhys(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    let address: DmaAddr;
    try {
      address = this.#path.mapPhys(phys, length, direction, attributes);
    } catch (error) {
      this.#debug.refused(error, phys, length);
      throw error;
    }
    this.#debug.mapped(phys, length, direction, attributes, address);
    return address;
  }

  /** An address that no mapping can have stops here. */
  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    this.#debug.unmapping(address, length, direction, attributes);
    if (Number.isSafeInteger(address)) this.#path.unmapPhys(address, length, direction, attributes);
  }

  syncForCpu(address: DmaAddr, length: number, direction: Direction): void {
    this.#debug.syncing("cpu", address, length, direction);
    this.#path.syncForCpu(address, length, direction);
  }

  syncForDevice(address: DmaAddr, length: number, direction: Direction): void {
    this.#debug.syncing("device", address, length, direction);
    this.#path.syncForDevice(address, length, direction);
  }

  mapList(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): DmaVec[] {
    let segments: DmaVec[];
    try {
      segments = this.#path.mapList(list, direction, attributes);
    } catch (error) {
      for (const { phys, length } of list.slice(0, 1)) this.#debug.refused(error, phys, length);
      throw error;
    }
    this.#debug.listMapped({ list, segments, direction, attributes });
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
