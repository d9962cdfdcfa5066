/**
 * Chance as an argument: a run is a function of its seed.
 *
 * Idea: each part of a run forks its own named stream, so that a new draw in one part does not shift the others.
 * The generator is xoshiro128** (Blackman and Vigna, public domain), seeded by splitmix32 over the seed and the name.
 * Odds are whole numbers. Not for: secrets.
 */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;
  readonly #seed: number;

  private constructor(seed: number) {
    this.#seed = seed >>> 0;
    let state = this.#seed;
    const next = (): number => {
      state = (state + 0x9e3779b9) | 0;
      let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
      return (mixed ^ (mixed >>> 15)) >>> 0;
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next() | 1; // never all zero
  }

  /** The stream of a seed: any safe integer. */
  static fromSeed(seed: number): Random {
    return new Random((seed % 0x1_0000_0000) ^ Math.floor(seed / 0x1_0000_0000));
  }

  /** An independent stream, named; the same name gives the same stream whatever was drawn before. */
  fork(name: string): Random {
    let hash = this.#seed ^ 0x811c9dc5;
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
    return new Random(hash);
  }

  /** 32 random bits, as an unsigned number. */
  bits(): number {
    const result = Math.imul(rotate(Math.imul(this.#b, 5), 7), 9);
    const shifted = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= shifted;
    this.#d = rotate(this.#d, 11);
    return result >>> 0;
  }

  /** A whole number in [0, limit), for limits up to 2^53. */
  below(limit: number): number {
    if (limit <= 0x1_0000_0000) return Math.floor((this.bits() / 0x1_0000_0000) * limit);
    const wide = (this.bits() & 0x1f_ffff) * 0x1_0000_0000 + this.bits();
    return wide % limit;
  }

  /** A whole number in [low, high]. */
  between(low: number, high: number): number {
    return low + this.below(high - low + 1);
  }

  /** True `odds` times in `outOf`. */
  chance(odds: number, outOf: number): boolean {
    return this.below(outOf) < odds;
  }

  /** One of `items`, each as likely as the others; draws once. `items` must not be empty. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }

  /** Reorders `items` in place. */
  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j]!, items[i]!];
    }
    return items;
  }
}

/** Valid for amounts of 1..31. */
const rotate = (value: number, amount: number): number => (value << amount) | (value >>> (32 - amount));
