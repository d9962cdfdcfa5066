/**
 * The translated path: a range of the device's own address space per mapping, and page-table entries behind it.
 *
 * A buffer bounces only where whole granules would show the device more than the buffer: an untrusted device, or one whose
 * cache lines the CPU shares. Peripheral memory never bounces.
 * Promises: a failed map frees its range at once, in lazy mode too, and leaves nothing.
 * Specified by: behaviour of Linux 7.2 DMA-IOMMU layer, one-shot.
 */
import { DmaAddr, type IovaPage, PAGE_SIZE, type PhysAddr } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";
import { bounceForbidden, notReachable, privateMemory } from "../errors.ts";
import { type Terms, withAttributes } from "../terms.ts";
import type { Direction, DmaVec, PhysVec } from "../vectors.ts";
import { bounceIn, bounceOut } from "./bounce.ts";
import { hiddenFrom } from "./confidential.ts";
import type { Granules } from "./granules.ts";
import { type EntryMapper, eachMemory, mapEach, unmapEach } from "./one-by-one.ts";
import type { Ownership } from "./ownership.ts";
import type { MappedList, Path } from "./path.ts";
import { cachedEntries, isPeer } from "./peers.ts";
import { permissions } from "./permissions.ts";
import { mapList, unmapSegments } from "./scatterlist.ts";

