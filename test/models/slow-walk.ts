/**
 * The slow walk: the tree allocator as one sorted array, looked at gap by gap.
 *
 * Idea: too simple to be wrong. It is the model that tests hold `IovaAllocator` against, for addresses and for the number of
 * steps, and the peer in benchmarks. Not for: use, every operation is O(ranges).
 * Specified by: behaviour of Linux 7.2 IOVA tree allocation.
 */
interface Node {
  lo: number;
  readonly hi: number;
}

export class SlowWalk {
  /** Ascending; the last one closes the space. */
  readonly nodes: Node[] = [{ lo: 2 ** 53, hi: 2 ** 53 }];
  steps = 0;
  readonly #startPfn: number;
  readonly #dma32Pfn: number;
  readonly #alignCap: number;
  #cached: Node = this.nodes[0]!;
  #cached32: Node = this.nodes[0]!;
  #max32: number;

  constructor(startPfn: number, dma32Pfn: number = 2 ** 20, alignCap: number = Number.POSITIVE_INFINITY) {
    this.#startPfn = startPfn;
    this.#dma32Pfn = dma32Pfn;
    this.#alignCap = alignCap;
    this.#max32 = dma32Pfn;
  }

  allocate(size: number, limitPfn: number, aligned: boolean): number {
    const limit = limitPfn + 1;
    const low32 = limit <= this.#dma32Pfn;
    if (low32 && size >= this.#max32) return 0;
    let alignment = 1;
    while (aligned && alignment < size && alignment < this.#alignCap) alignment *= 2;
    const cached = low32 ? this.#cached32 : this.#cached;
    const anchor = this.nodes.length - 1;
    const passes = [
      { from: this.nodes.indexOf(cached), low: this.#startPfn },
      { from: low32 ? this.nodes.findIndex(({ lo }) => lo >= limit) : anchor, low: cached.hi + 1 },
    ];
    for (const { from, low } of cached.hi < limit ? passes : passes.slice(0, 1)) {
      for (let i = from; i >= 0; i--) {
        this.steps++;
        const high = Math.min(limit, this.nodes[i]!.lo);
        const at = Math.floor((high - size) / alignment) * alignment;
        if (at < low) break;
        if (i > 0 && at <= this.nodes[i - 1]!.hi) continue;
        const node = { lo: at, hi: at + size - 1 };
        this.nodes.splice(i, 0, node);
        if (node.hi < this.#dma32Pfn) this.#cached32 = node;
        else this.#cached = node;
        return at;
      }
    }
    this.#max32 = size;
    return 0;
  }

  free(pfn: number): void {
    const i = this.nodes.findIndex(({ lo, hi }) => lo <= pfn && pfn <= hi);
    const node = this.nodes[i]!;
    const next = this.nodes[i + 1]!;
    if (node === this.#cached32 || (node.hi < this.#dma32Pfn && node.lo >= this.#cached32.lo)) this.#cached32 = next;
    if (node.lo < this.#dma32Pfn) this.#max32 = this.#dma32Pfn;
    if (node.lo >= this.#cached.lo) this.#cached = next;
    this.nodes.splice(i, 1);
  }

  /** The union of what is taken and [lo, hi]: ranges in the way grow downward, the rest above them is new. */
  reserve(lo: number, hi: number): void {
    let rest = lo;
    for (const node of this.nodes) {
      if (node.hi < rest || node.lo > hi) continue;
      if (rest < node.lo) node.lo = rest;
      rest = node.hi + 1;
    }
    if (rest > hi) return;
    this.nodes.push({ lo: rest, hi });
    this.nodes.sort((a, b) => a.lo - b.lo);
  }

  /** What `IovaAllocator.inspect` must say, the cache left out. */
  get state(): { ranges: [number, number][]; cached?: number; cached32?: number; max32AllocSize: number } {
    const place = ({ lo }: Node): number | undefined => (lo === 2 ** 53 ? undefined : lo);
    return {
      ranges: this.nodes.slice(0, -1).map(({ lo, hi }) => [lo, hi]),
      cached: place(this.#cached)!,
      cached32: place(this.#cached32)!,
      max32AllocSize: this.#max32,
    };
  }
}
