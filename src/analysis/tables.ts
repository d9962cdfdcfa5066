/**
 * Tables: from a unit's root table register to what each of its devices can reach, over a snapshot of the pages.
 *
 * Root table -> context table -> (PASID directory -> PASID table ->) page tables, each step decoded by its layout.
 * Promises: what the snapshot lacks and what hardware would refuse is reported beside what was found; any bytes give an
 * answer in bounded time. Address spaces that devices share are read once.
 * Not for: interrupt remapping; tables of other units.
 * Specified by: VT-d specification, 3.4 to 3.8 and chapter 9.
 */
import type { PhysPage } from "../base/index.ts";
import {
  CONTEXT_ENTRY,
  decodeEntry,
  decodeRootTableAddress,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  PASID_TABLE_ENTRIES,
  type PasidEntry,
  pasidDirectoryEntries,
  ROOT_ENTRY,
  reservedBits,
  SCALABLE_CONTEXT_ENTRY,
  SCALABLE_ROOT_ENTRY,
  type ScalableContextEntry,
  type Structure,
  TABLE_MODE,
  translationOfContext,
  translationOfPasid,
  type VtdTranslation,
} from "../layouts/vtd/index.ts";
import {
  type AddressSpace,
  type MissingPage,
  type PagedTranslation,
  readAddressSpace,
  type TableBudget,
  tableBudget,
} from "./address-space.ts";
import { deviceNotFound, reservedTableMode, rootTableMissing } from "./errors.ts";
import { type TableSource, wordsAt } from "./snapshot.ts";

/** One device, or in scalable mode one PASID of it. */
export interface DeviceTables {
  /** "0000:00:04.0" */
  readonly bdf: string;
  /** Scalable mode: which PASID; absent where none can be told. */
  readonly pasid?: number;
  /** This PASID stands in for requests that carry none. */
  readonly withoutPasid?: boolean;
  /** "legacy second-stage", "scalable nested", "legacy pass-through", "scalable" when its PASIDs are not to be found … */
  readonly mode: string;
  /** What the unit tags cached translations with; absent where the entry is not valid. */
  readonly domainId?: number;
  /** Levels of the first stage a request meets; 0 without tables. */
  readonly levels: number;
  /** Nested: levels of the second stage. */
  readonly secondLevels?: number;
  /** What it can reach; absent without page tables. */
  readonly space?: AddressSpace;
  /** SMMU: the number that it has there for the device. */
  readonly stream?: number;
  /** Where its page tables lie, if they are known to be elsewhere: debugfs prints them in another file. */
  readonly tablesAt?: PhysPage;
  /** Tables on the way to the page tables that are not in the snapshot. */
  readonly missing: readonly MissingPage[];
  /** Why hardware refuses this device's requests, in sentences. */
  readonly problems: readonly string[];
}

/** Everything that one IOMMU translates by, read from its root on. */
export interface UnitTables {
  /** How the unit reads its root; `abort`: every request is refused. */
  readonly mode: "legacy" | "scalable" | "abort" | "SMMUv3";
  /** Of an SMMU the stream table. */
  readonly rootTable: PhysPage;
  /** Ascending by address, then PASID. */
  readonly devices: readonly DeviceTables[];
  /** Context tables that are not in the snapshot. */
  readonly missing: readonly MissingPage[];
  /** There are more than {@link DEVICE_LIMIT} devices and PASIDs; the rest was left out. */
  readonly leftOut: boolean;
}

/** Where the tables lie, and which unit reads them. */
export interface UnitTablesOptions {
  /** The root table register, or only the root table's address: without mode bits the entries tell the mode. */
  readonly root: bigint;
  /** The mode bits of `root` are the register's, also when they are 0. */
  readonly isRegister?: boolean;
  /** Only this device. */
  readonly device?: {
    /** 0 to 255. */
    readonly bus: number;
    /** Device × 8 + function. */
    readonly function: number;
  };
  /** PCI segment of the unit, which tables do not say: 0 unless said. */
  readonly segment?: number;
}

/** Devices and PASIDs that are read at most. */
export const DEVICE_LIMIT = 65_536;

const ENTRY_BYTES = { legacy: 16, scalable: 32 } as const;

/**
 * Reads everything that hangs on a root table.
 * @throws DmaError ERR_DMA_TABLES_ROOT (ENOENT): the root table is not there; ERR_DMA_TABLES_MODE (EINVAL): a reserved mode;
 * ERR_DMA_TABLES_DEVICE (ENODEV): no entry for the device asked for; ERR_DMA_TABLES_TANGLED (EINVAL): tables that point to each
 * other so that few of them describe no end of mappings
 */
export function readUnitTables(source: TableSource & { pageCount: number }, options: UnitTablesOptions): UnitTables {
  const { mode: tableMode, rootTable } = decodeRootTableAddress(options.root);
  if (tableMode === TABLE_MODE.reserved) throw reservedTableMode(options.root, tableMode);
  if (tableMode === TABLE_MODE.abort) return { mode: "abort", rootTable, devices: [], missing: [], leftOut: false };
  if (!source.has(rootTable)) throw rootTableMissing(rootTable * 4096, source.pageCount);
  const scalable = tableMode === TABLE_MODE.scalable || (!options.isRegister && looksScalable(source, rootTable));
  const reader = new UnitReader(
    source,
    rootTable,
    scalable ? "scalable" : "legacy",
    options,
    tableBudget(source.pageCount),
  );
  return reader.read();
}

