/**
 * The TLB of a simulated device (PCIe address translation services): translations that it keeps and uses by itself.
 *
 * Specified by: PCIe 6.0, 10.
 */
import { type Cached, TranslationCache } from "./translation-cache.ts";

/**
 * What the device makes of an invalidation: it obeys; it answers and forgets nothing; or it does not answer at all.
 */
export type DeviceTlbManners = "obeys" | "ignores" | "silent";

/** A device's own translations (PCIe ATS): kept until the unit tells it to forget. */
export class DeviceTlb {
  /** How it behaves when it is told to forget. */
  manners: DeviceTlbManners = "obeys";
  /** Invalidations that it was sent. */
  invalidations = 0;
  readonly #byPasid = new Map<number, TranslationCache>();

  /** What it holds for `page` (4 KiB) of this PASID, -1 for requests without; undefined: it must ask the unit. */
  get(pasid: number, page: number): Cached | undefined {
    return this.#byPasid.get(pasid)?.get(page);
  }

  /** Keeps an answer of the unit for `page`. */
  set(pasid: number, page: number, entry: Cached): void {
    let cache = this.#byPasid.get(pasid);
    if (!cache) {
      cache = new TranslationCache();
      this.#byPasid.set(pasid, cache);
    }
    cache.set(page, entry);
  }

  /** An invalidation of pages [start, end) arrives. False: no answer will come. */
  invalidate(pasid: number, start: number, end: number): boolean {
    this.invalidations++;
    if (this.manners === "obeys") this.#byPasid.get(pasid)?.forget(start, end);
    return this.manners !== "silent";
  }

  /** Translations that it holds. */
  get size(): number {
    let size = 0;
    for (const cache of this.#byPasid.values()) size += cache.size;
    return size;
  }
}
