/**
 * What ended lately: the last end of each DMA address of each device, so that a second end can be told from one of a
 * mapping that was never seen.
 *
 * Idea: one place per (space, address), overwritten when it is used again. A space is a device's addresses, or its states or
 * lists. Memory is bounded, and an end costs the same however many there were: an address has four places that it may stand in,
 * and where all are others' the one that ended first is forgotten; a second end of that is then unknown.
 */
import { hashOf } from "./chained-index.ts";
import type { LifetimeTable } from "./table.ts";

/** Addresses that are remembered at most. */
export const HISTORY_LIMIT: number = 1 << 18;
/** Places that an address may stand in. */
const WAYS = 4;
const SETS = HISTORY_LIMIT / WAYS;

/** One place in time: when, where, who. */
export interface Place {
  readonly timeNs: number;
  readonly cpu: number;
  readonly pid: number;
  /** Index into the trace's strings. */
  readonly task: number;
  /** Index into the trace's types. */
  readonly type: number;
  /** Index into the call sites; 0: none. */
  readonly site: number;
}

/**
 * What says which end it is lies side by side for the four places of an address, in one line of the processor's cache of 64 bytes: four
 * addresses; then, as words, four spaces + 1 (0: none), and when each was entered, as a count of ends.
 */
const SET_DOUBLES = 8;
const SET_WORDS = SET_DOUBLES * 2;
const SPACES = 8;
const ENTERED = 12;
/** What an end is, in one line too: length and times; then, as words, from {@link BEGAN} and {@link ENDED} on CPU and type, pid, task, call site. */
const DOUBLES = 8;
const WORDS = DOUBLES * 2;
const LENGTH = 0;
const START_NS = 1;
const END_NS = 2;
const BEGAN = 6;
const ENDED = 10;

export class History {
  // Touched only where something ended: pages of memory that are not cost nothing.
  readonly #iovas = new Float64Array(SETS * SET_DOUBLES);
  readonly #keys = new Uint32Array(this.#iovas.buffer);
  readonly #numbers = new Float64Array(HISTORY_LIMIT * DOUBLES);
  readonly #words = new Int32Array(this.#numbers.buffer);
  /** Indices in use: none is ever free again. */
  readonly #entered = new Uint32Array(HISTORY_LIMIT);
  #count = 0;
  /** Ends so far; beyond 2^32 which one is the oldest of four may be said wrongly, and is only then. */
  #ends = 0;

  /** Remembers that the mapping of `space` at `iova` ended; `start`: where it had begun, if that was seen. */
  ended(space: number, iova: number, length: number, start: Place | undefined, end: Place): void {
    const index = this.#place(space, iova);
    this.#numbers[index * DOUBLES + LENGTH] = length;
    this.#numbers[index * DOUBLES + START_NS] = start?.timeNs ?? -1;
    this.#setPlace(
      index * WORDS + BEGAN,
      start?.cpu ?? 0,
      start?.type ?? 0,
      start?.pid ?? 0,
      start?.task ?? 0,
      start?.site ?? 0,
    );
    this.#end(index, end);
  }

  /** The same of a mapping that is in the table still. */
  endedRow(table: LifetimeTable, row: number, end: Place): void {
    const index = this.#place(table.device[row]!, table.iova[row]!);
    this.#numbers[index * DOUBLES + LENGTH] = table.length[row]!;
    this.#numbers[index * DOUBLES + START_NS] = table.startNs[row]!;
    this.#setPlace(
      index * WORDS + BEGAN,
      table.cpu[row]!,
      table.type[row]!,
      table.pid[row]!,
      table.task[row]!,
      table.site[row]!,
    );
    this.#end(index, end);
  }

  /** Index of the end at exactly `iova`; -1: none is remembered. */
  find(space: number, iova: number): number {
    const set = setOf(space, iova);
    for (let way = 0; way < WAYS; way++)
      if (this.#iovas[set * SET_DOUBLES + way] === iova && this.#keys[set * SET_WORDS + SPACES + way] === space + 1)
        return set * WAYS + way;
    return -1;
  }

  /** Ends that are remembered. */
  get count(): number {
    return this.#count;
  }

  /** The index of the `nth` of them, from 0; in the order in which their places were first used. */
  indexAt(nth: number): number {
    return this.#entered[nth]!;
  }

  /** The space of an end, as it was given. */
  spaceOf(index: number): number {
    return this.#keys[Math.floor(index / WAYS) * SET_WORDS + SPACES + (index % WAYS)]! - 1;
  }

  iovaOf(index: number): number {
    return this.#iovas[Math.floor(index / WAYS) * SET_DOUBLES + (index % WAYS)]!;
  }

  /** When it had begun, nanoseconds; -1: not in this recording. */
  startNsOf(index: number): number {
    return this.#numbers[index * DOUBLES + START_NS]!;
  }

  /** When it ended, nanoseconds. */
  endNsOf(index: number): number {
    return this.#numbers[index * DOUBLES + END_NS]!;
  }

  lengthOf(index: number): number {
    return this.#numbers[index * DOUBLES + LENGTH]!;
  }

  /** Where it had begun; `undefined`: not in this recording. */
  startOf(index: number): Place | undefined {
    const timeNs = this.startNsOf(index);
    return timeNs < 0 ? undefined : this.#placeAt(timeNs, index * WORDS + BEGAN);
  }

  endOf(index: number): Place {
    return this.#placeAt(this.endNsOf(index), index * WORDS + ENDED);
  }

  #end(index: number, end: Place): void {
    this.#numbers[index * DOUBLES + END_NS] = end.timeNs;
    this.#setPlace(index * WORDS + ENDED, end.cpu, end.type, end.pid, end.task, end.site);
  }

  /** The index for an end at `iova`: its own, a free one, or that of the end that is longest ago. */
  #place(space: number, iova: number): number {
    const [iovas, keys] = [this.#iovas, this.#keys];
    const set = setOf(space, iova);
    const spaces = set * SET_WORDS + SPACES;
    const entered = set * SET_WORDS + ENTERED;
    let found = 0;
    for (let way = 0; way < WAYS; way++) {
      if (keys[spaces + way] === space + 1 && iovas[set * SET_DOUBLES + way] === iova) {
        found = way;
        break;
      }
      if (keys[entered + way]! < keys[entered + found]!) found = way; // of a free one it is 0
    }
    const index = set * WAYS + found;
    if (keys[spaces + found] === 0) this.#entered[this.#count++] = index;
    iovas[set * SET_DOUBLES + found] = iova;
    keys[spaces + found] = space + 1;
    keys[entered + found] = ++this.#ends;
    return index;
  }

  #setPlace(at: number, cpu: number, type: number, pid: number, task: number, site: number): void {
    const words = this.#words;
    words[at] = cpu * 65536 + type;
    words[at + 1] = pid;
    words[at + 2] = task;
    words[at + 3] = site;
  }

  #placeAt(timeNs: number, at: number): Place {
    const words = this.#words;
    const packed = words[at]! >>> 0;
    return {
      timeNs,
      cpu: packed >>> 16,
      type: packed & 0xffff,
      pid: words[at + 1]!,
      task: words[at + 2]! >>> 0,
      site: words[at + 3]!,
    };
  }
}

/** Which four places an address has. */
const setOf = (space: number, iova: number): number => hashOf(iova, space) & (SETS - 1);
