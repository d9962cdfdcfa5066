/**
 * Keys of regions: an index that finds one, and a variant that makes keys of before miss.
 *
 * Promises: an index that was given back comes with another variant; a key names one region or none.
 */
import { KEY } from "../../layouts/rdma/index.ts";

/** Indexes that a device has: 24 bits, without 0. */
const MOST = 2 ** 24 - 1;
/** Indexes that were given back and rest: the later one comes again, the more old keys have missed. */
const REST = 64;

/** What is registered, by key. */
export class Keys<Value> {
  readonly #values = new Map<number, { key: number; value: Value }>();
  readonly #free: number[] = [];
  readonly #variants = new Map<number, number>();
  #next = 1;

  get size(): number {
    return this.#values.size;
  }

  /** A new key that names nothing yet; undefined: there is none left. Give it back, or put something under it. */
  take(): number | undefined {
    const isLate = this.#free.length > REST || this.#next > MOST;
    const index = isLate ? this.#free.shift() : this.#next++;
    if (index === undefined) return undefined;
    return KEY.of(index, this.#variants.get(index) ?? 0);
  }

  put(key: number, value: Value): void {
    this.#values.set(KEY.index(key), { key, value });
  }

  /** What exactly this key names. */
  get(key: number): Value | undefined {
    const found = this.#values.get(KEY.index(key));
    return found?.key === key ? found.value : undefined;
  }

  /** The same index with the next variant, for what stays: keys of before miss. */
  renew(key: number): number {
    const next = KEY.of(KEY.index(key), KEY.variant(key) + 1);
    const found = this.#values.get(KEY.index(key));
    if (found) found.key = next;
    return next;
  }

  /** The key names nothing any more; its index may come again, with another variant. */
  giveBack(key: number): void {
    const index = KEY.index(key);
    this.#values.delete(index);
    this.#variants.set(index, KEY.variant(key) + 1);
    this.#free.push(index);
  }

  [Symbol.iterator](): Iterator<Value> {
    return [...this.#values.values()].map(({ value }) => value)[Symbol.iterator]();
  }
}
