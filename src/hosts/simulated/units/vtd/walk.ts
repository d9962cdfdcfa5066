/**
 * The page walk of a simulated VT-d unit: first stage, second stage, or one within the other, with caches of its own.
 *
 * Idea: it shares only the layout of entries with the code that writes them. A *walk cache* remembers where tables are,
 * apart from the IOTLB, which remembers leaves; the two are invalidated apart, and a pointer that outlives its table is
 * what a leaf-only invalidation after a table was freed leaves behind.
 * Promises: answers a leaf or the reason of a fault; never throws.
 * Specified by: VT-d specification, 3.6 to 3.8, 6.2.5 (paging-structure caches) and 9.7, 9.8.
 */
import type { PhysPage } from "../../../../base/index.ts";
import {
  outputOf,
  READ,
  type TableLayout,
  vtdSecondStage,
  WRITE,
  x86_64,
} from "../../../../layouts/pagetable/index.ts";
import type { TableMemory } from "../../../../platform/index.ts";
import type { Binding, Stage } from "./entries.ts";
import { REASON } from "./fault-reasons.ts";
import type { Cached } from "./translation-cache.ts";

/** Where a walk may begin: by level, the tables found there. */
export class WalkCache {
  readonly levels: readonly Map<number, { readonly table: PhysPage; readonly prot: number }>[] = Array.from(
    { length: 5 },
    () => new Map(),
  );

  /** Forgets tables that lead to pages [start, end). */
  forget(start: number, end: number): void {
    this.levels.forEach((tables, level) => {
      const size = 512 ** (level + 1);
      for (const prefix of tables.keys()) if (prefix * size < end && (prefix + 1) * size > start) tables.delete(prefix);
    });
  }
}

/** The caches of one walk: one per stage. */
export interface WalkCaches {
  readonly first: WalkCache;
  readonly second: WalkCache;
}

/** U/S of a first-stage entry. */
const USER = 1 << 2;

type Kind = "first" | "second";
type Access = "read" | "write";

const LAYOUTS: Readonly<Record<Kind, Readonly<Record<number, TableLayout>>>> = {
  first: { 4: x86_64({ levels: 4 }), 5: x86_64({ levels: 5 }) },
  second: { 3: vtdSecondStage({ levels: 3 }), 4: vtdSecondStage({ levels: 4 }), 5: vtdSecondStage({ levels: 5 }) },
};

export class PageWalker {
  readonly #memory: TableMemory;
  readonly #legacy: () => boolean;
  /** Entries read. */
  reads = 0;

  constructor(memory: TableMemory, legacy: () => boolean) {
    this.#memory = memory;
    this.#legacy = legacy;
  }

  /** The leaf that covers `page`, or the reason why there is none. A leaf is found whatever it permits. */
  walk(binding: Binding, page: number, access: Access, caches: WalkCaches): Cached | number {
    const { first, second } = binding;
    if (!first && !second) return { page: page as PhysPage, prot: READ | WRITE, lg: 0 };
    if (!first) return this.#stage("second", second!, page, access, caches.second, undefined, undefined);
    if (!second) return this.#stage("first", first, page, access, caches.first, undefined, undefined);
    const outer = this.#stage("first", first, page, access, caches.first, second, caches.second);
    if (typeof outer === "number") return outer;
    const inside = page % 2 ** outer.lg;
    const inner = this.#stage("second", second, outer.page + inside, access, caches.second, undefined, undefined);
    if (typeof inner === "number") return access === "read" ? REASON.nestedRead : REASON.nestedWrite;
    const lg = Math.min(outer.lg, inner.lg);
    const start = inner.page + ((outer.page + inside - (inside % 2 ** lg)) % 2 ** inner.lg);
    return { page: start as PhysPage, prot: outer.prot & inner.prot, lg };
  }

