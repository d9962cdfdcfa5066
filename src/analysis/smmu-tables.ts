/**
 * What an Arm SMMUv3 translates by, from its registers down, over a snapshot of the pages: stream table, context descriptors, and tables of
 * stage 1 or 2 with pages of 4, 16 or 64 KiB.
 *
 * Idea: a stream's entry says which stages it has and where they begin; a PCI device's stream is its requester id on most machines, and is
 * named so. Promises: what the snapshot lacks and what hardware would refuse is said beside what was found; any bytes give an answer in
 * bounded time. Not for: two stages at once (the second is named, its tables are not followed); secure streams.
 * Specified by: Arm IHI 0070 (SMMUv3), chapters 3.3, 5 and 6.3.
 */
import type { PhysPage } from "../base/index.ts";
import { type ArmOptions, armLpae, READ, type TableLayout, WRITE } from "../layouts/pagetable/index.ts";
import type { AddressSpace, MissingPage } from "./address-space.ts";
import { deviceNotFound } from "./errors.ts";
import { type TableSource, wordsAt } from "./snapshot.ts";
import { itemsIn, type MalformedEntry, mappingsIn, readTree, type UnfollowedTable } from "./table-tree.ts";
import { DEVICE_LIMIT, type DeviceTables, type UnitTables } from "./tables.ts";

/** Where the stream table lies: the registers SMMU_STRTAB_BASE and SMMU_STRTAB_BASE_CFG. */
export interface SmmuRegisters {
  readonly strtabBase: bigint;
  readonly strtabBaseCfg: bigint;
}

const PAGE_WORDS = 512;
const STE_WORDS = 8;
const CD_WORDS = 8;
/** [51:6] and [51:4] of a pointer. */
const STRUCTURE = 0x000f_ffff_ffff_ffc0n;
const TABLE = 0x000f_ffff_ffff_fff0n;

const CONFIG: Readonly<Record<number, string>> = {
  0: "abort",
  4: "pass-through",
  5: "stage 1",
  6: "stage 2",
  7: "stage 1 and 2",
};
/** Bytes of a page by the number that the entry has for it: TG0 of a descriptor, S2TG of a stream. */
const GRANULES: readonly (bigint | undefined)[] = [4096n, 65536n, 16384n, undefined];
/** Bits of an output address by the number that the entry has for it. */
const OUTPUT_BITS: readonly number[] = [32, 36, 40, 42, 44, 48, 52];

const bits = (word: bigint, low: number, count: number): number =>
  Number((word >> BigInt(low)) & ((1n << BigInt(count)) - 1n));

/** Tables of 16 and 64 KiB are several pages of the snapshot. */
function inPages(source: TableSource): TableSource {
  const page = (table: PhysPage, index: number): PhysPage => (table + Math.floor(index / PAGE_WORDS)) as PhysPage;
  return {
    has: (table) => source.has(table),
    low: (table, index) => source.low(page(table, index), index % PAGE_WORDS),
    high: (table, index) => source.high(page(table, index), index % PAGE_WORDS),
  };
}

/**
 * Reads everything that hangs on a stream table; `device`: only that one.
 *
 * @throws DmaError ERR_DMA_TABLES_DEVICE (ENODEV): no entry for the device asked for
 */
export function readSmmuTables(
  source: TableSource,
  registers: SmmuRegisters,
  device?: { readonly segment: number; readonly bus: number; readonly function: number },
): UnitTables {
  return new SmmuReader(inPages(source), registers, device).read();
}

class SmmuReader {
  readonly #source: TableSource;
  readonly #base: bigint;
  readonly #isTwoLevel: boolean;
  readonly #split: number;
  readonly #streamBits: number;
  readonly #device: { readonly segment: number; readonly bus: number; readonly function: number } | undefined;
  readonly #devices: DeviceTables[] = [];
  readonly #missing: MissingPage[] = [];
  readonly #spaces = new Map<string, AddressSpace>();

  constructor(
    source: TableSource,
    { strtabBase, strtabBaseCfg }: SmmuRegisters,
    device: { readonly segment: number; readonly bus: number; readonly function: number } | undefined,
  ) {
    this.#source = source;
    this.#base = strtabBase & STRUCTURE;
    this.#isTwoLevel = bits(strtabBaseCfg, 16, 2) === 1;
    this.#split = this.#isTwoLevel ? Math.min(10, Math.max(6, bits(strtabBaseCfg, 6, 5))) : 0;
    this.#streamBits = Math.min(32, bits(strtabBaseCfg, 0, 6));
    this.#device = device;
  }

