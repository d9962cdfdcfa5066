/**
 * A type 1 container: mappings of memory that all its groups of devices share, in one domain for each kind of IOMMU.
 *
 * Idea: a mapping is whole or not there; type 3 (v2) never cuts one, type 1 (v1) removes more than asked or nothing, and says
 * how much. Whoever unmaps goes by the size that comes back. Domains that cannot be shared are filled one from the other.
 * Promises: a refused map or attach changes nothing; an unmapped page cannot be reached, and is unpinned.
 * Not for: dirty bits of hardware: there are none here, every mapped page counts as written.
 * Specified by: behaviour of Linux 7.2 (vfio_iommu_type1); judged by test/golden/type1.
 */
import type { UserProcess } from "../../../platform/index.ts";
import {
  type IovaSpan,
  LAST_IOVA,
  Reservations,
  SortedRanges,
  smallestPageOf,
  type TableAccess,
  type UserDevice,
  type UserTable,
} from "../../iommufd/index.ts";
import { badMap, badState, noEntryLeft } from "./errors.ts";
import { mapRuns, Type1Mapping, unmapFrom } from "./mapping.ts";

/** How a container is made. */
export interface Type1Options {
  /** Type 3: no mapping is ever cut, and pieces that would be are refused. */
  readonly v2: boolean;
  /**
   * Beyond Linux: an unmap that would cut a mapping cuts it: large leaves on the way are split, and exactly what was asked goes. Each
   * part that stays is an entry.
   */
  readonly unmapSplits?: boolean;
  /** Mappings that it takes: 65535 unless said. */
  readonly entryLimit?: number;
  /** Groups whose interrupts are not isolated are taken nevertheless. */
  readonly allowUnsafeInterrupts?: boolean;
}

/** Devices that move together, as a container takes them in. */
export interface ContainerGroup {
  /** None: its devices are emulated, and translate by nothing: nothing is pinned for them until they ask. */
  readonly devices: readonly UserDevice[];
}

interface Domain {
  readonly table: UserTable;
  readonly groups: Set<ContainerGroup>;
}

/** Mappings that a container has unless told otherwise. */
export const ENTRY_LIMIT = 65_535;

/** Mappings, and the domains that they are in. */
export class Type1Container {
  /** Type 3: an unmap never cuts a mapping. */
  readonly v2: boolean;
  /** By address. */
  readonly mappings: SortedRanges<Type1Mapping> = new SortedRanges<Type1Mapping>();
  readonly #entryLimit: number;
  readonly #allowUnsafeInterrupts: boolean;
  readonly #unmapSplits: boolean;
  readonly #domains: Domain[] = [];
  #reserved = new Reservations();
  readonly #emulated = new Set<ContainerGroup>();
  #invalid = 0;
  /** Every mapped page counts as written, and is reported. */
  isTracking = false;

  /** Empty: the first group brings the first domain. */
  constructor(options: Type1Options) {
    this.v2 = options.v2;
    this.#entryLimit = options.entryLimit ?? ENTRY_LIMIT;
    this.#allowUnsafeInterrupts = options.allowUnsafeInterrupts ?? false;
    this.#unmapSplits = options.unmapSplits ?? false;
  }

  /** Mappings that it would still take. */
  get entriesLeft(): number {
    return this.#entryLimit - this.mappings.length;
  }

  /** One for each domain. */
  get tables(): readonly UserTable[] {
    return this.#domains.map(({ table }) => table);
  }

