/**
 * Memory for a bounce pool of a simulated machine: below 3 GiB, so that every device reaches it, and shared in a
 * confidential guest.
 */
import { type Counters, type Observer, PAGE_SIZE, PhysPage, pagesOf } from "../../base/index.ts";
import type { PageAllocator } from "../../platform/index.ts";
import { BOUNCE_SLOT, BouncePool } from "../../swiotlb/index.ts";
import { outOfMemory } from "./errors.ts";
import type { SimulatedMachine } from "./machine.ts";
import { HOLE_START } from "./ram.ts";

/** A bounce pool below 3 GiB. */
export interface PoolDescription {
  /** Slots of 2 KiB. */
  readonly slots: number;
  /** Default: one. */
  readonly areas?: number;
  /** It takes more memory when it is full. Default false. */
  readonly grows?: boolean;
}

/** @throws DmaError ERR_DMA_SIM_MEMORY (ENOMEM), and those of {@link BouncePool} */
export function buildBouncePool(
  machine: SimulatedMachine,
  description: PoolDescription,
  told: { readonly counters?: Counters; readonly observer?: Observer },
): BouncePool {
  const { clock, ram, memory } = machine;
  const pages = pagesOf(description.slots * BOUNCE_SLOT);
  const reachable = sharedPages(machine);
  const lastPage = HOLE_START / PAGE_SIZE - 1;
  const page = reachable.allocatePages(pages, lastPage);
  if (page === undefined) throw outOfMemory(pages * PAGE_SIZE, ram.free, ram.largestRun);
  return new BouncePool({
    memory,
    start: PhysPage.start(page),
    slots: description.slots,
    ...(description.areas && { areas: description.areas }),
    ...(told.counters && { counters: told.counters }),
    ...(told.observer && { observer: told.observer }),
    ...(description.grows && { grow: { pages: reachable, lastPage, later: (work) => void clock.after(0, work) } }),
  });
}

/** Pages that every device may see. */
function sharedPages({ ram, encryption }: SimulatedMachine): PageAllocator {
  if (!encryption) return ram;
  return {
    allocatePages(pages, lastPage) {
      const page = ram.allocatePages(pages, lastPage);
      // A page that could not be converted is lost: nobody knows what it is now.
      return page !== undefined && encryption.convert(page, pages, "shared") ? page : undefined;
    },
    freePages(page, pages) {
      if (encryption.convert(page, pages, "private")) ram.freePages(page, pages);
    },
  };
}