  read(): UnitTables {
    if (this.#isTwoLevel) {
      const count = 2 ** Math.max(0, this.#streamBits - this.#split);
      for (let first = 0; first < count && !this.#leftOut; first++) {
        const descriptor = this.#words(this.#base + BigInt(first) * 8n, 1, "stream table, first level");
        if (descriptor === undefined) {
          first += PAGE_WORDS - 1 - (first % PAGE_WORDS); // none of that page
          continue;
        }
        const span = bits(descriptor[0]!, 0, 5);
        if (span === 0) continue;
        this.#streams(descriptor[0]! & STRUCTURE, first * 2 ** this.#split, 2 ** Math.min(span - 1, this.#split));
      }
    } else this.#streams(this.#base, 0, 2 ** Math.min(this.#streamBits, 24));
    if (this.#device && this.#devices.length === 0) {
      const wanted = nameOf(this.#device.bus * 256 + this.#device.function, this.#device.segment);
      throw deviceNotFound(wanted, []);
    }
    return {
      mode: "SMMUv3",
      rootTable: Number(this.#base / 4096n) as PhysPage,
      devices: this.#devices,
      missing: this.#missing,
      leftOut: this.#leftOut,
    };
  }

  get #leftOut(): boolean {
    return this.#devices.length >= DEVICE_LIMIT;
  }

  /** The entries of streams [first, first + count), which lie at `table`. */
  #streams(table: bigint, first: number, count: number): void {
    for (let i = 0; i < count && !this.#leftOut; i++) {
      const stream = first + i;
      if (this.#device && stream !== this.#device.bus * 256 + this.#device.function) continue;
      const at = table + BigInt(i * STE_WORDS * 8);
      const entry = this.#words(at, STE_WORDS, "stream table");
      if (entry === undefined) {
        i += 64 - 1 - Number(at % 4096n) / 64; // none of that page
        continue;
      }
      if ((entry[0]! & 1n) === 1n) this.#stream(stream, entry);
    }
  }

  #stream(stream: number, entry: readonly bigint[]): void {
    const config = bits(entry[0]!, 1, 3);
    if (config === 0 && !this.#device) return; // Linux fills the table with these: nobody is there
    const name = { bdf: nameOf(stream, this.#device?.segment ?? 0), stream };
    const mode = `SMMUv3 ${CONFIG[config] ?? "reserved"}`;
    const problems = CONFIG[config] === undefined ? [`configuration ${config} is reserved: requests are refused`] : [];
    if (config === 5 || config === 7) this.#stage1(name, mode, entry, config === 7);
    else if (config === 6) this.#stage2(name, mode, entry);
    else this.#devices.push({ ...name, mode, levels: 0, missing: [], problems });
  }

  #stage1(name: { bdf: string; stream: number }, mode: string, entry: readonly bigint[], isNested: boolean): void {
    const tables = entry[0]! & STRUCTURE;
    const count = bits(entry[0]!, 59, 5);
    const format = bits(entry[0]!, 4, 2);
    const nested = isNested ? ["stage 2 translates what stage 1 gives: its tables are not followed"] : [];
    const found: { readonly pasid: number; readonly words: readonly bigint[] }[] = [];
    const missing: MissingPage[] = [];
    const descriptorsAt = (table: bigint, first: number, all: number): void => {
      for (let i = 0; i < all && found.length < DEVICE_LIMIT; i++) {
        const words = this.#read(table + BigInt(i * CD_WORDS * 8), CD_WORDS);
        if (words === undefined) {
          missing.push({ what: "context descriptors", page: Number((table + BigInt(i * 64)) / 4096n) as PhysPage });
          i += 63 - (i % 64);
        } else if (bits(words[0]!, 31, 1) === 1) found.push({ pasid: first + i, words });
      }
    };
    if (count === 0 || format === 0) descriptorsAt(tables, 0, 2 ** Math.min(count, 20));
    else {
      const leaf = format === 1 ? 64 : 1024;
      const all = Math.ceil(2 ** Math.min(count, 20) / leaf);
      for (let i = 0; i < all; i++) {
        const pointer = this.#read(tables + BigInt(i * 8), 1)?.[0];
        if (pointer === undefined) {
          missing.push({
            what: "context descriptors, first level",
            page: Number((tables + BigInt(i * 8)) / 4096n) as PhysPage,
          });
          i += PAGE_WORDS - 1 - (i % PAGE_WORDS);
        } else if ((pointer & 1n) === 1n) descriptorsAt(pointer & 0x000f_ffff_ffff_f000n, i * leaf, leaf);
      }
    }
    if (found.length === 0) {
      const none = missing.length === 0 ? ["no context descriptor is valid: every request is refused"] : [];
      this.#devices.push({ ...name, mode, levels: 0, missing, problems: [...nested, ...none] });
    }
    for (const [i, { pasid, words }] of found.entries()) {
      const half = bits(words[0]!, 14, 1) === 0 ? "low" : "upper";
      const [size, granule, table] =
        half === "low"
          ? [bits(words[0]!, 0, 6), GRANULES[bits(words[0]!, 6, 2)], words[1]! & TABLE]
          : [bits(words[0]!, 16, 6), UPPER_GRANULES[bits(words[0]!, 22, 2)], words[2]! & TABLE];
      const options = { stage: 1, inputBits: 64 - size, upperHalf: half === "upper" } as const;
      this.#push(
        {
          ...name,
          ...(count > 0 && { pasid }),
          domainId: bits(words[0]!, 48, 16),
        },
        mode,
        granule === undefined
          ? undefined
          : {
              ...options,
              pageSizes: granule * ALL_SIZES(granule),
              outputBits: OUTPUT_BITS[bits(words[0]!, 32, 3)] ?? 48,
            },
        table,
        [...nested, ...(bits(words[0]!, 41, 1) === 0 ? ["32-bit tables (AArch32): not followed"] : [])],
        i === 0 ? missing : [],
      );
    }
  }

  #stage2(name: { bdf: string; stream: number }, mode: string, entry: readonly bigint[]): void {
    const word = entry[2]!;
    const granule = GRANULES[bits(word, 46, 2)];
    this.#push(
      { ...name, domainId: bits(word, 0, 16) },
      mode,
      granule === undefined
        ? undefined
        : {
            stage: 2,
            inputBits: 64 - bits(word, 32, 6),
            pageSizes: granule * ALL_SIZES(granule),
            outputBits: OUTPUT_BITS[bits(word, 48, 3)] ?? 48,
          },
      entry[3]! & TABLE,
      [],
      [],
    );
  }

