/**
 * Address space: what the page tables of one translation map, from the device's addresses to memory.
 *
 * One stage, or two of which the second translates the first's outputs and table pointers alike. A unit in scalable mode
 * sign-extends first-stage addresses, so both halves are read.
 * Not for: finding the tables of a device (tables.ts).
 * Specified by: VT-d specification, 3.6 to 3.8.
 */
import type { PhysPage } from "../base/index.ts";
import { type TableLayout, vtdSecondStage, x86_64 } from "../layouts/pagetable/index.ts";
import type { StageRoot, VtdTranslation } from "../layouts/vtd/index.ts";
import { tablesTangled } from "./errors.ts";
import type { TableSource } from "./snapshot.ts";
import {
  compose,
  itemsIn,
  lookUp,
  type MalformedEntry,
  type Mapping,
  mappingsIn,
  readTree,
  type TableNode,
  type UnfollowedTable,
} from "./table-tree.ts";

/** What a unit does with a device that has no page tables. */
interface WithoutTables {
  readonly kind: "pass-through" | "reserved";
}

/** A translation by tables. */
export type PagedTranslation = Exclude<VtdTranslation, WithoutTables>;

/** A page that should hold a table but is not in the snapshot. */
export interface MissingPage {
  /** "context table", "PASID directory", "page table" … */
  readonly what: string;
  /** Where it should be in memory. */
  readonly page: PhysPage;
}

/** What one set of page tables says. */
export interface AddressSpace {
  /** Stages in the order that a request meets them: one, or two when nested. */
  readonly trees: readonly TableNode[];
  /** From the device's addresses to memory, both stages together. */
  readonly mappings: readonly Mapping[];
  /** Table pages in use, found in the snapshot. */
  readonly tablePages: number;
  /** Tables that are not in the snapshot. */
  readonly missing: readonly MissingPage[];
  /** Entries that hardware refuses. */
  readonly malformed: readonly MalformedEntry[];
  /** Tables met before in the same tree: a loop, or shared; followed the first time only. */
  readonly repeated: readonly UnfollowedTable[];
  /** Nested: pages that the first stage maps to where the second maps nothing. */
  readonly unmappedPages: number;
}

/** How many entries, runs and mappings may be read and kept of one snapshot; each costs some hundred bytes. */
export interface TableBudget {
  left: number;
  readonly whole: number;
}

/**
 * A budget for a snapshot of `pages` pages: every entry of every page four times, and 262,144. Tables of a machine are in a few
 * address spaces at most; a file that wants more has pages that point to each other so that few bytes describe no end of mappings.
 */
export function tableBudget(pages: number): TableBudget {
  const whole = 4 * 512 * pages + 2 ** 18;
  return { left: whole, whole };
}

/** Takes `count` of the budget. @throws DmaError ERR_DMA_TABLES_TANGLED (EINVAL): there is no more */
export function spend(budget: TableBudget, count: number): void {
  budget.left -= count;
  if (budget.left < 0) throw tablesTangled(budget.whole);
}

/**
 * Follows every stage of `translation` through the pages at hand. Cost: 512 steps per table, and one per run of leaves.
 *
 * @throws DmaError ERR_DMA_TABLES_TANGLED (EINVAL): that is more than `budget`; without one, whatever it takes
 */
export function readAddressSpace(
  source: TableSource,
  translation: PagedTranslation,
  budget: TableBudget = { left: Number.POSITIVE_INFINITY, whole: Number.POSITIVE_INFINITY },
): AddressSpace {
  const notes = { missing: [] as MissingPage[], malformed: [] as MalformedEntry[], repeated: [] as UnfollowedTable[] };
  const read = (layout: TableLayout, root: StageRoot, resolve?: (page: PhysPage) => PhysPage | -1): TableNode[] => {
    const tree = readTree(source, layout, root.table, resolve);
    const items = tree.kind === "table" ? itemsIn(tree) : [tree];
    for (const item of items) {
      spend(budget, 1);
      if (item.kind === "malformed") notes.malformed.push(item);
      else if (item.kind === "repeated") notes.repeated.push(item);
      else if (item.kind === "missing") notes.missing.push({ what: "page table", page: item.page });
      else if (item.kind === "unreachable") notes.missing.push({ what: "guest-physical page table", page: item.page });
    }
    return tree.kind === "table" ? [tree] : [];
  };
  const secondLayout = (root: StageRoot): TableLayout => vtdSecondStage({ levels: root.levels });
  const firstLayout = (root: StageRoot): TableLayout =>
    x86_64({ levels: root.levels === 5 ? 5 : 4, signExtended: true });

  let trees: TableNode[];
  let mappings: Mapping[];
  let unmappedPages = 0;
  if (translation.kind === "nested") {
    const second = read(secondLayout(translation.second), translation.second);
    const toMemory = second.flatMap(mappingsIn);
    const first = read(firstLayout(translation.first), translation.first, (page) => lookUp(toMemory, page));
    trees = [...first, ...second];
    const composed = compose(first.flatMap(mappingsIn), toMemory, () => spend(budget, 1));
    mappings = composed.mappings;
    unmappedPages = composed.unmapped;
  } else {
    trees =
      translation.kind === "first-stage"
        ? read(firstLayout(translation.first), translation.first)
        : read(secondLayout(translation.second), translation.second);
    mappings = trees.flatMap(mappingsIn);
  }
  return { trees, mappings, tablePages: trees.reduce((sum, tree) => sum + tablesIn(tree), 0), ...notes, unmappedPages };
}

function tablesIn(tree: TableNode): number {
  let tables = 1;
  for (const item of itemsIn(tree)) if (item.kind === "table") tables++;
  return tables;
}

/** Leaves by their size in 4 KiB pages, ascending. Nested: translations, each as large as the smaller of its leaves. */
export function leavesBySize(space: AddressSpace): {
  /** 4 KiB pages of a leaf. */
  leafPages: number;
  /** How many. */
  leaves: number;
}[] {
  const leaves = new Map<number, number>();
  for (const { pages, leafPages } of space.mappings)
    leaves.set(leafPages, (leaves.get(leafPages) ?? 0) + pages / leafPages);
  return [...leaves]
    .map(([leafPages, count]) => ({ leafPages, leaves: count }))
    .sort((a, b) => a.leafPages - b.leafPages);
}
