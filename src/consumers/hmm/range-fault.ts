/**
 * A range of a process as a device's page table shall have it: pages looked up, and brought where that is asked.
 *
 * Idea: one walk over areas and entries. What is asked is compared with what is there; where something is missing, the process's own fault
 * handler brings it, for all of the rest of that 2 MiB, and the walk goes on from there. What was found may be untrue by the time it is
 * used: the caller's notifier tells.
 * Promises: words before a failure are final, words behind it hold their input. A page in the memory of `owner`'s device is reported
 * where it is, also when writing was asked and the entry is for reading: test the word.
 * Not for: mapping the pages for a device (dma-map.ts); the whole protocol with its retries (mirror.ts).
 * Specified by: behaviour of Linux 7.2 hmm_range_fault; judged by test/golden (hmm).
 */
import { PAGE_SIZE } from "../../base/index.ts";
import {
  type IntervalNotifier,
  type MemoryOwner,
  newPageEntry,
  type PageEntry,
  type Steps,
  UserAddr,
  type UserArea,
  type UserMemory,
  WAITING,
} from "../../platform/index.ts";
import { rangeOutOfReach, rangeReadOnly } from "./errors.ts";
import { HMM, type PfnWords } from "./words.ts";

/** What a device wants of a range of a process's memory. */
export interface RangeFault {
  /** Whose. */
  readonly memory: UserMemory;
  /** Watches the range, and its sequence before the walk. */
  readonly notifier: IntervalNotifier;
  /** What {@link IntervalNotifier.readBegin} of that notifier gave before the walk. */
  readonly sequence: number;
  /** First address, a whole page. */
  readonly start: UserAddr;
  /** The address after the last, a whole page. */
  readonly end: UserAddr;
  /** One for each page; the first is that of `start`, unless `firstWord` says another. */
  readonly words: PfnWords;
  /** Index of the word of `start`; 0 unless said. */
  readonly firstWord?: number;
  /** Asked of every page: HMM.valid, HMM.write. Nothing unless said. */
  readonly ask?: number;
  /** Which bits of the words themselves ask. None unless said. */
  readonly mask?: number;
  /** Whose device's memory need not come back. */
  readonly owner?: MemoryOwner;
}

/**
 * Faults the pages of a range in, and writes their words.
 *
 * @returns false: the range changed meanwhile, begin again with a new sequence
 * @throws DmaError ERR_DMA_HMM_FAULT (EFAULT) where what is asked is not there; ERR_DMA_HMM_READ_ONLY (EPERM)
 */
export function* rangeFault(request: RangeFault): Steps<boolean> {
  const release = yield* request.memory.holdAreas();
  try {
    const walk = new Walk(request);
    for (let page = request.start; ; page = walk.last) {
      if (request.notifier.retry(request.sequence)) return false;
      if (!walk.from(page)) return true;
      if (walk.isWaiting) yield WAITING;
      else yield* walk.bring();
    }
  } finally {
    release();
  }
}

/**
 * The same walk for who has it often: nothing is brought, nothing is waited for, and no object is made.
 *
 * Promises: as long as the call lasts nothing else runs, so what it found is true when it returns.
 */
export class RangeWalk {
  #walk: Walk | undefined;

  /**
   * Writes the words of a range of which everything that is asked is there already.
   *
   * @param request may be one object of the caller's that is filled in anew each time
   * @returns false: something has to be brought or waited for, and words may hold part of the answer
   */
  tryAll(request: RangeFault): boolean {
    const { memory, notifier, sequence, start } = request;
    if (!memory.areasAreStill || notifier.retry(sequence)) return false;
    this.#walk ??= new Walk(request);
    this.#walk.begin(request);
    return !this.#walk.from(start);
  }
}

const NEED_FAULT = 1;
const NEED_WRITE = 2;

