/**
 * What ended lately: the last end of each DMA address of each device, so that a second end can be told from one of a
 * mapping that was never seen.
 *
 * Idea: one place per (space, address), overwritten when it is used again. A space is a device's addresses, or its states or
 * lists. Memory is bounded: past {@link HISTORY_LIMIT} addresses the one that was entered first is forgotten, and a second
 * end of it is then unknown.
 */
import { ChainedIndex, hashOf } from "./chained-index.ts";
import { FIRST_ROWS, widened } from "./columns.ts";

/** Addresses that are remembered. */
export const HISTORY_LIMIT: number = 1 << 18;

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

/** Columns per end. */
const NUMBERS = 12;

export class History {
  #numbers = new Float64Array(FIRST_ROWS * NUMBERS);
  readonly #index = new ChainedIndex();
  #used = 0;
  /** The place that is overwritten next once all are in use. */
  #hand = 0;

  /** Remembers that the mapping of `space` at `iova` ended; `start`: where it had begun, if that was seen. */
  ended(space: number, iova: number, length: number, start: Place | undefined, end: Place): void {
    let index = this.find(space, iova);
    if (index < 0) {
      index = this.#used < HISTORY_LIMIT ? this.#unused() : this.#oldest();
      this.#numbers[index * NUMBERS] = iova;
      this.#numbers[index * NUMBERS + 1] = space;
      this.#index.add(index, this.#hash(index));
    }
    const at = index * NUMBERS;
    const numbers = this.#numbers;
    numbers[at + 2] = length;
    write(numbers, at + 3, start);
    write(numbers, at + 7, end);
    numbers[at + 11] = end.site * 2 ** 20 + (start?.site ?? 0); // call sites are few
  }

  /** Index of the end at exactly `iova`; -1: none is remembered. */
  find(space: number, iova: number): number {
    const numbers = this.#numbers;
    let index = this.#index.first(hashOf(iova, space));
    while (index >= 0 && (numbers[index * NUMBERS] !== iova || numbers[index * NUMBERS + 1] !== space))
      index = this.#index.next(index);
    return index;
  }

  /** Ends that are remembered have the indices [0, count). */
  get count(): number {
    return this.#used;
  }

  /** The space of an end, as it was given. */
  spaceOf(index: number): number {
    return this.#numbers[index * NUMBERS + 1]!;
  }

  iovaOf(index: number): number {
    return this.#numbers[index * NUMBERS]!;
  }

  /** When it had begun, nanoseconds; -1: not in this recording. */
  startNsOf(index: number): number {
    return this.#numbers[index * NUMBERS + 3]!;
  }

  /** When it ended, nanoseconds. */
  endNsOf(index: number): number {
    return this.#numbers[index * NUMBERS + 7]!;
  }

  lengthOf(index: number): number {
    return this.#numbers[index * NUMBERS + 2]!;
  }

  /** Where it had begun; `undefined`: not in this recording. */
  startOf(index: number): Place | undefined {
    const place = read(this.#numbers, index * NUMBERS + 3, this.#numbers[index * NUMBERS + 11]! % 2 ** 20);
    return place.timeNs < 0 ? undefined : place;
  }

  endOf(index: number): Place {
    return read(this.#numbers, index * NUMBERS + 7, Math.floor(this.#numbers[index * NUMBERS + 11]! / 2 ** 20));
  }

  #hash(index: number): number {
    return hashOf(this.#numbers[index * NUMBERS]!, this.#numbers[index * NUMBERS + 1]!);
  }

  #unused(): number {
    const rows = this.#numbers.length / NUMBERS;
    if (this.#used === rows) {
      this.#numbers = widened(this.#numbers, rows * 2 * NUMBERS);
      this.#index.grow(rows * 2, (index) => this.#hash(index));
    }
    return this.#used++;
  }

  /** Forgets the one that was entered first. */
  #oldest(): number {
    const index = this.#hand;
    this.#hand = (index + 1) % HISTORY_LIMIT;
    this.#index.remove(index, this.#hash(index));
    return index;
  }
}

/** Time, CPU and type, pid, task: four numbers. */
function write(numbers: Float64Array, at: number, place: Place | undefined): void {
  numbers[at] = place?.timeNs ?? -1;
  numbers[at + 1] = place ? place.cpu * 65536 + place.type : 0;
  numbers[at + 2] = place?.pid ?? 0;
  numbers[at + 3] = place?.task ?? 0;
}

function read(numbers: Float64Array, at: number, site: number): Place {
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
