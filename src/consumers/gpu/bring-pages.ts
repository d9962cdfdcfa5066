/**
 * Brings pages of a process for a GPU: looked up, and given to a backing if nothing has changed meanwhile; else again.
 *
 * Idea: the protocol of whoever follows a process stands here once. Between the last look and the commit nothing else runs, so what is given to
 * the GPU is true at that moment, and every later change is heard before it is made.
 * Promises: gives up after {@link MOST_ROUNDS} rounds (Linux has a second), and leaves nothing then.
 * Specified by: behaviour of Linux 7.2 (hmm_range_fault with mmu_interval_notifier, drm_gpusvm_get_pages).
 */
import { PAGE_SIZE } from "../../base/index.ts";
import {
  type IntervalNotifier,
  type MemoryOwner,
  type Steps,
  UserAddr,
  type UserMemory,
  WAITING,
} from "../../platform/index.ts";
import { HMM, PfnWords, rangeFault } from "../hmm/index.ts";
import type { PageBacking } from "./backing.ts";
import type { SpaceCounts } from "./counts.ts";
import { areaReadOnly, stillChanging } from "./errors.ts";

/** Rounds that a fault takes before it gives up. */
const MOST_ROUNDS = 1000;

/** Pages are looked up, and nobody has asked yet whether they are still true. */
export const GPU_PAGES_FOUND = "pages for a GPU are looked up";

/** What to bring. */
interface BringRequest {
  readonly memory: UserMemory;
  readonly notifier: IntervalNotifier;
  readonly backing: PageBacking;
  readonly counts: SpaceCounts;
  /** Pages of the backing. */
  readonly first: number;
  readonly count: number;
  readonly write: boolean;
  /** Only this page must come; the others if they are there. All must, unless said. */
  readonly only?: number;
  /** Whose device's memory need not come back. */
  readonly owner?: MemoryOwner | undefined;
  /** Throws if there is no point any more: asked before each round, and before the commit. */
  readonly check: () => void;
}

/** @throws DmaError ERR_DMA_HMM_FAULT (EFAULT), ERR_DMA_HMM_READ_ONLY (EPERM), ERR_DMA_GPU_BUSY (EBUSY), as {@link PageBacking.commit}, and `check` */
export function* bringPages(request: BringRequest): Steps<void> {
  const { memory, notifier, backing, counts, first, count, write, only, owner, check } = request;
  const start = backing.start + first * PAGE_SIZE;
  const ask = HMM.valid | (write ? HMM.write : 0);
  const found = new PfnWords(count);
  for (let round = 0; round < MOST_ROUNDS; round++) {
    check();
    found.flags.fill(0);
    if (only !== undefined) found.flags[only - first] = ask;
    while (notifier.isInvalidating) yield WAITING; // whoever changes it now comes to an end
    const sequence = notifier.readBegin();
    const isWhole = yield* rangeFault({
      memory,
      notifier,
      sequence,
      start: UserAddr(start),
      end: UserAddr(start + count * PAGE_SIZE),
      words: found,
      ...(only === undefined ? { ask } : { mask: ask }),
      ...(owner && { owner }),
    });
    yield GPU_PAGES_FOUND;
    check();
    if (isWhole && !notifier.retry(sequence)) {
      const readOnly = write ? readOnlyPage(found, only === undefined ? undefined : only - first) : -1;
      if (readOnly < 0) {
        backing.commit(first, found);
        return;
      }
      // A page of a device that is shared after fork is found where it is, for reading: to be written it has to be copied.
      const release = yield* memory.holdAreas();
      try {
        const address = start + readOnly * PAGE_SIZE;
        const outcome = yield* memory.fault(UserAddr(address), true);
        if (outcome !== "done" && outcome !== "out-of-memory") throw areaReadOnly(address);
      } finally {
        release();
      }
    }
    counts.retries++;
  }
  throw stillChanging(start, MOST_ROUNDS);
}

/** The first page that was to be written and may only be read; -1: none. */
function readOnlyPage(found: PfnWords, only: number | undefined): number {
  if (only !== undefined) return found.has(only, HMM.write) ? -1 : only;
  for (let i = 0; i < found.count; i++) if (!found.has(i, HMM.write)) return i;
  return -1;
}
