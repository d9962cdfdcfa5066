/**
 * The translated path: a range of the device's own address space per mapping, and page-table entries behind it.
 *
 * A buffer bounces only where whole granules would show the device more than the buffer: an untrusted device, or one whose
 * cache lines the CPU shares. Peripheral memory never bounces.
 * Promises: a failed map frees its range at once, in lazy mode too, and leaves nothing.
 * Specified by: behaviour of Linux 7.2 DMA-IOMMU layer, one-shot.
 */
import { type Direction, DmaAddr, type IovaPage, PAGE_SIZE, PhysAddr, type PhysPage } from "../../base/index.ts";
import type { AddressSpace } from "../../iommu/index.ts";
import type { IovaDevice } from "../../iova/index.ts";
import { bounceIn, bounceOut } from "./bounce.ts";
import { hiddenFrom } from "./confidential.ts";
import type { DmaDevice } from "../device.ts";
import { eachMemory, mapEach, unmapEach } from "./one-by-one.ts";
import { bounceForbidden, minAlignTooWide, noAddressSpace, privateMemory } from "../errors.ts";
import { Ownership } from "./ownership.ts";
import { type MappedList, type Path, sharesCacheLine } from "./path.ts";
import { permissions } from "./permissions.ts";
import { cachedEntries, mapList, unmapRange, unmapSegments } from "./scatterlist.ts";
import type { DmaAttributes, DmaVec, PhysVec } from "../vectors.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;

/** Bytes that are counted in small integers. */
const SHORT = 0x4000_0000;
/** Of a 64-bit address. */
const LAST_PAGE = 2 ** 52 - 1;

export class TranslatedPath implements Path {
  readonly device: DmaDevice;
  readonly domain: AddressSpace;
  readonly ownership: Ownership;
  readonly granule: number;
  /** Granules per byte: a power of two, so multiplying is exact, and much faster than dividing. */
  readonly perGranule: number;
  readonly granulePages: number;
  /** The device needs no care: it sees whole granules, and what the CPU's caches hold; no memory is private. */
  readonly isPlain: boolean;
  readonly #granuleMask: number;
  readonly #iovaDevice: IovaDevice;
  /** Lists that were mapped entry by entry. */
  readonly #single = new WeakSet<readonly DmaVec[]>();

  constructor(device: DmaDevice, domain: AddressSpace) {
    this.device = device;
    this.domain = domain;
    this.ownership = new Ownership(device);
    this.granule = domain.granule;
    this.perGranule = 1 / domain.granule;
    this.granulePages = domain.granule / PAGE;
    this.#granuleMask = domain.granule - 1;
    this.isPlain = device.coherent && !device.untrusted && device.machine.encryption === undefined;
    this.#iovaDevice = { prefer32: true, busLimitPfn: 0 };
  }

  /** Bytes from the start of its granule. Exact for every safe integer; what is no integer counts as the next lower one. */
  inside(address: number): number {
    return address & this.#granuleMask;
  }

  /** The first page of the granule that `address` lies in. */
  pageOf(address: number): IovaPage {
    return (Math.floor(address * this.perGranule) * this.granulePages) as IovaPage;
  }

