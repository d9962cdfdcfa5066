/**
 * An address space whose addresses the user chooses: areas of memory, in every table that is attached to it.
 *
 * Idea: a map first takes its addresses and then fills all tables; whoever looks meanwhile finds the addresses taken and the
 * area closed. What tables and devices cannot reach is reserved, for as long as they are there.
 * Promises: a refused call changes nothing (an unmap that would cut an area excepted, which Linux lets remove what is below;
 * see {@link IoasRules.unmapIsAtomic}). When an unmap returns no device reaches the memory, and it is unpinned.
 * Not for: who may ask; ids; the kernel's structures: iommufd.ts and uapi/.
 * Specified by: behaviour of Linux 7.2 (io_pagetable); judged by test/golden/iommufd.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { Area } from "./area.ts";
import {
  accessStubborn,
  areaBusy,
  badArgument,
  badFile,
  iovaRefused,
  noPermission,
  notMapped,
  wraps,
} from "./errors.ts";
import { type IovaSpan, smallestPageOf, type TableAccess, type UserTable } from "./hardware.ts";
import type { MappedMemory } from "./memory.ts";
import type { IommufdObject } from "./objects.ts";
import { findFree, idealAlignment, LAST_IOVA, Reservations, SortedRanges } from "./ranges.ts";
import type { IoasRules } from "./rules.ts";

const PAGE = BigInt(PAGE_SIZE);

/** Rounds in which an access is asked to let go of an area. */
const MOST_ROUNDS = 100;

/** A part of some memory, to be mapped. */
export interface MemoryPart {
  /** Which memory. */
  readonly memory: MappedMemory;
  /** Byte of the memory's first page where it begins. */
  readonly startByte: bigint;
  /** How many bytes. */
  readonly length: bigint;
}

/** Part of the kernel that uses the space's memory. */
interface SpaceUser {
  /** What areas must be aligned to: bytes. */
  readonly alignment: number;
  /** Pages at these addresses go. */
  tellUnmap(iova: bigint, length: bigint): void;
}

/** Addresses of the user's choice. */
export class Ioas implements IommufdObject {
  readonly kind = "ioas";
  id = 0;
  users = 0;
  /** What is mapped, by address. */
  readonly areas: SortedRanges<Area> = new SortedRanges<Area>();
  /** Addresses that tables and devices cannot use. */
  readonly reserved: Reservations = new Reservations();
  /** Where it differs from Linux. */
  readonly rules: IoasRules;
  /** Where automatic addresses come from; empty: from everywhere. */
  allowed: SortedRanges<IovaSpan> = new SortedRanges<IovaSpan>();
  /** Addresses, lengths and offsets are multiples of it: bytes. */
  alignment = 1;
  /** Tables that all areas are in; the first comes first in everything. */
  readonly tables: UserTable[] = [];
  /** Parts of the kernel that use it. */
  readonly accesses: Set<SpaceUser> = new Set();
  #largePages = true;

  /** Empty, without tables. Made by {@link IommufdMemory.createIoas}, or alone for who needs no ids. */
  constructor(rules: IoasRules = {}) {
    this.rules = rules;
  }

  /** Contiguous memory becomes large leaves. */
  get largePages(): boolean {
    return this.#largePages;
  }

