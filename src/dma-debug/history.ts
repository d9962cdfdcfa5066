/**
 * What was mapped not long ago: so that a finding about a second unmap, a late sync or a late access can name the mapping.
 *
 * Promises: bounded; the oldest goes when a new one comes.
 */
import type { PastMapping } from "./records.ts";
import { Spans } from "./spans.ts";

export class History {
  readonly #limit: number;
  readonly #ring: PastMapping[] = [];
  #next = 0;
  readonly #spans = new Spans<PastMapping>(
    ({ address }) => address,
    ({ length }) => length,
  );

  constructor(limit: number) {
    this.#limit = limit;
  }

  add(past: PastMapping): void {
    if (this.#limit === 0) return;
    if (this.#ring.length === this.#limit) this.#spans.delete(this.#ring[this.#next]!);
    this.#ring[this.#next] = past;
    this.#next = (this.#next + 1) % this.#limit;
    this.#spans.add(past);
  }

  /** The latest that had a byte of [address, + length). */
  latest(address: number, length: number): PastMapping | undefined {
    let latest: PastMapping | undefined;
    for (const past of this.#spans.overlapping(address, length))
      if (latest === undefined || past.order > latest.order) latest = past;
    return latest;
  }
}
