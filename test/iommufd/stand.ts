/** A machine for tests of user mappings: processes with memory, an IOMMU of any format, devices behind it, and what reaches what. */

import { type IovaPage, PAGE_SIZE, type PhysPage } from "../../src/base/index.ts";
import { type FailureStep, type IsolationGroup, UnitDevice, UnitIommu } from "../../src/consumers/iommufd/index.ts";
import { SimulatedMachine, SimulatedUnit } from "../../src/hosts/simulated/index.ts";
import {
  Frames,
  newUser,
  type ProcessMemory,
  type ProcessOptions,
  SimulatedProcess,
} from "../../src/hosts/simulated/process/index.ts";
import { type TableLayout, vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { finish, newPageEntry, type PageEntry, UserAddr } from "../../src/platform/index.ts";

export const MiB: number = 2 ** 20;
/** Where tests map memory. */
export const VA = 0x10_0000_0000;
const ENTRY: PageEntry = newPageEntry();

/** One machine. */
export class Stand {
  readonly unit: SimulatedUnit;
  readonly iommu: UnitIommu;
  readonly frames: Frames;
  readonly machine: SimulatedMachine;
  #devices = 0;

  constructor(options: { readonly layout?: TableLayout; readonly dirty?: boolean; readonly hugePages?: number } = {}) {
    const { layout = vtdSecondStage(), dirty = false } = options;
    this.unit = new SimulatedUnit({ dirty });
    this.iommu = new UnitIommu({ unit: this.unit, layout, canTrackDirty: dirty });
    this.machine = new SimulatedMachine({ memoryBytes: 2 ** 33 });
    const { memory, ram } = this.machine;
    this.frames = new Frames({ pages: ram, memory, hugetlbPages: options.hugePages ?? 0 });
  }

  process(options: ProcessOptions = {}): SimulatedProcess {
    return new SimulatedProcess(this.frames, { memlockBytes: Number.POSITIVE_INFINITY, ...options });
  }

  /** Memory of a process at `address`; with `huge` in pages of 2 MiB. */
  memory(process: SimulatedProcess, bytes: number, address: number = VA, huge = false): bigint {
    process.memory.map({ address: UserAddr(address), length: bytes, hugetlb: huge });
    for (let at = 0; at < bytes; at += huge ? 2 * MiB : PAGE_SIZE)
      finish(process.memory.touchSteps(UserAddr(address + at), true));
    return BigInt(address);
  }

  /** Another device, with a number of its own on the bus. */
  device(group?: IsolationGroup): UnitDevice & { readonly number: number } {
    const requester = 0x100 + this.#devices++ * 8;
    const options = { name: `device ${this.#devices}`, iommu: this.iommu, requester, ...(group && { group }) };
    return Object.assign(new UnitDevice(options), { number: requester });
  }

  /** The page that a device reaches at `iova`; -1: it faults. */
  reach(device: { readonly number: number }, iova: number, access: "read" | "write" = "write"): number {
    return this.unit.translate(device.number, Math.floor(iova / PAGE_SIZE) as IovaPage, access);
  }

  /** The page behind an address of a process. */
  pageOf(memory: ProcessMemory, address: number): number {
    memory.entryAt(UserAddr(address), ENTRY);
    return ENTRY.page;
  }

  /** Pins of the pages behind [address, + pages). */
  pins(memory: ProcessMemory, pages: number, address: number = VA): number[] {
    return Array.from({ length: pages }, (_, i) =>
      this.frames.pinsOf(this.pageOf(memory, address + i * PAGE_SIZE) as PhysPage),
    );
  }
}

/** A user who is charged, for several processes. */
export const someUser = (): ReturnType<typeof newUser> => newUser("somebody");

/** Makes the n-th step fail that can. */
export class NthFailure {
  left = 0;
  wasHit = false;

  readonly point = (step: FailureStep): void => {
    if (step === "spare" || this.left === 0 || --this.left > 0) return;
    this.wasHit = true;
    throw new Error(`made to fail: ${step}`);
  };
}
