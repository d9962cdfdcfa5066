/**
 * The flush queue of a lazy domain: unmapped ranges that wait for a whole-domain IOTLB flush before they are reused.
 *
 * Idea: rings, one per CPU (or one per domain, where a flush is dear); an entry is free only when a flush that *started*
 * after it was queued has finished. A full ring flushes at once; otherwise one timer per domain does.
 * Promises: no range and no table page leaves before such a flush, except by `drain` (the domain is detached by then).
 * Counts: `flushQueueEntries` here; `domainInvalidations` by whoever `flushDomain` is.
 * Specified by: behaviour of Linux 7.2 deferred flush, judged by test/golden/iova (kind iova-dma).
 */
import type { Counters } from "../base/index.ts";
import type { Clock, Timer } from "../platform/index.ts";

/** When a queue flushes, and what it does then. */
export interface FlushQueueOptions<Tables> {
  /** One ring per CPU of 256 slots and 10 ms (default), or one ring of 32768 slots and 1000 ms. */
  readonly variant?: "per-cpu" | "single";
  /** How many CPUs there are: as many rings, unless there is a single one. */
  readonly cpus: number;
  /** The CPU that frees, in [0, cpus): its ring is used. */
  readonly currentCpu: () => number;
  /** Time of the flush timer. */
  readonly clock: Clock;
  /** Counted into: `flushQueueEntries`. */
  readonly counters: Counters;
  /** Invalidates the whole domain's IOTLB and waits for it. Must not throw. */
  readonly flushDomain: () => void;
  /** Frees the table pages that an unmap took out. */
  readonly freeTables: (tables: Tables) => void;
  /** Hands a range back to the allocator. */
  readonly recycle: (pfn: number, granules: number) => void;
}

class Ring<Tables> {
  readonly pfns: Float64Array;
  readonly granules: Float64Array;
  readonly counters: Float64Array;
  readonly tables: (Tables | undefined)[];
  head = 0;
  tail = 0;

  constructor(slots: number) {
    this.pfns = new Float64Array(slots);
    this.granules = new Float64Array(slots);
    this.counters = new Float64Array(slots);
    this.tables = new Array<Tables | undefined>(slots).fill(undefined);
  }
}

/**
 * Lazy invalidation: ranges wait here until one flush of the whole domain lets all of them go. Linux 7.2's queue: 256
 * entries for each CPU, 10 ms.
 */
export class FlushQueue<Tables> {
  readonly #rings: readonly Ring<Tables>[];
  /** Slots - 1; the number of slots is a power of two. */
  readonly #mask: number;
  readonly #timeoutMs: number;
  readonly #options: FlushQueueOptions<Tables>;
  #flushStart = 0;
  #flushFinish = 0;
  #timer: Timer | undefined;

  /** Empty; takes its rings at once. */
  constructor(options: FlushQueueOptions<Tables>) {
    const single = options.variant === "single";
    const slots = single ? 32768 : 256;
    this.#options = options;
    this.#mask = slots - 1;
    this.#timeoutMs = single ? 1000 : 10;
    this.#rings = Array.from({ length: single ? 1 : options.cpus }, () => new Ring<Tables>(slots));
  }

  /** How far flushes are, and what waits: for tests and dumps. */
  get state(): {
    /** Flushes started. */
    flushStart: number;
    /** Flushes finished. */
    flushFinish: number;
    /** [head, tail] of each ring. */
    rings: [number, number][];
  } {
    return {
      flushStart: this.#flushStart,
      flushFinish: this.#flushFinish,
      rings: this.#rings.map(({ head, tail }) => [head, tail]),
    };
  }

  /** Parks a range with its table pages. O(1) and what has become free; one flush when the ring is full. */
  queue(pfn: number, granules: number, tables: Tables | undefined): void {
    const ring = this.#rings.length === 1 ? this.#rings[0]! : this.#rings[this.#options.currentCpu()]!;
    this.#freeCompleted(ring);
    const tail = ring.tail;
    const next = (tail + 1) & this.#mask;
    if (next === ring.head) {
      this.#flush();
      this.#freeCompleted(ring);
    }
    ring.pfns[tail] = pfn;
    ring.granules[tail] = granules;
    ring.tables[tail] = tables;
    ring.counters[tail] = this.#flushStart;
    ring.tail = next;
    this.#options.counters.flushQueueEntries++;
    this.#timer ??= this.#options.clock.after(this.#timeoutMs, () => {
      this.#timer = undefined;
      this.flush();
    });
  }

  /** Flushes now and frees everything that waited. */
  flush(): void {
    this.#flush();
    for (const ring of this.#rings) this.#freeCompleted(ring);
  }

  /** Frees everything without a flush and stops the timer: for a domain that no device is attached to any more. */
  drain(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    for (const ring of this.#rings) while (ring.head !== ring.tail) this.#freeHead(ring);
  }

  #flush(): void {
    this.#flushStart++;
    this.#options.flushDomain();
    this.#flushFinish++;
  }

  #freeCompleted(ring: Ring<Tables>): void {
    while (ring.head !== ring.tail && ring.counters[ring.head]! < this.#flushFinish) this.#freeHead(ring);
  }

  #freeHead(ring: Ring<Tables>): void {
    const head = ring.head;
    const tables = ring.tables[head];
    if (tables !== undefined) {
      ring.tables[head] = undefined;
      this.#options.freeTables(tables);
    }
    this.#options.recycle(ring.pfns[head]!, ring.granules[head]!);
    ring.head = (head + 1) & this.#mask;
  }
}
