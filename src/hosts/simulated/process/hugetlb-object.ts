/** The object behind a mapping of hugetlb: shared pages of 2 MiB, and the promise of those that it has not taken yet. */
import { PAGE_SIZE, PhysAddr } from "../../../base/index.ts";
import type { Steps } from "../../../platform/index.ts";
import { clearMappings, type FileMemory } from "./file.ts";
import type { HugetlbPromise } from "./hugetlb.ts";
import { HUGE_PAGES } from "./page-table.ts";
import type { Area, Folio, FrameSource, MappedObject } from "./structures.ts";

export class HugetlbObject implements MappedObject, HugetlbPromise {
  readonly name = "huge";
  readonly isHugetlb = true;
  readonly endOffset: number;
  readonly areas: Area[] = [];
  readonly #frames: FrameSource & FileMemory;
  readonly #cache = new Map<number, Folio>();
  #promised: number;
  #users = 0;

  /** `pages` of 4 KiB, a multiple of 512, of which `promised` huge pages are reserved for it. */
  constructor(frames: FrameSource & FileMemory, pages: number, promised: number) {
    this.#frames = frames;
    this.endOffset = pages;
    this.#promised = promised;
  }

  acquire(): void {
    this.#users++;
  }

  release(): void {
    this.#users--;
    if (this.#users > 0) return;
    this.#drop(0, this.endOffset);
    this.#frames.reserveHugetlb(-this.#promised);
    this.#promised = 0;
  }

  peek(offset: number): Folio | undefined {
    return this.#cache.get(offset - (offset % HUGE_PAGES));
  }

  get(offset: number): Folio | undefined {
    const cached = this.peek(offset);
    if (cached) return cached;
    const folio = this.takePrivate();
    if (!folio) return undefined;
    folio.object = this;
    folio.offset = offset - (offset % HUGE_PAGES);
    this.#cache.set(folio.offset, folio);
    return folio;
  }

  takePrivate(): Folio | undefined {
    const isPromised = this.#promised > 0;
    if (isPromised) this.#promised--;
    return this.#frames.takeHugetlb(isPromised);
  }

  /** Gives back what is in pages [first, last): whole huge pages go, parts of others are filled with zeros. */
  *punchSteps(first: number, last: number): Steps<void> {
    const start = Math.ceil(first / HUGE_PAGES) * HUGE_PAGES;
    const end = Math.floor(last / HUGE_PAGES) * HUGE_PAGES;
    this.#zero(first, Math.min(last, start));
    if (start < end) {
      yield* clearMappings(this, start, end, false);
      this.#drop(start, end);
    }
    if (last > end && last > start) this.#zero(end, last);
  }

  #zero(first: number, last: number): void {
    const folio = this.#cache.get(first - (first % HUGE_PAGES));
    if (!folio) return;
    const zeros = new Uint8Array(PAGE_SIZE);
    for (let offset = first; offset < last; offset++)
      this.#frames.memory.write(PhysAddr((folio.frame + offset - folio.offset) * PAGE_SIZE), zeros);
  }

  #drop(first: number, last: number): void {
    for (const [offset, folio] of this.#cache) {
      if (offset < first || offset >= last) continue;
      this.#cache.delete(offset);
      folio.object = undefined;
      this.#frames.release(folio);
    }
  }
}
