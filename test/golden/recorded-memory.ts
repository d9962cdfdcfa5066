/** Memory of the recorded machine, as far as it is not plain: tables that tell of themselves, and pages that the file names. */
import type { PhysPage } from "../../src/base/index.ts";
import { Arena } from "../../src/pagetable/index.ts";
import type { PageAllocator } from "../../src/platform/index.ts";
import type { KernelEvents } from "./kernel-events.ts";

/** Table memory that says when tables come and go. */
export class RecordedArena extends Arena {
  readonly #events: KernelEvents;

  constructor(events: KernelEvents) {
    super({ basePage: (2 ** 35) as PhysPage });
    this.#events = events;
  }

  override allocate(order = 0): number {
    const frame = super.allocate(order);
    if (frame >= 0) this.#events.tableAllocated();
    return frame;
  }

  override release(frame: number, order = 0): void {
    super.release(frame, order);
    this.#events.tablesFreed(1);
  }
}

/** Gives out the pages that the kernel's page allocator gave: what the file says is fed in. */
export class RecordedPages implements PageAllocator {
  #runs: { page: number; pages: number }[] = [];

  feed(runs: readonly { page: number; pages: number }[]): void {
    this.#runs = runs.map((run) => ({ ...run }));
  }

  allocatePages(pages: number): PhysPage | undefined {
    const run = this.#runs[0];
    if (!run || run.pages < pages) return undefined;
    const page = run.page as PhysPage;
    run.page += pages;
    run.pages -= pages;
    if (run.pages === 0) this.#runs.shift();
    return page;
  }

  freePages(): void {}
}
