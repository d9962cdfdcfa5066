/**
 * Which mapping holds a page of memory: for the rules that look from the memory's side.
 *
 * Idea: built when it is first needed, from what is live then, and kept up from there: a trace in which nobody asks pays
 * nothing. Direct mappings are not in it: their end is unknown.
 * Not for: the pages of two-step ranges and scatterlists, which the table does not keep one by one.
 */
import { PAGE_SIZE, pagesTouched } from "../../base/index.ts";
import { DIRECT, type LifetimeTable, ONE_SHOT } from "./table.ts";

/** Pages of one mapping that are entered. */
const MOST_PAGES = 64;
/** Mappings of one page that are shown, the oldest: a page may have any number, and whoever looks at it looks at each. */
const MOST_SHOWN = 64;
/** Page numbers above this are no memory: an address has 64 bits, and a number beyond 53 does not count on. */
const END_OF_PAGES = 2 ** 52;

const NONE: readonly number[] = [];

/** What is looked at of the table of mappings. */
type Mappings = Pick<LifetimeTable, "kind" | "reached" | "phys" | "length" | "used" | "isLive">;

/** Which mappings hold a page of memory. */
export class PhysicalPages {
  readonly #table: Mappings;
  /** The oldest mapping of each page, and the few pages that have more. */
  readonly #rows: Map<number, number> = new Map();
  readonly #more: Map<number, Crowd> = new Map();
  /** When each row that is in was entered: a row's number is used again. */
  readonly #entered: Map<number, number> = new Map();
  #entries = 0;
  #on = false;

  constructor(table: Mappings) {
    this.#table = table;
  }

  get on(): boolean {
    return this.#on;
  }

  /** Begins to keep it, with all that is live but `without`. */
  start(without = -1): void {
    if (this.#on) return;
    this.#on = true;
    for (let row = 0; row < this.#table.used; row++) if (row !== without && this.#table.isLive(row)) this.add(row);
  }

  add(row: number): void {
    if (!this.#on || !this.#kept(row)) return;
    this.#entered.set(row, this.#entries);
    const first = Math.floor(this.#table.phys[row]! / PAGE_SIZE);
    for (let page = first; page < first + this.#pages(row); page++) {
      if (!this.#rows.has(page)) this.#rows.set(page, row);
      else {
        let more = this.#more.get(page);
        if (!more) {
          more = new Crowd(this.#entered);
          this.#more.set(page, more);
        }
        more.add(row, this.#entries);
      }
    }
    this.#entries++;
  }

  remove(row: number): void {
    if (!this.#on || !this.#kept(row) || !this.#entered.delete(row)) return;
    const first = Math.floor(this.#table.phys[row]! / PAGE_SIZE);
    for (let page = first; page < first + this.#pages(row); page++) {
      const more = this.#more.get(page);
      if (this.#rows.get(page) === row) {
        const next = more?.takeOldest();
        if (next === undefined) this.#rows.delete(page);
        else this.#rows.set(page, next);
      } else more?.left();
      if (more?.isEmpty) this.#more.delete(page);
    }
  }

  /** The mappings that hold `page`, the oldest first; at most 64. None of what is no page of memory. */
  at(page: number): readonly number[] {
    const row = this.#rows.get(page);
    if (row === undefined) return NONE;
    const more = this.#more.get(page);
    return more ? [row, ...more.oldest(MOST_SHOWN - 1)] : [row];
  }

  /** The pages of [first, first + count) that can be in memory: those that {@link at} may know. */
  static *run(first: number, count: number): Generator<number> {
    if (!(first >= 0)) return;
    const end = Math.min(first + count, END_OF_PAGES);
    for (let page = first; page < end; page++) yield page;
  }

  #kept(row: number): boolean {
    const { kind, reached, phys } = this.#table;
    return kind[row] === ONE_SHOT && reached[row] !== DIRECT && phys[row]! >= 0;
  }

  #pages(row: number): number {
    return Math.min(MOST_PAGES, pagesTouched(this.#table.phys[row]!, this.#table.length[row]!));
  }
}

/**
 * The mappings of one page beside its oldest, in the order they came.
 *
 * Idea: who leaves is only counted, and passed over when somebody looks; when most have left the rest is written anew. So a page
 * that thousands share costs the same for each that comes and goes.
 */
class Crowd {
  readonly #entered: ReadonlyMap<number, number>;
  #rows: number[] = [];
  #entries: number[] = [];
  /** Those before it have left, or are the page's oldest. */
  #head = 0;
  #live = 0;

  constructor(entered: ReadonlyMap<number, number>) {
    this.#entered = entered;
  }

  get isEmpty(): boolean {
    return this.#live === 0;
  }

  add(row: number, entry: number): void {
    this.#rows.push(row);
    this.#entries.push(entry);
    this.#live++;
  }

  /** One of them left; which, `entered` says. */
  left(): void {
    this.#live--;
    if (this.#rows.length - this.#head > 2 * this.#live + MOST_SHOWN) this.#rewrite();
  }

  takeOldest(): number | undefined {
    while (this.#head < this.#rows.length) {
      const at = this.#head++;
      if (!this.#isIn(at)) continue;
      this.#live--;
      return this.#rows[at];
    }
    return undefined;
  }

  oldest(most: number): number[] {
    const found: number[] = [];
    let passed = 0;
    for (let at = this.#head; at < this.#rows.length && found.length < most; at++) {
      if (this.#isIn(at)) found.push(this.#rows[at]!);
      else passed++;
    }
    if (passed > MOST_SHOWN) this.#rewrite();
    return found;
  }

  #isIn(at: number): boolean {
    return this.#entered.get(this.#rows[at]!) === this.#entries[at];
  }

  #rewrite(): void {
    const kept: number[] = [];
    for (let at = this.#head; at < this.#rows.length; at++) if (this.#isIn(at)) kept.push(at);
    this.#rows = kept.map((at) => this.#rows[at]!);
    this.#entries = kept.map((at) => this.#entries[at]!);
    this.#head = 0;
  }
}