class Walk {
  #request: RangeFault;
  readonly #entry: PageEntry = newPageEntry();
  /** Where the walk stopped, to bring pages up to `#bringEnd`. */
  last: UserAddr;
  isWaiting = false;
  #bringEnd: number;
  #needs = 0;
  #area: UserArea | undefined;

  constructor(request: RangeFault) {
    this.#request = request;
    this.last = request.start;
    this.#bringEnd = request.start;
  }

  begin(request: RangeFault): void {
    this.#request = request;
    this.last = request.start;
  }

  /** Walks on. True: something has to be brought, or waited for, first. */
  from(start: number): boolean {
    const { memory, end } = this.#request;
    this.isWaiting = false;
    for (let at = start; at < end; ) {
      const area = memory.areaFrom(UserAddr(at));
      if (!area || area.start > at) {
        const holeEnd = Math.min(end, area?.start ?? end);
        if (this.#rangeNeeds(at, holeEnd, 0) !== 0) throw rangeOutOfReach(at, "nothing is mapped there");
        this.#fill(at, holeEnd, HMM.error);
        at = holeEnd;
        continue;
      }
      const areaEnd = Math.min(end, area.end);
      if (!area.readable || area.kind === "io") {
        if (this.#rangeNeeds(at, areaEnd, 0) !== 0) throw rangeOutOfReach(at, "the area does not allow it");
        this.#fill(at, areaEnd, HMM.error);
      } else {
        this.#area = area;
        if (this.#walkArea(at, areaEnd)) return true;
      }
      at = areaEnd;
    }
    return false;
  }

  /** Brings what was missing, all up to the end of its 2 MiB. */
  *bring(): Steps<void> {
    const write = (this.#needs & NEED_WRITE) !== 0;
    if (write && !this.#area!.writable) throw rangeReadOnly(this.last);
    for (let at: number = this.last; at < this.#bringEnd; at += PAGE_SIZE) {
      const outcome = yield* this.#request.memory.fault(UserAddr(at), write);
      if (outcome !== "done") throw rangeOutOfReach(at, outcome);
    }
  }

  #walkArea(start: number, end: number): boolean {
    const entry = this.#entry;
    const { memory } = this.#request;
    const isHugetlb = this.#area!.kind === "hugetlb";
    for (let at = start; at < end; ) {
      memory.entryAt(UserAddr(at), entry);
      const span = Math.max(entry.span, 512) * PAGE_SIZE;
      const chunkEnd = Math.min(end, (Math.floor(at / span) + 1) * span);
      let stopped: boolean;
      let next = chunkEnd;
      if (isHugetlb && entry.order > 0) stopped = this.#hugetlb(at, chunkEnd);
      else if (entry.span > 1) stopped = entry.kind === "none" ? this.#hole(at, chunkEnd) : this.#huge(at, chunkEnd);
      else {
        stopped = this.#page(at, chunkEnd);
        next = at + PAGE_SIZE;
      }
      if (stopped) return true;
      at = next;
    }
    return false;
  }

  #hole(start: number, end: number): boolean {
    const needs = this.#rangeNeeds(start, end, 0);
    if (needs !== 0) return this.#stop(start, end, needs);
    this.#fill(start, end, 0);
    return false;
  }

  #hugetlb(start: number, end: number): boolean {
    const entry = this.#entry;
    const flags = entry.order | this.#access();
    const needs = this.#needsOf(this.#request.words.flags[this.#index(start)]!, flags);
    if (needs !== 0) return this.#stop(start, end, needs);
    this.#fillPages(start, end, flags);
    return false;
  }

  #huge(start: number, end: number): boolean {
    const entry = this.#entry;
    switch (entry.kind) {
      case "migrating":
        if (this.#rangeNeeds(start, end, 0) !== 0) return this.#wait(start);
        this.#fill(start, end, 0);
        return false;
      case "present": {
        const flags = this.#access() | entry.order;
        const needs = this.#rangeNeeds(start, end, flags);
        if (needs !== 0) return this.#stop(start, end, needs);
        this.#fillPages(start, end, flags);
        return false;
      }
      default: {
        if (entry.kind === "device-private" && this.#isOwn()) {
          this.#fillPages(start, end, HMM.valid | (entry.writable ? HMM.write : 0) | entry.order);
          return false;
        }
        const needs = this.#rangeNeeds(start, end, 0);
        if (needs !== 0 && entry.kind !== "device-private") throw rangeOutOfReach(start, "the page is broken");
        if (needs !== 0) return this.#stop(start, end, needs);
        this.#fill(start, end, HMM.error);
        return false;
      }
    }
  }

  #page(at: number, chunkEnd: number): boolean {
    const entry = this.#entry;
    const { words } = this.#request;
    const index = this.#index(at);
    const word = words.flags[index]!;
    let flags = 0;
    switch (entry.kind) {
      case "present":
        flags = this.#access();
        break;
      case "device-private":
        if (this.#isOwn()) {
          words.put(index, HMM.valid | (entry.writable ? HMM.write : 0), entry.page);
          return false;
        }
        break;
      case "special":
        if (this.#needsOf(word, 0) !== 0) throw rangeOutOfReach(at, "no page of memory is there");
        words.put(index, HMM.error, 0);
        return false;
      default:
        break;
    }
    const needs = this.#needsOf(word, flags);
    if (needs === 0) {
      words.put(index, flags, entry.kind === "present" ? entry.page : 0);
      return false;
    }
    if (entry.kind === "migrating") return this.#wait(at);
    if (entry.kind === "poisoned") throw rangeOutOfReach(at, "the page is broken");
    return this.#stop(at, chunkEnd, needs);
  }

  #access(): number {
    const { kind, writable } = this.#entry;
    if (kind !== "present") return 0;
    return HMM.valid | (writable ? HMM.write : 0);
  }

  #isOwn(): boolean {
    return this.#entry.owner !== undefined && this.#entry.owner === this.#request.owner;
  }