  /**
   * Maps parts of memory one after the other.
   *
   * @param iova where; undefined: at the lowest free address that is aligned as the memory is
   * @returns where
   * @throws DmaError ERR_DMA_IOVA_RANGE (EINVAL, EEXIST, ENOSPC, EOVERFLOW), EPERM, EFAULT, ENOMEM; nothing is mapped then
   */
  mapParts(parts: readonly MemoryPart[], iova: bigint | undefined, access: TableAccess): bigint {
    let length = 0n;
    for (const part of parts) length += part.length;
    if (length === 0n || !this.#isAligned(length))
      throw badArgument(`length ${length} is no multiple of ${this.alignment}`, { length });
    const at = iova ?? this.#choose(parts[0]!, length);
    if (iova !== undefined) this.#check(iova, length);
    const areas: Area[] = [];
    try {
      let first = at;
      for (const part of parts) {
        areas.push(this.#insert(first, part, access));
        first += part.length;
      }
      const filled: Area[] = [];
      try {
        for (const area of areas) {
          area.watchBuffer(() => this.tables);
          area.fill(this.tables, !this.#largePages);
          filled.push(area);
        }
      } catch (error) {
        for (const area of filled) area.empty(this.tables);
        throw error;
      }
    } catch (error) {
      for (const area of areas) this.#drop(area);
      throw error;
    }
    for (const area of areas) area.isClosed = false;
    return at;
  }

  #insert(first: bigint, part: MemoryPart, access: TableAccess): Area {
    const { memory, startByte, length } = part;
    if (access.write && !memory.writable) throw noPermission("the memory was mapped for reading only");
    if (!this.#isAligned(startByte % PAGE))
      throw badArgument(`memory begins at a byte that is no multiple of ${this.alignment}`);
    const area = new Area({ first, last: first + length - 1n, memory, startByte, access });
    this.areas.insert(area);
    return area;
  }

  #drop(area: Area): void {
    this.areas.remove(area);
    area.end();
  }

  #choose({ memory, startByte }: MemoryPart, length: bigint): bigint {
    const address = memory.startPageByte + startByte;
    if (length >= LAST_IOVA / 2n) throw iovaRefused("EOVERFLOW", 0n, length, "half of all addresses, or more");
    const alignment = idealAlignment(address, length);
    if (alignment < this.alignment)
      throw badArgument(`the memory is aligned to ${alignment} bytes, and the space to ${this.alignment}`);
    const found = findFree(this, address, length, alignment);
    if (found === undefined) throw iovaRefused("ENOSPC", 0n, length, "no free range is large enough");
    return found;
  }

  #check(iova: bigint, length: bigint): void {
    if (!this.#isAligned(iova)) throw iovaRefused("EINVAL", iova, length, `no multiple of ${this.alignment}`);
    const last = iova + length - 1n;
    if (last > LAST_IOVA) throw wraps(iova, length);
    if (this.reserved.meets(iova, last)) throw iovaRefused("EINVAL", iova, length, "part of it is reserved");
    if (this.areas.firstIn(iova, last)) throw iovaRefused("EEXIST", iova, length, "part of it is mapped");
  }

  #isAligned(value: bigint): boolean {
    return value % BigInt(this.alignment) === 0n;
  }

  /**
   * Parts of memory that [iova, iova + length) reaches, over neighbouring areas.
   *
   * @throws DmaError ERR_DMA_NOT_MAPPED (ENOENT) for a hole; EINVAL, EOVERFLOW
   */
  partsAt(iova: bigint, length: bigint): MemoryPart[] {
    if (length === 0n) throw badArgument("length 0");
    const last = iova + length - 1n;
    if (last > LAST_IOVA) throw wraps(iova, length);
    return [...this.areasAt(iova, last)].map(([area, first, end]) => ({
      memory: area.memory,
      startByte: area.byteAt(first),
      length: end - first + 1n,
    }));
  }

  /**
   * Areas from `iova` to `last` without a hole, each with the part that is meant.
   *
   * @throws DmaError ERR_DMA_NOT_MAPPED (ENOENT) when it comes to a hole
   */
  *areasAt(iova: bigint, last: bigint): Generator<[area: Area, first: bigint, last: bigint]> {
    let at = iova;
    while (at <= last) {
      const area = this.areas.from(at);
      if (!area || area.first > at) throw notMapped(at, last - at + 1n, "nothing is mapped at its start");
      const end = area.last < last ? area.last : last;
      yield [area, at, end];
      at = end + 1n;
    }
  }

  /**
   * Unmaps all areas in [iova, iova + length); each must lie in it wholly.
   *
   * @returns bytes unmapped: 0 if there was nothing
   * @throws DmaError EINVAL, EOVERFLOW; as {@link unmapRange}
   */
  unmap(iova: bigint, length: bigint): bigint {
    const done = { bytes: 0n };
    this.checkRange(iova, length);
    this.unmapRange(iova, iova + length - 1n, done);
    return done.bytes;
  }

  /** @throws DmaError EINVAL, EOVERFLOW for an empty or impossible range */
  checkRange(iova: bigint, length: bigint): void {
    if (length === 0n) throw badArgument("length 0");
    if (iova + length - 1n > LAST_IOVA) throw wraps(iova, length);
  }

  /** Unmaps everything. Bytes. @throws DmaError as {@link unmapRange} */
  unmapAll(): bigint {
    const done = { bytes: 0n };
    this.unmapRange(0n, LAST_IOVA, done);
    return done.bytes;
  }

