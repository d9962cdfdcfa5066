/**
 * What a benchmark is: a value, so that it can be listed, run small in the check, or run in full by hand.
 *
 * A benchmark lives beside the code it measures (`*.bench.ts`) and exports `benches`. Its contenders do the same work
 * and are run interleaved; the first is the one judged, the others are its peers. Each returns a hash of what it
 * computed, so that nobody makes it faster by making it do something else. `tools/bench.ts` runs them.
 */
import type { Random } from "../src/base/index.ts";

export interface Bench {
  readonly name: string;
  /** What one unit of work is: "page", "operation", "event". */
  readonly unit: string;
  /** Units per round: in the check, and in full. */
  readonly smoke: number;
  readonly full: number;
  readonly contenders: readonly Contender[];
  /** The goal it belongs to (docs/performance.md), and the bound on `ours / peer`. */
  readonly goal?: { readonly number: number; readonly peer: string; readonly atMost: number };
  /** Contenders that must compute the same hash. All, unless said. */
  readonly sameHash?: boolean;
}

export type Contender =
  | {
      readonly name: string;
      /** Prepares, unmeasured; the function it returns does about `units` units of work and is timed. */
      readonly prepare: (random: Random) => (units: number) => Result | Promise<Result>;
    }
  | {
      readonly name: string;
      /** A case of the hand-written C yardstick in bench/native; absent where there is no C compiler. */
      readonly native: string;
    };

export interface Result {
  /** Units of work really done. */
  readonly units: number;
  readonly hash: number;
}

/** FNV-1a over 32-bit numbers: start with {@link HASH}, and fold each result in. */
export const HASH = 0x811c9dc5;
export const fold = (hash: number, value: number): number => Math.imul(hash ^ (value | 0), 0x01000193) >>> 0;
