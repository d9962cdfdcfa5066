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

/** Numbers that say which end it is: address, and space + 1; 0: none. */
const KEYS = 2;
/** Numbers of an end: length; time, CPU and type, pid, task of the beginning; the same of the end; both call sites. */
const NUMBERS = 10;

export class History {
  /** Touched only where something ended: pages of it that are not cost nothing. */
  readonly #keys = new Float64Array(HISTORY_LIMIT * KEYS);
  readonly #numbers = new Float64Array(HISTORY_LIMIT * NUMBERS);
  /** Indices in use: none is ever free again. */
  readonly #entered = new Uint32Array(HISTORY_LIMIT);
  #count = 0;

  /** Remembers that the mapping of `space` at `iova` ended; `start`: where it had begun, if that was seen. */
  ended(space: number, iova: number, length: number, start: Place | undefined, end: Place): void {
    const at = this.#place(space, iova) * NUMBERS;
    const numbers = this.#numbers;
    numbers[at] = length;
    numbers[at + 1] = start?.timeNs ?? -1;
    numbers[at + 2] = start ? start.cpu * 65536 + start.type : 0;
    numbers[at + 3] = start?.pid ?? 0;
    numbers[at + 4] = start?.task ?? 0;
    this.#end(at, end, start?.site ?? 0);
  }

  /** The same of a mapping that is in the table still. */
  endedRow(table: LifetimeTable, row: number, end: Place): void {
    const at = this.#place(table.device[row]!, table.iova[row]!) * NUMBERS;
    const numbers = this.#numbers;
    numbers[at] = table.length[row]!;
    numbers[at + 1] = table.startNs[row]!;
    numbers[at + 2] = table.cpu[row]! * 65536 + table.type[row]!;
    numbers[at + 3] = table.pid[row]!;
    numbers[at + 4] = table.task[row]!;
    this.#end(at, end, table.site[row]!);
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
    return this.#numbers[index * NUMBERS + 5]!;
  }

  lengthOf(index: number): number {
    return this.#numbers[index * NUMBERS]!;
  }

  /** Where it had begun; `undefined`: not in this recording. */
  startOf(index: number): Place | undefined {
    const place = this.#placeAt(index * NUMBERS + 1, this.#numbers[index * NUMBERS + 9]! % MOST_SITES);
    return place.timeNs < 0 ? undefined : place;
  }

  endOf(index: number): Place {
    return this.#placeAt(index * NUMBERS + 5, Math.floor(this.#numbers[index * NUMBERS + 9]! / MOST_SITES));
  }

  #end(at: number, end: Place, startSite: number): void {
    const numbers = this.#numbers;
    numbers[at + 5] = end.timeNs;
    numbers[at + 6] = end.cpu * 65536 + end.type;
    numbers[at + 7] = end.pid;
    numbers[at + 8] = end.task;
    numbers[at + 9] = end.site * MOST_SITES + startSite;
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
      const timeNs = other === 0 ? Number.NEGATIVE_INFINITY : this.#numbers[index * NUMBERS + 5]!;
      if (timeNs >= oldestNs) continue;
      [oldest, oldestNs] = [index, timeNs];
    }
    if (keys[oldest * KEYS + 1] === 0) this.#entered[this.#count++] = oldest;
    keys[oldest * KEYS] = iova;
    keys[oldest * KEYS + 1] = space + 1;
    return oldest;
  }

  #placeAt(at: number, site: number): Place {
    const numbers = this.#numbers;
    const packed = numbers[at + 1]!;
    return {
      timeNs: numbers[at]!,
      cpu: Math.floor(packed / 65536),
      type: packed % 65536,
      pid: numbers[at + 2]!,
      task: numbers[at + 3]!,
      site,
    };
  }
}

const setOf = (space: number, iova: number): number => (hashOf(iova, space) & (SETS - 1)) * WAYS;