  /**
   * Unmaps all areas in [first, last], and counts in `done` what was, also where it fails half way.
   *
   * @throws DmaError ERR_DMA_NOT_MAPPED (ENOENT) where an area reaches out of the range; ERR_DMA_IOMMUFD_BUSY (EBUSY) where a
   *   hardware queue is; ERR_DMA_IOMMUFD_STUBBORN (EDEADLK)
   */
  unmapRange(first: bigint, last: bigint, done: { bytes: bigint }): void {
    if (this.rules.unmapSplits) this.#split(first, last);
    if (this.rules.unmapIsAtomic) this.#refuseCuts(first, last);
    let start = first;
    let rounds = 0;
    for (;;) {
      const area = this.areas.firstIn(start, last);
      if (!area) return;
      if (area.isClosed || area.locks > 0)
        throw areaBusy(area.first, area.locks > 0 ? "holds a hardware queue" : "is being made");
      if (area.first < start || area.last > last)
        throw notMapped(first, last - first + 1n, `the area at ${area.first} reaches out of it`);
      if (area.first !== start) rounds = 0;
      if (area.accesses > 0) {
        start = area.first;
        area.refusesAccess = true;
        for (const access of [...this.accesses]) access.tellUnmap(area.first, area.length);
        if (++rounds > MOST_ROUNDS) throw accessStubborn(area.first, MOST_ROUNDS);
        continue;
      }
      area.isClosed = true;
      area.empty(this.tables);
      this.#drop(area);
      done.bytes += area.length;
      if (area.last === LAST_IOVA) return;
      start = area.last + 1n;
    }
  }

