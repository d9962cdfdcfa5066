/**
 * The pages that live mappings hold of their devices' address spaces.
 *
 * Idea: a set of pages by device tells whether a new mapping lies where another is live; the table of lifetimes tells which
 * one that is. A mapping holds one run of pages, a list whose entries lie apart several. Runs are whole granules: what the
 * IOMMU maps at least.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { PageSet } from "./page-set.ts";
import { APART, type LifetimeTable } from "./table.ts";

/** Pages of the largest run that is watched for overlaps, 4 GiB: a damaged trace may say any length. */
const MOST_PAGES = 2 ** 20;

/** Of the run [page, page + pages) that `row` is about to take, some is held already. */
type Overlap = (row: number, page: number, pages: number) => void;

export class HeldPages {
  readonly #table: LifetimeTable;
  readonly #pages = new PageSet();

  constructor(table: LifetimeTable) {
    this.#table = table;
  }

  /** Takes the pages of `row`; `overlap` is called before with each run of them that is not all free. */
  take(row: number, overlap?: Overlap): void {
    const table = this.#table;
    if ((table.flags[row]! & APART) === 0) this.#takeRun(row, table.page[row]!, table.pages[row]!, overlap);
    else this.eachExtent(row, (page, pages) => this.#takeRun(row, page, pages, overlap));
  }

  #takeRun(row: number, page: number, pages: number, overlap: Overlap | undefined): void {
    if (pages === 0 || pages > MOST_PAGES) return;
    const device = this.#table.device[row]!;
    if (overlap && this.#pages.overlaps(device, page, pages)) overlap(row, page, pages);
    this.#pages.add(device, page, pages);
  }

  /** Gives the pages of `row` back. */
  free(row: number): void {
    const table = this.#table;
    const device = table.device[row]!;
    if ((table.flags[row]! & APART) === 0) {
      if (table.pages[row]! <= MOST_PAGES) this.#pages.remove(device, table.page[row]!, table.pages[row]!);
      return;
    }
    this.eachExtent(row, (page, pages) => {
      if (pages <= MOST_PAGES) this.#pages.remove(device, page, pages);
    });
  }

  /** Calls `visit` with each run of pages that `row` holds of its device's address space: one, of an {@link APART} list several. */
  eachExtent(row: number, visit: (page: number, pages: number) => void): void {
    const table = this.#table;
    if ((table.flags[row]! & APART) === 0) {
      if (table.pages[row]! > 0) visit(table.page[row]!, table.pages[row]!);
      return;
    }
    let [from, to] = [-1, -1];
    table.eachPiece(row, (iova, _phys, length) => {
      const page = this.firstPage(iova);
      const end = page + this.pagesOf(iova, length);
      if (page <= to && page >= from) {
        to = Math.max(to, end);
        return;
      }
      if (to > from) visit(from, to - from);
      [from, to] = [page, end];
    });
    if (to > from) visit(from, to - from);
  }

  /** The first page of 4 KiB of the granule that `address` lies in. */
  firstPage(address: number): number {
    const { granule } = this.#table;
    return (Math.floor(address / granule) * granule) / PAGE_SIZE;
  }

  /** Pages of 4 KiB that the granules of [address, address + length) have; at least one granule. */
  pagesOf(address: number, length: number): number {
    const { granule } = this.#table;
    const granules = Math.ceil((address + length) / granule) - Math.floor(address / granule);
    return (Math.max(1, granules) * granule) / PAGE_SIZE;
  }
}
