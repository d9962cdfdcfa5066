/** The page table that a golden file is about: built as its header says, and told as the file tells it. */
import { createHash } from "node:crypto";
import { Counters, type IovaPage, type PhysPage } from "../../src/base/index.ts";
import {
  type ArmGeometry,
  type ArmOptions,
  amdV1,
  armLpae,
  riscv,
  sizesOfBitmap,
  type TableLayout,
  vtdSecondStage,
  x86_64,
} from "../../src/layouts/pagetable/index.ts";
import { Arena, Gather, PageTable } from "../../src/pagetable/index.ts";
import { known, type Line, NotJudged } from "./judge.ts";

export const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`;
export const pageOf = (text: unknown): number => Number(BigInt(text as string) >> 12n);
export const bytes = (pages: number): bigint => BigInt(pages) << 12n;
export const word = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

/** Differences in the fields that both sides have something to say about. */
export function compare(line: Line, found: Readonly<Record<string, unknown>>, names: readonly string[]): string[] {
  const differences: string[] = [];
  for (const name of names) {
    const expected = JSON.stringify(line[name]);
    const actual = JSON.stringify(found[name]);
    if (expected !== actual) differences.push(`${name}: kernel ${expected}, dmalink ${actual}`);
  }
  return differences;
}

/** What a table may be built with: features that change what it does, and how the kernel gathers and allocates. */
const FEATURES: ReadonlySet<string> = new Set([
  "amdEncryptTables", // the bit itself is said by `encryptBit`
  "detailedGather",
  "dynamicTop",
  "flushRange",
  "flushRangeNoGaps",
  "forceCoherence",
  "forceWriteable",
  "hardwareDirty",
  "incoherentWalker",
  "nonSecure",
  "s2fwb",
  "signExtend",
  "svnapot64k",
  "svpbmt",
  "ttbr1",
]);

/** Formats by the name that a file gives, each from what its header, or a begin line, says. */
const FORMATS: Readonly<Record<string, (config: Config) => TableLayout | undefined>> = {
  x86_64: ({ levels, common, has, encryption, incoherentWalker }) =>
    levels === 4 || levels === 5
      ? x86_64({ ...common, levels, signExtended: has("signExtend"), incoherentWalker, ...encryption })
      : undefined,
  vtdss: ({ levels, common, has, incoherentWalker }) =>
    levels === 3 || levels === 4 || levels === 5
      ? vtdSecondStage({
          ...common,
          levels,
          incoherentWalker,
          forceSnoop: has("forceCoherence"),
          forceWriteable: has("forceWriteable"),
        })
      : undefined,
  amdv1: ({ header, levels, common, has, encryption }) =>
    amdV1({
      ...common,
      topLevel: levels - 1,
      inputBits: header.vaBits as number,
      forceCoherence: has("forceCoherence"),
      ...encryption,
    }),
  riscv_64: ({ levels, common, has }) => {
    const mode = ({ 3: "Sv39", 4: "Sv48", 5: "Sv57" } as const)[levels];
    const options = { ...common, signExtended: has("signExtend"), svnapot: has("svnapot64k"), svpbmt: has("svpbmt") };
    return mode && riscv({ mode, ...options });
  },
  arm_64_lpae_s1: (config) => armOf(config, 1),
  arm_64_lpae_s2: (config) => armOf(config, 2),
};

interface Config {
  readonly header: Line;
  readonly levels: number;
  readonly common: { readonly outputBits: number; readonly leafSizes: readonly number[] };
  readonly encryption: { readonly encryptionBit?: number };
  readonly incoherentWalker: boolean;
  readonly has: (feature: string) => boolean;
}

const armOf = ({ header }: Config, stage: 1 | 2): TableLayout | undefined => armLpae(armOptions(header, stage));

/** What an Arm table is asked to be. */
export function armOptions(header: Line, stage: 1 | 2): ArmOptions {
  const features = header.features as string[];
  return {
    stage,
    pageSizes: BigInt(header.pageSizes as string),
    inputBits: header.ias as number,
    outputBits: header.oas as number,
    incoherentWalker: features.includes("incoherentWalker"),
    upperHalf: features.includes("ttbr1"),
    hardwareDirty: features.includes("hardwareDirty"),
    nonSecure: features.includes("nonSecure"),
    forcedWriteBack: features.includes("s2fwb"),
  };
}

/** The words that configure an Arm unit for a geometry, as the files write them. */
export function armInit(stage: 1 | 2, geometry: ArmGeometry): Readonly<Record<string, unknown>> {
  const { ps, tg, sh, orgn, irgn, tsz, sl } = geometry.control;
  return {
    pageSizes: hex(geometry.pageSizes),
    ias: geometry.inputBits,
    oas: geometry.outputBits,
    startLevel: geometry.startLevel,
    topBits: geometry.topIndexBits,
    topBytes: 8 * 2 ** geometry.topIndexBits,
    ...(stage === 1
      ? { tcr: { ips: ps, tg, sh, orgn, irgn, tsz }, mair: hex(geometry.mair) }
      : { vtcr: { ps, tg, sh, orgn, irgn, sl, tsz } }),
  };
}

/** The configuration that a header or a begin line describes. Not judged if dmalink has no such table. */
export function layoutOf(header: Line): TableLayout {
  const features = new Set(header.features as string[]);
  for (const feature of features)
    if (!FEATURES.has(feature)) throw new NotJudged(`the page-table feature "${feature}" is not known to the judge`);
  const format = known("the page-table format", FORMATS, header.format);
  const encryption = BigInt((header.encryptBit as string | undefined) ?? "0x0");
  const layout = format({
    header,
    levels: (header.topLevel as number) + 1,
    common: {
      outputBits: header.oaBits as number,
      leafSizes: sizesOfBitmap(BigInt(header.pageSizes as string)),
    },
    encryption: encryption === 0n ? {} : { encryptionBit: encryption.toString(2).length - 1 },
    incoherentWalker: features.has("incoherentWalker"),
    has: (feature) => features.has(feature),
  });
  const inputBits = (header.vaBits ?? layout?.inputBits) as number;
  if (layout === undefined || layout.topLevel !== header.topLevel || inputBits > layout.inputBits)
    throw new NotJudged(
      `dmalink has no ${String(header.format)} table of ${inputBits} bits and top level ${header.topLevel}`,
    );
  return { ...layout, inputBits }; // a unit may translate fewer bits than its tables
}

export class Subject {
  readonly layout: TableLayout;
  readonly counters: Counters = new Counters();
  readonly arena: Arena;
  readonly table: PageTable;
  readonly gather: Gather = new Gather();
  /** The gather notes which levels it is about. */
  readonly detailed: boolean;
  readonly keepGaps: boolean;
  syncs: unknown[] = [];
  walkFlushes: unknown[] = [];
  flushes: number[] = [0, 0];
  /** What an unmap that was not of whole pages put into the kernel's gather, and not into ours: [start, last]. */
  extra: readonly [bigint, bigint] | undefined;

  constructor(header: Line) {
    this.layout = layoutOf(header);
    this.arena = new Arena({ basePage: pageOf(header.tableBase) as PhysPage });
    const features = header.features as string[];
    this.detailed = features.includes("detailedGather");
    this.keepGaps = features.includes("flushRangeNoGaps");
    this.table = new PageTable({
      layout: this.layout,
      memory: this.arena,
      counters: this.counters,
      keepGaps: this.keepGaps,
      events: {
        sync: (gather) => this.syncs.push(this.shown(gather)),
        flushWalk: (iova, pages) =>
          this.walkFlushes.push([hex(bytes(iova)), hex(bytes(pages)), hex(bytes(2 ** this.layout.granuleLg))]),
        ...(features.includes("incoherentWalker") && {
          writeBack: (entries: number): void => {
            this.flushes = [this.flushes[0]! + 1, this.flushes[1]! + entries * 8];
          },
        }),
      },
    });
  }

  get legacy(): boolean {
    return this.layout.rules === "legacy";
  }

  /** First and last address of the gather as the kernel has it. */
  interval(gather: Gather): [bigint, bigint] {
    const [start, last] = gather.end === 0 ? [2n ** 64n - 1n, 0n] : [bytes(gather.start), bytes(gather.end) - 1n];
    if (this.extra === undefined || gather !== this.gather) return [start, last];
    return [start < this.extra[0] ? start : this.extra[0], last > this.extra[1] ? last : this.extra[1]];
  }

  shown(gather: Gather): unknown[] {
    const range = this.interval(gather).map(hex);
    if (this.legacy) return [...range, hex(bytes(gather.pageSize))];
    const levels = this.detailed ? [gather.leafLevels, gather.tableLevels] : [];
    return [...range, gather.tables.length, ...levels];
  }

  begin(): void {
    this.syncs = [];
    this.walkFlushes = [];
    this.flushes = [0, 0];
  }

  /** What an operation did besides answering. */
  effects(before: Counters): Record<string, unknown> {
    const since = this.counters.since(before);
    const perTable = (pages: number): number => pages / 2 ** Math.max(0, this.layout.indexBits - 9);
    return {
      newTables: perTable(since.tablePagesAllocated),
      ...(since.tablePagesFreed > 0 && { freedTables: perTable(since.tablePagesFreed) }),
      ...(this.syncs.length > 0 && { syncs: this.syncs }),
      ...(this.walkFlushes.length > 0 && { walkFlushes: this.walkFlushes }),
      ...(this.flushes[0]! > 0 && { flushes: this.flushes }),
    };
  }

  probe(iova: bigint): string {
    const page = this.table.lookup(Number(iova >> 12n) as IovaPage);
    return page < 0 ? "0x0" : hex(bytes(page) | (iova & 0xfffn));
  }

  touch(iova: bigint): number {
    const found = this.table.translate(Number(iova >> 12n) as IovaPage);
    if (found === undefined) return -2;
    if (this.legacy) {
      const rule = this.layout.dirty;
      if (rule?.highMask === undefined || (found.high & rule.highMask) === 0) return -1;
      this.arena.store(found.table, found.index, rule.soil(found.low), found.high);
      return 0;
    }
    const dirtyBit = this.layout.name === "x86-64" ? 1 << 6 : 1 << 7;
    const low = this.layout.dirty?.soil(found.low) ?? found.low | dirtyBit;
    this.arena.store(found.table, found.index, low, found.high);
    return 0;
  }

  check(): Record<string, unknown> {
    const raw = createHash("sha256");
    const norm = createHash("sha256");
    const placement = word(this.layout.placementLow, this.layout.placementHigh);
    let [entries, tables] = [0, 1]; // the top table has no entry
    for (const { level, path, low, high, leaf } of this.table.entries()) {
      entries++;
      if (!leaf) tables++;
      const entry = word(low, high);
      const start = `${level} ${path.join(".")}`;
      raw.update(`${start} ${entry.toString(16)}\n`);
      norm.update(
        leaf ? `${start} ${entry.toString(16)} leaf\n` : `${start} ${(entry & ~placement).toString(16)} table\n`,
      );
    }
    return {
      root: hex(bytes(this.table.root)),
      topLevel: this.table.topLevel,
      tables,
      frames: this.#blocks,
      entries,
      raw: raw.digest("hex").slice(0, 16),
      norm: norm.digest("hex").slice(0, 16),
    };
  }

  /** Blocks of table memory in use, as the kernel counts them: those of a large table are one. */
  get #blocks(): number {
    const { framesInUse } = this.arena;
    const of = (bits: number): number => 2 ** Math.max(0, bits - 9);
    const { indexBits, topIndexBits } = this.layout;
    const others = (framesInUse - of(topIndexBits)) / of(indexBits);
    return this.legacy ? 1 + others : framesInUse;
  }

  image(): unknown[] {
    return [...this.table.entries()].map(({ level, path, low, high, leaf }) => [
      level,
      path.join("."),
      hex(word(low, high)),
      leaf ? "l" : "t",
    ]);
  }
}
