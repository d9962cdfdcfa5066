/**
 * The slow space: the whole IOVA allocator with plain arrays: {@link SlowWalk}, magazines, depots, trimming, the
 * 32-bit-first rule, the flush queue, and the named deviations.
 *
 * Idea: too simple to be wrong; written from the specification, sharing nothing with `src/iova`.
 * Not for: use. Specified by: behaviour of Linux 7.2 IOVA allocation and deferred flush.
 */
import { ManualClock } from "./manual-clock.ts";
import { SlowWalk } from "./slow-walk.ts";

interface Entry {
  readonly pfn: number;
  readonly granules: number;
  readonly id: number;
  /** Flushes that had started when it was queued. */
  readonly started: number;
}

export interface SlowDevice {
  prefer32: boolean;
  readonly busLimitPfn: number;
  lostAt?: number;
}

export interface SlowSpaceOptions {
  readonly cpus: number;
  readonly variant?: "per-cpu" | "single";
  readonly lazy: boolean;
  readonly aperturePfn: number;
  readonly freeAllocatedSize?: boolean;
  readonly flushOnExhaustion?: boolean;
  readonly recover32?: number;
  readonly alignCap?: number;
}

export class SlowSpace {
  readonly walk: SlowWalk;
  readonly clock: ManualClock = new ManualClock();
  cpu = 0;
  flushes = 0;
  /** Ids of queue entries in the order they left. */
  readonly left: number[] = [];
  /** First page and length of what is in use. */
  readonly allocated: Map<number, number> = new Map();
  readonly rings: Entry[][];
  readonly #options: SlowSpaceOptions;
  readonly #classes: { cpus: { loaded: number[]; previous: number[] }[]; depot: number[][]; trimming: boolean }[];
  #timerOn = false;
  #frees32 = 0;

