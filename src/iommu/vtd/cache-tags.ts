/**
 * Cache tags of a domain: the caches that may hold its translations, in the order they are told to forget.
 *
 * Idea: an IOTLB tag stands for (domain id, PASID) and is shared by the devices there, counted; a device TLB tag is one
 * device's. A tag joins at the end, so the IOTLB is always told before the device TLBs that are refilled from it.
 * A range goes through the list once: one descriptor per tag, sixteen to a submission.
 * Promises: forgetting neither throws nor allocates.
 * Specified by: behaviour of Linux 7.2 (drivers/iommu/intel/cache.c); judged by test/golden/dma-api.
 */
import { type IovaPage, type Observer, PAGE_SIZE } from "../../base/index.ts";
import {
  blockPages,
  blockStart,
  coveringOrder,
  type DeviceTlb,
  END_OF_PAGES,
  EVERYTHING,
  type VtdCacheTag,
  type VtdInvalidationTraits,
  writeDeviceTlbRange,
  writeFirstStageRange,
  writeSecondStageRange,
} from "../../layouts/invalidation/index.ts";
import type { InvalidationQueue } from "./invalidation-queue.ts";

interface Counted {
  readonly tag: VtdCacheTag;
  references: number;
}

const isSame = (a: VtdCacheTag, b: VtdCacheTag): boolean => {
  if (a.cache === "iotlb")
    return b.cache === "iotlb" && a.stage === b.stage && a.domainId === b.domainId && a.pasid === b.pasid;
  return (
    b.cache === "device-tlb" && a.device.sourceId === b.device.sourceId && a.pasid === b.pasid && a.whole === b.whole
  );
};

export class CacheTags {
  readonly #tags: Counted[] = [];
  readonly #queue: InvalidationQueue;
  readonly #unit: VtdInvalidationTraits;
  readonly #observer: Observer | undefined;

  constructor(queue: InvalidationQueue, unit: VtdInvalidationTraits, observer: Observer | undefined) {
    this.#queue = queue;
    this.#unit = unit;
    this.#observer = observer;
  }

  get size(): number {
    return this.#tags.length;
  }

  /** Second-stage tables only: a unit in caching mode remembers that their entries were absent. */
  get remembersAbsence(): boolean {
    const first = this.#tags[0]?.tag;
    return first?.cache === "iotlb" && first.stage === "second";
  }

  add(tag: VtdCacheTag): void {
    const same = this.#tags.find((counted) => isSame(counted.tag, tag));
    if (same) same.references++;
    else this.#tags.push({ tag, references: 1 });
  }

  remove(tag: VtdCacheTag): void {
    const index = this.#tags.findIndex((counted) => isSame(counted.tag, tag));
    if (index >= 0 && --this.#tags[index]!.references === 0) this.#tags.splice(index, 1);
  }

  /** Every cache forgets pages [start, end); with `leafOnly` the units may keep pointers to tables. */
  forget(start: IovaPage, end: IovaPage, leafOnly: boolean): void {
    const order = coveringOrder(start, end);
    const tags = this.#tags;
    for (let i = 0; i < tags.length; i++) {
      const { tag } = tags[i]!;
      if (tag.cache === "iotlb") this.#iotlb(tag.stage, tag.domainId, tag.pasid, start, end, order, leafOnly);
      else this.#deviceTlb(tag.device, tag.pasid, tag.whole, tag.twice, start, end);
      if (this.#observer !== undefined) this.#announce("unmap", start, end, order);
    }
    this.#queue.submit(false);
  }

  /**
   * The units forget that pages [start, end) were absent. Devices remember no absence, so nothing is sent to them; they
   * are announced all the same, as Linux does. True if something was sent.
   */
  forgetAbsent(start: IovaPage, end: IovaPage): boolean {
    const order = coveringOrder(start, end);
    const tags = this.#tags;
    for (let i = 0; i < tags.length; i++) {
      const { tag } = tags[i]!;
      if (tag.cache === "iotlb") this.#iotlb(tag.stage, tag.domainId, tag.pasid, start, end, order, false);
      if (this.#observer !== undefined) this.#announce("map", start, end, order);
    }
    this.#queue.submit(false);
    return tags.length > 0;
  }

  #iotlb(
    stage: "first" | "second",
    domainId: number,
    pasid: number,
    start: IovaPage,
    end: IovaPage,
    order: number,
    leafOnly: boolean,
  ): void {
    const queue = this.#queue;
    const { counts } = queue;
    const { pageSelective, maxOrder } = this.#unit;
    if (stage === "first" ? order < EVERYTHING : pageSelective && order <= maxOrder) {
      counts.pagesRequested += end - start;
      counts.pagesInvalidated += blockPages(order);
    } else counts.wholeInvalidations++;
    if (stage === "second") writeSecondStageRange(queue.words, queue.at, this.#unit, domainId, start, end, leafOnly);
    else writeFirstStageRange(queue.words, queue.at, domainId, pasid, start, end, leafOnly);
    queue.push();
  }

  #deviceTlb(device: DeviceTlb, pasid: number, whole: boolean, twice: boolean, start: IovaPage, end: IovaPage): void {
    const queue = this.#queue;
    if (queue.hasGivenUp(device.sourceId)) return;
    const first = whole ? (0 as IovaPage) : start;
    const after = whole ? END_OF_PAGES : end;
    for (let times = twice ? 2 : 1; times > 0; times--) {
      writeDeviceTlbRange(queue.words, queue.at, device, pasid, first, after);
      queue.push();
    }
  }

  #announce(why: "unmap" | "map", start: IovaPage, end: IovaPage, order: number): void {
    const block = blockStart(start, order) * PAGE_SIZE;
    this.#observer!.cacheInvalidated?.(why, start * PAGE_SIZE, end * PAGE_SIZE - 1, block, order);
  }
}
