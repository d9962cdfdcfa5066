/**
 * Quantiles of many whole numbers in little memory.
 *
 * Idea: values below 2048 are counted one by one; above that by their upper eleven bits, so that a quantile is off by a
 * thousandth at most. The largest and the smallest are exact. Cost: an addition a value, and at most 4 KiB for each power
 * of two that occurs. Not for: negative numbers.
 */

/** Values of one power of two that are told apart. */
const STEPS = 1024;
const EXACT = 2 * STEPS;

export class Quantiles {
  count = 0;
  max = 0;
  #min = Number.POSITIVE_INFINITY;
  /** Counts of small values; then, by power of two, counts by the bits behind the first. */
  readonly #small = new Uint32Array(EXACT);
  readonly #large: (Uint32Array | undefined)[] = [];

  add(value: number): void {
    this.count++;
    if (value > this.max) this.max = value;
    if (value < this.#min) this.#min = value;
    if (value < EXACT) {
      this.#small[value < 0 ? 0 : value]!++;
      return;
    }
    const power = Math.floor(Math.log2(value));
    let steps = this.#large[power];
    if (!steps) {
      steps = new Uint32Array(STEPS + 1);
      this.#large[power] = steps;
    }
    // At the borders of a power the logarithm may be one off: the step tells.
    steps[Math.min(STEPS, Math.max(0, Math.floor(value / 2 ** (power - 10)) - STEPS))]!++;
  }

  /** The value that a share of all lies below, 0 to 1; 0 if there is none. */
  at(share: number): number {
    const nth = Math.min(this.count - 1, Math.floor(this.count * share));
    let left = nth + 1;
    for (let value = 0; value < EXACT; value++) {
      left -= this.#small[value]!;
      if (left <= 0) return this.#inside(value);
    }
    for (const [power, steps] of this.#large.entries())
      for (let step = 0; steps && step <= STEPS; step++) {
        left -= steps[step]!;
        if (left <= 0) return this.#inside((STEPS + step + 0.5) * 2 ** (power - 10));
      }
    return this.max;
  }

  #inside(value: number): number {
    return Math.round(Math.min(this.max, Math.max(this.#min, value)));
  }
}
