/**
 * The page-request queue of a simulated VT-d unit, from the side that fills it.
 *
 * Idea: 32-byte entries in memory; the unit writes at the tail and software reads at the head. One entry always stays
 * free, so that full and empty differ. A request that finds no room is answered by the unit itself if somebody waits for
 * the answer (it is the last of its group), and the overflow is noted.
 * Specified by: VT-d specification, 7.4 and 11.4.11.
 */
import type { PhysPage } from "../../../../base/index.ts";
import { PAGE_REQUEST_STATUS } from "../../../../layouts/vtd/index.ts";
import type { TableMemory } from "../../../../platform/index.ts";

/** What a device asks. */
export interface PageRequest {
  /** Who asks: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** -1: without. */
  readonly pasid: number;
  /** Which page it needs. */
  readonly page: number;
  /** The device's number for the group, 0 to 511. */
  readonly group: number;
  /** No more of this group follow: the device waits for the answer. */
  readonly last: boolean;
  /** It wants to read there. */
  readonly read: boolean;
  /** It wants to write there. */
  readonly write: boolean;
  /** It wants to fetch instructions there. False unless said. */
  readonly execute?: boolean;
  /** It asks as a supervisor. False unless said. */
  readonly privileged?: boolean;
}

const ENTRY_BYTES = 32;

export class PageRequestRing {
  head = 0;
  tail = 0;
  status = 0;
  /** Requests that found no room. */
  lost = 0;
  /** PRO of the fault status register, which is cleared by itself. */
  lostNews = false;
  readonly #memory: TableMemory;
  #base = 0 as PhysPage;
  #bytes = 0;

  constructor(memory: TableMemory) {
    this.#memory = memory;
  }

  configure(address: bigint): void {
    this.#base = Number(address >> 12n) as PhysPage;
    this.#bytes = address === 0n ? 0 : 4096 * 2 ** Number(address & 7n);
    this.head = 0;
    this.tail = 0;
  }

  /** False: there is no room. While the overflow stands there is none for anybody. */
  push(request: PageRequest): boolean {
    const next = (this.tail + ENTRY_BYTES) % Math.max(this.#bytes, ENTRY_BYTES);
    if (this.#bytes === 0 || next === this.head || (this.status & PAGE_REQUEST_STATUS.overflow) !== 0) {
      this.status |= PAGE_REQUEST_STATUS.overflow;
      this.lost++;
      this.lostNews = true;
      return false;
    }
    const { requester, pasid, page, group, last, read, write } = request;
    const table = (this.#base + Math.floor(this.tail / 4096)) as PhysPage;
    const at = (this.tail % 4096) / 8;
    const flags = (request.execute ? 1 << 20 : 0) | (request.privileged ? 1 << 21 : 0);
    const ask = (read ? 1 : 0) | (write ? 2 : 0) | (last ? 4 : 0) | (group << 3);
    this.#memory.store(table, at, 1 | (pasid < 0 ? 0 : 1 << 8) | (requester << 16), (pasid < 0 ? 0 : pasid) | flags);
    this.#memory.store(table, at + 1, ask | (page << 12), Math.floor(page / 2 ** 20));
    this.#memory.store(table, at + 2, 0, 0);
    this.#memory.store(table, at + 3, 0, 0);
    this.tail = next;
    this.status |= PAGE_REQUEST_STATUS.pending;
    return true;
  }
}
