/**
 * The direct path: no IOMMU, or one that lets the device through. The address is the physical one plus the bus's offset.
 *
 * Memory that the device cannot address, or must not touch where it lies, goes through the bounce pool. Unmapping needs no
 * work at all for a coherent device that has not bounced.
 * Specified by: behaviour of Linux 7.2 direct mapping.
 */
import { DmaAddr, PhysAddr } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";
import { bounceForbidden, notReachable, privateMemory, sharedForbidden } from "../errors.ts";
import { type Terms, withAttributes } from "../terms.ts";
import type { Direction, DmaVec, PhysVec } from "../vectors.ts";
import { bounceIn, bounceOut } from "./bounce.ts";
import { hiddenFrom } from "./confidential.ts";
import { type EntryMapper, eachMemory, mapEach, unmapEach } from "./one-by-one.ts";
import { Ownership } from "./ownership.ts";
import type { MappedList, Path } from "./path.ts";

export class DirectPath implements Path {
  readonly #device: DmaDevice;
  readonly #ownership: Ownership;

  readonly #entries: EntryMapper = {
    map: (phys, length, terms) => this.#map(phys, length, terms),
    undo: (mapped) => {
      if (this.#ownership.needed(mapped.attributes))
        this.#eachMemory(mapped, (phys, length) => this.#ownership.takeBack(phys, length, mapped.direction));
      const { list, segments } = mapped;
      this.unmapList({ list, segments, ...withAttributes(mapped, { skipCpuSync: true }) });
    },
  };

  constructor(device: DmaDevice) {
    this.#device = device;
    this.#ownership = new Ownership(device);
  }

  mapPhys(phys: PhysAddr, length: number, terms: Terms): DmaAddr {
    const address = this.#map(phys, length, terms);
    if (this.#ownership.needed(terms.attributes)) this.#ownership.barrier();
    return address;
  }

  /** Everything but the barrier, which a list needs only once. */
  #map(phys: PhysAddr, length: number, terms: Terms): DmaAddr {
    const device = this.#device;
    const { direction, attributes } = terms;
    const shared = attributes?.shared === true;
    const mmio = attributes?.mmio === true;
    if (device.forceBounce && !shared) {
      if (mmio || attributes?.requireCoherent) throw bounceForbidden(device.name, phys, length);
      return this.#bounce(phys, length, terms);
    }
    if (shared && !device.forceBounce && device.machine.encryption === undefined) throw sharedForbidden(device.name);
    if (!shared && hiddenFrom(device, phys, length)) {
      if (mmio || attributes?.requireCoherent) throw privateMemory(device.name, phys);
      return this.#bounce(phys, length, terms);
    }
    const address = mmio ? phys : phys + device.busOffset;
    const reachable = address + length - 1 <= device.reach(device.mask);
    const bouncing = !mmio && !shared && (!reachable || this.#ownership.sharesLines(length, direction));
    if (bouncing && device.machine.pool && !attributes?.requireCoherent) return this.#bounce(phys, length, terms);
    if (bouncing || !reachable) throw notReachable(device.name, phys, length, device.reach(device.mask));
    if (this.#ownership.needed(attributes)) this.#ownership.forDevice(phys, length, direction);
    if (!mmio) device.machine.encryption?.mapped?.(phys, length);
    return DmaAddr(address);
  }

  #bounce(phys: PhysAddr, length: number, terms: Terms): DmaAddr {
    const device = this.#device;
    const slot = bounceIn(device, phys, length, 0);
    const address = slot + device.busOffset;
    if (address + length - 1 > device.reach(device.mask)) {
      bounceOut(device, slot, length, withAttributes(terms, { skipCpuSync: true }));
      throw notReachable(device.name, slot, length, device.reach(device.mask));
    }
    if (this.#ownership.needed(terms.attributes)) this.#ownership.forDevice(slot, length, terms.direction);
    return DmaAddr(address);
  }

  unmapPhys(address: DmaAddr, length: number, terms: Terms): void {
    const { direction, attributes } = terms;
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
    if (pool?.holds(phys)) bounceOut(this.#device, phys, length, terms);
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
  mapList(list: readonly PhysVec[], terms: Terms): DmaVec[] {
    const segments = mapEach(this.#device, list, terms, this.#entries, true);
    if (this.#ownership.needed(terms.attributes)) this.#ownership.barrier();
    return segments;
  }

  unmapList(mapped: MappedList): void {
    unmapEach(this.#device, this, mapped, (i) => mapped.list[i]!.length);
  }

  syncListForCpu(mapped: MappedList): void {
    const { direction } = mapped;
    this.#eachMemory(mapped, (phys, length) => {
      if (!this.#device.coherent) this.#ownership.forCpu(phys, length, direction);
    });
    if (!this.#device.coherent) this.#ownership.barrier();
    this.#eachMemory(mapped, (phys, length) => this.#device.machine.pool?.syncForCpu(phys, length, direction));
  }

  syncListForDevice(mapped: MappedList): void {
    const { direction } = mapped;
    this.#eachMemory(mapped, (phys, length) => {
      this.#device.machine.pool?.syncForDevice(phys, length, direction);
      if (!this.#device.coherent) this.#ownership.forDevice(phys, length, direction);
    });
    if (!this.#device.coherent) this.#ownership.barrier();
  }

  /** Bus addresses and peers are nobody's memory: skipped. */
  #eachMemory(mapped: MappedList, visit: (phys: PhysAddr, length: number) => void): void {
    eachMemory(this.#device, mapped, (address, length) => visit(PhysAddr(address - this.#device.busOffset), length));
  }
}
