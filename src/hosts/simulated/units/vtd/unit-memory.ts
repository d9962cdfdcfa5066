/**
 * What a simulated VT-d unit reads when it nests: the stack's table memory, and the machine's RAM, where guests keep their tables.
 *
 * Idea: the stack's tables lie in an arena above all RAM; everything below is the machine's memory, read as bytes.
 * Not for: allocation of tables; that is the arena's.
 */
import { PAGE_SIZE, PhysAddr, type PhysPage } from "../../../../base/index.ts";
import type { PhysicalMemory, TableMemory } from "../../../../platform/index.ts";

/** An arena of tables, and RAM below it, as one. */
export class UnitMemory implements TableMemory {
  readonly #tables: TableMemory;
  readonly #ram: PhysicalMemory;
  readonly #entry = new Uint8Array(8);
  readonly #view = new DataView(this.#entry.buffer);

  /** `tables` must lie above all of `ram`. */
  constructor(tables: TableMemory, ram: PhysicalMemory) {
    this.#tables = tables;
    this.#ram = ram;
  }

  get basePage(): PhysPage {
    return this.#tables.basePage;
  }

  get framesInUse(): number {
    return this.#tables.framesInUse;
  }

  low(table: PhysPage, index: number): number {
    if (table >= this.basePage) return this.#tables.low(table, index);
    this.#read(table, index);
    return this.#view.getInt32(0, true);
  }

  high(table: PhysPage, index: number): number {
    if (table >= this.basePage) return this.#tables.high(table, index);
    this.#read(table, index);
    return this.#view.getInt32(4, true);
  }

  store(table: PhysPage, index: number, low: number, high: number): void {
    if (table >= this.basePage) {
      this.#tables.store(table, index, low, high);
      return;
    }
    this.#view.setInt32(0, low, true);
    this.#view.setInt32(4, high, true);
    this.#ram.write(PhysAddr(table * PAGE_SIZE + index * 8), this.#entry);
  }

  #read(table: PhysPage, index: number): void {
    this.#ram.read(PhysAddr(table * PAGE_SIZE + index * 8), this.#entry);
  }
}
