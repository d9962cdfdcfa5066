/**
 * One mapping of a container: memory of a process at an address, pinned and charged, in every domain.
 *
 * Idea: pages are pinned in batches and mapped in physically contiguous runs. While a domain holds them their numbers are not kept:
 * they are read back from it. Reserved pages aside, each is charged to the address space of whoever mapped it.
 * Promises: all or nothing; unmapped before unpinned; letting go never fails.
 * Specified by: behaviour of Linux 7.2 (vfio_pin_map_dma, vfio_unmap_unpin); judged by test/golden/type1.
 */
import { assert, PAGE_SIZE, type PhysPage } from "../../../base/index.ts";
import { newPageEntry, type PageEntry, UserAddr, type UserMemory, type UserProcess } from "../../../platform/index.ts";
import { FrameRuns, type TableAccess, type UserTable, unreachable } from "../../iommufd/index.ts";
import { overMemlock } from "./errors.ts";

const PAGE = BigInt(PAGE_SIZE);
/** Pages that one call pins: a page full of pointers. */
const PIN_BATCH = 512;

/** Memory at [first, last]. */
export class Type1Mapping {
  /** First address, bytes. */
  readonly first: bigint;
  /** Last address, itself included. */
  last: bigint;
  /** Where it is in the process. */
  vaddr: bigint;
  /** What devices may do there. */
  readonly access: TableAccess;
  /** The address in the process is not known just now; devices go on. */
  vaddrInvalid = false;
  /** Whose address space is charged, and by whose limit. */
  process: UserProcess;
  /** The address space that has it, and is charged. */
  memory: UserMemory;
  #isPrivileged: boolean;
  #charged = 0;
  /** Pages that are registers of a device, or may be: neither pinned nor charged. */
  #registerPages = 0;
  /** It is in domains, and its pages are pinned. */
  isMapped = false;

  /** Made by {@link Type1Container.map}; nothing is pinned yet. */
  constructor(first: bigint, size: bigint, vaddr: bigint, access: TableAccess, process: UserProcess) {
    this.first = first;
    this.last = first + size - 1n;
    this.vaddr = vaddr;
    this.access = access;
    this.process = process;
    this.memory = process.memory;
    this.#isPrivileged = process.has("IPC_LOCK");
  }

  /** Bytes. */
  get size(): bigint {
    return this.last - this.first + 1n;
  }

  /** Of 4 KiB. */
  get pages(): number {
    return Number(this.size / PAGE);
  }

  /** Pages charged. */
  get chargedPages(): number {
    return this.#charged;
  }

  /**
   * Pins its memory and maps it in all `tables`.
   *
   * @throws DmaError EFAULT, ENOMEM, and what a table says; nothing is pinned, charged or mapped then
   */
  map(tables: readonly UserTable[]): void {
    const runs = new FrameRuns();
    try {
      this.#pin(runs);
      mapRuns(tables, this.first, runs, this.access);
    } catch (error) {
      this.#unpin(runs);
      throw error;
    }
    this.isMapped = true;
  }

  /** The part of it from `at` on, as a mapping of its own; this one ends before. Tables stay as they are: no leaf reaches over it. */
  cut(at: bigint, tables: readonly UserTable[]): Type1Mapping {
    const right = new Type1Mapping(at, this.last - at + 1n, this.vaddr + (at - this.first), this.access, this.process);
    right.memory = this.memory;
    right.#isPrivileged = this.#isPrivileged;
    right.vaddrInvalid = this.vaddrInvalid;
    right.isMapped = this.isMapped;
    right.#registerPages = this.#registerPages;
    this.last = at - 1n;
    if (this.isMapped) {
      right.#charged = right.pages - right.#countRegisters(right.readBack(tables[0]!));
      this.#charged -= right.#charged;
    }
    return right;
  }

