/**
 * The tables of an address space as a picture: what is present, from the root on, read as hardware reads it.
 *
 * Promises: reads only; a table that leads to itself, or nowhere, ends the way there.
 */
import { hex, type PhysPage } from "../../../../base/index.ts";
import { itemLg, outputOf, READ, WRITE } from "../../../../layouts/pagetable/index.ts";
import type { TranslationTables } from "../../../../platform/index.ts";
import type { EntryPicture, TablePicture } from "./picture.ts";

/** Tables, and leaves of all tables, that a picture holds at most. */
const MOST_TABLES = 48;
const MOST_LEAVES = 512;

/** What was read. */
interface TablesRead {
  readonly tables: readonly TablePicture[];
  /** Tables that were not read. */
  readonly tablesLeft: number;
  /** All leaves of the tables that were read, in order of address. */
  readonly leaves: readonly EntryPicture[];
}

/** READ, WRITE as letters. */
export const rightsOf = (prot: number): string => `${(prot & READ) === 0 ? "" : "r"}${(prot & WRITE) === 0 ? "" : "w"}`;

/** Reads the tables of `tables`. */
export function readTables(tables: TranslationTables): TablesRead {
  const { layout, memory } = tables;
  const read: TablePicture[] = [];
  const leaves: EntryPicture[] = [];
  let left = 0;
  const visit = (table: PhysPage, level: number, base: number): void => {
    if (read.length >= MOST_TABLES || leaves.length >= MOST_LEAVES) {
      left++;
      return;
    }
    const top = level === tables.topLevel();
    const count = 2 ** (top ? layout.topIndexBits : layout.indexBits);
    const span = 2 ** itemLg(layout, level);
    const entries: EntryPicture[] = [];
    const picture = { page: table, level, entries, left: 0 };
    read.push(picture); // before those below it
    for (let index = 0; index < count; index++) {
      const low = memory.low(table, index);
      const high = memory.high(table, index);
      if ((low & layout.presentMask) === 0) continue;
      const leaf = !(level > 0 && (low & layout.tableMask) === layout.tableMatch[level]);
      const lg = leaf ? layout.sizeOf(low, high, level) : itemLg(layout, level);
      const { dirty } = layout;
      const entry: EntryPicture = {
        index,
        value: hex(BigInt.asUintN(64, (BigInt(high) << 32n) + BigInt(low >>> 0))),
        page: base + index * span,
        pages: 2 ** lg,
        target: outputOf(layout, low, high, leaf ? lg : 0),
        leaf,
        rights: leaf ? rightsOf(layout.prot(low, high)) : "",
        dirty:
          leaf &&
          dirty !== undefined &&
          (low & dirty.mask) === dirty.match &&
          (dirty.highMask === undefined || (high & dirty.highMask) !== 0),
      };
      if (leaf && leaves.length >= MOST_LEAVES) {
        picture.left++;
        continue;
      }
      entries.push(entry);
      if (leaf) leaves.push(entry);
      else visit(entry.target as PhysPage, level - 1, entry.page);
    }
  };
  visit(tables.root(), tables.topLevel(), 0);
  return { tables: read, tablesLeft: left, leaves };
}
