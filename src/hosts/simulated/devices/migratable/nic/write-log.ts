/**
 * A function's log of where it writes: units of one size, in ranges, told and forgotten on request.
 *
 * Promises: a unit that was written is told once. When the log is lost it says so until it is destroyed.
 */

/** Bytes, inclusive. */
interface LogRange {
  readonly first: number;
  readonly last: number;
}

export class WriteLog {
  readonly unitBytes: number;
  /** It missed writes, or something happened to it. */
  isLost = false;
  readonly #ranges: readonly LogRange[];
  readonly #dirty = new Set<number>();
  /** Of the report that is being given: units, ascending, and how many of them are told. */
  #report: number[] = [];
  #told = 0;

  constructor(ranges: readonly LogRange[], unitBytes: number) {
    this.#ranges = ranges;
    this.unitBytes = unitBytes;
  }

  /** [address, + length) was written. */
  note(address: number, length: number): void {
    const last = address + length - 1;
    for (const range of this.#ranges) {
      if (last < range.first || address > range.last) continue;
      const end = Math.floor(Math.min(last, range.last) / this.unitBytes);
      for (let unit = Math.floor(Math.max(address, range.first) / this.unitBytes); unit <= end; unit++)
        this.#dirty.add(unit);
    }
  }

  /** Begins a report of what was written in [address, + length). */
  begin(address: number, length: number): void {
    const first = Math.floor(address / this.unitBytes);
    const end = Math.ceil((address + length) / this.unitBytes);
    this.#report = [...this.#dirty].filter((unit) => unit >= first && unit < end).sort((a, b) => a - b);
    this.#told = 0;
  }

  /** The next addresses of the report, `most` at the most. They are not forgotten before {@link forget}. */
  next(most: number): number[] {
    return this.#report.slice(this.#told, this.#told + most).map((unit) => unit * this.unitBytes);
  }

  /** The next `count` have been told. */
  forget(count: number): void {
    for (const unit of this.#report.slice(this.#told, this.#told + count)) this.#dirty.delete(unit);
    this.#told += count;
  }

  /** The report has more. */
  get hasMore(): boolean {
    return this.#told < this.#report.length;
  }
}
