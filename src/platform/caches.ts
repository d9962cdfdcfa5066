/**
 * The CPU's caches, as the stack drives them for a device that does not look into them.
 *
 * Idea: maintenance of a range may only be queued; the barrier completes it. So n ranges cost n operations and one barrier.
 * A machine whose devices all look into the caches has none of this.
 */
import type { Direction, PhysAddr, PhysPage } from "../base/index.ts";

/**
 * The CPU's caches, for devices that do not look into them: hand a range over, take it back, and wait until that is
 * done.
 */
export interface CacheMaintenance {
  /** Before the device gets [phys, + length): what the CPU wrote goes to memory; what it may read later is dropped. */
  forDevice(phys: PhysAddr, length: number, direction: Direction): void;
  /** Before the CPU looks at [phys, + length) again: what it has cached of it is dropped, if the device may have written. */
  forCpu(phys: PhysAddr, length: number, direction: Direction): void;
  /** From now on, until they are freed, the CPU does not cache these pages: for memory that both sides use at any time. */
  bypass(first: PhysPage, pages: number): void;
  /** All maintenance so far is complete. */
  barrier(): void;
}
