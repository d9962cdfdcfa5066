/**
 * Table tree: the page tables of one address space, followed from the top through whatever pages are at hand.
 *
 * Idea: a walk of its own, sharing with the code that writes tables only the layout of an entry. What hardware would
 * refuse or what is not there becomes an item of the tree, never an exception.
 * Promises: a table page is followed once per tree, so loops and shared tables end; permissions are what all levels
 * together allow. Not for: looking up one address.
 * Specified by: VT-d specification, 3.6, 3.7, 9.7 and 9.8.
 */
import type { IovaPage, PhysPage } from "../base/index.ts";
import { itemLg, outputOf, type TableLayout } from "../layouts/pagetable/index.ts";
import { type TableSource, wordOf } from "./snapshot.ts";

/** `count` leaves of one size in neighbouring entries, contiguous in IOVA and in memory, with the same permissions. */
export interface LeafRun {
  /** Tells it from other items of a table. */
  readonly kind: "leaves";
  /** Index of the first entry. */
  readonly index: number;
  /** Entries of the run. */
  count: number;
  /** First address of the first leaf. */
  readonly iova: IovaPage;
  /** What it reaches. */
  readonly phys: PhysPage;
  /** 4 KiB pages of one leaf. */
  readonly leafPages: number;
  /** READ and WRITE. */
  readonly prot: number;
}

/** A table that was found. */
export interface TableNode {
  /** Tells it from other items of a table. */
  readonly kind: "table";
  /** Entry of the table above that points here; 0 for the top. */
  readonly index: number;
  /** 0 is the smallest. */
  readonly level: number;
  /** Where it is in memory. */
  readonly page: PhysPage;
  /** First address that it translates. */
  readonly iova: IovaPage;
  /** What is in it, by index; absent entries are left out. */
  readonly items: readonly TreeItem[];
}

/** A pointer that was not followed, and why. */
export interface UnfollowedTable {
  /** Not in the snapshot; met before in this tree; or where a second stage maps nothing. */
  readonly kind: "missing" | "repeated" | "unreachable";
  /** Entry of the table above that points there. */
  readonly index: number;
  /** Level of the table that it would be; 0 is the smallest. */
  readonly level: number;
  /** Where it should be in memory; "unreachable": the guest-physical page that the second stage does not map. */
  readonly page: PhysPage;
  /** First address that it would translate. */
  readonly iova: IovaPage;
}

/** A present entry that hardware refuses. */
export interface MalformedEntry {
  /** Tells it from other items of a table. */
  readonly kind: "malformed";
  /** Which entry of its table. */
  readonly index: number;
  /** Of its table; 0 is the smallest. */
  readonly level: number;
  /** First address that it would translate. */
  readonly iova: IovaPage;
  /** All 64 bits. */
  readonly entry: bigint;
  /** Why, in words. */
  readonly reason: string;
}

/** A node of a page-table tree: a table, or a run of leaves. */
export type TreeItem = LeafRun | TableNode | UnfollowedTable | MalformedEntry;

/** Contiguous memory in contiguous addresses, mapped by leaves of one size with the same permissions. */
export interface Mapping {
  /** First page of addresses. */
  readonly iova: IovaPage;
  /** What it reaches. */
  readonly phys: PhysPage;
  /** 4 KiB pages in all. */
  readonly pages: number;
  /** 4 KiB pages of one leaf. */
  readonly leafPages: number;
  /** READ and WRITE. */
  readonly prot: number;
}

/** Where the page that a pointer names lies in memory, or -1: differs from it when another stage translates pointers. */
export type Resolve = (page: PhysPage) => PhysPage | -1;

/** The tree under the table that `root` points to. Cost: 512 steps per table. */
export function readTree(
  source: TableSource,
  layout: TableLayout,
  root: PhysPage,
  resolve: Resolve = (page) => page,
): TableNode | UnfollowedTable {
  const met = new Set<PhysPage>();
  const entries = 2 ** layout.indexBits;
  const inputPages = 2 ** (layout.inputBits - 12);
  /** Upper-half addresses are sign-extended to 64 bits; bit by bit that is adding what lies between the halves. */
  const canonical = (page: number): number =>
    layout.inputs === "sign-extended" && page >= inputPages / 2 ? page + 2 ** 52 - inputPages : page;

  const follow = (pointer: PhysPage, index: number, level: number, iova: IovaPage, allowed: number) => {
    const page = resolve(pointer);
    if (page === -1) return { kind: "unreachable", index, level, page: pointer, iova } as const;
    if (!source.has(page)) return { kind: "missing", index, level, page, iova } as const;
    if (met.has(page)) return { kind: "repeated", index, level, page, iova } as const;
    met.add(page);
    return { kind: "table", index, level, page, iova, items: itemsOf(page, level, iova, allowed) } as const;
  };

  const itemsOf = (table: PhysPage, level: number, base: IovaPage, allowed: number): TreeItem[] => {
    const items: TreeItem[] = [];
    const lg = itemLg(layout, level);
    const top = level === layout.topLevel;
    for (let index = 0; index < entries; index++) {
      const low = source.low(table, index);
      if ((low & layout.presentMask) === 0) continue;
      const high = source.high(table, index);
      const at = base + index * 2 ** lg;
      const iova = (top ? canonical(at) : at) as IovaPage;
      const prot = allowed & layout.prot(low, high);
      if (level > 0 && (low & layout.tableMask) === layout.tableMatch[level]) {
        items.push(follow(outputOf(layout, low, high), index, level - 1, iova, prot));
        continue;
      }
      const reason = refusal(layout, low, high, lg);
      if (reason) items.push({ kind: "malformed", index, level, iova, entry: wordOf(low, high), reason });
      else addLeaf(items, index, iova, outputOf(layout, low, high, lg), 2 ** lg, prot);
    }
    return items;
  };
  return follow(root, 0, layout.topLevel, 0 as IovaPage, -1);
}