  /** Cached tables for pages [start, end) that the tables in memory do not lead to any more. */
  staleTables(kind: Kind, stage: Stage, cache: WalkCache, start: number, end: number): number {
    let stale = 0;
    cache.levels.forEach((tables, level) => {
      const size = 512 ** (level + 1);
      for (const [prefix, { table }] of tables)
        if (prefix * size < end && (prefix + 1) * size > start && this.#tableAt(kind, stage, level, prefix) !== table)
          stale++;
    });
    return stale;
  }

  #stage(
    kind: Kind,
    stage: Stage,
    page: number,
    access: Access,
    cache: WalkCache,
    parent: Stage | undefined,
    parentCache: WalkCache | undefined,
  ): Cached | number {
    const layout = LAYOUTS[kind][stage.levels]!;
    if (page >= 512 ** stage.levels) return this.#beyond(kind);
    if (kind === "first" && page >= 512 ** stage.levels / 2) return REASON.notCanonical;
    let level = stage.levels - 1;
    let { table } = stage;
    let prot = READ | WRITE;
    for (let low = 0; low < level; low++) {
      const known = cache.levels[low]!.get(Math.floor(page / 512 ** (low + 1)));
      if (!known) continue;
      ({ table, prot } = known);
      level = low;
    }
    for (; ; level--) {
      const index = Math.floor(page / 512 ** level) % 512;
      let at = table;
      if (parent) {
        const found = this.#stage("second", parent, table, "read", parentCache!, undefined, undefined);
        if (typeof found === "number" || (found.prot & READ) === 0) return REASON.nestedRead;
        at = (found.page + (table % 2 ** found.lg)) as PhysPage;
      }
      this.reads++;
      const low = this.#memory.low(at, index);
      const high = this.#memory.high(at, index);
      if ((low & layout.presentMask) === 0) return this.#absent(kind, access);
      if (kind === "first" && (low & USER) === 0) return REASON.firstSupervisor; // devices ask as users
      const isTable = level > 0 && (low & layout.tableMask) === layout.tableMatch[level];
      prot &= isTable && kind === "first" ? READ | ((low & 2) !== 0 ? WRITE : 0) : layout.prot(low, high);
      if (!isTable) {
        if (level > 2) return kind === "first" ? REASON.firstReserved : REASON.secondReserved;
        const lg = layout.sizeOf(low, high, level);
        return { page: outputOf(layout, low, high, lg), prot, lg };
      }
      table = outputOf(layout, low, high);
      cache.levels[level - 1]!.set(Math.floor(page / 512 ** level), { table, prot });
    }
  }

  /** Where the table at `level` that leads to block `prefix` is now, by the tables in memory alone; -1 if nowhere. */
  #tableAt(kind: Kind, stage: Stage, level: number, prefix: number): PhysPage | -1 {
    const layout = LAYOUTS[kind][stage.levels]!;
    let { table } = stage;
    for (let at = stage.levels - 1; at > level; at--) {
      const index = Math.floor((prefix * 512 ** (level + 1)) / 512 ** at) % 512;
      const low = this.#memory.low(table, index);
      const high = this.#memory.high(table, index);
      const isTable = (low & layout.presentMask) !== 0 && (low & layout.tableMask) === layout.tableMatch[at];
      if (!isTable) return -1;
      table = outputOf(layout, low, high);
    }
    return table;
  }

  /** What it is called that a leaf does not permit the access. */
  denied(binding: Binding, access: Access): number {
    if (binding.first && binding.second) return access === "read" ? REASON.nestedRead : REASON.nestedWrite;
    if (binding.first) return access === "read" ? REASON.firstNoRead : REASON.firstNoWrite;
    return this.#absent("second", access);
  }

  #absent(kind: Kind, access: Access): number {
    if (kind === "first") return REASON.firstNotPresent;
    if (!this.#legacy()) return REASON.secondPermission;
    return access === "read" ? REASON.noRead : REASON.noWrite;
  }

  #beyond(kind: Kind): number {
    if (kind === "first") return REASON.notCanonical;
    return this.#legacy() ? REASON.beyondWidth : REASON.secondBeyondWidth;
  }
}