  /** Sizes of pages that every domain has, as a bitmap. */
  get pageSizes(): bigint {
    let sizes = LAST_IOVA;
    for (const { table } of this.#domains) sizes &= table.pageSizes;
    return (sizes & 0xfffn) === 0n ? sizes : (sizes & ~0xfffn) | 0x1000n;
  }

  /** Bytes of the smallest of them: addresses and sizes are multiples of it. */
  get pageBytes(): bigint {
    const sizes = this.#domains.length > 0 ? this.pageSizes : 0x1000n;
    return sizes & -sizes;
  }

  /** Addresses that every device of it can use. */
  get usable(): IovaSpan[] {
    return this.#reserved.holes();
  }

  /** Devices that translate by nothing are in it. */
  get hasEmulated(): boolean {
    return this.#emulated.size > 0;
  }

  /** Devices see the CPU's caches in every domain. */
  get isCoherent(): boolean {
    return this.#domains.every(({ table }) => table.forcesCoherency);
  }

  /**
   * Takes a group in: in a domain that there is, or in one of its own, which gets all mappings.
   *
   * @throws DmaError EBUSY while an address is not known; EINVAL if mappings lie where its devices cannot go; EPERM; what its
   *   IOMMU says; nothing has changed then
   */
  attach(group: ContainerGroup): void {
    if (this.#invalid > 0) throw badState("EBUSY", "addresses of mappings are not known just now");
    if (this.#emulated.has(group) || this.#domains.some(({ groups }) => groups.has(group)))
      throw badState("EINVAL", "the group is in it");
    if (group.devices.length === 0) {
      this.#emulated.add(group);
      return;
    }
    const fresh = openTable(group);
    try {
      this.#refuseConflicts(group, fresh);
      const shared = this.#domains.find((domain) => isLike(domain.table, fresh) && attachAll(group, domain.table));
      if (shared) {
        fresh.destroy();
        shared.groups.add(group);
      } else this.#addDomain(group, fresh);
    } catch (error) {
      fresh.destroy();
      throw error;
    }
    this.#refreshReserved();
  }

  #refuseConflicts(group: ContainerGroup, table: UserTable): void {
    // As Linux: the first IOMMU does not compare its addresses, its table refuses them.
    const beyond = this.#domains.length === 0 ? [] : outside(table.aperture);
    const refused = [...beyond, ...group.devices.flatMap(({ reserved }) => reserved)];
    for (const { first, last } of refused) {
      if (first > last) continue;
      const mapping = this.mappings.firstIn(first, last);
      if (mapping) throw badState("EINVAL", `a mapping at ${mapping.first} lies where a device of the group cannot go`);
    }
    if (!this.#allowUnsafeInterrupts && !group.devices.every((device) => device.hasIsolatedInterrupts))
      throw badState("EPERM", "interrupts of the group are not isolated");
  }

  #addDomain(group: ContainerGroup, table: UserTable): void {
    const first = this.#domains[0]?.table;
    const done: Type1Mapping[] = [];
    try {
      for (const mapping of this.mappings) {
        if (first) mapRuns([table], mapping.first, mapping.readBack(first), mapping.access);
        else mapping.map([table]);
        done.push(mapping);
      }
      if (!attachAll(group, table)) throw badState("EINVAL", "a device of the group does not take its own table");
    } catch (error) {
      for (const mapping of done) {
        if (first) unmapFrom(table, mapping);
        else mapping.unmap([table]);
      }
      throw error;
    }
    this.#domains.push({ table, groups: new Set([group]) });
  }

  /** The group leaves. With the last one of a kind its domain ends; with the last of all, all mappings. Never fails. */
  detach(group: ContainerGroup): void {
    if (this.#emulated.delete(group) && this.#domains.length === 0 && this.#emulated.size === 0) this.unmapAll();
    const domain = this.#domains.find(({ groups }) => groups.has(group));
    if (!domain) return;
    for (const device of group.devices) device.detach(0);
    domain.groups.delete(group);
    if (domain.groups.size === 0) {
      if (this.#domains.length === 1)
        for (const mapping of [...this.mappings]) {
          if (this.#emulated.size === 0) this.#remove(mapping);
          else mapping.unmap(this.tables);
        }
      else for (const mapping of this.mappings) unmapFrom(domain.table, mapping);
      this.#domains.splice(this.#domains.indexOf(domain), 1);
      domain.table.destroy();
    }
    this.#refreshReserved();
  }

  #refreshReserved(): void {
    this.#reserved = new Reservations();
    for (const { table, groups } of this.#domains) {
      for (const { first, last } of outside(table.aperture)) this.#reserved.add(first, last, undefined);
      for (const { devices } of groups)
        for (const { reserved } of devices)
          for (const { first, last } of reserved) this.#reserved.add(first, last, undefined);
    }
  }

  /**
   * Maps memory of a process.
   *
   * @throws DmaError EINVAL, EOVERFLOW, EEXIST, ENOSPC (no entry is left), EFAULT, ENOMEM; nothing is mapped then
   */
  map(process: UserProcess, vaddr: bigint, iova: bigint, size: bigint, access: TableAccess): void {
    this.#checkMap(vaddr, iova, size, access.read || access.write);
    const last = iova + size - 1n;
    if (this.mappings.firstIn(iova, last)) throw badMap("EEXIST", iova, size, "something is mapped there");
    if (this.entriesLeft === 0) throw noEntryLeft(this.#entryLimit);
    if (this.#reserved.meets(iova, last)) throw badMap("EINVAL", iova, size, "a device cannot use part of it");
    const mapping = new Type1Mapping(iova, size, vaddr, access, process);
    if (this.#domains.length > 0) mapping.map(this.tables);
    this.mappings.insert(mapping);
  }

  #checkMap(vaddr: bigint, iova: bigint, size: bigint, isSensible: boolean): void {
    if (size === 0n) throw badMap("EINVAL", iova, size, "nothing to map");
    if (iova + size - 1n > LAST_IOVA || vaddr + size - 1n > LAST_IOVA)
      throw badMap("EOVERFLOW", iova, size, "it leaves the address space");
    if (!isSensible) throw badMap("EINVAL", iova, size, "no permission, or one together with a new address");
    if ((size | iova | vaddr) % this.pageBytes !== 0n)
      throw badMap("EINVAL", iova, size, `not of whole pages of ${this.pageBytes}`);
  }

  /**
   * A mapping whose address was invalid has it from now on at `vaddr` of `process`, which pays for it.
   *
   * @throws DmaError ENOENT, EINVAL, EOVERFLOW; ENOMEM over the limit: it stays invalid
   */
  setVaddr(process: UserProcess, vaddr: bigint, iova: bigint, size: bigint, hasPermission: boolean): void {
    this.#checkMap(vaddr, iova, size, !hasPermission);
    const mapping = this.mappings.firstIn(iova, iova + size - 1n);
    if (!mapping) throw badMap("ENOENT", iova, size, "nothing is mapped there");
    if (!mapping.vaddrInvalid || mapping.first !== iova || mapping.size !== size)
      throw badMap("EINVAL", iova, size, "not the whole of a mapping whose address is invalid");
    mapping.changeOwner(process);
    mapping.vaddr = vaddr;
    mapping.vaddrInvalid = false;
    this.#invalid--;
  }

  /**
   * Unmaps what lies in the range, as its type does it: see docs/user-mappings.md.
   *
   * @param onRemove hears of each mapping before it goes; what it throws ends the call
   * @returns bytes that were unmapped: always go by it
   * @throws DmaError EINVAL if a mapping would be cut (v2)
   */
  unmap(iova: bigint, size: bigint, onRemove: (mapping: Type1Mapping) => void = () => {}): bigint {
    const last = this.checkRange(iova, size);
    if (this.#unmapSplits) this.#split(iova, last, size);
    if (this.v2) this.#refuseCuts(iova, last, size);
    let bytes = 0n;
    this.#each(iova, last, (mapping) => {
      onRemove(mapping);
      this.#remove(mapping);
      bytes += mapping.size;
    });
    return bytes;
  }

  /** Unmaps everything. Bytes. */
  unmapAll(): bigint {
    let bytes = 0n;
    for (const mapping of [...this.mappings].reverse()) {
      this.#remove(mapping); // from the end: nothing has to move up
      bytes += mapping.size;
    }
    return bytes;
  }

  /**
   * Addresses of mappings in the range are not known from now on; devices go on. All of them or none.
   *
   * @returns bytes
   * @throws DmaError EINVAL if one is invalid already, or would be cut (v2)
   */
  invalidateVaddr(iova: bigint, last: bigint, isAll: boolean): bigint {
    if (this.v2 && !isAll) this.#refuseCuts(iova, last, last - iova + 1n);
    const marked: Type1Mapping[] = [];
    let bytes = 0n;
    try {
      this.#each(iova, last, (mapping) => {
        if (mapping.vaddrInvalid) throw badMap("EINVAL", iova, last - iova + 1n, "its address is invalid already");
        marked.push(mapping);
        mapping.vaddrInvalid = true;
        bytes += mapping.size;
      });
    } catch (error) {
      for (const mapping of marked) mapping.vaddrInvalid = false;
      throw error;
    }
    this.#invalid += marked.length;
    return bytes;
  }

  /** Mappings that meet the range, ascending; v1 stops at one that begins before it. */
  #each(iova: bigint, last: bigint, visit: (mapping: Type1Mapping) => void): void {
    let at = iova;
    for (;;) {
      const mapping = this.mappings.firstIn(at, last);
      if (!mapping || (!this.v2 && iova > mapping.first)) return;
      visit(mapping);
      if (mapping.last === LAST_IOVA) return;
      at = mapping.last + 1n;
    }
  }

  #refuseCuts(iova: bigint, last: bigint, size: bigint): void {
    const head = this.mappings.firstIn(iova, iova);
    const tail = this.mappings.firstIn(last, last);
    if ((head && head.first !== iova) || (tail && tail.last !== last))
      throw badMap("EINVAL", iova, size, "it would cut a mapping");
  }

  /** @throws DmaError ENOSPC (no entry is left for a part), ENOMEM, EINVAL: nothing is cut then */
  #split(iova: bigint, last: bigint, size: bigint): void {
    const starts = [iova, last + 1n].filter((at) => {
      const mapping = this.mappings.firstIn(at, at);
      return mapping !== undefined && mapping.first !== at;
    });
    // What was asked goes in the end, and its entry with it.
    if (this.entriesLeft < starts.length - 1) throw noEntryLeft(this.#entryLimit);
    const { tables } = this;
    for (const at of starts)
      for (const table of tables) {
        if (!table.splitAt) throw badMap("EINVAL", iova, size, "a table does not split leaves");
        table.splitAt(Number(at / BigInt(table.unitBytes)));
      }
    for (const at of starts) {
      const right = this.mappings.firstIn(at, at)!.cut(at, tables);
      if (right.vaddrInvalid) this.#invalid++;
      this.mappings.insert(right);
    }
  }

  #remove(mapping: Type1Mapping): void {
    mapping.unmap(this.tables);
    if (mapping.vaddrInvalid) this.#invalid--;
    this.mappings.remove(mapping);
  }

