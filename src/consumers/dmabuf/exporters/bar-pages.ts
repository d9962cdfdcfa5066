/**
 * The pages of a device's memory, given out and taken back: lowest first, neighbours joined.
 *
 * Promises: what is out is nobody else's; giving back needs no memory beyond the list of free runs. Not for: zeroing, which the
 * device's driver does.
 */
import { PAGE_SIZE, PhysPage } from "../../../base/index.ts";
import type { P2pProvider } from "../../../p2p/index.ts";
import type { PageAllocator } from "../../../platform/index.ts";

/** A page allocator over one provider's memory. */
export class BarPages implements PageAllocator {
  /** Free runs, in order, none touching the next. Pages. */
  readonly #free: { first: number; pages: number }[];

  /** Gives out the pages of the provider's BAR; all are free at first. */
  constructor({ bar }: P2pProvider) {
    this.#free = [{ first: PhysPage.of(bar.phys), pages: bar.length / PAGE_SIZE }];
  }

  /** Pages that are not out. */
  get freePageCount(): number {
    return this.#free.reduce((sum, { pages }) => sum + pages, 0);
  }

  allocatePages(pages: number): PhysPage | undefined {
    const at = this.#free.findIndex((run) => run.pages >= pages);
    const run = this.#free[at];
    if (run === undefined) return undefined;
    const { first } = run;
    run.first += pages;
    run.pages -= pages;
    if (run.pages === 0) this.#free.splice(at, 1);
    return first as PhysPage;
  }

  freePages(page: PhysPage, pages: number): void {
    const found = this.#free.findIndex(({ first }) => first > page);
    const at = found < 0 ? this.#free.length : found;
    this.#free.splice(at, 0, { first: page, pages });
    this.#join(at);
    this.#join(at - 1);
  }

  /** The run at `at` and the next, if they touch. */
  #join(at: number): void {
    const [run, next] = [this.#free[at], this.#free[at + 1]];
    if (run === undefined || next === undefined || run.first + run.pages !== next.first) return;
    run.pages += next.pages;
    this.#free.splice(at + 1, 1);
  }
}
