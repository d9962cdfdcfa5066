/**
 * Who is charged for pinned pages, and against which limit.
 *
 * Idea: three counters that are often mixed up. `user.locked` counts for all processes of a user, `memory.locked` for one
 * address space; `memory.pinned` is for information only. Who maps decides by its privilege, once, at the time of the map.
 * Beyond Linux, by an option: a page is charged once to a user, however often it is mapped ({@link ChargedPages}).
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { ProcessUser, UserProcess } from "../../platform/index.ts";
import { overLimit } from "./errors.ts";

/** Whose counter is charged: nobody's, the user's over all processes, or the address space's. */
export type AccountMode = "none" | "user" | "memory";

/** Physical pages that each user is charged for, once each. Shared by all that are to count together. */
export class ChargedPages {
  readonly #users = new Map<ProcessUser, Map<number, number>>();

  /** One more use of each; how many of them are new to the user. */
  add(user: ProcessUser, frames: Iterable<number>): number {
    const counts = this.#users.get(user) ?? new Map<number, number>();
    this.#users.set(user, counts);
    let fresh = 0;
    for (const frame of frames) {
      const uses = counts.get(frame) ?? 0;
      if (uses === 0) fresh++;
      counts.set(frame, uses + 1);
    }
    return fresh;
  }

  /** One use fewer of each; how many of them the user has no more. */
  remove(user: ProcessUser, frames: Iterable<number>): number {
    const counts = this.#users.get(user);
    let gone = 0;
    for (const frame of frames) {
      const uses = counts?.get(frame) ?? 0;
      if (uses > 1) counts!.set(frame, uses - 1);
      else if (counts?.delete(frame)) gone++;
    }
    return gone;
  }
}

/** Who pays for one piece of memory. */
export class Payer {
  process: UserProcess;
  /** Whose address space is told, also after exec and exit. */
  memory: UserProcess["memory"];
  mode: AccountMode;

  constructor(process: UserProcess, mode: AccountMode) {
    this.process = process;
    this.memory = process.memory;
    this.mode = process.has("IPC_LOCK") ? "none" : mode;
  }

  /** Another process in the place of `payer`: in the same mode, whatever its privileges. */
  static like(payer: Payer, process: UserProcess): Payer {
    const next = new Payer(process, payer.mode);
    next.mode = payer.mode;
    return next;
  }

  /**
   * Charges `pages`, of which `told` are counted as pinned for information.
   *
   * @throws DmaError ERR_DMA_LOCKED_LIMIT (ENOMEM); nothing is charged then
   */
  charge(pages: number, told: number = pages): void {
    const account = this.#account;
    if (account) {
      const limit = Math.floor(this.process.memlockBytes / PAGE_SIZE);
      if (account.pages + pages > limit) throw overLimit(pages, account.pages, limit);
      account.pages += pages;
    }
    this.memory.pinned.pages += told;
  }

  /** Takes a charge back. */
  refund(pages: number, told: number = pages): void {
    const account = this.#account;
    if (account) account.pages -= pages;
    this.memory.pinned.pages -= told;
  }

  /** Is it the same to whom a charge goes now? */
  isPaidBy(process: UserProcess): boolean {
    if (this.mode === "none") return true;
    return this.memory === process.memory && (this.mode === "memory" || this.process.user === process.user);
  }

  get #account() {
    if (this.mode === "none") return undefined;
    return this.mode === "user" ? this.process.user.locked : this.memory.locked;
  }
}