  /** The last byte of a range of whole pages. @throws DmaError EINVAL, EOVERFLOW */
  checkRange(iova: bigint, size: bigint): bigint {
    if (iova % this.pageBytes !== 0n || size === 0n || size % this.pageBytes !== 0n)
      throw badMap("EINVAL", iova, size, `not of whole pages of ${this.pageBytes}`);
    if (iova + size - 1n > LAST_IOVA) throw badMap("EOVERFLOW", iova, size, "it leaves the address space");
    return iova + size - 1n;
  }

  /**
   * Calls `report` for the pages of each mapping in the range: all of them count as written.
   *
   * @throws DmaError EINVAL without tracking, or where a mapping would be cut
   */
  readDirty(iova: bigint, size: bigint, report: (page: bigint, pages: bigint) => void): void {
    if (!this.isTracking) throw badMap("EINVAL", iova, size, "tracking is off");
    const last = iova + size - 1n;
    this.#refuseCuts(iova, last, size);
    const page = this.pageBytes;
    for (let at = iova; ; ) {
      const mapping = this.mappings.firstIn(at, last);
      if (!mapping) return;
      report((mapping.first - iova) / page, mapping.size / page);
      at = mapping.last + 1n;
    }
  }
}

/** Addresses that a table cannot have. */
function outside({ first, last }: IovaSpan): IovaSpan[] {
  return [
    ...(first > 0n ? [{ first: 0n, last: first - 1n }] : []),
    ...(last < LAST_IOVA ? [{ first: last + 1n, last: LAST_IOVA }] : []),
  ];
}

function openTable({ devices }: ContainerGroup): UserTable {
  const device = devices[0];
  if (!device) throw badState("EINVAL", "a group without devices");
  return device.openTable({ nestParent: false, tracksDirty: false, pasid: false, data: undefined });
}

/** Could one table serve the devices of the other? */
const isLike = (one: UserTable, other: UserTable): boolean =>
  one.pageSizes === other.pageSizes &&
  one.forcesCoherency === other.forcesCoherency &&
  smallestPageOf(one) === smallestPageOf(other);

/** All devices of a group at a table; false: one of them does not take it, and none is attached. */
function attachAll({ devices }: ContainerGroup, table: UserTable): boolean {
  let done = 0;
  try {
    for (; done < devices.length; done++) devices[done]!.attach(0, table, undefined);
    return true;
  } catch {
    for (const device of devices.slice(0, done)) device.detach(0);
    return false;
  }
}
