/**
 * Root tables: the structures between the root table register and the page tables of one device and PASID, as written.
 *
 * Idea: three small levels, made when the first device below them is attached and kept until the unit ends. Legacy mode:
 * root -> context. Scalable mode: root -> two context tables per bus -> PASID directory -> PASID table.
 * Promises: whatever fails leaves no frame and no entry behind. The word that makes an entry present is written last and
 * cleared first, so a unit that looks meanwhile sees an absent entry or a whole one.
 * Not for: telling the unit to forget what it cached of them; that is the unit's order of steps (unit.ts).
 * Specified by: VT-d specification, 9.1 to 9.6; behaviour of Linux 7.2 (drivers/iommu/intel/pasid.c).
 */
import type { PhysPage } from "../../base/index.ts";
import {
  CONTEXT_ENTRY,
  type ContextEntry,
  decodeEntry,
  encodeEntry,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  PASID_TABLE_ENTRIES,
  type PasidEntry,
  ROOT_ENTRY,
  SCALABLE_CONTEXT_ENTRY,
  SCALABLE_ROOT_ENTRY,
  type ScalableContextEntry,
} from "../../layouts/vtd/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import { noMemory } from "./errors.ts";

/** Where an entry is: a page and the index of its first 64-bit word. */
interface Place {
  readonly table: PhysPage;
  readonly word: number;
}

/** The PASID directory of one device: 2^(size + 7) entries. */
export interface PasidDirectory {
  readonly page: PhysPage;
  readonly order: number;
  readonly size: number;
  /** PASID tables by directory index. */
  readonly tables: Map<number, PhysPage>;
}

const bus = (requester: number): number => requester >>> 8;
const function8 = (requester: number): number => requester & 0xff;

export class RootTables {
  /** The root table's page. */
  readonly root: PhysPage;
  readonly #memory: Arena;
  readonly #scalable: boolean;
  /** Context tables: by bus, in scalable mode by 2 x bus + upper half. */
  readonly #contexts = new Map<number, PhysPage>();

  /** @throws DmaError ERR_DMA_VTD_MEMORY (ENOMEM) */
  constructor(memory: Arena, scalable: boolean) {
    this.#memory = memory;
    this.#scalable = scalable;
    this.root = this.#allocate("the root table");
  }

