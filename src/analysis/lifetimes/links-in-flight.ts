/**
 * Two-step links whose `iommu:map` events are still to come: a probe fires when the function is entered, and its maps follow.
 *
 * Idea: one link a CPU. A map belongs to the link of its own CPU that it lies in; of another CPU's only if the task is the same, which
 * then went here in between: another task's link at the same address is another device's.
 */

/** A two-step link whose `iommu:map` events are still to come on its CPU. */
export interface PendingLink {
  readonly row: number;
  readonly pid: number;
  readonly offset: number;
  readonly length: number;
  readonly phys: number;
  /** Device addresses. */
  readonly from: number;
  readonly to: number;
  /** Bytes that `iommu:map` events have mapped so far. */
  mapped: number;
}

export class LinksInFlight {
  /** By CPU. */
  readonly #links: (PendingLink | undefined)[] = [];
  #count = 0;

  /** A link begins on `cpu`: the maps that follow there are its. */
  begin(cpu: number, link: PendingLink): void {
    if (!this.#links[cpu]) this.#count++;
    this.#links[cpu] = link;
  }

  /** The link of `row`, taken out; `undefined`: none is in flight. Most often it is that of `cpu`. */
  take(row: number, cpu: number): PendingLink | undefined {
    if (this.#count === 0) return undefined;
    const at = this.#links[cpu]?.row === row ? cpu : this.#links.findIndex((link) => link?.row === row);
    const link = this.#links[at];
    if (!link) return undefined;
    this.#links[at] = undefined;
    this.#count--;
    return link;
  }

  /** The link that a map of [iova, iova + length) on `cpu` by `pid` belongs to. One that starts inside a page is mapped from its start. */
  at(iova: number, length: number, cpu: number, pid: number): PendingLink | undefined {
    if (this.#count === 0) return undefined;
    const lies = (link: PendingLink): boolean => link.from < iova + length && iova < link.to;
    const own = this.#links[cpu];
    if (own && lies(own)) return own;
    return this.#links.find((link) => link?.pid === pid && lies(link));
  }
}
