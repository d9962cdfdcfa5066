/**
 * An area: part of a piece of memory, mapped at consecutive addresses of one address space, and in all its tables.
 *
 * Idea: an area knows which bytes of the memory it maps; filling a table goes by batches, each run one map of the table, so
 * that contiguous memory becomes large leaves. The first table is the one that page numbers are read back from.
 * Promises: filling is all or nothing; emptying never fails, and unpins only what is unmapped everywhere.
 * Specified by: behaviour of Linux 7.2 (iopt_area_fill_domains and its inverse).
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { FrameRuns } from "./frame-runs.ts";
import { FreshPages } from "./fresh-pages.ts";
import type { TableAccess, UserTable } from "./hardware.ts";
import type { MappedMemory, MemoryUse } from "./memory.ts";

const PAGE = BigInt(PAGE_SIZE);

/** Pages that are found in one go. */
const FIND_BATCH = 8192;
/** Pages that are unmapped in one go, unless contiguous memory goes on. */
const EMPTY_BATCH = 8192;
/** Runs after which what was found is mapped: contiguous memory goes on, so that the largest leaves can form. */
const MOST_RUNS = 4096;

/** What an area is made of. */
interface AreaShape {
  readonly first: bigint;
  readonly last: bigint;
  readonly memory: MappedMemory;
  /** Byte of the memory's first page from where on it is mapped. */
  readonly startByte: bigint;
  readonly access: TableAccess;
}

/** Part of some memory at consecutive addresses. */
export class Area implements MemoryUse {
  /** First address, bytes. */
  readonly first: bigint;
  /** Last address, itself included; changes when the area is cut. */
  last: bigint;
  /** What it maps. */
  readonly memory: MappedMemory;
  /** What devices may do there. */
  readonly access: TableAccess;
  /** Byte of its first page where it begins. */
  readonly pageOffset: number;
  /** Page of the memory that it begins in. */
  readonly firstIndex: number;
  /** Page of the memory that it ends in; changes when the area is cut. */
  lastIndex: number;
  /** The table that page numbers are read back from; undefined: no table holds the area. */
  storage: UserTable | undefined;
  /** The pages are not there yet, or go just now. */
  isClosed = true;
  /** No new access may begin. */
  refusesAccess = false;
  /** Pins of accesses. */
  accesses = 0;
  /** Hardware queues that lie in it. */
  locks = 0;
  /** Ends the watch over a DMA buffer. */
  #unwatch: (() => void) | undefined;
  /** The buffer was taken back: nothing is mapped, and nothing will be. */
  isRevoked = false;

  /** Made by {@link Ioas.mapParts}, closed at first; holds the memory, and pins nothing yet. */
  constructor(shape: AreaShape) {
    this.first = shape.first;
    this.last = shape.last;
    this.memory = shape.memory;
    this.access = shape.access;
    this.pageOffset = Number(shape.startByte % PAGE);
    this.firstIndex = Number(shape.startByte / PAGE);
    this.lastIndex = Number((shape.startByte + (shape.last - shape.first)) / PAGE);
    this.memory.acquire();
  }

  /** Bytes. */
  get length(): bigint {
    return this.last - this.first + 1n;
  }

  /** Byte of the memory that `iova` reaches. */
  byteAt(iova: bigint): bigint {
    return BigInt(this.firstIndex) * PAGE + BigInt(this.pageOffset) + (iova - this.first);
  }

  /** Page of the memory that `iova` reaches. */
  indexAt(iova: bigint): number {
    return Number(this.byteAt(iova) / PAGE);
  }

  unitOf(index: number, table: UserTable): number {
    if (index === this.firstIndex) return Number(this.first / BigInt(table.unitBytes));
    const byte = this.first + BigInt((index - this.firstIndex) * PAGE_SIZE - this.pageOffset);
    return Number(byte / BigInt(table.unitBytes));
  }

  /** Units of it in a table. */
  unitsIn(table: UserTable): number {
    return Number(this.length / BigInt(table.unitBytes));
  }

