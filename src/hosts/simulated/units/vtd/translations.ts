/**
 * Everything that a simulated VT-d unit remembers: contexts, PASID entries, translations and tables, each invalidated apart.
 *
 * Idea: translations of the second stage are kept by domain id; those of a first stage, nested or not, by domain id and
 * PASID. Absent entries are remembered only in caching mode, and of a first stage never.
 * Specified by: VT-d specification, 6.2 and 6.5.2.
 */
import type { Binding, LegacyContext, ScalableContext } from "./entries.ts";
import { TranslationCache } from "./translation-cache.ts";
import { type PageWalker, WalkCache, type WalkCaches } from "./walk.ts";

/** One address space in the IOTLB. */
interface Space {
  readonly domainId: number;
  /** -1: second stage or pass-through. */
  readonly pasid: number;
  readonly binding: Binding;
  readonly leaves: TranslationCache;
  readonly tables: WalkCaches;
}

const key = (domainId: number, pasid: number): number => domainId * 2 ** 21 + pasid + 1;

export class Translations {
  /** Context entries by requester; a number is the reason of a remembered absence. */
  readonly contexts: Map<number, LegacyContext | ScalableContext | number> = new Map();
  /** PASID entries by requester * 2^20 + PASID. */
  readonly pasids: Map<number, Binding | number> = new Map();
  readonly #spaces = new Map<number, Space>();

  space(binding: Binding, pasid: number): Space {
    const own = binding.first ? pasid : -1;
    const at = key(binding.domainId, own);
    const known = this.#spaces.get(at);
    if (known) return known;
    const space: Space = {
      domainId: binding.domainId,
      pasid: own,
      binding,
      leaves: new TranslationCache(),
      tables: { first: new WalkCache(), second: new WalkCache() },
    };
    this.#spaces.set(at, space);
    return space;
  }

  /** Entries in the IOTLB. */
  get size(): number {
    let size = 0;
    for (const { leaves } of this.#spaces.values()) size += leaves.size;
    return size;
  }

  spaces(): IterableIterator<Space> {
    return this.#spaces.values();
  }

  forgetAll(): void {
    this.#spaces.clear();
  }

  forgetDomain(domainId: number): void {
    for (const [at, space] of this.#spaces) if (space.domainId === domainId) this.#spaces.delete(at);
  }

  forgetPasid(domainId: number, pasid: number): void {
    for (const [at, space] of this.#spaces)
      if (space.domainId === domainId && (space.pasid === pasid || isPassThrough(space))) this.#spaces.delete(at);
  }

  /**
   * Second stage: pages [start, end) of the domain; what is nested in it goes altogether, as its addresses are others.
   * Answers how many tables stay although they are gone from memory: the software should not have said `leafOnly`.
   */
  forgetSecondStage(walker: PageWalker, domainId: number, start: number, end: number, leafOnly: boolean): number {
    let stale = 0;
    for (const space of this.#spaces.values()) {
      const { second, first } = space.binding;
      if (space.domainId !== domainId || !second) continue;
      if (first) space.leaves.forget(0, 2 ** 52);
      else space.leaves.forget(start, end);
      if (leafOnly) stale += walker.staleTables("second", second, space.tables.second, start, end);
      else {
        space.tables.second.forget(start, end);
        if (first) space.tables.first.forget(0, 2 ** 52);
      }
    }
    return stale;
  }

  /** First stage, nested or not: pages [start, end) of the domain and PASID. As above. */
  forgetFirstStage(
    walker: PageWalker,
    domainId: number,
    pasid: number,
    start: number,
    end: number,
    leafOnly: boolean,
  ): number {
    const space = this.#spaces.get(key(domainId, pasid));
    if (!space) return 0;
    space.leaves.forget(start, end);
    if (!leafOnly) {
      space.tables.first.forget(start, end);
      return 0;
    }
    const { first, second } = space.binding;
    return first && !second ? walker.staleTables("first", first, space.tables.first, start, end) : 0;
  }
}

const isPassThrough = ({ binding }: Space): boolean => !binding.first && !binding.second;
