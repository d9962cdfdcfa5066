/**
 * The range cache: recently freed ranges of 1, 2, 4, .. 32 granules, handed out again without asking the tree.
 *
 * Idea: per size class and CPU two magazines of 127 ranges, by id (the second one absorbs a run of frees or allocations
 * at the border), and per class a depot of full magazines that all CPUs share. Depots that are larger than the number
 * of CPUs are trimmed by one magazine every 100 ms. A cached range stays taken in the tree.
 * Promises: the same range as Linux for the same calls; magazines are reused, so steady work makes no garbage.
 * Not for: deciding what may be freed: that is `domain.ts`.
 * Specified by: behaviour of Linux 7.2 IOVA range caches, judged by test/golden/iova (kind iova-fast).
 */
import type { Clock, Timer } from "../platform/index.ts";
import { ANCHOR, log2Ceil, type OrderedRanges } from "./ordered-ranges.ts";

/** The longest range that Linux caches, granules: size classes 2^0 to 2^5. */
export const LARGEST_CACHED = 32;
const MAGAZINE_SIZE = 127;
const DEPOT_DELAY_MS = 100;

class Magazine {
  readonly ids: Int32Array = new Int32Array(MAGAZINE_SIZE);
  count = 0;
}

/** The two magazines of one class on one CPU. */
class Pair {
  loaded = new Magazine();
  previous = new Magazine();

  swap(): void {
    const loaded = this.loaded;
    this.loaded = this.previous;
    this.previous = loaded;
  }
}

interface Depot {
  readonly magazines: Magazine[];
  trim: Timer | undefined;
}

interface RangeCacheOptions {
  readonly cpus: number;
  /** Granules, a power of two: longer ranges are not cached. */
  readonly largest: number;
  /** Without one, depots are never trimmed. */
  readonly clock: Clock | undefined;
  readonly ranges: OrderedRanges;
  /** Gives a range back to the tree. */
  readonly freeToTree: (id: number) => void;
  /** False: there is no memory for one more magazine now. */
  readonly mayAllocate: () => boolean;
}

export class RangeCache {
  /** Index class * cpus + cpu. */
  readonly #pairs: readonly Pair[];
  readonly #depots: readonly Depot[];
  readonly #cpus: number;
  readonly #largest: number;
  /** Size classes: 2^0 to 2^(classes - 1) granules. */
  readonly classes: number;
  readonly #clock: Clock | undefined;
  readonly #ranges: OrderedRanges;
  readonly #freeToTree: (id: number) => void;
  readonly #mayAllocate: () => boolean;
  /** Empty magazines, to be used again. */
  readonly #spare: Magazine[] = [];

  constructor(options: RangeCacheOptions) {
    this.#cpus = options.cpus;
    this.#largest = options.largest;
    this.classes = log2Ceil(options.largest) + 1;
    this.#clock = options.clock;
    this.#ranges = options.ranges;
    this.#freeToTree = options.freeToTree;
    this.#mayAllocate = options.mayAllocate;
    this.#pairs = Array.from({ length: this.classes * options.cpus }, () => new Pair());
    this.#depots = Array.from({ length: this.classes }, () => ({ magazines: [], trim: undefined }));
  }

  /** Id of a cached range of 2^sizeClass granules that starts at `lastStart` or below; 0 if there is none. */
  get(sizeClass: number, lastStart: number, cpu: number): number {
    const pair = this.#pairs[sizeClass * this.#cpus + cpu]!;
    if (pair.loaded.count === 0 && !this.#reload(pair, sizeClass)) return ANCHOR;
    // the topmost one that will do; its place is filled with the last one
    const magazine = pair.loaded;
    const ids = magazine.ids;
    for (let i = magazine.count - 1; i >= 0; i--) {
      const id = ids[i]!;
      if (this.#ranges.owned(id) <= lastStart) {
        ids[i] = ids[--magazine.count]!;
        return id;
      }
    }
    return ANCHOR;
  }

  /** Caches a range that was freed as `granules`; false if it is too long or there is no room. */
  put(id: number, granules: number, cpu: number): boolean {
    if (granules > this.#largest) return false;
    const sizeClass = log2Ceil(granules);
    const pair = this.#pairs[sizeClass * this.#cpus + cpu]!;
    if (pair.loaded.count === MAGAZINE_SIZE && !this.#unload(pair, sizeClass)) return false;
    const magazine = pair.loaded;
    magazine.ids[magazine.count++] = id;
    return true;
  }

  /** Gives everything that one CPU's magazines hold back to the tree. */
  drainCpu(cpu: number): void {
    for (let sizeClass = 0; sizeClass < this.classes; sizeClass++) {
      const pair = this.#pairs[sizeClass * this.#cpus + cpu]!;
      this.#empty(pair.loaded);
      this.#empty(pair.previous);
    }
  }

  /** Gives everything back to the tree: every CPU, then the depots. */
  drain(): void {
    for (let cpu = 0; cpu < this.#cpus; cpu++) this.drainCpu(cpu);
    for (const { magazines } of this.#depots) {
      for (let full = magazines.pop(); full !== undefined; full = magazines.pop()) {
        this.#empty(full);
        this.#spare.push(full);
      }
    }
  }

  /** Stops the trimming; for the end of a domain. */
  stop(): void {
    for (const depot of this.#depots) {
      depot.trim?.cancel();
      depot.trim = undefined;
    }
  }

  /** What a class holds: [loaded, previous] per CPU, and the depot, newest magazine first. Entries bottom to top. */
  contents(sizeClass: number): { cpus: (readonly [number[], number[]])[]; depot: number[][] } {
    const entries = (magazine: Magazine): number[] =>
      Array.from(magazine.ids.subarray(0, magazine.count), (id) => this.#ranges.owned(id));
    return {
      cpus: this.#pairs
        .slice(sizeClass * this.#cpus, (sizeClass + 1) * this.#cpus)
        .map((pair) => [entries(pair.loaded), entries(pair.previous)] as const),
      depot: this.#depots[sizeClass]!.magazines.map(entries).reverse(),
    };
  }

  /** The loaded magazine is empty: takes the other one, or a full one from the depot. */
  #reload(pair: Pair, sizeClass: number): boolean {
    if (pair.previous.count > 0) {
      pair.swap();
      return true;
    }
    const full = this.#depots[sizeClass]!.magazines.pop();
    if (full === undefined) return false;
    this.#spare.push(pair.loaded);
    pair.loaded = full;
    return true;
  }

  /** The loaded magazine is full: takes the other one, or puts it in the depot and takes an empty one. */
  #unload(pair: Pair, sizeClass: number): boolean {
    if (pair.previous.count < MAGAZINE_SIZE) {
      pair.swap();
      return true;
    }
    if (!this.#mayAllocate()) return false;
    const depot = this.#depots[sizeClass]!;
    depot.magazines.push(pair.loaded);
    this.#scheduleTrim(depot);
    pair.loaded = this.#spare.pop() ?? new Magazine();
    return true;
  }

  #empty(magazine: Magazine): void {
    for (let i = 0; i < magazine.count; i++) this.#freeToTree(magazine.ids[i]!);
    magazine.count = 0;
  }

  #scheduleTrim(depot: Depot): void {
    depot.trim ??= this.#clock?.after(DEPOT_DELAY_MS, () => {
      depot.trim = undefined;
      if (depot.magazines.length <= this.#cpus) return;
      const full = depot.magazines.pop()!;
      this.#empty(full);
      this.#spare.push(full);
      this.#scheduleTrim(depot);
    });
  }
}
