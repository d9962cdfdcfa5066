/**
 * The simulated IOMMU: translates device requests by its own walk of the page tables, and caches what it found.
 *
 * Idea: it shares only the layout of entries with the code that writes them, so two readings check each other. Its
 * IOTLB is as stale as real ones are: an entry lives until it is invalidated, whatever became of the tables.
 * A refused request is a fault in a queue, never an exception.
 * Specified by: Intel VT-d specification, chapters 3 and 9; AMD I/O virtualisation specification, 2.2.3.
 */
import type { IovaPage, PhysPage } from "../../../base/index.ts";
import { outputOf, READ, WRITE } from "../../../layouts/pagetable/index.ts";
import type { Requester, TranslationTables, TranslationUnit } from "../../../platform/index.ts";

/** Why a request was refused. */
export type FaultReason = "not-attached" | "not-present" | "not-permitted";

/** A request that the unit refused. */
export interface Fault {
  /** Who asked: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: Requester;
  /** The page that it asked for. */
  readonly page: IovaPage;
  /** What it wanted to do there. */
  readonly access: "read" | "write";
  /** What was found there. */
  readonly reason: FaultReason;
}

/** A cached translation: the physical page, what may be done there, and the entry, where writes are to be noted. */
interface Cached {
  readonly page: PhysPage;
  readonly prot: number;
  readonly table: PhysPage;
  readonly index: number;
  /** The entry says already that the device wrote, or need not. */
  isDirty: boolean;
}

/** A translation that the IOTLB holds. */
export interface CachedTranslation {
  readonly page: IovaPage;
  /** The page of memory behind it. */
  readonly target: PhysPage;
  /** READ, WRITE: what may be done there. */
  readonly prot: number;
}

/** How the unit behaves. */
export interface UnitOptions {
  /** The unit also remembers that an entry is absent, as units of virtual machines do. */
  readonly cachingMode?: boolean;
  /** A write sets the dirty bit of its leaf, once for as long as the translation is cached. Default false. */
  readonly dirty?: boolean;
}

/**
 * An IOMMU that is driven by calls and walks tables of any format by itself. Its IOTLB is as stale as real ones are;
 * refused requests are faults in a queue.
 */
export class SimulatedUnit implements TranslationUnit {
  readonly #cachingMode: boolean;
  readonly #setsDirty: boolean;
  /** Refused requests, oldest first; at most 1024 are kept, later ones are counted. */
  readonly faults: Fault[] = [];
  #faultsLost = 0;
  readonly #attached = new Map<Requester, TranslationTables>();
  readonly #iotlb = new Map<number, Map<IovaPage, Cached>>();
  /** Walks of the tables, for those who count. */
  walks = 0;

  /** Nothing is attached, and its IOTLB is empty. */
  constructor(options: UnitOptions = {}) {
    this.#cachingMode = options.cachingMode ?? false;
    this.#setsDirty = options.dirty ?? false;
  }

  attach(requester: Requester, tables: TranslationTables): void {
    this.#attached.set(requester, tables);
  }

  detach(requester: Requester): void {
    const tables = this.#attached.get(requester);
    this.#attached.delete(requester);
    if (tables) this.#iotlb.delete(tables.domainId);
  }

  invalidateRange(domainId: number, start: IovaPage, end: IovaPage): void {
    const cached = this.#iotlb.get(domainId);
    if (!cached) return;
    if (end - start > cached.size) {
      for (const page of cached.keys()) if (page >= start && page < end) cached.delete(page);
    } else for (let page: number = start; page < end; page++) cached.delete(page as IovaPage);
  }

  invalidateDomain(domainId: number): void {
    this.#iotlb.delete(domainId);
  }

  syncMap(domainId: number, start: IovaPage, end: IovaPage): boolean {
    if (this.#cachingMode) this.invalidateRange(domainId, start, end);
    return this.#cachingMode;
  }

  /** Who is attached, and to which tables: for who looks. */
  get attachments(): ReadonlyMap<Requester, TranslationTables> {
    return this.#attached;
  }

  /** What the IOTLB holds of a domain, the oldest first, whatever became of the tables: for who looks. */
  *cached(domainId: number): Generator<CachedTranslation> {
    for (const [page, { page: target, prot }] of this.#iotlb.get(domainId) ?? []) yield { page, target, prot };
  }

  /** Requests refused after the queue was full. */
  get faultsLost(): number {
    return this.#faultsLost;
  }

  /** Where an access of `requester` to `page` goes; -1, and a fault in the queue, if it may not. */
  translate(requester: Requester, page: IovaPage, access: "read" | "write"): PhysPage | -1 {
    const tables = this.#attached.get(requester);
    if (!tables) return this.#refuse(requester, page, access, "not-attached");
    let cache = this.#iotlb.get(tables.domainId);
    if (!cache) {
      cache = new Map();
      this.#iotlb.set(tables.domainId, cache);
    }
    let found = cache.get(page);
    if (!found) {
      found = this.#walk(tables, page);
      if (!found) return this.#refuse(requester, page, access, "not-present");
      cache.set(page, found);
    }
    const needed = access === "read" ? READ : WRITE;
    if ((found.prot & needed) === 0) return this.#refuse(requester, page, access, "not-permitted");
    if (access === "write" && !found.isDirty) soil(tables, found);
    return found.page;
  }

  /** Follows the tables as hardware does, from the top. */
  #walk(tables: TranslationTables, page: IovaPage): Cached | undefined {
    this.walks++;
    const { layout, memory } = tables;
    let table = tables.root();
    const top = tables.topLevel();
    for (let level = top; level >= 0; level--) {
      const index = indexOf(layout, page, level, level === top);
      const low = memory.low(table, index);
      const high = memory.high(table, index);
      if ((low & layout.presentMask) === 0) return undefined;
      if (level > 0 && (low & layout.tableMask) === layout.tableMatch[level]) {
        table = outputOf(layout, low, high);
        continue;
      }
      const lg = layout.sizeOf(low, high, level);
      const inside = page % 2 ** lg;
      const output = (outputOf(layout, low, high, lg) + inside) as PhysPage;
      const { dirty } = layout;
      const isDirty = !this.#setsDirty || dirty === undefined || dirty.soil(low) === low;
      return { page: output, prot: layout.prot(low, high), table, index, isDirty };
    }
    return undefined;
  }

  #refuse(requester: Requester, page: IovaPage, access: "read" | "write", reason: FaultReason): -1 {
    if (this.faults.length < FAULT_LIMIT) this.faults.push({ requester, page, access, reason });
    else this.#faultsLost++;
    return -1;
  }
}

/** Where `page` lies in a table of `level`. The top one has all bits that are left. */
function indexOf(
  { granuleLg, indexBits }: TranslationTables["layout"],
  page: number,
  level: number,
  isTop: boolean,
): number {
  const lg = granuleLg + level * indexBits;
  if (page < 2 ** 31) {
    // Most are: whole numbers of 32 bits need no division.
    const index = lg > 30 ? 0 : page >> lg;
    return isTop ? index : index & ((1 << indexBits) - 1);
  }
  return Math.floor(page / 2 ** lg) % 2 ** (isTop ? 52 : indexBits);
}

/** Sets the dirty bit of a leaf. */
function soil({ layout, memory }: TranslationTables, found: Cached): void {
  const { table, index } = found;
  memory.store(table, index, layout.dirty!.soil(memory.low(table, index)), memory.high(table, index));
  found.isDirty = true;
}

/** Faults that are kept until somebody reads them. */
export const FAULT_LIMIT = 1024;
