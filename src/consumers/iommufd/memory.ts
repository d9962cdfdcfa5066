/**
 * A piece of a user's memory, mapped at any number of addresses: each of its pages is pinned once, whoever uses it.
 *
 * Idea: page numbers are not kept while a table holds them: they are read back from it. Only pages that an in-kernel user
 * holds (an *access*) stand in a map of their own. A page is looked for there first, then in a table, and pinned last.
 * Promises: a page is pinned while any area with a table, or any access, covers it, and charged as long; letting go never
 * fails; unmapped before unpinned; nothing stays behind a failure.
 * Specified by: behaviour of Linux 7.2 (iopt_pages); judged by test/golden/iommufd.
 */
import { assert, PAGE_SIZE, type PhysPage } from "../../base/index.ts";
import { type MemoryFile, UserAddr, type UserPages, type UserProcess } from "../../platform/index.ts";
import { type ChargedPages, Payer } from "./account.ts";
import { badFile, noPermission, unreachable } from "./errors.ts";
import { FrameRuns } from "./frame-runs.ts";
import { FreshPages } from "./fresh-pages.ts";
import type { RangeBuffer, UserTable } from "./hardware.ts";

/** Where memory comes from. */
export type MemorySource =
  | { readonly kind: "user"; readonly address: bigint }
  | { readonly kind: "file"; readonly file: MemoryFile | undefined; readonly start: bigint }
  | { readonly kind: "buffer"; readonly buffer: RangeBuffer; readonly start: bigint };

/** What a mapping of part of the memory is to it: which of its pages, and a table that holds them. */
export interface MemoryUse {
  readonly firstIndex: number;
  readonly lastIndex: number;
  /** The table whose entries say where the pages are; undefined while no table does. */
  storage: UserTable | undefined;
  /** Where page `index` is in the table: the unit of its first byte, or of the first byte of the area. */
  unitOf(index: number, table: UserTable): number;
}

/** Pages that an access holds. */
interface HeldRange {
  readonly first: number;
  readonly last: number;
  users: number;
}

const NO_NUMBERS: Float64Array = new Float64Array(0);
/** Scratch memory that waits for the next call that pins. */
let idleNumbers = NO_NUMBERS;

/** Scratch memory for `count` numbers, which nobody else has until it is put back. */
function takeNumbers(count: number): Float64Array {
  const numbers = idleNumbers.length >= count ? idleNumbers : new Float64Array(count);
  idleNumbers = NO_NUMBERS;
  return numbers;
}

/** Pages that are pinned by one call at most: 64 KiB of their numbers. */
const PIN_BATCH = 8192;

/**
 * Steps that can fail: an id is looked up, scratch memory allocated (`spare`: there is a way without), pages are pinned, charged,
 * and noted as held.
 */
export type FailureStep = "lookup" | "scratch" | "spare" | "pin" | "charge" | "store";

/** Hears of each such step, and may make it fail by throwing: for tests. */
export type FailurePoint = (step: FailureStep) => void;

/** How memory is pinned and charged. */
interface MemoryOptions {
  /** Beyond Linux: pages are charged once to each user. */
  readonly once?: ChargedPages | undefined;
  /** Pages that one call pins at most: 8192 unless said, or as many as are asked for where memory is pinned in runs. */
  readonly pinBatchPages?: number | undefined;
  readonly failurePoint?: FailurePoint | undefined;
}

/** Made from a source; shared by all areas that map parts of it. */
export class MappedMemory {
  /** Where its pages come from. */
  readonly source: MemorySource;
  /** Byte of the first page where the memory begins. */
  readonly startOffset: number;
  /** Pages of 4 KiB that it touches. */
  readonly pages: number;
  /** Its pages are pinned for writing. */
  readonly writable: boolean;
  /** Who is charged for them. */
  readonly payer: Payer;
  /** Pages that are pinned now. */
  pinnedPages = 0;
  /** Areas whose pages a table holds. */
  readonly uses: Set<MemoryUse> = new Set();
  readonly #held: HeldRange[] = [];
  readonly #frames = new Map<number, number>();
  readonly #once: ChargedPages | undefined;
  readonly #pageOwner: UserPages;
  readonly #failurePoint: FailurePoint | undefined;
  readonly #pinBatchPages: number | undefined;
  #chargedPages = 0;
  #areas = 0;

