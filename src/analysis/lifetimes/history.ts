/**
 * What ended lately: the last end of each DMA address of each device, so that a second end can be told from one of a
 * mapping that was never seen.
 *
 * Idea: one place per (space, address), overwritten when it is used again. A space is a device's addresses, or its states or
 * lists. Memory is bounded, and an end costs the same however many there were: an address has four places that it may stand in,
 * and where all are others' the one that ended first is forgotten; a second end of that is then unknown.
 */
import { MOST_SITES } from "./call-sites.ts";
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
 * Numbers that say which end it is: address, space + 1 (0: none), and its time, by which the oldest is found. Those of all places that
 * an address may have lie side by side: looking through them is two lines of the processor's cache.
 */
const KEYS = 3;
/** Numbers of an end: length; time, CPU and type, pid, task of the beginning; CPU and type, pid, task of the end; both call sites. */
const NUMBERS = 9;

export class History {
  /** Touched only where something ended: pages of it that are not cost nothing. */
  readonly #keys = new Float64Array(HISTORY_LIMIT * KEYS);
  readonly #numbers = new Float64Array(HISTORY_LIMIT * NUMBERS);
  /** Indices in use: none is ever free again. */
  readonly #entered = new Uint32Array(HISTORY_LIMIT);
  #count = 0;

  /** Remembers that the mapping of `space` at `iova` ended; `start`: where it had begun, if that was seen. */
  ended(space: number, iova: number, length: number, start: Place | undefined, end: Place): void {
    const index = this.#place(space, iova);
    const at = index * NUMBERS;
    const numbers = this.#numbers;
    numbers[at] = length;
    numbers[at + 1] = start?.timeNs ?? -1;
    numbers[at + 2] = start ? start.cpu * 65536 + start.type : 0;
    numbers[at + 3] = start?.pid ?? 0;
    numbers[at + 4] = start?.task ?? 0;
    this.#end(index, end, start?.site ?? 0);
  }

  /** The same of a mapping that is in the table still. */
  endedRow(table: LifetimeTable, row: number, end: Place): void {
    const index = this.#place(table.device[row]!, table.iova[row]!);
    const at = index * NUMBERS;
    const numbers = this.#numbers;
    numbers[at] = table.length[row]!;
    numbers[at + 1] = table.startNs[row]!;
    numbers[at + 2] = table.cpu[row]! * 65536 + table.type[row]!;
    numbers[at + 3] = table.pid[row]!;
    numbers[at + 4] = table.task[row]!;
    this.#end(index, end, table.site[row]!);
  }

  /** Index of the end at exactly `iova`; -1: none is remembered. */
  find(space: number, iova: number): number {
    const keys = this.#keys;
    const first = setOf(space, iova);
    for (let index = first; index < first + WAYS; index++)
      if (keys[index * KEYS] === iova && keys[index * KEYS + 1] === space + 1) return index;
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
    return this.#keys[index * KEYS + 1]! - 1;
  }

  iovaOf(index: number): number {
    return this.#keys[index * KEYS]!;
  }

  /** When it had begun, nanoseconds; -1: not in this recording. */
  startNsOf(index: number): number {
    return this.#numbers[index * NUMBERS + 1]!;
  }

  /** When it ended, nanoseconds. */
  endNsOf(index: number): number {
    return this.#keys[index * KEYS + 2]!;
  }

  lengthOf(index: number): number {
    return this.#numbers[index * NUMBERS]!;
  }

  /** Where it had begun; `undefined`: not in this recording. */
  startOf(index: number): Place | undefined {
    const at = index * NUMBERS;
    const place = this.#placeAt(this.#numbers[at + 1]!, at + 2, this.#numbers[at + 8]! % MOST_SITES);
    return place.timeNs < 0 ? undefined : place;
  }

  endOf(index: number): Place {
    const at = index * NUMBERS;
    return this.#placeAt(this.endNsOf(index), at + 5, Math.floor(this.#numbers[at + 8]! / MOST_SITES));
  }

  #end(index: number, end: Place, startSite: number): void {
    const numbers = this.#numbers;
    const at = index * NUMBERS;
    this.#keys[index * KEYS + 2] = end.timeNs;
    numbers[at + 5] = end.cpu * 65536 + end.type;
    numbers[at + 6] = end.pid;
    numbers[at + 7] = end.task;
    numbers[at + 8] = end.site * MOST_SITES + startSite;
  }

  /** The index for an end at `iova`: its own, a free one, or that of the end that is longest ago. */
  #place(space: number, iova: number): number {
    const keys = this.#keys;
    const first = setOf(space, iova);
    let oldest = -1;
    let oldestNs = Number.POSITIVE_INFINITY;
    for (let index = first; index < first + WAYS; index++) {
      const other = keys[index * KEYS + 1]!;
      if (other === space + 1 && keys[index * KEYS] === iova) return index;
      const timeNs = other === 0 ? Number.NEGATIVE_INFINITY : keys[index * KEYS + 2]!;
      if (timeNs >= oldestNs) continue;
      [oldest, oldestNs] = [index, timeNs];
    }
    if (keys[oldest * KEYS + 1] === 0) this.#entered[this.#count++] = oldest;
    keys[oldest * KEYS] = iova;
    keys[oldest * KEYS + 1] = space + 1;
    return oldest;
  }

  /** `at`: where CPU and type, pid and task stand. */
  #placeAt(timeNs: number, at: number, site: number): Place {
    const numbers = this.#numbers;
    const packed = numbers[at]!;
    return {
      timeNs,
      cpu: Math.floor(packed / 65536),
      type: packed % 65536,
      pid: numbers[at + 1]!,
      task: numbers[at + 2]!,
      site,
    };
  }
}

const setOf = (space: number, iova: number): number => (hashOf(iova, space) & (SETS - 1)) * WAYS;
