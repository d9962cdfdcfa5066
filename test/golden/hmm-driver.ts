/**
 * The device of the HMM recordings: the kernel's own test driver, rebuilt on dmalink's interfaces, with the three changes that
 * the recordings were made with.
 *
 * Its table has an entry for each page; every notifier call erases the pages of its range and the one behind it. Pages that really
 * move to the system leave the table of the process that they move for.
 */
import { DmaError, PAGE_SIZE, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import { HMM, PfnWords, rangeFault } from "../../src/consumers/hmm/index.ts";
import type { SimulatedDeviceMemory, SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import {
  finish,
  type IntervalNotifier,
  type MemoryOwner,
  type PageMigration,
  type PhysicalMemory,
  USER_END,
  UserAddr,
} from "../../src/platform/index.ts";

/** One device: its memory, and who has it open. */
export interface TestDevice {
  readonly number: number;
  readonly owner: MemoryOwner;
  readonly memory: SimulatedDeviceMemory;
  /** By process. */
  readonly mirrors: Map<SimulatedProcess, Mirror>;
}

type Mode = "r" | "w" | "x";

/** Pages that the driver faults at once. */
const BLOCK = 32;
/** Pages that it moves at once. */
const MOVE = 512;

/** A process on a device. */
export class Mirror {
  readonly process: SimulatedProcess;
  readonly device: TestDevice;
  readonly table: Map<number, { frame: PhysPage; mode: Mode }> = new Map<number, { frame: PhysPage; mode: Mode }>();
  failNext = false;
  readonly #ram: PhysicalMemory;
  readonly #notifier: IntervalNotifier;

  constructor(process: SimulatedProcess, device: TestDevice, ram: PhysicalMemory) {
    this.process = process;
    this.device = device;
    this.#ram = ram;
    this.#notifier = process.memory.watch(
      UserAddr(0),
      USER_END,
      ({ start, end }) => {
        this.#erase(start / PAGE_SIZE, end / PAGE_SIZE);
        return true;
      },
      device.owner,
    );
  }

  /** Gives everything of the device back, of every process. */
  close(): void {
    this.#notifier.remove();
    this.device.mirrors.delete(this.process);
    this.device.memory.evict();
  }

  /** The next page for a migration is not to be had. */
  mayAllocate(): boolean {
    const may = !this.failNext;
    this.failNext = false;
    return may;
  }

  #erase(first: number, last: number): void {
    if (last - first < this.table.size) for (let page = first; page <= last; page++) this.table.delete(page);
    else for (const page of this.table.keys()) if (page >= first && page <= last) this.table.delete(page);
  }

  access(page: number, count: number, value: number | undefined): { faults: number; values: number[][] } {
    const values: number[][] = [];
    let faults = 0;
    for (let at = page; at < page + count; ) {
      const entry = this.table.get(at);
      if (!entry || (value !== undefined && entry.mode !== "w")) {
        this.#fault(at, page + count, value !== undefined);
        faults++;
        continue;
      }
      if (value === undefined) values.push(this.contents(entry.frame));
      else this.#fill(entry.frame, value + at - page);
      at++;
    }
    return { faults, values };
  }

  /** What stands in both halves of a page. */
  contents(frame: PhysPage): number[] {
    return [0, PAGE_SIZE / 2].map((offset) => {
      const word = new Uint8Array(4);
      if (this.#isHere(frame)) this.device.memory.read(frame, offset, word);
      else this.#ram.read(PhysAddr(frame * PAGE_SIZE + offset), word);
      return new DataView(word.buffer).getUint32(0, true);
    });
  }

  #fill(frame: PhysPage, value: number): void {
    const bytes = new Uint8Array(new Uint32Array(PAGE_SIZE / 4).fill(value).buffer);
    if (this.#isHere(frame)) this.device.memory.write(frame, 0, bytes);
    else this.#ram.write(PhysAddr(frame * PAGE_SIZE), bytes);
  }

  #isHere(frame: PhysPage): boolean {
    return this.process.memory.pages.kindOf(frame) === "device-private";
  }

  #fault(start: number, end: number, write: boolean): void {
    for (let at = start; at < end; at += BLOCK) {
      const count = Math.min(BLOCK, end - at);
      const words = new PfnWords(count);
      for (;;) {
        const sequence = this.#notifier.readBegin();
        const done = finish(
          rangeFault({
            memory: this.process.memory,
            notifier: this.#notifier,
            sequence,
            start: UserAddr(at * PAGE_SIZE),
            end: UserAddr((at + count) * PAGE_SIZE),
            words,
            ask: HMM.valid | (write ? HMM.write : 0),
            owner: this.device.owner,
          }),
        );
        if (done && !this.#notifier.retry(sequence)) break;
      }
      for (let i = 0; i < count; i++) {
        const canWrite = words.has(i, HMM.write);
        if (write && !canWrite) throw new DmaError("ERR_DMA_TEST", "EFAULT", "granted without the right to write", {});
        this.table.set(at + i, { frame: words.page(i), mode: canWrite ? "w" : "r" });
      }
    }
  }

  /** Reads through the table without faulting; undefined if a page has no entry. */
  peek(page: number, count: number): number[][] | undefined {
    const values: number[][] = [];
    for (let at = page; at < page + count; at++) {
      const entry = this.table.get(at);
      if (!entry) return undefined;
      values.push(this.contents(entry.frame));
    }
    return values;
  }

  exclusive(page: number, count: number): number[][] {
    for (let at = page; at < page + count; at++) {
      const frame = finish(this.process.memory.makeExclusive(UserAddr(at * PAGE_SIZE)));
      this.table.set(at, { frame, mode: "x" });
    }
    return this.peek(page, count)!;
  }

  hasExclusive(page: number, count: number): boolean {
    for (let at = page; at < page + count; at++) if (this.table.get(at)?.mode === "x") return true;
    return false;
  }

  /** Visits the range area by area, at most 512 pages at a time. False: part of it cannot be. */
  #eachPart(
    page: number,
    count: number,
    visit: (migration: PageMigration, first: number) => void,
    from: "system" | "device",
  ): void {
    for (let at = page; at < page + count; ) {
      const area = this.process.memory.areaAt(UserAddr(at * PAGE_SIZE));
      if (!area?.readable) throw new DmaError("ERR_DMA_TEST", "EINVAL", "no area to read", {});
      const next = Math.min(page + count, at + MOVE, area.end / PAGE_SIZE);
      const migration = finish(
        this.process.memory.collect({
          start: UserAddr(at * PAGE_SIZE),
          end: UserAddr(next * PAGE_SIZE),
          from,
          owner: this.device.owner,
          huge: true,
        }),
      );
      visit(migration, at);
      at = next;
    }
  }

  toDevice(page: number, count: number): number[][] | undefined {
    this.#eachPart(page, count, (migration, first) => this.#moveIn(migration, first), "system");
    return this.peek(page, count);
  }

  #moveIn(migration: PageMigration, first: number): void {
    const placed: { index: number; frame: PhysPage; pages: number; writable: boolean }[] = [];
    const place = (index: number, order: 0 | 9, source: PhysPage | undefined, writable: boolean): void => {
      const frame = this.device.memory.allocate(order)!;
      const pages = 2 ** order;
      const bytes = new Uint8Array(PAGE_SIZE);
      for (let i = 0; i < pages; i++) {
        if (source !== undefined) this.#ram.read(PhysAddr((source + i) * PAGE_SIZE), bytes);
        this.device.memory.write((frame + i) as PhysPage, 0, bytes);
      }
      migration.setDestination(index, frame, order);
      placed.push({ index, frame, pages, writable });
    };
    for (let i = 0; i < migration.count; ) {
      if (!migration.canMove(i)) {
        i++;
        continue;
      }
      const isLarge = migration.order(i) > 0;
      const source = migration.source(i);
      const writable = migration.isWritable(i);
      if (this.mayAllocate()) {
        place(i, isLarge ? 9 : 0, source, writable);
        i += isLarge ? MOVE : 1;
      } else if (!isLarge) i++;
      else
        for (let j = 0; j < MOVE; j++, i++)
          place(i, 0, source === undefined ? undefined : ((source + j) as PhysPage), writable);
    }
    finish(migration.move());
    for (const { index, frame, pages, writable } of placed) {
      if (!migration.canMove(index)) continue;
      for (let i = 0; i < pages; i++)
        this.table.set(first + index + i, { frame: (frame + i) as PhysPage, mode: writable ? "w" : "r" });
    }
    migration.finish();
  }

  toSystem(page: number, count: number): number {
    let moved = 0;
    this.#eachPart(
      page,
      count,
      (migration) => {
        this.device.memory.copyOut(migration, this.hooks);
        finish(migration.move());
        for (let i = 0; i < migration.count; i++)
          if (migration.canMove(i) && migration.source(i) !== undefined) moved++;
        migration.finish();
      },
      "device",
    );
    return moved;
  }

  /** What this driver does besides, when pages go back to the system. */
  get hooks(): { mayAllocate: () => boolean; leaves: (address: number) => void } {
    return {
      mayAllocate: () => this.mayAllocate(),
      leaves: (address) => void this.table.delete(address / PAGE_SIZE),
    };
  }
}
