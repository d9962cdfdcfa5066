/**
 * The reservation of a buffer: its lock, and the fences of what devices still do with it.
 *
 * Idea: a fence is work that has not ended. It is added under a class that says who must wait: `kernel` (moves of the storage
 * itself: everybody), `write`, `read`, and `bookkeep` (everything, for those who want the storage back). Waiting for a class waits
 * for all before it too. The lock is taken in steps, so that a scheduler can put other work between.
 * Promises: a fence signals once; signalled ones are forgotten. Specified by: behaviour of Linux 7.2 dma-resv and dma-fence.
 */
import { type Steps, WAITING } from "../../platform/index.ts";
import { notLocked, wouldDeadlock } from "./errors.ts";

/** Who waits for a fence: each class includes those before it. */
export type FenceUse = "kernel" | "write" | "read" | "bookkeep";

const USES: readonly FenceUse[] = ["kernel", "write", "read", "bookkeep"];

/** Work of a device that has not ended. */
export class Fence {
  /** Whose work it is, for who waits too long. */
  readonly name: string;
  #signalled = false;
  readonly #waiters: (() => void)[] = [];

  /** Work that goes on from now until {@link signal}. */
  constructor(name: string) {
    this.name = name;
  }

  /** The work has ended. */
  get signalled(): boolean {
    return this.#signalled;
  }

  /** The work has ended. A second time does nothing. */
  signal(): void {
    if (this.#signalled) return;
    this.#signalled = true;
    for (const waiter of this.#waiters.splice(0)) waiter();
  }

  /** Calls `done` when the fence signals; at once if it has. */
  onSignal(done: () => void): void {
    if (this.#signalled) done();
    else this.#waiters.push(done);
  }
}

/** Lock and fences of one buffer. */
export class Reservation {
  #held = false;
  #fences: { fence: Fence; use: FenceUse }[] = [];

  /** Somebody holds the lock. */
  get isHeld(): boolean {
    return this.#held;
  }

  /** Waits for the lock, and holds it until {@link release}. */
  *acquire(): Steps<void> {
    while (this.#held) yield WAITING;
    this.#held = true;
  }

  /** Lets the lock go. @throws DmaError ERR_DMA_BUF_UNLOCKED (EINVAL) if nobody holds it */
  release(): void {
    if (!this.#held) throw notLocked("a release");
    this.#held = false;
  }

  /** Runs `work` with the lock. @throws DmaError ERR_DMA_BUF_DEADLOCK (EBUSY) if it is held; and what the work throws */
  locked<T>(work: () => T): T {
    if (this.#held) throw wouldDeadlock("this call");
    this.#held = true;
    try {
      return work();
    } finally {
      this.#held = false;
    }
  }

  /** @throws DmaError ERR_DMA_BUF_UNLOCKED (EINVAL) */
  needHeld(what: string): void {
    if (!this.#held) throw notLocked(what);
  }

  /** @throws DmaError ERR_DMA_BUF_DEADLOCK (EBUSY) */
  needFree(what: string): void {
    if (this.#held) throw wouldDeadlock(what);
  }

  /** From here on who waits for `use` waits for `fence`. Locked. @throws DmaError ERR_DMA_BUF_UNLOCKED (EINVAL) */
  addFence(fence: Fence, use: FenceUse): void {
    this.needHeld("addFence");
    this.#forgetDone();
    this.#fences.push({ fence, use });
  }

  /** Fences of `use` and the classes before it that have not signalled. */
  pending(use: FenceUse): readonly Fence[] {
    this.#forgetDone();
    const last = USES.indexOf(use);
    return this.#fences.filter((each) => USES.indexOf(each.use) <= last).map(({ fence }) => fence);
  }

  /** Waits for the fences of `use`. */
  *wait(use: FenceUse): Steps<void> {
    while (this.pending(use).length > 0) yield WAITING;
  }

  #forgetDone(): void {
    if (this.#fences.some(({ fence }) => fence.signalled))
      this.#fences = this.#fences.filter(({ fence }) => !fence.signalled);
  }
}