  /** Areas that meet [first, last], in order; they must stay meanwhile. */
  *#areasIn(first: bigint, last: bigint): Generator<Area> {
    for (let area = this.areas.firstIn(first, last); area; ) {
      yield area;
      area = area.last < last ? this.areas.firstIn(area.last + 1n, last) : undefined;
    }
  }

  #refuseCuts(first: bigint, last: bigint): void {
    for (const area of this.#areasIn(first, last)) {
      if (area.first < first || area.last > last)
        throw notMapped(first, last - first + 1n, `the area at ${area.first} reaches out of it`);
      if (area.isClosed || area.locks > 0) throw areaBusy(area.first, "is in use");
    }
  }

  /** Addresses that can be used, whether they are or not. */
  get usable(): IovaSpan[] {
    return this.reserved.holes();
  }

  /**
   * Automatic addresses come from these ranges only, from now on; none: from everywhere.
   *
   * @throws DmaError EINVAL if they overlap; EADDRINUSE if part of one is reserved; the old ones stay then
   */
  allow(ranges: readonly IovaSpan[]): void {
    const allowed = new SortedRanges<IovaSpan>();
    for (const range of ranges) {
      if (range.first >= range.last || allowed.firstIn(range.first, range.last))
        throw iovaRefused("EINVAL", range.first, range.last - range.first, "an empty range, or one that meets another");
      allowed.insert(range);
    }
    for (const { first, last } of allowed)
      if (this.reserved.meets(first, last))
        throw iovaRefused("EADDRINUSE", first, last - first, "part of it is reserved");
    this.allowed = allowed;
  }

  /**
   * [first, last] must not be used, as long as `owner` says so.
   *
   * @throws DmaError ERR_DMA_IOVA_RANGE (EADDRINUSE) if something is mapped or allowed there
   */
  reserve(first: bigint, last: bigint, owner?: object): void {
    if (this.areas.firstIn(first, last) || this.allowed.firstIn(first, last))
      throw iovaRefused("EADDRINUSE", first, last - first + 1n, "something is mapped there, or it was promised");
    this.reserved.add(first, last, owner);
  }

  /** Reserves what a device cannot use. All or nothing. @throws DmaError as {@link reserve} */
  reserveFor(owner: object, ranges: readonly IovaSpan[]): void {
    try {
      for (const { first, last } of ranges) this.reserve(first, last, owner);
    } catch (error) {
      this.reserved.removeOf(owner);
      throw error;
    }
  }

  /** @throws DmaError EINVAL while tables have areas; EADDRINUSE for an area that is not of whole pages */
  setLargePages(on: boolean): void {
    if (on === this.#largePages) return;
    if (!on && this.tables.length > 0 && this.areas.length > 0)
      throw badArgument("large pages cannot be given up while a table has areas");
    this.#largePages = on;
    try {
      this.#recalculate();
    } catch (error) {
      this.#largePages = !on;
      throw error;
    }
  }

  /** @throws DmaError ERR_DMA_IOVA_RANGE (EADDRINUSE): the alignment is as before */
  #recalculate(): void {
    let alignment = this.#largePages ? 1 : PAGE_SIZE;
    for (const table of this.tables) alignment = Math.max(alignment, smallestPageOf(table));
    for (const access of this.accesses) alignment = Math.max(alignment, access.alignment);
    if (alignment > this.alignment) this.#refuseUnaligned(alignment);
    this.alignment = alignment;
  }

  #refuseUnaligned(alignment: number): void {
    const by = BigInt(alignment);
    for (const area of this.areas)
      if (area.first % by !== 0n || area.length % by !== 0n || area.pageOffset % alignment !== 0)
        throw iovaRefused(
          "EADDRINUSE",
          area.first,
          area.length,
          `mapped there already, and not aligned to ${alignment}`,
        );
  }

  /**
   * All areas are mapped in `table` too, from now on.
   *
   * @throws DmaError ERR_DMA_IOVA_RANGE (EADDRINUSE) if areas do not fit it; EINVAL; what filling it says; all is as before
   */
  addTable(table: UserTable): void {
    const alignment = Math.max(smallestPageOf(table), this.alignment);
    if (alignment > PAGE_SIZE) throw badArgument(`pages of ${alignment} bytes are larger than the CPU's`);
    if (alignment !== this.alignment) this.#refuseUnaligned(alignment);
    const { first, last } = table.aperture;
    this.reserveFor(table, [
      ...(first > 0n ? [{ first: 0n, last: first - 1n }] : []),
      ...(last < LAST_IOVA ? [{ first: last + 1n, last: LAST_IOVA }] : []),
    ]);
    const filled: Area[] = [];
    try {
      for (const area of this.areas) {
        if (area.isClosed) continue;
        area.fill([table], !this.#largePages);
        filled.push(area);
      }
    } catch (error) {
      for (const area of filled) area.leaveTable(table, this.tables);
      this.reserved.removeOf(table);
      throw error;
    }
    this.alignment = alignment;
    this.tables.push(table);
  }

  /** `table` ends here: nothing of the space is mapped in it any more. */
  removeTable(table: UserTable): void {
    this.tables.splice(this.tables.indexOf(table), 1);
    for (const area of this.areas) if (!area.isClosed) area.leaveTable(table, this.tables);
    this.reserved.removeOf(table);
    this.#recalculate();
  }

  /** @throws DmaError ERR_DMA_IOVA_RANGE (EADDRINUSE) if areas are not aligned as the access needs */
  addAccess(access: SpaceUser): void {
    this.accesses.add(access);
    try {
      this.#recalculate();
    } catch (error) {
      this.accesses.delete(access);
      throw error;
    }
  }

  /** The end of a use: what it asked of addresses binds no longer. */
  removeAccess(access: SpaceUser): void {
    this.accesses.delete(access);
    this.#recalculate();
  }

  /**
   * The area around `last` becomes two, of which the first ends there. Nothing is remapped.
   *
   * @throws DmaError EINVAL where large leaves or accesses may be in the way; EBUSY, EOPNOTSUPP
   */
  cut(last: bigint): void {
    const area = this.areas.firstIn(last, last);
    if (!area || area.last === last) return;
    this.#mustBeCuttable(area, last);
    if (area.storage && this.#largePages) throw badArgument("a large leaf may reach over the cut");
    this.areas.insert(area.cut(last + 1n));
  }

  /**
   * Areas that reach out of [first, last] are cut at its ends, and large leaves that do are split: only tables change, no translation.
   * All or nothing but for the size of leaves.
   *
   * @throws DmaError EINVAL where accesses or a table are in the way; EBUSY, EOPNOTSUPP; ENOMEM for tables of smaller leaves
   */
  #split(first: bigint, last: bigint): void {
    const cuts = [...(first > 0n ? [first - 1n] : []), ...(last < LAST_IOVA ? [last] : [])].filter((cut) => {
      const area = this.areas.firstIn(cut, cut);
      return area !== undefined && area.last !== cut;
    });
    for (const cut of cuts) this.#mustBeCuttable(this.areas.firstIn(cut, cut)!, cut);
    for (const cut of cuts) {
      const area = this.areas.firstIn(cut, cut)!;
      if (!area.storage) continue;
      for (const table of this.tables) {
        if (!table.splitAt) throw badArgument("a table does not split leaves");
        table.splitAt(Number((cut + 1n) / BigInt(table.unitBytes)));
      }
    }
    for (const cut of cuts) this.areas.insert(this.areas.firstIn(cut, cut)!.cut(cut + 1n));
  }

  #mustBeCuttable(area: Area, last: bigint): void {
    if (area.isClosed || area.refusesAccess) throw areaBusy(area.first, "is being made, or goes");
    if (area.memory.source.kind === "buffer") throw badFile("EOPNOTSUPP", "a mapped DMA buffer cannot be cut");
    if (!this.#isAligned(last + 1n)) throw badArgument(`a cut at ${last + 1n} is not aligned to ${this.alignment}`);
    if (area.accesses > 0) throw badArgument("an area that is held cannot be cut");
  }

  end(): void {
    for (const area of [...this.areas]) {
      area.empty(this.tables);
      this.#drop(area);
    }
  }
}
