/**
 * Watched ranges of an address space, and the sequence by which a reader learns that something changed meanwhile.
 *
 * Idea: a change is announced before it is made and ends when it is done. The number of the space is odd while any change is under
 * way; each watcher that overlaps one takes that odd number. A reader that began with another number than the watcher has now, or
 * while the watcher's number is the space's odd one, has read something untrue.
 * Promises: a watcher hears of every change of its range, before it, with the range uncut.
 * Specified by: behaviour of Linux 7.2 mmu interval notifiers.
 */
import { assert, PAGE_SIZE } from "../../../base/index.ts";
import {
  type IntervalNotifier,
  type Invalidation,
  type InvalidationCallback,
  type InvalidationKind,
  type MemoryOwner,
  UserAddr,
} from "../../../platform/index.ts";

class Watch implements IntervalNotifier {
  readonly start: UserAddr;
  readonly end: UserAddr;
  readonly callback: InvalidationCallback;
  /** Migrations by this owner are the watcher's own doing. */
  readonly own: MemoryOwner | undefined;
  /** The space's number when the range was last invalidated. */
  sequence: number;
  readonly #all: Notifiers;

  constructor(all: Notifiers, start: UserAddr, end: UserAddr, callback: InvalidationCallback, own?: MemoryOwner) {
    this.#all = all;
    this.start = start;
    this.end = end;
    this.callback = callback;
    this.own = own;
    this.sequence = all.sequence - 1;
  }

  get isInvalidating(): boolean {
    return this.sequence === this.#all.sequence;
  }

  readBegin(): number {
    return this.isInvalidating ? Number.NaN : this.sequence;
  }

  retry(sequence: number): boolean {
    return this.sequence !== sequence; // NaN is never equal
  }

  remove(): void {
    this.#all.remove(this);
  }
}

export class Notifiers {
  /** Odd while a change is under way. */
  sequence = 2;
  #active = 0;
  readonly #watches = new Set<Watch>();

  get isEmpty(): boolean {
    return this.#watches.size === 0;
  }

  watch(start: UserAddr, end: UserAddr, callback: InvalidationCallback, own?: MemoryOwner): IntervalNotifier {
    // A change that is under way was announced to others: whoever comes now has to wait for its end as they do.
    if (this.#active > 0 && this.sequence % 2 === 0) this.sequence++;
    const watch = new Watch(this, start, end, callback, own);
    if (this.#active > 0) watch.sequence = this.sequence;
    this.#watches.add(watch);
    return watch;
  }

  remove(watch: Watch): void {
    this.#watches.delete(watch);
  }

  /** Pages [start, end) are about to change. To be followed by {@link end}. */
  begin(kind: InvalidationKind, start: number, end: number, owner?: MemoryOwner): void {
    this.#active++;
    if (this.#watches.size === 0) return;
    if (this.sequence % 2 === 0) this.sequence++;
    const invalidation: Invalidation = {
      kind,
      start: UserAddr(start * PAGE_SIZE),
      end: UserAddr(end * PAGE_SIZE),
      owner,
      mayBlock: true,
    };
    for (const watch of this.#watches) {
      if (watch.start >= invalidation.end || watch.end <= invalidation.start) continue;
      if (kind === "migrate" && owner !== undefined && watch.own === owner) continue;
      watch.sequence = this.sequence;
      watch.callback(invalidation);
    }
  }

  /** The change that was announced is made. */
  end(): void {
    this.#active--;
    assert(this.#active >= 0, "a change ended that never began");
    if (this.#active === 0 && this.sequence % 2 === 1) this.sequence++;
  }
}
