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

const NONE: readonly number[] = [];

export class PhysicalPages {
  readonly #table: LifetimeTable;
  /** The oldest mapping of each page, and the few pages that have more. */
  readonly #rows: Map<number, number> = new Map();
  readonly #more: Map<number, number[]> = new Map();
  #on = false;

  constructor(table: LifetimeTable) {
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
    const first = Math.floor(this.#table.phys[row]! / PAGE_SIZE);
    for (let page = first; page < first + this.#pages(row); page++) {
      if (!this.#rows.has(page)) this.#rows.set(page, row);
      else {
        const more = this.#more.get(page);
        if (more) more.push(row);
        else this.#more.set(page, [row]);
      }
    }
  }

  remove(row: number): void {
    if (!this.#on || !this.#kept(row)) return;
    const first = Math.floor(this.#table.phys[row]! / PAGE_SIZE);
    for (let page = first; page < first + this.#pages(row); page++) {
      const more = this.#more.get(page);
      if (this.#rows.get(page) === row) {
        const next = more?.shift();
        if (next === undefined) this.#rows.delete(page);
        else this.#rows.set(page, next);
      } else if (more?.includes(row)) more.splice(more.indexOf(row), 1);
      if (more?.length === 0) this.#more.delete(page);
    }
  }

  /** The mappings that hold `page`. */
  at(page: number): readonly number[] {
    const row = this.#rows.get(page);
    if (row === undefined) return NONE;
    const more = this.#more.get(page);
    return more ? [row, ...more] : [row];
  }

  #kept(row: number): boolean {
    const { kind, reached, phys } = this.#table;
    return kind[row] === ONE_SHOT && reached[row] !== DIRECT && phys[row]! >= 0;
  }

  #pages(row: number): number {
    return Math.min(MOST_PAGES, pagesTouched(this.#table.phys[row]!, this.#table.length[row]!));
  }
}
