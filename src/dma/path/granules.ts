/**
 * A device's address space in granules: the smallest things that its IOMMU can map, and what of them the device may see.
 *
 * Idea: whoever maps behind an IOMMU (one shot, lists, two steps, coherent memory) counts in granules, reserves below the
 * device's limit, and asks whether a buffer must bounce. They share this value, and none of them needs the others.
 * Promises: {@link Granules.mapWhole} that fails gives its range back at once, in lazy mode too, and leaves nothing.
 * Not for: bouncing, maintenance of caches, privacy: that is the paths'.
 * Specified by: behaviour of Linux 7.2 DMA-IOMMU layer.
 */
import { type Direction, DmaAddr, type IovaPage, PAGE_SIZE, PhysAddr, type PhysPage } from "../../base/index.ts";
import type { AddressSpace } from "../../iommu/index.ts";
import type { IovaDevice } from "../../iova/index.ts";
import type { DmaDevice } from "../device.ts";
import { minAlignTooWide, noAddressSpace } from "../errors.ts";
import { Ownership } from "./ownership.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;

/** Bytes that are counted in small integers. */
const SHORT = 0x4000_0000;
/** Of a 64-bit address. */
const LAST_PAGE = 2 ** 52 - 1;

export class Granules {
  readonly device: DmaDevice;
  readonly domain: AddressSpace;
  readonly ownership: Ownership;
  /** Bytes of one. */
  readonly granule: number;
  /** Granules per byte: a power of two, so multiplying is exact, and much faster than dividing. */
  readonly perGranule: number;
  readonly granulePages: number;
  /**
   * True for a plain device: it may see whole granules, it looks into the CPU's caches, and the machine has no private
   * memory.
   */
  readonly isPlain: boolean;
  readonly #granuleMask: number;
  readonly #iovaDevice: IovaDevice;

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

  /** True if a buffer of `length` bytes must share its granules, or its cache lines, with nobody. */
  isolates(length: number, direction: Direction): boolean {
    return this.device.untrusted || this.ownership.sharesLines(length, direction);
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
      domain.sync(page, pages);
    } catch (error) {
      domain.release(page, 0, pages);
      throw error;
    }
    return DmaAddr(page * PAGE + inside);
  }

  /** What an address reaches; one walk of the table. Linux takes physical address 0 for nothing. */
  physOf(address: DmaAddr): PhysAddr | undefined {
    this.device.observer?.lookedUp?.(address);
    const iovaPage = Math.floor(address / PAGE) as IovaPage;
    const inside = address - iovaPage * PAGE;
    const { sharedBit } = this.device;
    if (sharedBit !== 0 && address >= sharedBit) return PhysAddr(address - sharedBit); // not translated by the guest
    const page = this.domain.lookup(iovaPage);
    const isNothing = page < 0 || (page === 0 && inside === 0 && this.device.linuxCompatible);
    if (isNothing) return undefined;
    const phys = page * PAGE + inside;
    return PhysAddr(sharedBit !== 0 && phys >= sharedBit ? phys - sharedBit : phys);
  }

  /** Clears the granules of [address, + length) and gives them back. */
  unmapWhole(address: number, length: number): void {
    const inside = this.inside(address);
    const pages = this.pages(inside + length);
    this.domain.release(((address - inside) / PAGE) as IovaPage, pages, pages);
  }
}
