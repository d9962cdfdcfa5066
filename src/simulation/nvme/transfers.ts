/**
 * Transfers under way: started and not waited for, each about blocks that no other is about.
 *
 * What goes wrong in one is kept until somebody looks ({@link Transfers.failure}): it is found while nobody waits.
 */
import { DmaError } from "../../base/index.ts";
import type { VirtualClock } from "../../hosts/simulated/index.ts";
import type { Disk } from "./disks.ts";

/** Blocks of a disk; none for work that is about no block. */
interface BlockRange {
  readonly block: number;
  readonly blocks: number;
}

interface Transfer {
  readonly abort: AbortController;
  readonly done: Promise<void>;
}

export class Transfers {
  readonly #clock: VirtualClock;
  readonly #underWay: Transfer[] = [];
  #failure: unknown;

  constructor(clock: VirtualClock) {
    this.#clock = clock;
  }

  /** The first that went wrong, undefined if nothing did. */
  get failure(): unknown {
    return this.#failure;
  }

  fail(problem: unknown): void {
    this.#failure ??= problem;
  }

  /** Does nothing if the blocks are not free. `then` is told whether the work went through; it may throw. */
  start(
    disk: Disk,
    { block, blocks }: BlockRange,
    work: (disk: Disk, signal: AbortSignal) => Promise<void>,
    then: (ok: boolean) => void,
  ): void {
    if (!isFree(disk, block, blocks)) return;
    disk.taken.fill(1, block, block + blocks);
    const abort = new AbortController();
    const finish = (ok: boolean, error?: unknown): void => {
      disk.taken.fill(0, block, block + blocks);
      const at = this.#underWay.indexOf(transfer);
      if (at >= 0) this.#underWay.splice(at, 1);
      try {
        if (error !== undefined && !isExpected(error)) throw error;
        then(ok);
      } catch (problem) {
        this.fail(problem);
      }
    };
    const done = work(disk, abort.signal).then(
      () => finish(true),
      (error: unknown) => finish(false, error),
    );
    const transfer: Transfer = { abort, done };
    this.#underWay.push(transfer);
  }

  giveUp(nth: number): void {
    this.#underWay[nth]?.abort.abort(new Error("given up"));
  }

  /** Until nothing is under way, or something went wrong. */
  async settle(): Promise<void> {
    while (this.#underWay.length > 0 && this.#failure === undefined)
      await this.#clock.run(Promise.all(this.#underWay.map(({ done }) => done)).then(() => {}));
  }
}

/** Nobody else is about these blocks, and the disk is there. */
export const isFree = (disk: Disk, block: number, blocks: number): boolean =>
  !disk.gone && !disk.taken.subarray(block, block + blocks).includes(1);

/** What a transfer may answer on a machine on which things go wrong. */
function isExpected(error: unknown): boolean {
  return error instanceof DmaError || (error instanceof Error && error.message === "given up");
}
