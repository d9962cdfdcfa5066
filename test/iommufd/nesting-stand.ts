/** A machine whose VT-d unit nests, a guest with tables of its own in its memory, and what its device reaches through both. */

import { type IovaPage, PAGE_SIZE, type PhysPage } from "../../src/base/index.ts";
import {
  type BoundDevice,
  Iommufd,
  UnitIommu,
  type VendorData,
  VTD_WORDS,
  VtdUserDevice,
} from "../../src/consumers/iommufd/index.ts";
import { SimulatedMachine, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { Frames, SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import { SimulatedVtdUnit, UnitMemory } from "../../src/hosts/simulated/units/vtd/index.ts";
import { VtdUnit } from "../../src/iommu/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import { newPageEntry, UserAddr } from "../../src/platform/index.ts";
import { MiB, VA } from "./stand.ts";

/** Bits of a first-stage entry: present, writable, for users, accessed, dirty. */
const TABLE = 0x27;
const LEAF = 0x67;

/** A vendor's words, as bytes. */
export function words(bytes: Uint8Array, type: number = VTD_WORDS): VendorData {
  return { type, length: bytes.length, read: () => bytes, answer: () => {} };
}

/** `iommu_hwpt_vtd_s1`. */
export function firstStage(root: bigint, width = 48, flags = 0n): Uint8Array {
  const view = new DataView(new ArrayBuffer(24));
  view.setBigUint64(0, flags, true);
  view.setBigUint64(8, root, true);
  view.setUint32(16, width, true);
  return new Uint8Array(view.buffer);
}

/** `iommu_hwpt_vtd_s1_invalidate`. */
export function invalidation(address: bigint, pages: bigint, flags = 1): Uint8Array {
  const view = new DataView(new ArrayBuffer(24));
  view.setBigUint64(0, address, true);
  view.setBigUint64(8, pages, true);
  view.setUint32(16, flags, true);
  return new Uint8Array(view.buffer);
}

/** One machine with one guest. */
export class NestingStand {
  readonly arena: Arena = new Arena({ basePage: (2 ** 35) as PhysPage });
  readonly machine: SimulatedMachine = new SimulatedMachine({ memoryBytes: 2 ** 31 });
  readonly hardware: SimulatedVtdUnit;
  readonly unit: VtdUnit;
  readonly iommu: UnitIommu;
  readonly frames: Frames;
  readonly process: SimulatedProcess;
  readonly iommufd: Iommufd = new Iommufd();
  readonly device: BoundDevice;
  readonly requester = 0x0100;
  readonly #ramBytes: number;
  /** The guest's next page for a table, from the top of its memory down. */
  #nextTable: number;
  readonly root: number;

  constructor(ramBytes: number = 4 * MiB) {
    const clock = new VirtualClock();
    const memory = new UnitMemory(this.arena, this.machine.memory);
    this.hardware = new SimulatedVtdUnit({ memory, clock, scalableMode: true, nested: true, pasidBits: 8 });
    this.unit = new VtdUnit({ registers: this.hardware, memory: this.arena, clock });
    this.iommu = new UnitIommu({ unit: this.unit, layout: vtdSecondStage(), tableMemory: this.arena });
    this.frames = new Frames({ pages: this.machine.ram, memory: this.machine.memory });
    this.process = new SimulatedProcess(this.frames, { memlockBytes: Number.POSITIVE_INFINITY });
    this.process.memory.map({ address: UserAddr(VA), length: ramBytes });
    const options = { name: "card", iommu: this.iommu, requester: this.requester, pasidBits: 8 };
    this.device = this.iommufd.bind(
      new VtdUserDevice({ ...options, registers: { capability: 0x1n, extended: 0x400_0000n } }),
    );
    this.#ramBytes = ramBytes;
    this.#nextTable = ramBytes;
    this.root = this.takeTable();
  }

  get ramBytes(): bigint {
    return BigInt(this.#ramBytes);
  }

  /** A page of the guest's memory for a table, cleared. */
  takeTable(): number {
    this.#nextTable -= PAGE_SIZE;
    this.process.memory.write(UserAddr(VA + this.#nextTable), new Uint8Array(PAGE_SIZE));
    return this.#nextTable;
  }

  /** The guest's driver: `iova` leads to page `target` of its memory. Nobody else is told. */
  map(iova: number, target: number): void {
    let table = this.root;
    for (let level = 3; level > 0; level--) {
      const at = table + (Math.floor(iova / PAGE_SIZE / 512 ** level) % 512) * 8;
      let entry = this.#load(at);
      if (entry === 0n) {
        entry = BigInt(this.takeTable() + TABLE);
        this.#store(at, entry);
      }
      table = Number(entry & ~0xfffn);
    }
    this.#store(table + (Math.floor(iova / PAGE_SIZE) % 512) * 8, BigInt(target + LEAF));
  }

  /** The guest's driver clears the entry of `iova`. The unit may still know it. */
  clear(iova: number): void {
    let table = this.root;
    for (let level = 3; level > 0; level--)
      table = Number(this.#load(table + (Math.floor(iova / PAGE_SIZE / 512 ** level) % 512) * 8) & ~0xfffn);
    this.#store(table + (Math.floor(iova / PAGE_SIZE) % 512) * 8, 0n);
  }

  /** The page that the device reaches at `iova`; -1: it faults. */
  reach(iova: number, access: "read" | "write" = "write"): number {
    return this.hardware.translate(this.requester, Math.floor(iova / PAGE_SIZE) as IovaPage, access);
  }

  /** The page of the machine behind a page of the guest. */
  pageOf(guestPhysical: number): number {
    const entry = newPageEntry();
    this.process.memory.entryAt(UserAddr(VA + guestPhysical), entry as never);
    return entry.page;
  }

  #load(guestPhysical: number): bigint {
    const bytes = new Uint8Array(8);
    this.process.memory.read(UserAddr(VA + guestPhysical), bytes);
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }

  #store(guestPhysical: number, entry: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, entry, true);
    this.process.memory.write(UserAddr(VA + guestPhysical), bytes);
  }
}
