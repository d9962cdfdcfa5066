/**
 * Page faults of the adapter: each block that is not there is asked for once, whoever needs it.
 *
 * Idea: the driver is told after a while, as by an interrupt, and answers with `resume`. Who waits goes on then; a peer that was told to come
 * again finds the block, or hears at its next try that it cannot be had.
 */
import type { AdapterPageFault, Clock } from "../../../../platform/index.ts";
import type { MissingBlock } from "./regions.ts";

interface Pending {
  readonly name: string;
  readonly waiters: ((isThere: boolean) => void)[];
}

/** Blocks that cannot be had are remembered until somebody asks, up to this many. */
const MOST_REFUSED = 1024;
const PAGE = 4096;

/** Faults that are under way. */
export class RnicFaults {
  readonly #clock: () => Clock;
  readonly #latencyMs: number;
  readonly #pending = new Map<number, Pending>();
  readonly #ids = new Map<string, number>();
  readonly #refused = new Set<string>();
  readonly #listeners = new Set<(fault: AdapterPageFault) => void>();
  #next = 1;

  constructor(clock: () => Clock, latencyMs: number) {
    this.#clock = clock;
    this.#latencyMs = latencyMs;
  }

  listen(callback: (fault: AdapterPageFault) => void): () => void {
    this.#listeners.add(callback);
    return () => void this.#listeners.delete(callback);
  }

  /** Asks for a block; `then` is called when that is dealt with. */
  ask(missing: MissingBlock, then?: (isThere: boolean) => void): void {
    const name = nameOf(missing);
    const underWay = this.#ids.get(name);
    if (underWay !== undefined) {
      if (then) this.#pending.get(underWay)!.waiters.push(then);
      return;
    }
    const id = this.#next++;
    this.#ids.set(name, id);
    this.#pending.set(id, { name, waiters: then ? [then] : [] });
    this.#clock().after(this.#latencyMs, () => {
      if (!this.#pending.has(id)) return;
      if (this.#listeners.size === 0) this.resume(id, false);
      for (const listener of [...this.#listeners]) listener({ id, ...missing });
    });
  }

  resume(id: number, isThere: boolean): void {
    const pending = this.#pending.get(id);
    if (!pending) return;
    this.#pending.delete(id);
    this.#ids.delete(pending.name);
    if (!isThere && pending.waiters.length === 0) {
      if (this.#refused.size >= MOST_REFUSED) this.#refused.clear();
      this.#refused.add(pending.name);
    }
    for (const waiter of pending.waiters) waiter(isThere);
  }

  /** Has the driver said that this block cannot be had? Asking takes the answer away: the next access asks anew. */
  wasRefused(missing: MissingBlock): boolean {
    return this.#refused.delete(nameOf(missing));
  }

  get underWay(): number {
    return this.#pending.size;
  }

  clear(): void {
    this.#pending.clear();
    this.#ids.clear();
    this.#refused.clear();
  }
}

const nameOf = ({ key, address, write }: MissingBlock): string => `${key} ${Math.floor(address / PAGE)} ${write}`;