  /** `length` bytes of the source; nothing is pinned. Areas acquire it. */
  constructor(source: MemorySource, length: bigint, writable: boolean, payer: Payer, options: MemoryOptions = {}) {
    this.source = source;
    const start = source.kind === "user" ? source.address : source.start;
    this.startOffset = Number(start % BigInt(PAGE_SIZE));
    this.pages = Number((BigInt(this.startOffset) + length + 4095n) / 4096n);
    this.writable = writable;
    this.payer = payer;
    this.#once = options.once;
    this.#failurePoint = options.failurePoint;
    this.#pinBatchPages = options.pinBatchPages;
    this.#pageOwner = payer.memory.pages;
    if (source.kind === "file") source.file?.acquire();
    if (source.kind === "buffer") source.buffer.acquire();
  }

  /** First byte of its first page, in the source: what decides about alignment. */
  get startPageByte(): bigint {
    const { source } = this;
    return (source.kind === "user" ? source.address : source.start) - BigInt(this.startOffset);
  }

  /** One more area maps part of it. */
  acquire(): void {
    this.#areas++;
  }

  /** One area fewer. With the last its file is let go. */
  release(): void {
    this.#areas--;
    if (this.#areas > 0) return;
    const { source } = this;
    assert(this.pinnedPages === 0, "memory ends that is still pinned");
    if (source.kind === "file") source.file?.release();
    if (source.kind === "buffer") source.buffer.release();
  }

  /** Someone holds page `index`. */
  #isHeld(index: number): boolean {
    return this.#held.some(({ first, last }) => first <= index && index <= last);
  }

  /**
   * Finds pages [first, last]; those that nobody has are pinned, and noted in `fresh`.
   *
   * @throws DmaError EFAULT, EINVAL, ENOMEM: those in `fresh` stay pinned, the caller unpins them; `into` has all that were found
   */
  find(first: number, last: number, into: FrameRuns, fresh: FreshPages): void {
    this.#failurePoint?.("scratch");
    this.#find(first, last, into, fresh, true);
  }