  #pin(runs: FrameRuns): void {
    const numbers = new Float64Array(Math.min(PIN_BATCH, this.pages));
    const limit = Math.floor(this.process.memlockBytes / PAGE_SIZE);
    while (runs.pages < this.pages) {
      const at = this.vaddr + BigInt(runs.pages) * PAGE;
      const wanted = Math.min(numbers.length, this.pages - runs.pages);
      if (this.memory.isGone || at >= 2n ** 47n) throw unreachable(at, wanted * PAGE_SIZE);
      const { write } = this.access;
      const registers = this.#registersAt(Number(at), wanted);
      if (registers) {
        // As Linux follows them: neither pinned nor charged, and nobody says when they go.
        runs.add(registers.page, registers.count);
        this.#registerPages += registers.count;
        continue;
      }
      const count = this.memory.pin(UserAddr(Number(at)), wanted, numbers, 0, { write, longTerm: true });
      const { locked } = this.memory;
      for (let i = 0; i < count; i++) {
        if (!this.#isPrivileged && locked.pages >= limit) {
          for (let rest = i; rest < count; rest++) this.memory.pages.unpin(numbers[rest]! as PhysPage, 1, false);
          throw overMemlock(locked.pages + 1, limit);
        }
        runs.add(numbers[i]!, 1);
        locked.pages++;
        this.#charged++;
      }
    }
  }

  /** Registers of a device that the process has at an address: their first page, and how many of `wanted` follow it there. */
  #registersAt(address: number, wanted: number): { readonly page: number; readonly count: number } | undefined {
    const { memory, access } = this;
    const area = memory.areaAt(UserAddr(address));
    if (area?.kind !== "io" || (access.write && !area.writable)) return undefined;
    const entry: PageEntry = newPageEntry();
    let [first, count] = [0, 0];
    for (; count < wanted && address + count * PAGE_SIZE < area.end; count++) {
      memory.entryAt(UserAddr(address + count * PAGE_SIZE), entry);
      if (count === 0) first = entry.page;
      if (entry.kind !== "special" || entry.page !== first + count) break;
    }
    return count > 0 ? { page: first, count } : undefined;
  }

  /** Pages among `runs` that are registers. */
  #countRegisters(runs: FrameRuns): number {
    if (this.#registerPages === 0) return 0;
    let count = 0;
    for (const page of runs.each()) if (this.memory.pages.kindOf(page as PhysPage) === "other") count++;
    return count;
  }

  /** Takes it out of all `tables`, unpins it and takes the charge back. */
  unmap(tables: readonly UserTable[]): void {
    if (!this.isMapped) return;
    const runs = this.readBack(tables[0]!);
    for (const table of tables) unmapFrom(table, this);
    this.#unpin(runs);
    this.isMapped = false;
  }

  #unpin(runs: FrameRuns): void {
    const { pages, locked } = this.memory;
    const { write } = this.access;
    if (this.#registerPages === 0)
      for (let i = 0; i < runs.length; i++) pages.unpin(runs.frames[i]! as PhysPage, runs.counts[i]!, write);
    else
      for (const page of runs.each())
        if (pages.kindOf(page as PhysPage) !== "other") pages.unpin(page as PhysPage, 1, write);
    locked.pages -= this.#charged;
    this.#charged = 0;
    this.#registerPages = 0;
  }

  /** Its pages, by the walk of a table that holds it. */
  readBack(table: UserTable): FrameRuns {
    const runs = new FrameRuns();
    const perPage = PAGE_SIZE / table.unitBytes;
    const first = Number(this.first / BigInt(table.unitBytes));
    const units = this.pages * perPage;
    if (perPage === 1 && table.readRuns) {
      const count = table.readRuns(first, units, runs);
      assert(count === units, "a mapping is not in the domain that holds it");
      return runs;
    }
    for (let done = 0; done < units; ) {
      const leaf = table.leafAt(first + done);
      assert(leaf !== undefined, "a mapping is not in the domain that holds it");
      const count = Math.min(leaf.leafStart + leaf.leafUnits - (first + done), units - done);
      runs.add(Math.floor(leaf.phys / perPage), Math.ceil(count / perPage));
      done += Math.ceil(count / perPage) * perPage;
    }
    return runs;
  }

  /**
   * Whoever calls now is the owner: its address space has the memory, and is charged.
   *
   * @throws DmaError ERR_DMA_LOCKED_LIMIT (ENOMEM): the old owner stays
   */
  changeOwner(process: UserProcess): void {
    if (process.memory === this.memory) return;
    const isPrivileged = process.has("IPC_LOCK");
    const { locked } = process.memory;
    const limit = Math.floor(process.memlockBytes / PAGE_SIZE);
    if (!isPrivileged && locked.pages + this.#charged > limit) throw overMemlock(locked.pages + this.#charged, limit);
    locked.pages += this.#charged;
    this.memory.locked.pages -= this.#charged;
    this.process = process;
    this.memory = process.memory;
    this.#isPrivileged = isPrivileged;
  }
}

/** Maps runs of pages in all `tables`. All or nothing. */
export function mapRuns(tables: readonly UserTable[], first: bigint, runs: FrameRuns, access: TableAccess): void {
  let done = 0;
  try {
    for (; done < tables.length; done++) {
      const table = tables[done]!;
      const perPage = PAGE_SIZE / table.unitBytes;
      const phys = new Float64Array(runs.length);
      const units = new Int32Array(runs.length);
      for (let i = 0; i < runs.length; i++) {
        phys[i] = runs.frames[i]! * perPage;
        units[i] = runs.counts[i]! * perPage;
      }
      table.mapRuns(Number(first / BigInt(table.unitBytes)), phys, units, runs.length, access);
    }
  } catch (error) {
    for (const table of tables.slice(0, done))
      table.unmap(Number(first / BigInt(table.unitBytes)), (runs.pages * PAGE_SIZE) / table.unitBytes);
    throw error;
  }
}

/** Takes a mapping out of one table. */
export function unmapFrom(table: UserTable, { first, size }: { readonly first: bigint; readonly size: bigint }): void {
  table.unmap(Number(first / BigInt(table.unitBytes)), Number(size / BigInt(table.unitBytes)));
}