  #stop(at: number, end: number, needs: number): boolean {
    this.last = UserAddr(at);
    this.#bringEnd = end;
    this.#needs = needs;
    return true;
  }

  #wait(at: number): boolean {
    this.last = UserAddr(at);
    this.isWaiting = true;
    return true;
  }

  #index(at: number): number {
    return (at - this.#request.start) / PAGE_SIZE + (this.#request.firstWord ?? 0);
  }

  /** What a page with these flags needs, to be what its word asks. */
  #needsOf(word: number, flags: number): number {
    const { ask = 0, mask = 0 } = this.#request;
    const asked = (word & mask) | ask;
    if ((asked & HMM.valid) === 0) return 0;
    if ((asked & HMM.write) !== 0 && (flags & HMM.write) === 0) return NEED_FAULT | NEED_WRITE;
    return (flags & HMM.valid) === 0 ? NEED_FAULT : 0;
  }

  #rangeNeeds(start: number, end: number, flags: number): number {
    const { ask = 0, mask = 0, words } = this.#request;
    if (((ask | mask) & HMM.valid) === 0) return 0;
    let needs = 0;
    const last = this.#index(end);
    for (let i = this.#index(start); i < last && needs !== (NEED_FAULT | NEED_WRITE); i++)
      needs |= this.#needsOf(words.flags[i]!, flags);
    return needs;
  }

  #fill(start: number, end: number, flags: number): void {
    const last = this.#index(end);
    for (let i = this.#index(start); i < last; i++) this.#request.words.put(i, flags, 0);
  }

  /** The pages of one entry, from that of `start` on. */
  #fillPages(start: number, end: number, flags: number): void {
    const { page } = this.#entry;
    const first = this.#index(start);
    const last = this.#index(end);
    for (let i = first; i < last; i++) this.#request.words.put(i, flags, page + i - first);
  }
}