  /**
   * Maps it in `tables`, of which the first becomes the storage if there is none yet. All or nothing.
   *
   * @param singly pages one by one: no large leaves
   * @throws DmaError EFAULT, EINVAL, ENOMEM, and what a table says
   */
  fill(tables: readonly UserTable[], singly: boolean): void {
    if (tables.length === 0 || this.isRevoked) return;
    const { memory } = this;
    if (memory.source.kind === "buffer") {
      this.#fillBuffer(tables, singly);
      return;
    }
    const fresh = new FreshPages();
    const runs = FrameRuns.borrow();
    let done = 0; // pages that all tables have
    let batch = 0; // pages that are found, and go to one table after the other
    let partial = 0; // tables that have the batch under way too
    try {
      const pages = this.lastIndex - this.firstIndex + 1;
      for (; done < pages; done += batch) {
        runs.clear();
        batch = 0;
        for (let most = FIND_BATCH; done + batch < pages && runs.length < MOST_RUNS; most *= 8) {
          const first = this.firstIndex + done + batch;
          const count = Math.min(most, pages - done - batch);
          memory.find(first, first + count - 1, runs, fresh);
          batch += count;
        }
        for (partial = 0; partial < tables.length; partial++) this.#mapRuns(tables[partial]!, done, runs, singly);
        partial = 0;
      }
      memory.charge(fresh.pages, () => this.#numbersOf(fresh, tables[0]!, done, runs));
    } catch (error) {
      const pinned = this.#numbersOf(fresh, tables[0]!, done, runs);
      for (const [i, table] of tables.entries()) {
        const end = i < partial ? done + batch : done;
        if (end > 0) table.unmap(this.unitOf(this.firstIndex, table), this.#unitsOf(0, end, table));
      }
      memory.unpin(pinned, false);
      throw error;
    } finally {
      runs.giveBack();
    }
    if (this.storage === undefined) {
      this.storage = tables[0]!;
      memory.uses.add(this);
    }
  }

  /** The numbers of pages that were pinned: the first `done` are in `table`, and those after them in `runs`. */
  #numbersOf(fresh: FreshPages, table: UserTable, done: number, runs: FrameRuns): FrameRuns {
    const numbers = new FrameRuns();
    if (fresh.pages === 0) return numbers;
    if (done > 0) this.memory.readTable(this, table, this.firstIndex, this.firstIndex + done - 1, numbers);
    if (this.firstIndex + done <= this.lastIndex)
      for (let i = 0; i < runs.length; i++) numbers.add(runs.frames[i]!, runs.counts[i]!);
    return fresh.outOf(numbers, this.firstIndex);
  }

  /** Units of pages [from, from + count) of the area. */
  #unitsOf(from: number, count: number, table: UserTable): number {
    const start = from * PAGE_SIZE - (from === 0 ? 0 : this.pageOffset);
    const end = Math.min((from + count) * PAGE_SIZE - this.pageOffset, Number(this.length));
    return (end - start) / table.unitBytes;
  }

