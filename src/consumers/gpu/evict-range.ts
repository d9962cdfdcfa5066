/** Pages that are in GPUs come back to the system, because the process's own faults bring them. */
import { PAGE_SIZE } from "../../base/index.ts";
import {
  type IntervalNotifier,
  type MemoryOwner,
  newPageEntry,
  type PageEntry,
  type Steps,
  UserAddr,
  type UserMemory,
  WAITING,
} from "../../platform/index.ts";
import { HMM, PfnWords, rangeFault } from "../hmm/index.ts";
import { stillChanging } from "./errors.ts";

const MOST_ROUNDS = 1000;

/**
 * All of [start, end) is looked up as by somebody who owns no memory of devices, so that all of it comes back.
 *
 * @throws DmaError ERR_DMA_HMM_FAULT (EFAULT), ERR_DMA_GPU_BUSY (EBUSY)
 */
export function* bringRangeBack(
  memory: UserMemory,
  notifier: IntervalNotifier,
  start: number,
  end: number,
): Steps<void> {
  const words = new PfnWords((end - start) / PAGE_SIZE);
  for (let round = 0; round < MOST_ROUNDS; round++) {
    while (notifier.isInvalidating) yield WAITING; // whoever changes it now comes to an end
    const sequence = notifier.readBegin();
    const request = { memory, notifier, sequence, start: UserAddr(start), end: UserAddr(end), words, ask: HMM.valid };
    if (yield* rangeFault(request)) return;
  }
  throw stillChanging(start, MOST_ROUNDS);
}

/** The pages of `owner` that are left in [start, end), where there may be holes. What cannot come back stays. */
export function* bringDevicePagesBack(memory: UserMemory, owner: MemoryOwner, start: number, end: number): Steps<void> {
  const entry: PageEntry = newPageEntry();
  for (let at = start; at < end; at += PAGE_SIZE) {
    memory.entryAt(UserAddr(at), entry);
    if (entry.kind !== "device-private" || entry.owner !== owner) continue;
    const release = yield* memory.holdAreas();
    try {
      if (memory.areaAt(UserAddr(at))) yield* memory.fault(UserAddr(at), false);
    } finally {
      release();
    }
  }
}