/** The second half of a root entry is reserved in legacy mode, and there an address width of 0 does not exist. */
function looksScalable(source: TableSource, rootTable: PhysPage): boolean {
  for (let bus = 0; bus < 256; bus++) {
    const words = wordsAt(source, rootTable, bus * 2, 2);
    if ((words[1]! & 1n) === 1n) return true;
    const { present, contextTable } = decodeEntry(ROOT_ENTRY, words);
    if (!present) continue;
    for (let fn = 0; fn < 256; fn++) {
      const context = decodeEntry(CONTEXT_ENTRY, wordsAt(source, contextTable, fn * 2, 2));
      if (context.present && context.addressWidth === 0) return true;
    }
  }
  return false;
}

/** A PASID entry with its PASID. */
interface FoundPasid {
  readonly pasid: number;
  readonly entry: PasidEntry;
  readonly reserved: readonly bigint[];
}

class UnitReader {
  readonly #source: TableSource;
  readonly #budget: TableBudget;
  readonly #rootTable: PhysPage;
  readonly #mode: "legacy" | "scalable";
  readonly #only: UnitTablesOptions["device"];
  readonly #segment: string;
  readonly #devices: DeviceTables[] = [];
  readonly #missing: MissingPage[] = [];
  #leftOut = false;
  /** What was read already: devices may share directories, PASID tables and address spaces. */
  readonly #spaces = new Map<string, AddressSpace>();
  readonly #pasidTables = new Map<PhysPage, readonly FoundPasid[]>();
  readonly #directories = new Map<string, { pasids: readonly FoundPasid[]; missing: readonly MissingPage[] }>();

  constructor(
    source: TableSource,
    rootTable: PhysPage,
    mode: "legacy" | "scalable",
    options: UnitTablesOptions,
    budget: TableBudget,
  ) {
    this.#source = source;
    this.#budget = budget;
    this.#rootTable = rootTable;
    this.#mode = mode;
    this.#only = options.device;
    this.#segment = (options.segment ?? 0).toString(16).padStart(4, "0");
  }