  #mapRuns(table: UserTable, from: number, runs: FrameRuns, singly: boolean): void {
    const perPage = PAGE_SIZE / table.unitBytes;
    const parts = singly ? apart(runs) : runs;
    if (perPage === 1) {
      // A page is a unit: areas begin and end with one.
      table.mapRuns(this.unitOf(this.firstIndex + from, table), parts.frames, parts.counts, parts.length, this.access);
      return;
    }
    const phys = new Float64Array(parts.length);
    const units = new Int32Array(parts.length);
    for (let i = 0; i < parts.length; i++) {
      phys[i] = parts.frames[i]! * perPage;
      units[i] = parts.counts[i]! * perPage;
    }
    let total = parts.pages * perPage;
    if (from === 0) {
      const skipped = this.pageOffset / table.unitBytes;
      phys[0]! += skipped;
      units[0]! -= skipped;
      total -= skipped;
    }
    units[parts.length - 1]! -= total - this.#unitsOf(from, parts.pages, table);
    const unit = this.unitOf(this.firstIndex + from, table);
    table.mapRuns(unit, phys, units, parts.length, this.access);
  }

  #fillBuffer(tables: readonly UserTable[], singly: boolean): void {
    const { source } = this.memory;
    if (source.kind !== "buffer") return;
    const { range } = source.buffer;
    if (!range) {
      this.isRevoked = true;
      return;
    }
    const runs = new FrameRuns();
    const firstPage = Number(this.memory.startPageByte / PAGE) + this.firstIndex;
    runs.add(range.page + firstPage, this.lastIndex - this.firstIndex + 1);
    let done = 0;
    try {
      for (; done < tables.length; done++) this.#mapRuns(tables[done]!, 0, runs, singly);
    } catch (error) {
      for (const table of tables.slice(0, done)) this.unmapFrom(table);
      throw error;
    }
    this.storage ??= tables[0]!;
  }

  /** Watches its buffer: when that goes, so does the mapping from all `tables`. */
  watchBuffer(tables: () => readonly UserTable[]): void {
    const { source } = this.memory;
    if (source.kind !== "buffer") return;
    if (!source.buffer.range) this.isRevoked = true;
    this.#unwatch = source.buffer.watch(() => {
      if (this.isRevoked) return;
      if (this.storage) for (const table of tables()) this.unmapFrom(table);
      this.storage = undefined;
      this.isRevoked = true;
    });
  }

  /** Takes it out of one table. */
  unmapFrom(table: UserTable): void {
    if (!this.isRevoked) table.unmap(this.unitOf(this.firstIndex, table), this.unitsIn(table));
  }

  /** Takes it out of `table`, one of `tables`: another keeps the page numbers, if there is one. */
  leaveTable(table: UserTable, others: readonly UserTable[]): void {
    if (this.storage !== table) {
      if (this.storage) this.unmapFrom(table);
    } else if (others.length > 0) {
      this.storage = others[0]!;
      this.unmapFrom(table);
    } else this.empty([table]);
  }

  /** Takes it out of all `tables`, and unpins what nobody else has. */
  empty(tables: readonly UserTable[]): void {
    const { storage, memory } = this;
    if (!storage) return;
    const isBuffer = memory.source.kind === "buffer";
    if (!isBuffer && storage.readRuns && storage.unitBytes === PAGE_SIZE && memory.isOnlyUsedBy(this)) {
      this.#emptyInBatches(storage, tables);
      memory.uses.delete(this);
    } else {
      const runs = isBuffer ? undefined : memory.leave(this);
      for (const table of tables) this.unmapFrom(table);
      if (runs) memory.unpin(runs, true);
    }
    this.storage = undefined;
  }

  /**
   * The same where every page goes: read, unmapped and unpinned in parts whose numbers a processor's cache holds. A part ends with a
   * leaf table, where memory is not contiguous, so that no leaf of any table reaches over its end.
   */
  #emptyInBatches(storage: UserTable, tables: readonly UserTable[]): void {
    const runs = FrameRuns.borrow();
    const first = this.unitOf(this.firstIndex, storage);
    const end = first + this.lastIndex - this.firstIndex + 1;
    for (let at = first; at < end; ) {
      runs.clear();
      let stop = at;
      let most = EMPTY_BATCH;
      do {
        const next = Math.min(end, stop - (stop % EMPTY_BATCH) + most);
        most *= 8;
        this.memory.readTable(this, storage, this.firstIndex + stop - first, this.firstIndex + next - first - 1, runs);
        stop = next;
      } while (stop < end && (runs.length < MOST_RUNS || storage.lookup(stop) === runs.next));
      for (const table of tables) {
        const unitsPerPage = PAGE_SIZE / table.unitBytes;
        table.unmap(at * unitsPerPage, (stop - at) * unitsPerPage);
      }
      this.memory.unpin(runs, true);
      at = stop;
    }
    runs.giveBack();
  }

  /** It ends. */
  end(): void {
    this.#unwatch?.();
    this.memory.release();
  }

  /** The part of it from `first` on, as an area of its own; this one ends before. */
  cut(first: bigint): Area {
    const { memory, access } = this;
    const right = new Area({ first, last: this.last, memory, startByte: this.byteAt(first), access });
    right.storage = this.storage;
    right.isClosed = false;
    this.last = first - 1n;
    this.lastIndex = this.indexAt(this.last);
    if (this.storage) memory.uses.add(right);
    return right;
  }
}

/** Every page a run of its own. */
function apart(runs: FrameRuns): FrameRuns {
  const parts = new FrameRuns();
  parts.frames = Float64Array.from(runs.each());
  parts.counts = new Int32Array(runs.pages).fill(1);
  parts.length = runs.pages;
  parts.pages = runs.pages;
  return parts;
}
