/**
 * The fault records of a simulated VT-d unit: a ring of registers that is full when nobody reads it.
 *
 * Specified by: VT-d specification, 7.3 (primary fault logging) and 11.4.14.
 */
import { FAULT_STATUS } from "../../../../layouts/vtd/index.ts";

/** No PASID. */
const NONE = -1;

export class FaultRecords {
  readonly #records: Int32Array;
  readonly #count: number;
  #next = 0;
  #overflow = false;
  /** Faults that found no record free. */
  lost = 0;

  constructor(count: number) {
    this.#count = count;
    this.#records = new Int32Array(count * 4);
  }

  /** Leaves a record, or notes that there was no room. */
  record(requester: number, pasid: number, page: number, access: "read" | "write", reason: number): void {
    const at = this.#next * 4;
    if (this.#overflow || this.#records[at + 3]! < 0) {
      this.#overflow = true;
      this.lost++;
      return;
    }
    this.#records[at] = page << 12;
    this.#records[at + 1] = Math.floor(page / 2 ** 20);
    this.#records[at + 2] = requester | (pasid === NONE ? 0 : 1 << 31);
    this.#records[at + 3] = reason | (pasid === NONE ? 0 : pasid << 8) | (access === "read" ? 1 << 30 : 0) | (1 << 31);
    this.#next = (this.#next + 1) % this.#count;
  }

  /** PFO, PPF and FRI of the fault status register. */
  get status(): number {
    let first = -1;
    for (let i = 0; i < this.#count && first < 0; i++) {
      const index = (this.#next + i) % this.#count; // the oldest is the first one from the next to be written
      if (this.#records[index * 4 + 3]! < 0) first = index;
    }
    const pending = first < 0 ? 0 : FAULT_STATUS.pending | (first << FAULT_STATUS.firstRecordShift);
    return (this.#overflow ? FAULT_STATUS.overflow : 0) | pending;
  }

  clearOverflow(): void {
    this.#overflow = false;
  }

  read(index: number, word: number): number {
    return this.#records[index * 4 + word] ?? 0;
  }

  /** The F bit is cleared; the rest stays to be read. */
  clear(index: number): void {
    if (index < this.#count) this.#records[index * 4 + 3]! &= 0x7fff_ffff;
  }
}