  /** @param allocates pages are pinned by way of scratch memory */
  #find(first: number, last: number, into: FrameRuns, fresh: FreshPages, allocates: boolean): void {
    for (let index = first; index <= last; ) {
      const held = this.#held.length > 0 ? this.#frames.get(index) : undefined;
      if (held !== undefined) {
        into.add(held, 1);
        index++;
        continue;
      }
      const use = this.#useAt(index);
      index = use ? this.#readBack(use, index, last, into) : this.#pinGap(index, last, into, fresh, allocates);
    }
  }

  /**
   * Reads page numbers from the table of `use`, up to one that an access holds. The first index that it did not read. Cost: a load
   * for each leaf, where the table can; else a walk.
   */
  #readBack(use: MemoryUse, index: number, last: number, into: FrameRuns): number {
    let end = Math.min(last, use.lastIndex);
    for (const { first } of this.#held) if (first > index && first <= end) end = first - 1;
    this.readTable(use, use.storage!, index, end, into);
    return end + 1;
  }

  /** Adds the numbers of pages [index, end] of `use` to `into`, as `table` has them: all of them. */
  readTable(use: MemoryUse, table: UserTable, index: number, end: number, into: FrameRuns): void {
    const perPage = PAGE_SIZE / table.unitBytes;
    if (perPage === 1 && table.readRuns) {
      const count = table.readRuns(use.unitOf(index, table), end - index + 1, into);
      assert(count === end - index + 1, `page ${index + count} is not in the table that holds it`);
      return;
    }
    while (index <= end) {
      const unit = use.unitOf(index, table);
      const leaf = table.leafAt(unit);
      assert(leaf !== undefined, `page ${index} is not in the table that holds it`);
      // The first page may begin in its middle.
      const skew = leaf.phys % perPage;
      const units = leaf.leafStart + leaf.leafUnits - unit + skew;
      const count = Math.min(Math.max(1, Math.floor(units / perPage)), end - index + 1);
      into.add((leaf.phys - skew) / perPage, count);
      index += count;
    }
  }

  #useAt(index: number): MemoryUse | undefined {
    for (const use of this.uses) if (use.firstIndex <= index && index <= use.lastIndex) return use;
    return undefined;
  }

  /** Pins from `index` to the next page that somebody has, in batches. The first index that was not. */
  #pinGap(index: number, last: number, into: FrameRuns, fresh: FreshPages, allocates: boolean): number {
    let end = last;
    for (const { firstIndex } of this.uses) if (firstIndex > index && firstIndex <= end) end = firstIndex - 1;
    for (const { first } of this.#held) if (first > index && first <= end) end = first - 1;
    if (allocates) this.#failurePoint?.("scratch");
    const isByRuns = this.source.kind === "user" && this.payer.memory.pinRuns !== undefined;
    const batch = Math.min(this.#pinBatchPages ?? (isByRuns ? Number.POSITIVE_INFINITY : PIN_BATCH), end - index + 1);
    const numbers = isByRuns ? NO_NUMBERS : takeNumbers(batch);
    try {
      while (index <= end) {
        this.#failurePoint?.("pin");
        const count = this.#pin(index, Math.min(batch, end - index + 1), numbers, into);
        fresh.add(index, count);
        this.pinnedPages += count;
        index += count;
      }
    } finally {
      if (numbers.length > idleNumbers.length && numbers.length <= PIN_BATCH) idleNumbers = numbers;
    }
    return index;
  }

  #pin(index: number, count: number, numbers: Float64Array, into: FrameRuns): number {
    const { source, writable } = this;
    if (source.kind === "user") {
      const address = source.address - BigInt(this.startOffset) + BigInt(index) * 4096n;
      const { memory } = this.payer;
      if (memory.isGone || address >= 2n ** 47n) throw unreachable(address, count * PAGE_SIZE);
      const options = { write: writable, longTerm: true };
      if (memory.pinRuns) return memory.pinRuns(UserAddr(Number(address)), count, into, options);
      const done = memory.pin(UserAddr(Number(address)), count, numbers, 0, options);
      into.addPages(numbers, done);
      return done;
    }
    assert(source.kind === "file", "pages of a buffer are not pinned");
    const offset = Number(source.start - BigInt(this.startOffset)) + index * PAGE_SIZE;
    if (!source.file) throw badFile("EINVAL", "this kind of file has no pages to pin");
    source.file.pin(offset, count, numbers, 0);
    into.addPages(numbers, count);
    return count;
  }

  /**
   * Charges `pages` that were pinned since; their numbers are asked for only where each is charged once.
   *
   * @throws DmaError ERR_DMA_LOCKED_LIMIT (ENOMEM): they stay pinned and uncharged
   */
  charge(pages: number, numbers: () => FrameRuns): void {
    if (pages === 0) return;
    this.#failurePoint?.("charge");
    const once = this.#once;
    const { user } = this.payer.process;
    const runs = once && numbers();
    const charged = once ? once.add(user, runs!.each()) : pages;
    try {
      this.payer.charge(charged, pages);
    } catch (error) {
      once?.remove(user, runs!.each());
      throw error;
    }
    this.#chargedPages += pages;
  }

  /** Pages charged: pinned ones, but for those of a call that is under way. */
  get chargedPages(): number {
    return this.#chargedPages;
  }

  /** Ends pins; with `charged` their charge too. */
  unpin(runs: FrameRuns, charged: boolean): void {
    if (runs.pages === 0) return;
    const { frames, counts, length } = runs;
    const owner = this.#pageOwner;
    const { writable } = this;
    for (let i = 0; i < length; i++) owner.unpin(frames[i]! as PhysPage, counts[i]!, writable);
    this.pinnedPages -= runs.pages;
    if (!charged) return;
    const pages = this.#once ? this.#once.remove(this.payer.process.user, runs.each()) : runs.pages;
    this.payer.refund(pages, runs.pages);
    this.#chargedPages -= runs.pages;
  }

  /** Nobody but `use` has pages of it. */
  isOnlyUsedBy(use: MemoryUse): boolean {
    return this.uses.size === 1 && this.uses.has(use) && this.#held.length === 0;
  }

  /** `use` has its table no more, or will not: the runs of its pages that nobody else has, to unpin when they are unmapped. */
  leave(use: MemoryUse): FrameRuns {
    const runs = new FrameRuns();
    this.uses.delete(use);
    for (let index = use.firstIndex; index <= use.lastIndex; ) {
      const next = this.#nextNeeded(index, use.lastIndex);
      if (next > index) {
        let at = index;
        while (at < next) at = this.#readBack(use, at, next - 1, runs);
      }
      index = next;
      while (index <= use.lastIndex && (this.#isHeld(index) || this.#useAt(index))) {
        const other = this.#useAt(index);
        index = other ? Math.min(other.lastIndex, use.lastIndex) + 1 : index + 1;
      }
    }
    return runs;
  }

  /** The first page from `index` on that an area or access has; last + 1 if none. */
  #nextNeeded(index: number, last: number): number {
    let next = last + 1;
    for (const { firstIndex, lastIndex } of this.uses)
      if (lastIndex >= index && firstIndex < next) next = Math.max(index, firstIndex);
    for (const { first, last: end } of this.#held) if (end >= index && first < next) next = Math.max(index, first);
    return next;
  }

  /**
   * An access holds pages [first, last] from now on.
   *
   * @returns their numbers
   * @throws DmaError EPERM, EFAULT, EINVAL, ENOMEM; nothing is held then
   */
  hold(first: number, last: number, write: boolean): Float64Array {
    if (write && !this.writable) throw noPermission("the memory was mapped for reading only");
    if (this.source.kind === "buffer") throw badFile("EINVAL", "a DMA buffer of a device cannot be reached by the CPU");
    const runs = new FrameRuns();
    const fresh = new FreshPages();
    try {
      this.#failurePoint?.("spare");
      this.#find(first, last, runs, fresh, false);
      this.#failurePoint?.("store");
      this.charge(fresh.pages, () => fresh.outOf(runs, first));
    } catch (error) {
      this.unpin(fresh.outOf(runs, first), false);
      throw error;
    }
    const numbers = Float64Array.from(runs.each());
    const same = this.#held.find((range) => range.first === first && range.last === last);
    if (same) same.users++;
    else {
      this.#held.push({ first, last, users: 1 });
      for (let i = 0; i < numbers.length; i++) this.#frames.set(first + i, numbers[i]!);
    }
    return numbers;
  }

  /** An access holds [first, last] no more. */
  letGo(first: number, last: number): void {
    const at = this.#held.findIndex((range) => range.first === first && range.last === last);
    assert(at >= 0, "pages are let go that nobody holds");
    const range = this.#held[at]!;
    range.users--;
    if (range.users > 0) return;
    this.#held.splice(at, 1);
    const runs = new FrameRuns();
    for (let index = first; index <= last; index++) {
      if (this.#isHeld(index)) continue;
      const frame = this.#frames.get(index)!;
      this.#frames.delete(index);
      if (!this.#useAt(index)) runs.add(frame, 1);
    }
    this.unpin(runs, true);
  }

  /** All pages that are pinned. */
  #pinned(): FrameRuns {
    const runs = new FrameRuns();
    const last = this.pages - 1;
    for (let index = this.#nextNeeded(0, last); index <= last; index = this.#nextNeeded(index, last)) {
      const held = this.#frames.get(index);
      const use = held === undefined ? this.#useAt(index) : undefined;
      if (use) index = this.#readBack(use, index, last, runs);
      else {
        runs.add(held!, 1);
        index++;
      }
    }
    return runs;
  }

  /**
   * `process` is charged for all of it, beside whoever is now: the first half of a change, ended by {@link changePayer} or taken
   * back by what it returns.
   *
   * @throws DmaError ERR_DMA_LOCKED_LIMIT (ENOMEM): nothing is charged then
   */
  chargeToo(process: UserProcess): () => void {
    const payer = Payer.like(this.payer, process);
    const once = this.#once;
    const runs = once && this.#pinned();
    const pages = once ? once.add(process.user, runs!.each()) : this.pinnedPages;
    try {
      payer.charge(pages, this.pinnedPages);
    } catch (error) {
      once?.remove(process.user, runs!.each());
      throw error;
    }
    return () => {
      const gone = once ? once.remove(process.user, runs!.each()) : pages;
      payer.refund(gone, this.pinnedPages);
    };
  }

  /** From now on `process` alone is charged: has been already. */
  changePayer(process: UserProcess): void {
    const once = this.#once;
    const pages = once ? once.remove(this.payer.process.user, this.#pinned().each()) : this.pinnedPages;
    this.payer.refund(pages, this.pinnedPages);
    this.payer.process = process;
    this.payer.memory = process.memory;
  }
}
