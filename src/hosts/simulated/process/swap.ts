/**
 * Swap: where pages lie that had to leave memory, a slot for each, and who still wants what is in it.
 *
 * Idea: a slot is counted by the entries that name it (a fork makes them several) and by work under way. A page that came back while
 * others still name its slot is remembered, so that they get the same page and not another copy (the swap cache).
 * Promises: a slot is free again with its last user; a page of zeros costs no memory here either.
 * Not for: which page goes (reclaim.ts); how one comes back (swap-in.ts). Specified by: behaviour of Linux 7.2 (swap_map, swap cache).
 */
import { assert, PAGE_SIZE } from "../../../base/index.ts";

/** A page of memory that knows its slot. */
interface Cached {
  swapSlot: number | undefined;
}

interface Slot<Page> {
  /** undefined: nothing but zeros. */
  bytes: Uint8Array | undefined;
  /** Entries that name it, and work under way. */
  users: number;
  /** The page that has come back, or is on its way in or out. */
  folio: Page | undefined;
}

/** Is every byte of a page 0? */
export function isZeroFilled(bytes: Uint8Array): boolean {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  for (let i = 0; i < words.length; i++) if (words[i] !== 0) return false;
  return true;
}

/** Room for pages outside of memory. */
export class SwapSpace<Page extends Cached> {
  /** Slots there are. */
  readonly pages: number;
  /** Pages that went out, and that came back, since the start. */
  readonly counts: { out: number; in: number } = { out: 0, in: 0 };
  readonly #slots = new Map<number, Slot<Page>>();
  readonly #free: number[] = [];
  readonly #letGo: (folio: Page) => void;
  #next = 0;

  /** @param letGo the cache holds a page no more */
  constructor(pages: number, letGo: (folio: Page) => void) {
    this.pages = pages;
    this.#letGo = letGo;
  }

  /** Slots that are in use. */
  get inUse(): number {
    return this.#slots.size;
  }

  /** A slot with one user, the caller; undefined: all are full. */
  take(): number | undefined {
    const number = this.#free.pop() ?? (this.#next < this.pages ? this.#next++ : undefined);
    if (number !== undefined) this.#slots.set(number, { bytes: undefined, users: 1, folio: undefined });
    return number;
  }

  /** One more user. */
  share(number: number): void {
    this.#at(number).users++;
  }

  /** One user less; the last frees the slot. */
  drop(number: number): void {
    const slot = this.#at(number);
    slot.users--;
    if (slot.users > 0) return;
    this.uncache(number);
    this.#slots.delete(number);
    this.#free.push(number);
  }

  usersOf(number: number): number {
    return this.#at(number).users;
  }

  /** The page that has the slot's contents in memory. */
  cached(number: number): Page | undefined {
    return this.#at(number).folio;
  }

  /** `folio` has what the slot has, or is about to. The cache holds it: the caller has counted that. */
  cache(number: number, folio: Page): void {
    const slot = this.#at(number);
    assert(slot.folio === undefined, `swap slot ${number} has a page in memory already`);
    slot.folio = folio;
    folio.swapSlot = number;
  }

  /** The cache forgets its page, and holds it no more. */
  uncache(number: number): void {
    const slot = this.#at(number);
    const { folio } = slot;
    if (!folio) return;
    slot.folio = undefined;
    folio.swapSlot = undefined;
    this.#letGo(folio);
  }

  /** Puts a page's contents there: the array is the slot's from now on. */
  store(number: number, bytes: Uint8Array): void {
    this.#at(number).bytes = isZeroFilled(bytes) ? undefined : bytes;
    this.counts.out++;
  }

  /** Reads from byte `offset` on. */
  read(number: number, offset: number, into: Uint8Array): void {
    const { bytes } = this.#at(number);
    if (bytes) into.set(bytes.subarray(offset, offset + into.length));
    else into.fill(0);
  }

  /** Makes bytes [start, end) zero. */
  clear(number: number, start: number, end: number): void {
    const slot = this.#at(number);
    if (start <= 0 && end >= PAGE_SIZE) slot.bytes = undefined;
    else slot.bytes?.fill(0, start, end);
  }

  #at(number: number): Slot<Page> {
    const slot = this.#slots.get(number);
    assert(slot !== undefined, `swap slot ${number} is nobody's`);
    return slot;
  }
}