/** Why hardware refuses a leaf of 2^lg pages, if it does. */
function refusal(layout: TableLayout, low: number, high: number, lg: number): string | undefined {
  if (lg === 0) return undefined;
  if (!layout.leafSizes.includes(lg)) return "no leaf can be at this level";
  const below = outputOf(layout, low, high) - outputOf(layout, low, high, lg);
  const memoryType = layout.name === "x86-64" ? 1 : 0; // bit 12 of a large first-stage leaf selects a memory type
  return below > memoryType ? "the address of a large page has bits below its size" : undefined;
}

function addLeaf(
  items: TreeItem[],
  index: number,
  iova: IovaPage,
  phys: PhysPage,
  leafPages: number,
  prot: number,
): void {
  const last = items.at(-1);
  const joins =
    last?.kind === "leaves" &&
    last.index + last.count === index &&
    last.phys + last.count * leafPages === phys &&
    last.prot === prot;
  if (joins) last.count++;
  else items.push({ kind: "leaves", index, count: 1, iova, phys, leafPages, prot });
}

/** Every item of a tree, depth first, so in order of addresses within each half. */
export function* itemsIn(tree: TableNode): Generator<TreeItem> {
  for (const item of tree.items) {
    yield item;
    if (item.kind === "table") yield* itemsIn(item);
  }
}

/** What a tree maps, neighbours joined across tables; ascending. */
export function mappingsIn(tree: TableNode): Mapping[] {
  const mappings: Mapping[] = [];
  for (const item of itemsIn(tree))
    if (item.kind === "leaves")
      joinMapping(mappings, {
        iova: item.iova,
        phys: item.phys,
        pages: item.count * item.leafPages,
        leafPages: item.leafPages,
        prot: item.prot,
      });
  return mappings;
}

function joinMapping(mappings: Mapping[], next: Mapping): void {
  const last = mappings.at(-1);
  const joins =
    last !== undefined &&
    last.iova + last.pages === next.iova &&
    last.phys + last.pages === next.phys &&
    last.leafPages === next.leafPages &&
    last.prot === next.prot;
  if (joins) mappings[mappings.length - 1] = { ...last, pages: last.pages + next.pages };
  else mappings.push(next);
}

/** Where `mappings` (ascending) lead from `page`, or -1. */
export function lookUp(mappings: readonly Mapping[], page: number): PhysPage | -1 {
  const found = mappings[firstEndingAfter(mappings, page)];
  return found && found.iova <= page ? ((found.phys + page - found.iova) as PhysPage) : -1;
}

/**
 * Two stages as one: `first` maps addresses to guest-physical pages, `second` those to memory. A translation is as large
 * as the smaller of its leaves and allows what both allow. `unmapped` counts pages that the second stage does not map. `step` is
 * called for each piece, of which few bytes of tables can make very many; what it throws ends it.
 */
export function compose(
  first: readonly Mapping[],
  second: readonly Mapping[],
  step: () => void = () => undefined,
): {
  /** Translations from end to end. */
  mappings: Mapping[];
  /** Pages that the second stage does not map. */
  unmapped: number;
} {
  const mappings: Mapping[] = [];
  let unmapped = 0;
  for (const outer of first) {
    const end = outer.phys + outer.pages;
    let at: number = outer.phys;
    for (let i = firstEndingAfter(second, at); at < end; i++) {
      step();
      const inner = second[i];
      if (!inner || inner.iova >= end) {
        unmapped += end - at;
        break;
      }
      if (inner.iova > at) {
        unmapped += inner.iova - at;
        at = inner.iova;
      }
      const stop = Math.min(end, inner.iova + inner.pages);
      joinMapping(mappings, {
        iova: (outer.iova + at - outer.phys) as IovaPage,
        phys: (inner.phys + at - inner.iova) as PhysPage,
        pages: stop - at,
        leafPages: Math.min(outer.leafPages, inner.leafPages),
        prot: outer.prot & inner.prot,
      });
      at = stop;
    }
  }
  return { mappings, unmapped };
}

/** Index of the first mapping that ends above `page`. */
function firstEndingAfter(mappings: readonly Mapping[], page: number): number {
  let low = 0;
  let high = mappings.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const mapping = mappings[middle]!;
    if (mapping.iova + mapping.pages > page) high = middle;
    else low = middle + 1;
  }
  return low;
}
