/** The page table that a golden file is about: built as its header says, and told as the file tells it. */
import { createHash } from "node:crypto";
import { Counters, type IovaPage, type PhysPage } from "../../src/base/index.ts";
import {
  amdV1,
  armLpae,
  riscv,
  sizesOfBitmap,
  type TableLayout,
  vtdSecondStage,
  x86_64,
} from "../../src/layouts/pagetable/index.ts";
import { Arena, Gather, PageTable } from "../../src/pagetable/index.ts";
import type { Line } from "./judge.ts";

export const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`;
export const pageOf = (text: unknown): number => Number(BigInt(text as string) >> 12n);
export const bytes = (pages: number): bigint => BigInt(pages) << 12n;
export const word = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

/** The configuration that a header or a begin line describes. */
export function layoutOf(header: Line): TableLayout {
  const features = new Set(header.features as string[]);
  const leafSizes = sizesOfBitmap(BigInt(header.pageSizes as string));
  const incoherentWalker = features.has("incoherentWalker");
  const inputBits = header.vaBits as number;
  const outputBits = header.oaBits as number;
  const topLevel = header.topLevel as number;
  const encryption = BigInt((header.encryptBit as string | undefined) ?? "0x0");
  const encryptionBit = encryption === 0n ? {} : { encryptionBit: encryption.toString(2).length - 1 };
  const signExtended = features.has("signExtend");
  switch (header.format) {
    case "x86_64":
      return x86_64({
        levels: (topLevel + 1) as 4 | 5,
        signExtended,
        outputBits,
        leafSizes,
        incoherentWalker,
        ...encryptionBit,
      });
    case "vtdss":
      return vtdSecondStage({
        levels: (topLevel + 1) as 3 | 4 | 5,
        outputBits,
        leafSizes,
        incoherentWalker,
        forceSnoop: features.has("forceCoherence"),
        forceWriteable: features.has("forceWriteable"),
      });
    case "amdv1":
      return amdV1({
        topLevel,
        inputBits,
        outputBits,
        leafSizes,
        forceCoherence: features.has("forceCoherence"),
        ...encryptionBit,
      });
    case "riscv_64":
      return riscv({
        mode: ({ 2: "Sv39", 3: "Sv48", 4: "Sv57" } as const)[topLevel as 2 | 3 | 4],
        signExtended,
        outputBits,
        leafSizes,
        svnapot: features.has("svnapot64k"),
        svpbmt: features.has("svpbmt"),
      });
    default:
      return armLpae({
        stage: header.format === "arm_64_lpae_s1" ? 1 : 2,
        pageSizes: BigInt(header.pageSizes as string),
        inputBits: header.ias as number,
        outputBits: header.oas as number,
        incoherentWalker,
        upperHalf: features.has("ttbr1"),
        hardwareDirty: features.has("hardwareDirty"),
        nonSecure: features.has("nonSecure"),
        forcedWriteBack: features.has("s2fwb"),
      })!;
  }
}

export class Subject {
  readonly layout: TableLayout;
  readonly counters: Counters = new Counters();
  readonly arena: Arena;
  readonly table: PageTable;
  readonly gather: Gather = new Gather();
  readonly riscv: boolean;
  readonly keepGaps: boolean;
  syncs: unknown[] = [];
  walkFlushes: unknown[] = [];
  flushes: number[] = [0, 0];
  /** What an unmap that was not of whole pages put into the kernel's gather, and not into ours: [start, last]. */
  extra: readonly [bigint, bigint] | undefined;

  constructor(header: Line) {
    this.layout = layoutOf(header);
    this.riscv = header.format === "riscv_64";
    this.arena = new Arena({ basePage: pageOf(header.tableBase) as PhysPage });
    const features = header.features as string[];
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
    const levels = this.riscv ? [gather.leafLevels, gather.tableLevels] : [];
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
    let entries = 0;
    for (const { level, path, low, high, leaf } of this.table.entries()) {
      entries++;
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
      entries,
      raw: raw.digest("hex").slice(0, 16),
      norm: norm.digest("hex").slice(0, 16),
    };
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