  #push(
    name: Pick<DeviceTables, "bdf" | "stream" | "pasid" | "domainId">,
    mode: string,
    options: ArmOptions | undefined,
    table: bigint,
    problems: readonly string[],
    missing: readonly MissingPage[],
  ): void {
    const layout = options && options.inputBits >= 16 && options.inputBits <= 52 ? armLpae(options) : undefined;
    if (!layout || problems.some((problem) => problem.includes("AArch32"))) {
      const why = layout ? [] : ["its page size or address width is reserved: requests are refused"];
      this.#devices.push({ ...name, mode, levels: 0, missing, problems: [...problems, ...why] });
      return;
    }
    const key = `${layout.name} ${options!.inputBits} ${table}`;
    let space = this.#spaces.get(key);
    if (!space) {
      space = this.#space(withoutHierarchy(layout, options!.stage), Number(table / 4096n) as PhysPage);
      this.#spaces.set(key, space);
    }
    this.#devices.push({ ...name, mode, levels: layout.topLevel + 1, space, missing, problems });
  }

  #space(layout: TableLayout, root: PhysPage): AddressSpace {
    const missing: MissingPage[] = [];
    const malformed: MalformedEntry[] = [];
    const repeated: UnfollowedTable[] = [];
    const tree = readTree(this.#source, layout, root);
    for (const item of tree.kind === "table" ? itemsIn(tree) : [tree])
      if (item.kind === "malformed") malformed.push(item);
      else if (item.kind === "repeated") repeated.push(item);
      else if (item.kind === "missing") missing.push({ what: "page table", page: item.page });
    const trees = tree.kind === "table" ? [tree] : [];
    let tablePages = 0;
    for (const top of trees) {
      tablePages = 1;
      for (const item of itemsIn(top)) if (item.kind === "table") tablePages++;
    }
    const mappings = trees.flatMap(mappingsIn);
    return { trees, mappings, tablePages, missing, malformed, repeated, unmappedPages: 0 };
  }

  /** Words at a physical address; `undefined`: not in the snapshot, which is noted once a page. */
  #words(address: bigint, count: number, what: string): bigint[] | undefined {
    const words = this.#read(address, count);
    const page = Number(address / 4096n) as PhysPage;
    if (words === undefined && !this.#missing.some((one) => one.page === page) && this.#missing.length < DEVICE_LIMIT)
      this.#missing.push({ what, page });
    return words;
  }

  #read(address: bigint, count: number): bigint[] | undefined {
    const page = Number(address / 4096n) as PhysPage;
    return this.#source.has(page) ? wordsAt(this.#source, page, Number(address % 4096n) / 8, count) : undefined;
  }
}

/** TG1 numbers the page sizes otherwise than TG0. */
const UPPER_GRANULES: readonly (bigint | undefined)[] = [undefined, 16384n, 4096n, 65536n];

/** What to multiply a page's size by for the bitmap of all sizes that its tables have. */
const ALL_SIZES = (granule: bigint): bigint =>
  granule === 4096n ? 1n | (1n << 9n) | (1n << 18n) : granule === 16384n ? 1n | (1n << 11n) : 1n | (1n << 13n);

/** A table's own entry takes no permission away, as Linux writes it. */
function withoutHierarchy(layout: TableLayout, stage: 1 | 2): TableLayout {
  if (stage === 1) return layout;
  return { ...layout, prot: (low, high) => layout.prot(low, high) | ((low & 0xc0) === 0 ? READ | WRITE : 0) };
}

/** The PCI address whose requester id `stream` is. */
function nameOf(stream: number, segment: number): string {
  const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0");
  if (stream >= 0x1_0000) return `stream 0x${stream.toString(16)}`;
  return `${hex(segment, 4)}:${hex(stream >> 8, 2)}:${hex((stream >> 3) & 31, 2)}.${stream & 7}`;
}