  constructor(options: SlowSpaceOptions) {
    this.#options = options;
    this.walk = new SlowWalk(1, 2 ** 20, options.alignCap);
    this.#classes = [0, 1, 2, 3, 4, 5].map(() => ({
      cpus: Array.from({ length: options.cpus }, () => ({ loaded: [], previous: [] })),
      depot: [],
      trimming: false,
    }));
    this.rings = Array.from({ length: options.variant === "single" ? 1 : options.cpus }, () => []);
  }

  allocateFast(granules: number, limit: number, drain: boolean): number {
    const size = granules <= 32 ? 2 ** Math.ceil(Math.log2(granules)) : granules;
    const cached = granules <= 32 ? this.#pop(Math.log2(size), limit + 1 - size) : 0;
    let pfn = cached || this.walk.allocate(size, limit, true);
    if (pfn === 0 && drain) {
      this.drain();
      pfn = this.walk.allocate(size, limit, true);
    }
    if (pfn !== 0) this.allocated.set(pfn, size);
    return pfn;
  }

  freeFast(pfn: number, granules: number): void {
    this.allocated.delete(pfn);
    this.#recycle(pfn, granules);
  }

  allocate(granules: number, mask: number, device: SlowDevice): number {
    const { aperturePfn, recover32, flushOnExhaustion, lazy } = this.#options;
    const limit = Math.min(mask, device.busLimitPfn || mask, aperturePfn);
    if (recover32 !== undefined && device.lostAt !== undefined && limit > 0xfffff)
      if (this.#frees32 - device.lostAt >= recover32) {
        device.prefer32 = true;
        delete device.lostAt;
      }
    if (limit > 0xfffff && device.prefer32) {
      const pfn = this.allocateFast(granules, 0xfffff, false);
      if (pfn !== 0) return pfn;
      device.prefer32 = false;
      if (recover32 !== undefined) device.lostAt = this.#frees32;
    }
    const pfn = this.allocateFast(granules, limit, true);
    if (pfn !== 0 || !flushOnExhaustion || !lazy) return pfn;
    this.flush();
    return this.allocateFast(granules, limit, true);
  }

  free(pfn: number, granules: number): void {
    if (pfn <= 0xfffff) this.#frees32++;
    this.freeFast(pfn, this.#options.freeAllocatedSize ? this.allocated.get(pfn)! : granules);
  }

  queue(pfn: number, granules: number, id: number): void {
    if (!this.#options.lazy) {
      this.free(pfn, granules);
      return;
    }
    const length = this.#options.freeAllocatedSize ? this.allocated.get(pfn)! : granules;
    this.allocated.delete(pfn);
    const ring = this.rings[this.rings.length === 1 ? 0 : this.cpu]!;
    this.#freeCompleted(ring);
    if (ring.length === (this.#options.variant === "single" ? 32767 : 255)) {
      this.flushes++;
      this.#freeCompleted(ring);
    }
    ring.push({ pfn, granules: length, id, started: this.flushes });
    if (!this.#timerOn) {
      this.#timerOn = true;
      this.clock.after(this.#options.variant === "single" ? 1000 : 10, () => {
        this.#timerOn = false;
        this.flush();
      });
    }
    if (pfn <= 0xfffff) this.#frees32++;
  }

  flush(): void {
    this.flushes++;
    for (const ring of this.rings) this.#freeCompleted(ring);
  }

  drain(): void {
    for (let cpu = 0; cpu < this.#options.cpus; cpu++) this.drainCpu(cpu);
    for (const { depot } of this.#classes) while (depot.length > 0) this.#toTree(depot.pop()!);
  }

  drainCpu(cpu: number): void {
    for (const { cpus } of this.#classes) {
      this.#toTree(cpus[cpu]!.loaded);
      this.#toTree(cpus[cpu]!.previous);
    }
  }

  /** Per class what `IovaAllocator.inspect` must say of the cache. */
  get cache(): { cpus: [number[], number[]][]; depot: number[][] }[] {
    return this.#classes.map(({ cpus, depot }) => ({
      cpus: cpus.map(({ loaded, previous }) => [loaded, previous]),
      depot: [...depot].reverse(),
    }));
  }

  #pop(sizeClass: number, lastStart: number): number {
    const { cpus, depot } = this.#classes[sizeClass]!;
    const pair = cpus[this.cpu]!;
    if (pair.loaded.length === 0) {
      if (pair.previous.length > 0) [pair.loaded, pair.previous] = [pair.previous, pair.loaded];
      else if (depot.length > 0) pair.loaded = depot.pop()!;
      else return 0;
    }
    const { loaded } = pair;
    const i = loaded.findLastIndex((pfn) => pfn <= lastStart);
    if (i < 0) return 0;
    const pfn = loaded[i]!;
    loaded[i] = loaded.at(-1)!;
    loaded.pop();
    return pfn;
  }

  #recycle(pfn: number, granules: number): void {
    if (granules > 32) {
      this.walk.free(pfn);
      return;
    }
    const group = this.#classes[Math.ceil(Math.log2(granules))]!;
    const pair = group.cpus[this.cpu]!;
    if (pair.loaded.length === 127) {
      if (pair.previous.length < 127) [pair.loaded, pair.previous] = [pair.previous, pair.loaded];
      else {
        group.depot.push(pair.loaded);
        pair.loaded = [];
        this.#trimLater(group);
      }
    }
    pair.loaded.push(pfn);
  }

  #trimLater(group: { depot: number[][]; trimming: boolean }): void {
    if (group.trimming) return;
    group.trimming = true;
    this.clock.after(100, () => {
      group.trimming = false;
      if (group.depot.length <= this.#options.cpus) return;
      this.#toTree(group.depot.pop()!);
      this.#trimLater(group);
    });
  }

  #toTree(magazine: number[]): void {
    for (const pfn of magazine) this.walk.free(pfn);
    magazine.length = 0;
  }

  #freeCompleted(ring: Entry[]): void {
    while (ring.length > 0 && ring[0]!.started < this.flushes) {
      const { id, pfn, granules } = ring.shift()!;
      this.left.push(id);
      this.#recycle(pfn, granules);
    }
  }
}