  /** Pages of the granules that `bytes` fill. */
  pages(bytes: number): number {
    const whole = bytes | 0;
    if (whole === bytes && whole <= SHORT) return ((whole + this.#granuleMask) & ~this.#granuleMask) / PAGE;
    return Math.ceil(bytes * this.perGranule) * this.granulePages;
  }

  /** Reserves whole granules below the device's limit; 0 if there is no room. */
  reserve(pages: number, mask: number = this.device.mask): IovaPage {
    const limit = Math.min(Math.floor(this.device.reach(mask) / PAGE), LAST_PAGE);
    return this.domain.reserve(pages, limit, this.#iovaDevice);
  }

  /** True if whole granules would show the device, or the CPU's caches, more than [phys, + length). */
  bounces(phys: PhysAddr, length: number, direction: Direction): boolean {
    return this.isolates(length, direction) && (this.inside(phys) !== 0 || this.inside(length) !== 0);
  }

  isolates(length: number, direction: Direction): boolean {
    const { untrusted, coherent, cacheLine } = this.device;
    if (untrusted) return true;
    return !coherent && direction !== "to-device" && sharesCacheLine(length, cacheLine);
  }

  mapPhys(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    if (this.isPlain) return this.mapWhole(phys, length, permissions(direction, attributes));
    return this.#mapCarefully(phys, length, direction, attributes);
  }

  #mapCarefully(phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): DmaAddr {
    const { device } = this;
    let at = phys;
    const hidden = attributes?.shared !== true && hiddenFrom(device, phys, length);
    if (hidden && attributes?.mmio) throw privateMemory(device.name, phys);
    const bounced = hidden || (attributes?.mmio !== true && this.bounces(phys, length, direction));
    if (bounced) {
      if (attributes?.requireCoherent) throw bounceForbidden(device.name, phys, length);
      at = bounceIn(device, phys, length, this.granule - 1);
    }
    if (this.ownership.needed(attributes)) {
      this.ownership.forDevice(at, length, direction);
      this.ownership.barrier();
    }
    try {
      const address = this.mapWhole(at, length, permissions(direction, attributes, device.coherent));
      if (!bounced && !attributes?.mmio) device.machine.encryption?.mapped?.(phys, length);
      return address;
    } catch (error) {
      if (this.ownership.needed(attributes)) this.ownership.takeBack(at, length, direction);
      if (bounced) bounceOut(device, at, length, direction, attributes);
      throw error;
    }
  }

  /** Reserves, maps and syncs the granules that hold [phys, + length). */
  mapWhole(phys: PhysAddr, length: number, prot: number, mask: number = this.device.mask): DmaAddr {
    const { domain, device } = this;
    if (device.minAlignMask > this.granule - 1) throw minAlignTooWide(device.minAlignMask, this.granule);
    const inside = this.inside(phys);
    const pages = this.pages(inside + length);
    const page = this.reserve(pages, mask);
    if (page === 0) throw noAddressSpace(pages * PAGE, device.reach(mask));
    try {
      domain.map(page, ((phys - inside) / PAGE) as PhysPage, pages, prot);
    } catch (error) {
      domain.release(page, 0, pages);
      throw error;
    }
    domain.sync(page, pages);
    return DmaAddr(page * PAGE + inside);
  }

  unmapPhys(address: DmaAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    const { encryption, pool } = this.device.machine;
    if (attributes?.mmio || attributes?.requireCoherent) {
      const counted = encryption?.unmapped !== undefined && !attributes.mmio ? this.physOf(address) : undefined;
      unmapRange(this, address, length);
      if (counted !== undefined) encryption?.unmapped?.(counted, length);
      return;
    }
    const phys = this.physOf(address);
    if (phys === undefined) return; // nothing is mapped there: nothing is freed twice
    if (this.ownership.needed(attributes)) {
      this.ownership.forCpu(phys, length, direction);
      this.ownership.barrier();
    }
    unmapRange(this, address, length);
    if (pool?.holds(phys)) bounceOut(this.device, phys, length, direction, attributes);
    else encryption?.unmapped?.(phys, length);
  }

  /** What an address reaches; one walk of the table. Linux takes physical address 0 for nothing. */
  physOf(address: DmaAddr): PhysAddr | undefined {
    this.device.observer?.lookedUp?.(address);
    const iovaPage = Math.floor(address / PAGE) as IovaPage;
    const inside = address - iovaPage * PAGE;
    const page = this.domain.lookup(iovaPage);
    const isNothing = page < 0 || (page === 0 && inside === 0 && this.device.linuxCompatible);
    return isNothing ? undefined : PhysAddr(page * PAGE + inside);
  }

  syncForCpu(address: DmaAddr, length: number, direction: Direction): void {
    if (!this.#moves(length, direction)) return;
    const phys = this.physOf(address);
    if (phys === undefined) return;
    if (!this.device.coherent) {
      this.ownership.forCpu(phys, length, direction);
      this.ownership.barrier();
    }
    this.device.machine.pool?.syncForCpu(phys, length, direction);
  }

  syncForDevice(address: DmaAddr, length: number, direction: Direction): void {
    if (!this.#moves(length, direction)) return;
    const phys = this.physOf(address);
    if (phys === undefined) return;
    this.device.machine.pool?.syncForDevice(phys, length, direction);
    if (this.device.coherent) return;
    this.ownership.forDevice(phys, length, direction);
    this.ownership.barrier();
  }

  mapList(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): DmaVec[] {
    const { untrusted, coherent, machine } = this.device;
    const careful = untrusted || !coherent || machine.encryption !== undefined;
    const single =
      careful &&
      (untrusted ||
        list.some(
          ({ phys, length }) => hiddenFrom(this.device, phys, length) || this.bounces(phys, length, direction),
        ));
    if (!single) return this.#mapTogether(list, direction, attributes);
    const segments = mapEach(this, list, direction, attributes);
    this.#single.add(segments);
    return segments;
  }

  #mapTogether(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): DmaVec[] {
    const segments = this.#mapMaintained(list, direction, attributes);
    const { encryption } = this.device.machine;
    if (encryption?.mapped && !attributes?.mmio)
      for (const { phys, length } of cachedEntries(this.device, list)) encryption.mapped(phys, length);
    return segments;
  }

  #mapMaintained(list: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): DmaVec[] {
    const { ownership } = this;
    if (!ownership.needed(attributes)) return mapList(this, list, direction, attributes);
    for (const { phys, length } of cachedEntries(this.device, list)) ownership.forDevice(phys, length, direction);
    ownership.barrier();
    try {
      return mapList(this, list, direction, attributes);
    } catch (error) {
      for (const { phys, length } of cachedEntries(this.device, list)) ownership.takeBack(phys, length, direction);
      throw error;
    }
  }

  unmapList(mapped: MappedList): void {
    const { list, segments, direction, attributes } = mapped;
    if (this.#single.has(segments)) {
      unmapEach(this, mapped);
      return;
    }
    if (this.ownership.needed(attributes)) this.#toCpu(list, direction);
    unmapSegments(this, segments);
    const { encryption } = this.device.machine;
    if (encryption?.unmapped && !attributes?.mmio)
      for (const { phys, length } of cachedEntries(this.device, list)) encryption.unmapped(phys, length);
  }

  syncListForCpu(mapped: MappedList): void {
    const { list, segments, direction } = mapped;
    if (this.#single.has(segments))
      eachMemory(this, mapped, (address, length) => this.syncForCpu(address, length, direction));
    else if (!this.device.coherent) this.#toCpu(list, direction);
  }

  syncListForDevice(mapped: MappedList): void {
    const { list, segments, direction } = mapped;
    if (this.#single.has(segments))
      eachMemory(this, mapped, (address, length) => this.syncForDevice(address, length, direction));
    else if (!this.device.coherent) {
      for (const { phys, length } of cachedEntries(this.device, list))
        this.ownership.forDevice(phys, length, direction);
      this.ownership.barrier();
    }
  }

  #toCpu(list: readonly PhysVec[], direction: Direction): void {
    for (const { phys, length } of cachedEntries(this.device, list)) this.ownership.forCpu(phys, length, direction);
    this.ownership.barrier();
  }

  /** False if there is nothing that a sync could move: no walk of the table then. */
  #moves(length: number, direction: Direction): boolean {
    const { coherent, machine, tdi } = this.device;
    return !coherent || this.isolates(length, direction) || (machine.encryption !== undefined && tdi === "none");
  }
}
