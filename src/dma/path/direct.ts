/**
 * The direct path: no IOMMU, or one that lets the device through. The address is the physical one plus the bus's offset.
 *
 * Memory that the device cannot address, or must not touch where it lies, goes through the bounce pool. Unmapping needs no
 * work at all for a coherent device that has not bounced.
 * Specified by: behaviour of Linux 7.2 direct mapping.
 */
import { type Direction, DmaAddr, PhysAddr } from "../../base/index.ts";
import { bounceIn, bounceOut } from "./bounce.ts";
import { hiddenFrom } from "./confidential.ts";
import type { DmaDevice } from "../device.ts";
import { bounceForbidden, notReachable, privateMemory, sharedForbidden } from "../errors.ts";
import { Ownership } from "./ownership.ts";
import { type MappedList, type Path, sharesCacheLine } from "./path.ts";
import { PeerChunks } from "./peers.ts";
import { isPeer } from "./scatterlist.ts";
import type { DmaAttributes, DmaVec, PhysVec } from "../vectors.ts";

export class DirectPath implements Path {
  readonly #device: DmaDevice;
  readonly #ownership: Ownership;

  constructor(device: DmaDevice) {
    this.#device = device;
    this.#ownership = new Ownership(device);
  }

  mapPhys(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    const address = this.#map(phys, length, direction, attributes);
    if (this.#ownership.needed(attributes)) this.#ownership.barrier();
    return address;
  }

  /** Everything but the barrier, which a list needs only once. */
  #map(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    const device = this.#device;
    const shared = attributes?.shared === true;
    const mmio = attributes?.mmio === true;
    if (device.forceBounce && !shared) {
      if (mmio || attributes?.requireCoherent) throw bounceForbidden(device.name, phys, length);
      return this.#bounce(phys, length, direction, attributes);
    }
    if (shared && !device.forceBounce && device.machine.encryption === undefined) throw sharedForbidden(device.name);
    if (!shared && hiddenFrom(device, phys, length)) {
      if (mmio || attributes?.requireCoherent) throw privateMemory(device.name, phys);
      return this.#bounce(phys, length, direction, attributes);
    }
    const address = mmio ? phys : phys + device.busOffset;
    const reachable = address + length - 1 <= device.reach(device.mask);
    const bouncing = !mmio && !shared && (!reachable || this.#isSmall(length, direction));
    if (bouncing && device.machine.pool && !attributes?.requireCoherent)
      return this.#bounce(phys, length, direction, attributes);
    if (bouncing || !reachable) throw notReachable(device.name, phys, length, device.reach(device.mask));
    if (this.#ownership.needed(attributes)) this.#ownership.forDevice(phys, length, direction);
    if (!mmio) device.machine.encryption?.mapped?.(phys, length);
    return DmaAddr(address);
  }

  #bounce(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    const device = this.#device;
    const slot = bounceIn(device, phys, length, 0);
    const address = slot + device.busOffset;
    if (address + length - 1 > device.reach(device.mask)) {
      bounceOut(device, slot, length, direction, { skipCpuSync: true });
      throw notReachable(device.name, slot, length, device.reach(device.mask));
    }
    if (this.#ownership.needed(attributes)) this.#ownership.forDevice(slot, length, direction);
    return DmaAddr(address);
  }

  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    if (attributes?.mmio) return;
    const phys = PhysAddr(address - this.#device.busOffset);
    if (attributes?.requireCoherent) {
      this.#device.machine.encryption?.unmapped?.(phys, length);
      return;
    }
    if (this.#ownership.needed(attributes)) {
      this.#ownership.forCpu(phys, length, direction);
      this.#ownership.barrier();
    }
    const { encryption, pool } = this.#device.machine;
    if (pool?.holds(phys)) bounceOut(this.#device, phys, length, direction, attributes);
    else encryption?.unmapped?.(phys, length);
  }

  syncForCpu(address: DmaAddr, length: number, direction: Direction): void {
    const phys = PhysAddr(address - this.#device.busOffset);
    if (!this.#device.coherent) {
      this.#ownership.forCpu(phys, length, direction);
      this.#ownership.barrier();
    }
    this.#device.machine.pool?.syncForCpu(phys, length, direction);
  }

  syncForDevice(address: DmaAddr, length: number, direction: Direction): void {
    const phys = PhysAddr(address - this.#device.busOffset);
    this.#device.machine.pool?.syncForDevice(phys, length, direction);
    if (this.#device.coherent) return;
    this.#ownership.forDevice(phys, length, direction);
    this.#ownership.barrier();
  }

  /** Entries one by one, none merged: as many segments as entries. */
  mapList(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): DmaVec[] {
    const segments: DmaVec[] = [];
    const chunks = new PeerChunks(this.#device);
    try {
      for (const { phys, length } of list) {
        const chunk = chunks.at(phys);
        if (chunk.type === "bus-address") {
          segments.push({ address: DmaAddr(phys + chunk.busOffset), length, bus: true });
          continue;
        }
        const how = chunk.type === "through-host-bridge" ? { ...attributes, mmio: true } : attributes;
        segments.push({ address: this.#map(phys, length, direction, how), length });
      }
    } catch (error) {
      if (this.#ownership.needed(attributes))
        this.#eachMemory(list, segments, (phys, length) => this.#ownership.takeBack(phys, length, direction));
      this.unmapList({ list, segments, direction, attributes: { ...attributes, skipCpuSync: true } });
      throw error;
    }
    if (this.#ownership.needed(attributes)) this.#ownership.barrier();
    return segments;
  }

  unmapList({ list, segments, direction, attributes }: MappedList): void {
    segments.forEach(({ address, bus }, i) => {
      if (bus) return;
      const how = isPeer(this.#device, list[i]!.phys) ? { ...attributes, mmio: true } : attributes;
      this.unmapPhys(address, list[i]!.length, direction, how);
    });
  }

  syncListForCpu({ list, segments, direction }: MappedList): void {
    this.#eachMemory(list, segments, (phys, length) => {
      if (!this.#device.coherent) this.#ownership.forCpu(phys, length, direction);
    });
    if (!this.#device.coherent) this.#ownership.barrier();
    this.#eachMemory(list, segments, (phys, length) => this.#device.machine.pool?.syncForCpu(phys, length, direction));
  }

  syncListForDevice({ list, segments, direction }: MappedList): void {
    this.#eachMemory(list, segments, (phys, length) => {
      this.#device.machine.pool?.syncForDevice(phys, length, direction);
      if (!this.#device.coherent) this.#ownership.forDevice(phys, length, direction);
    });
    if (!this.#device.coherent) this.#ownership.barrier();
  }

  /** Bus addresses and peers are nobody's memory: skipped. */
  #eachMemory(
    list: readonly PhysVec[],
    segments: readonly DmaVec[],
    visit: (phys: PhysAddr, length: number) => void,
  ): void {
    segments.forEach(({ address, length, bus }, i) => {
      if (!bus && !isPeer(this.#device, list[i]!.phys)) visit(PhysAddr(address - this.#device.busOffset), length);
    });
  }

  #isSmall(length: number, direction: Direction): boolean {
    const { coherent, cacheLine } = this.#device;
    return !coherent && direction !== "to-device" && sharesCacheLine(length, cacheLine);
  }
}