  /** Makes sure that the context table of a device exists. @throws DmaError ERR_DMA_VTD_MEMORY (ENOMEM) */
  prepareContext(requester: number): void {
    const key = this.#contextKey(requester);
    if (this.#contexts.has(key)) return;
    const page = this.#allocate("a context table");
    this.#contexts.set(key, page);
    const place = { table: this.root, word: bus(requester) * 2 };
    if (!this.#scalable) {
      this.#write(place, encodeEntry(ROOT_ENTRY, { present: true, contextTable: page }));
      return;
    }
    const before = decodeEntry(SCALABLE_ROOT_ENTRY, this.#read(place, SCALABLE_ROOT_ENTRY));
    const half =
      (key & 1) === 0
        ? { lowerPresent: true, lowerContextTable: page }
        : { upperPresent: true, upperContextTable: page };
    this.#write(place, encodeEntry(SCALABLE_ROOT_ENTRY, { ...before, ...half }));
  }

  /** Legacy mode: the device's context entry becomes `entry`. Its table must be prepared. */
  writeContext(requester: number, entry: ContextEntry): void {
    this.#write(this.#contextPlace(requester), encodeEntry(CONTEXT_ENTRY, entry));
  }

  /** Scalable mode: the same. */
  writeScalableContext(requester: number, entry: ScalableContextEntry): void {
    this.#write(this.#contextPlace(requester), encodeEntry(SCALABLE_CONTEXT_ENTRY, entry));
  }

  /** The context entry is not present any more; the rest of it stays, for the unit's invalidation. */
  hideContext(requester: number): void {
    this.#hide(this.#contextPlace(requester));
  }

  clearContext(requester: number): void {
    this.#write(this.#contextPlace(requester), new Array<bigint>(this.#scalable ? 4 : 2).fill(0n));
  }

  /** A directory for PASIDs below 2^bits, or at least 2^15: a frame's worth. @throws DmaError ERR_DMA_VTD_MEMORY (ENOMEM) */
  createDirectory(bits: number): PasidDirectory {
    const size = Math.max(2, bits - 6 - 7); // 2^7 entries of 64 PASIDs are the smallest, but a frame holds 2^9
    return { page: this.#allocate("a PASID directory", size - 2), order: size - 2, size, tables: new Map() };
  }

  freeDirectory(directory: PasidDirectory): void {
    for (const page of directory.tables.values()) this.#release(page);
    directory.tables.clear();
    this.#release(directory.page, directory.order);
  }

  /** Makes sure that the table of a PASID exists. @throws DmaError ERR_DMA_VTD_MEMORY (ENOMEM) */
  preparePasid(directory: PasidDirectory, pasid: number): void {
    const index = Math.floor(pasid / PASID_TABLE_ENTRIES);
    if (directory.tables.has(index)) return;
    const page = this.#allocate("a PASID table");
    directory.tables.set(index, page);
    const entry = { present: true, faultProcessingDisable: false, pasidTable: page };
    const table = (directory.page + Math.floor(index / 512)) as PhysPage;
    this.#write({ table, word: index % 512 }, encodeEntry(PASID_DIRECTORY_ENTRY, entry));
  }

  /** The entry of a PASID becomes `entry`. Its table must be prepared. */
  writePasid(directory: PasidDirectory, pasid: number, entry: PasidEntry): void {
    this.#write(pasidPlace(directory, pasid), encodeEntry(PASID_ENTRY, entry));
  }

  /** The entry is not present any more; the rest of it stays. */
  hidePasid(directory: PasidDirectory, pasid: number): void {
    this.#hide(pasidPlace(directory, pasid));
  }

  clearPasid(directory: PasidDirectory, pasid: number): void {
    this.#write(pasidPlace(directory, pasid), new Array<bigint>(8).fill(0n));
  }

  /** Gives every frame back. Directories are their devices'. */
  destroy(): void {
    for (const page of this.#contexts.values()) this.#release(page);
    this.#contexts.clear();
    this.#release(this.root);
  }

  #contextKey(requester: number): number {
    return this.#scalable ? bus(requester) * 2 + (function8(requester) >> 7) : bus(requester);
  }

  #contextPlace(requester: number): Place {
    const table = this.#contexts.get(this.#contextKey(requester))!;
    return { table, word: this.#scalable ? (function8(requester) & 0x7f) * 4 : function8(requester) * 2 };
  }

  #allocate(what: string, order = 0): PhysPage {
    const frame = this.#memory.allocate(order);
    if (frame < 0) throw noMemory(what);
    return (this.#memory.basePage + frame) as PhysPage;
  }

  #release(page: PhysPage, order = 0): void {
    this.#memory.release(page - this.#memory.basePage, order);
  }

  #read({ table, word }: Place, structure: { readonly words: number }): bigint[] {
    return Array.from(
      { length: structure.words },
      (_, i) =>
        (BigInt(this.#memory.high(table, word + i) >>> 0) << 32n) | BigInt(this.#memory.low(table, word + i) >>> 0),
    );
  }

  #write({ table, word }: Place, words: readonly bigint[]): void {
    for (let i = words.length - 1; i >= 0; i--)
      this.#memory.store(table, word + i, Number(words[i]! & 0xffffffffn) | 0, Number(words[i]! >> 32n) | 0);
  }

  #hide({ table, word }: Place): void {
    this.#memory.store(table, word, this.#memory.low(table, word) & ~1, this.#memory.high(table, word));
  }
}

function pasidPlace(directory: PasidDirectory, pasid: number): Place {
  const table = directory.tables.get(Math.floor(pasid / PASID_TABLE_ENTRIES))!;
  return { table, word: (pasid % PASID_TABLE_ENTRIES) * 8 };
}