  read(): UnitTables {
    const mode = this.#mode;
    for (let bus = 0; bus < 256 && !this.#leftOut; bus++) {
      if (this.#only && this.#only.bus !== bus) continue;
      const words = wordsAt(this.#source, this.#rootTable, bus * 2, 2);
      if (mode === "legacy") {
        const { present, contextTable } = decodeEntry(ROOT_ENTRY, words);
        if (present) this.#readContextTable(bus, 0, 256, contextTable);
        continue;
      }
      const root = decodeEntry(SCALABLE_ROOT_ENTRY, words);
      if (root.lowerPresent) this.#readContextTable(bus, 0, 128, root.lowerContextTable);
      if (root.upperPresent) this.#readContextTable(bus, 128, 128, root.upperContextTable);
    }
    if (this.#only && this.#devices.length === 0 && this.#missing.length === 0)
      throw deviceNotFound(this.#bdf(this.#only.bus, this.#only.function), this.#present());
    return {
      mode,
      rootTable: this.#rootTable,
      devices: this.#devices,
      missing: this.#missing,
      leftOut: this.#leftOut,
    };
  }

  /** Every device with a context entry. */
  #present(): string[] {
    const all = new UnitReader(this.#source, this.#rootTable, this.#mode, { root: 0n }, this.#budget);
    return [...new Set(all.read().devices.map((device) => `${this.#segment}${device.bdf.slice(4)}`))];
  }

  #bdf(bus: number, fn: number): string {
    const two = (value: number): string => value.toString(16).padStart(2, "0");
    return `${this.#segment}:${two(bus)}:${two(fn >> 3)}.${fn & 7}`;
  }

  /** Functions firstFunction .. + count of a bus. */
  #readContextTable(bus: number, firstFunction: number, count: number, table: PhysPage): void {
    const only = this.#only?.function;
    if (only !== undefined && (only < firstFunction || only >= firstFunction + count)) return;
    if (!this.#source.has(table)) {
      this.#missing.push({
        what: `context table of ${this.#bdf(bus, firstFunction)} to ${this.#bdf(bus, firstFunction + count - 1).slice(8)}`,
        page: table,
      });
      return;
    }
    const words = ENTRY_BYTES[this.#mode] / 8;
    for (let i = 0; i < count && !this.#leftOut; i++) {
      const fn = firstFunction + i;
      if (only !== undefined && only !== fn) continue;
      if ((this.#source.low(table, i * words) & 1) === 0) continue;
      const entry = wordsAt(this.#source, table, i * words, words);
      if (this.#mode === "legacy") this.#readContext(this.#bdf(bus, fn), entry);
      else this.#readScalableContext(this.#bdf(bus, fn), entry);
    }
  }

  #readContext(bdf: string, words: readonly bigint[]): void {
    const entry = decodeEntry(CONTEXT_ENTRY, words);
    const problems = reservedProblems(CONTEXT_ENTRY, reservedBits(CONTEXT_ENTRY, words));
    this.#add({ bdf, domainId: entry.domainId }, translationOfContext(entry), problems);
  }

  #readScalableContext(bdf: string, words: readonly bigint[]): void {
    const context = decodeEntry(SCALABLE_CONTEXT_ENTRY, words);
    const problems = reservedProblems(SCALABLE_CONTEXT_ENTRY, reservedBits(SCALABLE_CONTEXT_ENTRY, words));
    const { pasids, missing } = this.#directory(context);
    if (pasids.length === 0) {
      if (missing.length === 0) problems.push("no PASID has an entry: every request is refused");
      this.#push({ bdf, mode: "scalable", levels: 0, missing, problems });
    }
    for (const [i, { pasid, entry, reserved }] of pasids.entries())
      this.#add(
        { bdf, pasid, withoutPasid: pasid === context.requestPasid, domainId: entry.domainId },
        translationOfPasid(entry),
        [...problems, ...reservedProblems(PASID_ENTRY, reserved)],
        i === 0 ? missing : [],
      );
  }

  /** The PASIDs of a directory, which may span several pages. */
  #directory(context: ScalableContextEntry): { pasids: readonly FoundPasid[]; missing: readonly MissingPage[] } {
    const { pasidDirectory } = context;
    const entries = pasidDirectoryEntries(context);
    const key = `${pasidDirectory}/${entries}`;
    const known = this.#directories.get(key);
    if (known) return known;
    const pasids: FoundPasid[] = [];
    const missing: MissingPage[] = [];
    for (let i = 0; i < entries && pasids.length <= DEVICE_LIMIT; i++) {
      const page = (pasidDirectory + Math.floor(i / 512)) as PhysPage;
      if (!this.#source.has(page)) {
        missing.push({ what: "PASID directory", page });
        i += 511 - (i % 512);
        continue;
      }
      const entry = decodeEntry(PASID_DIRECTORY_ENTRY, wordsAt(this.#source, page, i % 512, 1));
      if (!entry.present) continue;
      if (!this.#source.has(entry.pasidTable)) missing.push({ what: "PASID table", page: entry.pasidTable });
      else
        for (const found of this.#pasidTable(entry.pasidTable))
          pasids.push({ ...found, pasid: i * PASID_TABLE_ENTRIES + found.pasid });
    }
    const result = { pasids, missing };
    this.#directories.set(key, result);
    return result;
  }

  /** The present entries of one PASID table; `pasid` counts from its first. */
  #pasidTable(page: PhysPage): readonly FoundPasid[] {
    const known = this.#pasidTables.get(page);
    if (known) return known;
    const found: FoundPasid[] = [];
    for (let i = 0; i < PASID_TABLE_ENTRIES; i++) {
      if ((this.#source.low(page, i * 8) & 1) === 0) continue;
      const words = wordsAt(this.#source, page, i * 8, 8);
      found.push({ pasid: i, entry: decodeEntry(PASID_ENTRY, words), reserved: reservedBits(PASID_ENTRY, words) });
    }
    this.#pasidTables.set(page, found);
    return found;
  }

  #add(
    name: Pick<DeviceTables, "bdf" | "pasid" | "withoutPasid" | "domainId">,
    translation: VtdTranslation,
    problems: readonly string[],
    missing: readonly MissingPage[] = [],
  ): void {
    const { kind } = translation;
    const mode = `${this.#mode} ${kind}`;
    if (kind === "reserved")
      this.#push({
        ...name,
        mode,
        levels: 0,
        missing,
        problems: [...problems, `${translation.reason}: requests are refused`],
      });
    else if (kind === "pass-through") this.#push({ ...name, mode, levels: 0, missing, problems });
    else {
      const first = kind === "second-stage" ? translation.second : translation.first;
      const secondLevels = kind === "nested" ? { secondLevels: translation.second.levels } : {};
      const space = this.#space(translation);
      this.#push({ ...name, mode, levels: first.levels, ...secondLevels, space, missing, problems });
    }
  }

  #push(device: DeviceTables): void {
    if (this.#devices.length < DEVICE_LIMIT) this.#devices.push(device);
    else this.#leftOut = true;
  }

  #space(translation: PagedTranslation): AddressSpace {
    const key = JSON.stringify(translation);
    let space = this.#spaces.get(key);
    if (!space) {
      space = readAddressSpace(this.#source, translation, this.#budget);
      this.#spaces.set(key, space);
    }
    return space;
  }
}

function reservedProblems<T extends object>(structure: Structure<T>, reserved: readonly bigint[]): string[] {
  if (reserved.every((word) => word === 0n)) return [];
  const words = reserved.flatMap((word, i) => (word === 0n ? [] : [`0x${word.toString(16)} in word ${i}`]));
  return [`the ${structure.name} has reserved bits set (${words.join(", ")}): requests are refused`];
}
