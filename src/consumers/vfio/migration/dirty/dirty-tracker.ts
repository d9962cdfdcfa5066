/**
 * All that is known of writes to a guest's memory, put together.
 *
 * Promises: a page is dirty if any source says so; if one cannot be trusted, everything is, and it is said how often that was.
 * A tracker whose start fails has stopped what it started.
 */
import { DirtyBitmap } from "./dirty-bitmap.ts";
import type { DirtySource } from "./dirty-sources.ts";
import type { RamLayout } from "./ram-layout.ts";

/** What a source told. */
export interface SourceCounts {
  /** Pages, over all rounds; one that is told in two rounds counts twice. */
  pages: number;
  /** Times that it could not be trusted. */
  failures: number;
}

/** Asks every source of writes; a page is dirty if any of them says so, and all are where one cannot answer. */
export class DirtyTracker {
  readonly #sources: readonly DirtySource[];
  readonly #ram: RamLayout;
  readonly #counts = new Map<string, SourceCounts>();
  #started: DirtySource[] = [];

  /** Nothing is tracked before it is started. */
  constructor(sources: readonly DirtySource[], ram: RamLayout) {
    this.#sources = sources;
    this.#ram = ram;
    for (const { name } of sources) this.#counts.set(name, { pages: 0, failures: 0 });
  }

  /** By name of source. */
  get counts(): ReadonlyMap<string, Readonly<SourceCounts>> {
    return this.#counts;
  }

  /** @throws DmaError what a source says; none runs then */
  start(): void {
    for (const source of this.#sources) {
      try {
        source.start();
      } catch (error) {
        this.stop();
        throw error;
      }
      this.#started.push(source);
    }
  }

  /** Cannot fail. */
  stop(): void {
    for (const source of this.#started.reverse()) source.stop();
    this.#started = [];
  }

  /** Sets in `bitmap` what was written since the last time. False: a source failed, and everything is set. */
  collect(bitmap: DirtyBitmap): boolean {
    let isTrusted = true;
    for (const source of this.#sources) {
      const told = new DirtyBitmap(this.#ram.pageCount);
      const counts = this.#counts.get(source.name)!;
      try {
        source.collect((first, count) => told.set(first, count));
        counts.pages += told.count;
        bitmap.add(told);
      } catch {
        // Part of it may have been told and forgotten: nothing less than everything will do. From here on it may be good again.
        counts.failures++;
        isTrusted = false;
        restart(source);
      }
    }
    if (!isTrusted) bitmap.setAll();
    return isTrusted;
  }
}

/** A source that cannot start again fails the next time too. */
function restart(source: DirtySource): void {
  source.stop();
  try {
    source.start();
  } catch {
    // It is asked again in the next round, and says then why not.
  }
}
