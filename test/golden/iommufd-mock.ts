/**
 * The mock devices of the iommufd files, as the kernel's test module has them: an IOMMU with pages of 2 KiB, nesting, a virtual
 * IOMMU, page faults, PASIDs. And real devices behind VT-d tables, of which the files read the leaves.
 *
 * Page tables are dmalink's own; what stands here is only how these devices behave.
 */

import type { DmaError, Errno, PhysPage } from "../../src/base/index.ts";
import type { PageFault } from "../../src/consumers/iommufd/index.ts";
import {
  DomainTable,
  driverRefused,
  type InvalidationTarget,
  type IovaSpan,
  type IsolationGroup,
  type NestedTable,
  type TableRequest,
  type UserDevice,
  type UserTable,
  type VendorData,
  type ViommuBond,
  type ViommuDriver,
} from "../../src/consumers/iommufd/index.ts";
import { PagingDomain } from "../../src/iommu/index.ts";
import { amdV1, type TableLayout, vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import type { TranslationUnit } from "../../src/platform/index.ts";

/** A unit that remembers nothing: the files ask for tables only. */
const FORGETFUL: TranslationUnit = {
  attach() {},
  detach() {},
  invalidateRange() {},
  invalidateDomain() {},
  syncMap: () => false,
};

const TYPE = {
  table: 0xdead,
  invalidate: 0xdeadbeef,
  viommu: 0xdeadbeef,
  events: 0xbeefbeef,
  info: 0xfeedbeef,
} as const;

/** A table of the files, and the arena that its words lie in. */
export class JudgedTable extends DomainTable {
  readonly arena: Arena;
  isTracking = false;

  constructor(layout: TableLayout, options: Omit<ConstructorParameters<typeof DomainTable>[0], "domain"> = {}) {
    const arena = new Arena({ basePage: (2 ** 35) as PhysPage });
    super({ ...options, domain: new PagingDomain({ layout, unit: FORGETFUL, tableMemory: arena }) });
    this.arena = arena;
  }

  override setDirtyTracking(on: boolean): void {
    this.isTracking = on;
  }

  /** A device writes to `unit`. False: nothing is there. */
  soil(unit: number): boolean {
    const { table } = this.domain;
    const found = table.translate(unit as never);
    if (!found) return false;
    this.arena.store(found.table, found.index, table.layout.dirty!.soil(found.low), found.high);
    return true;
  }
}

const refuse = (errno: Errno, why: string): DmaError => driverRefused(errno, why);

/** Four slots that hold a value until they are invalidated. */
class Slots implements InvalidationTarget {
  readonly type: number = TYPE.invalidate;
  readonly leastBytes = 8;
  readonly mostBytes = 8;
  readonly values: number[];

  constructor(value: number) {
    this.values = [value, value, value, value];
  }

  /** Entries: flags (1: all), slot. */
  invalidate(entries: readonly Uint8Array[]): { done: number; refused?: Error } {
    let done = 0;
    for (const entry of entries) {
      const view = new DataView(entry.buffer);
      const refused = this.one(view.getUint32(0, true), view.getUint32(4, true));
      if (refused) return { done, refused };
      done++;
    }
    return { done };
  }

  one(flags: number, slot: number): Error | undefined {
    if ((flags & ~1) !== 0) return refuse("EOPNOTSUPP", `flags ${flags}`);
    if (slot >= this.values.length) return refuse("EINVAL", `slot ${slot}`);
    if (flags === 1) this.values.fill(0);
    else this.values[slot] = 0;
    return undefined;
  }
}

/** A nested table of the mock IOMMU. */
export class MockNested implements NestedTable {
  readonly invalidation: Slots;

  constructor(data: VendorData) {
    if (data.type !== TYPE.table) throw refuse("EOPNOTSUPP", `data of type ${data.type}`);
    const value = new DataView(data.read(4, 8).buffer).getUint32(0, true);
    this.invalidation = new Slots(value);
  }

  destroy(): void {}
}

const DEVICE_CACHE = 0xbaddad;

/** The virtual IOMMU of the mock. */
class MockViommu implements ViommuDriver {
  readonly answer?: Uint8Array;
  readonly eventTypes: readonly number[] = [TYPE.events];
  readonly invalidation: InvalidationTarget;
  readonly #devices: (virtualId: bigint) => UserDevice | undefined;
  readonly #queues = [false, false];

  constructor(data: VendorData | undefined, devices: (virtualId: bigint) => UserDevice | undefined) {
    this.#devices = devices;
    if (data) {
      const bytes = data.read(8, 24);
      bytes.copyWithin(4, 0, 4);
      new DataView(bytes.buffer).setBigUint64(16, 0x2000n, true);
      data.answer(bytes);
    }
    this.invalidation = {
      type: TYPE.invalidate,
      leastBytes: 12,
      mostBytes: 12,
      takesWhole: true,
      invalidate: (entries) => this.#invalidate(entries),
    };
  }

  openNested(data: VendorData): NestedTable {
    return new MockNested(data);
  }

  #invalidate(entries: readonly Uint8Array[]): { done: number; refused?: Error } {
    let done = 0;
    for (const entry of entries) {
      const view = new DataView(entry.buffer);
      const [flags, id, slot] = [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true)];
      const device = this.#devices(BigInt(id));
      if ((flags & ~1) !== 0) return { done, refused: refuse("EOPNOTSUPP", `flags ${flags}`) };
      if (slot > 3) return { done, refused: refuse("EINVAL", `slot ${slot}`) };
      if (!(device instanceof MockDevice)) return { done, refused: refuse("EINVAL", `no device ${id}`) };
      device.cache.one(flags, slot);
      done++;
    }
    return { done };
  }

  readonly queues: NonNullable<ViommuDriver["queues"]> = {
    type: TYPE.viommu,
    open: (index) => {
      if (index > 1) throw refuse("EINVAL", `queue ${index}`);
      if (this.#queues[index]) throw refuse("EEXIST", `queue ${index}`);
      if (index === 1 && !this.#queues[0]) throw refuse("EIO", "the first queue must be there");
      this.#queues[index] = true;
      return {
        ...(index === 1 && { needs: 0 }),
        close: () => {
          this.#queues[index] = false;
        },
      };
    },
  };

  destroy(): void {}
}

/** Flags of a mock device. */
const FLAG = { noDirty: 1, pasid: 4 } as const;
const FAILING_PASID = 1024;

/** A mock device, in a group of its own. */
export class MockDevice implements UserDevice {
  readonly name = "mock";
  readonly group: IsolationGroup = { name: "mock" };
  readonly reserved: readonly IovaSpan[] = [];
  readonly capabilities = 8;
  readonly canTrackDirty: boolean;
  readonly pasidBits: number;
  readonly isCoherent = true;
  readonly hasIsolatedInterrupts = true;
  readonly viommuTypes: readonly number[] = [TYPE.viommu];
  readonly cache: Slots = new Slots(DEVICE_CACHE);
  viommu: ViommuBond | undefined;
  #failsNext = false;

  constructor(flags: number) {
    this.canTrackDirty = (flags & FLAG.noDirty) === 0;
    this.pasidBits = flags & FLAG.pasid ? 20 : 0;
  }

  hardwareInfo(type: number): { type: number; data: Uint8Array } {
    if (type !== 0 && type !== TYPE.info) throw refuse("EOPNOTSUPP", `information of type ${type}`);
    return { type: TYPE.info, data: Uint8Array.of(0, 0, 0, 0, 0xef, 0xbe, 0xad, 0xde) };
  }

  openTable({ tracksDirty, data }: TableRequest): UserTable {
    let huge = false;
    if (data) {
      if (data.type !== TYPE.table) throw refuse("EOPNOTSUPP", `data of type ${data.type}`);
      const kind = new DataView(data.read(4, 8).buffer).getUint32(4, true);
      if (kind > 1) throw refuse("EOPNOTSUPP", `tables of kind ${kind}`);
      huge = kind === 1;
    }
    const leafSizes = huge ? [1, 9] : Array.from({ length: 26 }, (_, lg) => lg);
    const aperture = huge ? { first: 0n, last: 2n ** 38n - 1n } : { first: 0x100_0000n, last: 0x7fff_ffffn };
    return new JudgedTable(amdV1({ leafSizes }), { unitBytes: 2048, aperture, tracksDirty, leavesOutLastItem: true });
  }

  openNested(_parent: UserTable, data: VendorData): NestedTable {
    return new MockNested(data);
  }

  openViommu(
    _type: number,
    _parent: UserTable,
    data: VendorData | undefined,
    devices: (virtualId: bigint) => UserDevice | undefined,
  ): ViommuDriver {
    return new MockViommu(data, devices);
  }

  attach(pasid: number, table: UserTable | NestedTable, viommu: ViommuBond | undefined): void {
    if (table instanceof JudgedTable && table.tracksDirty && !this.canTrackDirty && pasid === 0)
      throw refuse("EINVAL", "it cannot track what it writes");
    if (viommu && viommu.virtualId === undefined) throw refuse("ENOENT", "it is not in the virtual IOMMU");
    if (pasid === FAILING_PASID) {
      this.#failsNext = !this.#failsNext;
      if (!this.#failsNext) throw refuse("ENOMEM", "every second attach of this PASID fails");
    }
    if (pasid === 0) this.viommu = viommu;
  }

  detach(pasid: number): void {
    if (pasid === FAILING_PASID) this.#failsNext = false;
    if (pasid === 0) this.viommu = undefined;
  }

  respond(_fault: PageFault): void {}
}

/** The window of interrupts, of the platform. */
const INTERRUPTS: IovaSpan = { first: 0xfee0_0000n, last: 0xfeef_ffffn };

/** A real device behind VT-d. */
export class VtdDevice implements UserDevice {
  readonly name: string;
  readonly group: IsolationGroup;
  readonly reserved: readonly IovaSpan[] = [INTERRUPTS];
  readonly capabilities = 0;
  readonly canTrackDirty = false;
  readonly pasidBits = 0;
  readonly isCoherent = true;
  readonly hasIsolatedInterrupts = true;
  /** What translates its requests now. */
  table: JudgedTable | undefined;

  constructor(name: string) {
    this.name = name;
    this.group = { name };
  }

  hardwareInfo(type: number): { type: number; data: Uint8Array } {
    if (type > 1) throw refuse("EOPNOTSUPP", `information of type ${type}`);
    return { type: 1, data: new Uint8Array(24) };
  }

  openTable({ tracksDirty, data, nestParent }: TableRequest): UserTable {
    if (tracksDirty || data || nestParent) throw refuse("EOPNOTSUPP", "legacy mode has nothing of that");
    return new JudgedTable(vtdSecondStage({ levels: 4 }));
  }

  attach(pasid: number, table: UserTable | NestedTable): void {
    if (pasid > 0 || !(table instanceof JudgedTable)) throw refuse("EINVAL", "legacy mode knows plain tables only");
    this.table = table;
  }

  detach(): void {
    this.table = undefined;
  }

  respond(): void {}

  /** Leaves of its table: address, bytes, how many follow one another. */
  leaves(): [string, string, number][] {
    const found: [string, string, number][] = [];
    let [next, size] = [0n, 0n];
    for (const { path, leaf, level } of this.table?.domain.table.entries() ?? []) {
      if (!leaf) continue;
      const bytes = 4096n << BigInt(9 * level);
      let page = 0n;
      for (const index of path) page = page * 512n + BigInt(index);
      const iova = page * bytes;
      const last = found.at(-1);
      if (last && iova === next && bytes === size) last[2]++;
      else found.push([`0x${iova.toString(16)}`, `0x${bytes.toString(16)}`, 1]);
      next = iova + bytes;
      size = bytes;
    }
    return found;
  }
}