export class TranslatedPath implements Path {
  readonly #granules: Granules;
  readonly #device: DmaDevice;
  readonly #ownership: Ownership;
  /** Lists that were mapped entry by entry. */
  readonly #single = new WeakSet<readonly DmaVec[]>();
  readonly #entries: EntryMapper = {
    map: (phys, length, terms) => this.mapPhys(phys, length, terms),
    undo: (mapped) => this.#undoEach(mapped),
  };

  constructor(granules: Granules) {
    this.#granules = granules;
    this.#device = granules.device;
    this.#ownership = granules.ownership;
  }

  mapPhys(phys: PhysAddr, length: number, terms: Terms): DmaAddr {
    const granules = this.#granules;
    if (granules.isPlain) return granules.mapWhole(phys, length, permissions(terms.direction, terms.attributes));
    return this.#mapWithOwnership(phys, length, terms);
  }

  /**
   * Maps for a device that is not plain: the buffer may have to bounce, caches are maintained, and private memory is
   * refused or bounced.
   */
  #mapWithOwnership(phys: PhysAddr, length: number, terms: Terms): DmaAddr {
    const device = this.#device;
    const granules = this.#granules;
    const { direction, attributes } = terms;
    if (attributes?.shared && device.sharedBit !== 0) return this.#mapShared(phys, length, terms);
    let at = phys;
    const hidden = attributes?.shared !== true && hiddenFrom(device, phys, length);
    if (hidden && attributes?.mmio) throw privateMemory(device.name, phys);
    const bounced = hidden || (attributes?.mmio !== true && granules.bounces(phys, length, direction));
    if (bounced) {
      if (attributes?.requireCoherent) throw bounceForbidden(device.name, phys, length);
      at = bounceIn(device, phys, length, granules.granule - 1);
    }
    if (this.#ownership.needed(attributes)) {
      this.#ownership.forDevice(at, length, direction);
      this.#ownership.barrier();
    }
    try {
      const address = granules.mapWhole(at, length, permissions(direction, attributes, device.coherent));
      if (!bounced && !attributes?.mmio) device.machine.encryption?.mapped?.(phys, length);
      return address;
    } catch (error) {
      if (this.#ownership.needed(attributes)) this.#ownership.takeBack(at, length, direction);
      if (bounced) bounceOut(device, at, length, terms);
      throw error;
    }
  }

  /** Shared memory for a device inside the trust: the address is the memory's own, and says that it is shared. */
  #mapShared(phys: PhysAddr, length: number, { direction, attributes }: Terms): DmaAddr {
    const device = this.#device;
    const address = DmaAddr(phys + device.sharedBit);
    if (address + length - 1 > device.reach(device.mask))
      throw notReachable(device.name, phys, length, device.reach(device.mask));
    if (this.#ownership.needed(attributes)) {
      this.#ownership.forDevice(phys, length, direction);
      this.#ownership.barrier();
    }
    if (!attributes?.mmio) device.machine.encryption?.mapped?.(phys, length);
    return address;
  }

  unmapPhys(address: DmaAddr, length: number, terms: Terms): void {
    const { direction, attributes } = terms;
    const { encryption, pool } = this.#device.machine;
    if (attributes?.shared && this.#device.sharedBit !== 0) {
      const phys = this.#granules.physOf(address)!;
      if (this.#ownership.needed(attributes)) {
        this.#ownership.forCpu(phys, length, direction);
        this.#ownership.barrier();
      }
      if (!attributes.mmio) encryption?.unmapped?.(phys, length);
      return;
    }
    if (attributes?.mmio || attributes?.requireCoherent) {
      const counted =
        encryption?.unmapped !== undefined && !attributes.mmio ? this.#granules.physOf(address) : undefined;
      this.#granules.unmapWhole(address, length);
      if (counted !== undefined) encryption?.unmapped?.(counted, length);
      return;
    }
    const phys = this.#granules.physOf(address);
    if (phys === undefined) return; // nothing is mapped there: nothing is freed twice
    if (this.#ownership.needed(attributes)) {
      this.#ownership.forCpu(phys, length, direction);
      this.#ownership.barrier();
    }
    this.#granules.unmapWhole(address, length);
    if (pool?.holds(phys)) bounceOut(this.#device, phys, length, terms);
    else encryption?.unmapped?.(phys, length);
  }

  syncForCpu(address: DmaAddr, length: number, direction: Direction): void {
    if (!this.#moves(length, direction)) return;
    const phys = this.#granules.physOf(address);
    if (phys === undefined) return;
    if (!this.#device.coherent) {
      this.#ownership.forCpu(phys, length, direction);
      this.#ownership.barrier();
    }
    this.#device.machine.pool?.syncForCpu(phys, length, direction);
  }

  syncForDevice(address: DmaAddr, length: number, direction: Direction): void {
    if (!this.#moves(length, direction)) return;
    const phys = this.#granules.physOf(address);
    if (phys === undefined) return;
    this.#device.machine.pool?.syncForDevice(phys, length, direction);
    if (this.#device.coherent) return;
    this.#ownership.forDevice(phys, length, direction);
    this.#ownership.barrier();
  }

  mapList(list: readonly PhysVec[], terms: Terms): DmaVec[] {
    const { untrusted, linuxCompatible } = this.#device;
    const granules = this.#granules;
    const single =
      !granules.isPlain &&
      (untrusted ||
        list.some(
          ({ phys, length }) =>
            hiddenFrom(this.#device, phys, length) || granules.bounces(phys, length, terms.direction),
        ));
    if (!single) return this.#mapTogether(list, terms);
    const segments = mapEach(this.#device, list, terms, this.#entries, !linuxCompatible);
    this.#single.add(segments);
    return segments;
  }

  #mapTogether(list: readonly PhysVec[], terms: Terms): DmaVec[] {
    const segments = this.#mapMaintained(list, terms);
    const { encryption } = this.#device.machine;
    if (encryption?.mapped && !terms.attributes?.mmio)
      for (const { phys, length } of cachedEntries(this.#device, list)) encryption.mapped(phys, length);
    return segments;
  }

  #mapMaintained(list: readonly PhysVec[], terms: Terms): DmaVec[] {
    const { direction, attributes } = terms;
    const ownership = this.#ownership;
    if (!ownership.needed(attributes)) return mapList(this.#granules, list, terms);
    for (const { phys, length } of cachedEntries(this.#device, list)) ownership.forDevice(phys, length, direction);
    ownership.barrier();
    try {
      return mapList(this.#granules, list, terms);
    } catch (error) {
      for (const { phys, length } of cachedEntries(this.#device, list)) ownership.takeBack(phys, length, direction);
      throw error;
    }
  }

  unmapList(mapped: MappedList): void {
    const { list, segments, direction, attributes } = mapped;
    if (this.#single.has(segments)) {
      unmapEach(this.#device, this, mapped);
      return;
    }
    if (this.#ownership.needed(attributes)) this.#toCpu(list, direction);
    unmapSegments(this.#granules, segments);
    const { encryption } = this.#device.machine;
    if (encryption?.unmapped && !attributes?.mmio)
      for (const { phys, length } of cachedEntries(this.#device, list)) encryption.unmapped(phys, length);
  }

  syncListForCpu(mapped: MappedList): void {
    const { list, segments, direction } = mapped;
    if (this.#single.has(segments))
      eachMemory(this.#device, mapped, (address, length) => this.syncForCpu(address, length, direction));
    else if (!this.#device.coherent) this.#toCpu(list, direction);
  }

  syncListForDevice(mapped: MappedList): void {
    const { list, segments, direction } = mapped;
    if (this.#single.has(segments))
      eachMemory(this.#device, mapped, (address, length) => this.syncForDevice(address, length, direction));
    else if (!this.#device.coherent) {
      for (const { phys, length } of cachedEntries(this.#device, list))
        this.#ownership.forDevice(phys, length, direction);
      this.#ownership.barrier();
    }
  }

  #toCpu(list: readonly PhysVec[], direction: Direction): void {
    for (const { phys, length } of cachedEntries(this.#device, list)) this.#ownership.forCpu(phys, length, direction);
    this.#ownership.barrier();
  }

  /** False if there is nothing that a sync could move: no walk of the table then. */
  #moves(length: number, direction: Direction): boolean {
    const { coherent, machine, tdi } = this.#device;
    return (
      !coherent || this.#granules.isolates(length, direction) || (machine.encryption !== undefined && tdi === "none")
    );
  }

  /**
   * Undoes the entries of a list that were mapped before one failed: at once, in lazy mode too, and with nothing copied
   * out.
   */
  #undoEach(mapped: MappedList): void {
    const granules = this.#granules;
    const device = this.#device;
    const { list, segments } = mapped;
    const quietly = withAttributes(mapped, { skipCpuSync: true });
    if (device.linuxCompatible) {
      unmapEach(device, this, { list, segments, ...quietly });
      return;
    }
    segments.forEach(({ address, length, bus }, i) => {
      if (bus) return;
      const isMemory = !mapped.attributes?.mmio && !isPeer(device, list[i]!.phys);
      const phys = granules.physOf(address)!;
      if (isMemory && this.#ownership.needed(mapped.attributes))
        this.#ownership.takeBack(phys, length, mapped.direction);
      const inside = granules.inside(address);
      const page = ((address - inside) / PAGE_SIZE) as IovaPage;
      const pages = granules.pages(inside + length);
      granules.domain.unmapNow(page, pages);
      granules.domain.release(page, 0, pages);
      if (device.machine.pool?.holds(phys)) bounceOut(device, phys, length, quietly);
      else if (isMemory) device.machine.encryption?.unmapped?.(phys, length);
    });
  }
}
