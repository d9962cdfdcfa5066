/**
 * VT-d roots: the structures between the root table register and a device's page tables.
 *
 * Legacy mode: root table (by bus) -> context table (by device and function) -> second-stage tables. Scalable mode: root
 * table -> two context tables per bus -> PASID directory -> PASID table -> first- and second-stage tables.
 * Every table is 4 KiB. All pointers are physical pages, except the first-stage pointer of a nested PASID entry, which
 * the second stage translates.
 * Specified by: VT-d specification, 9.1 to 9.6, and 11.4 for the registers.
 */
import type { PhysPage } from "../../base/index.ts";
import { decodeEntry, encodeEntry, flag, number, pointer, type Structure } from "./structure.ts";

/** One bus in legacy mode. */
interface RootEntry {
  readonly present: boolean;
  readonly contextTable: PhysPage;
}

export const ROOT_ENTRY: Structure<RootEntry> = {
  name: "root entry",
  source: "VT-d specification, 9.1",
  words: 2,
  fields: { present: flag(0), contextTable: pointer(63, 12) },
};

/** One bus in scalable mode: devices 0 to 15 in the lower context table, 16 to 31 in the upper one. */
interface ScalableRootEntry {
  readonly lowerPresent: boolean;
  readonly lowerContextTable: PhysPage;
  readonly upperPresent: boolean;
  readonly upperContextTable: PhysPage;
}

export const SCALABLE_ROOT_ENTRY: Structure<ScalableRootEntry> = {
  name: "scalable-mode root entry",
  source: "VT-d specification, 9.2",
  words: 2,
  fields: {
    lowerPresent: flag(0),
    lowerContextTable: pointer(63, 12),
    upperPresent: flag(64),
    upperContextTable: pointer(127, 76),
  },
};

/** Translation type of a context entry: what is done with which requests. */
export const TRANSLATION_TYPE = { secondStage: 0, secondStageWithDeviceTlb: 1, passThrough: 2 } as const;

/** One function in legacy mode. */
export interface ContextEntry {
  readonly present: boolean;
  readonly faultProcessingDisable: boolean;
  /** TT: one of {@link TRANSLATION_TYPE}. */
  readonly translationType: number;
  /** SSPTPTR: the top second-stage table. */
  readonly secondStageTable: PhysPage;
  /** AW: 1, 2 or 3 for 3, 4 or 5 levels. */
  readonly addressWidth: number;
  /** DID. */
  readonly domainId: number;
}

export const CONTEXT_ENTRY: Structure<ContextEntry> = {
  name: "context entry",
  source: "VT-d specification, 9.3",
  words: 2,
  fields: {
    present: flag(0),
    faultProcessingDisable: flag(1),
    translationType: number(3, 2),
    secondStageTable: pointer(63, 12),
    addressWidth: number(66, 64),
    domainId: number(87, 72),
  },
  ignored: [[70, 67]],
};

/** One function in scalable mode. */
export interface ScalableContextEntry {
  readonly present: boolean;
  readonly faultProcessingDisable: boolean;
  /** DTE. */
  readonly deviceTlbEnable: boolean;
  /** PASIDE: requests with a PASID are allowed. */
  readonly pasidEnable: boolean;
  /** PRE. */
  readonly pageRequestEnable: boolean;
  /** PDTS: the directory has 2^(this + 7) entries; see {@link pasidDirectoryEntries}. */
  readonly pasidDirectorySize: number;
  readonly pasidDirectory: PhysPage;
  /** RID_PASID: stands in for the PASID of requests that carry none. */
  readonly requestPasid: number;
  /** RID_PRIV: those requests are privileged. */
  readonly requestPrivileged: boolean;
}

export const SCALABLE_CONTEXT_ENTRY: Structure<ScalableContextEntry> = {
  name: "scalable-mode context entry",
  source: "VT-d specification, 9.4",
  words: 4,
  fields: {
    present: flag(0),
    faultProcessingDisable: flag(1),
    deviceTlbEnable: flag(2),
    pasidEnable: flag(3),
    pageRequestEnable: flag(4),
    pasidDirectorySize: number(11, 9),
    pasidDirectory: pointer(63, 12),
    requestPasid: number(83, 64),
    requestPrivileged: flag(84),
  },
};

/** Entries of the PASID directory of a context; each stands for {@link PASID_TABLE_ENTRIES} PASIDs. */
export const pasidDirectoryEntries = (context: ScalableContextEntry): number => 2 ** (context.pasidDirectorySize + 7);

/** Entries of one PASID table. */
export const PASID_TABLE_ENTRIES = 64;

/** 64 PASIDs. */
interface PasidDirectoryEntry {
  readonly present: boolean;
  readonly faultProcessingDisable: boolean;
  readonly pasidTable: PhysPage;
}

export const PASID_DIRECTORY_ENTRY: Structure<PasidDirectoryEntry> = {
  name: "PASID directory entry",
  source: "VT-d specification, 9.5",
  words: 1,
  fields: { present: flag(0), faultProcessingDisable: flag(1), pasidTable: pointer(63, 12) },
};

/** Translation type of a PASID entry (PGTT). */
export const PASID_TRANSLATION_TYPE = { firstStage: 1, secondStage: 2, nested: 3, passThrough: 4 } as const;

/** One PASID of one function. */
export interface PasidEntry {
  readonly present: boolean;
  readonly faultProcessingDisable: boolean;
  /** AW of the second stage: 1, 2 or 3 for 3, 4 or 5 levels. */
  readonly addressWidth: number;
  /** SSEE. */
  readonly secondStageExecuteEnable: boolean;
  /** PGTT: one of {@link PASID_TRANSLATION_TYPE}. */
  readonly translationType: number;
  /** SSADE: the unit keeps accessed and dirty bits in second-stage entries. */
  readonly secondStageAccessDirtyEnable: boolean;
  /** SSPTPTR: the top second-stage table. */
  readonly secondStageTable: PhysPage;
  /** DID. */
  readonly domainId: number;
  /** PWSNP, PGSNP: table walks, and the pages themselves, snoop the caches. */
  readonly walkSnoop: boolean;
  readonly pageSnoop: boolean;
  /** CD, EMTE, EMT, PWT, PCD, PAT: memory types of the first stage. */
  readonly cacheDisable: boolean;
  readonly extendedMemoryTypeEnable: boolean;
  readonly extendedMemoryType: number;
  readonly walkWriteThrough: boolean;
  readonly walkCacheDisable: boolean;
  readonly pageAttributeTable: number;
  /** SRE, ERE: supervisor and execute requests are allowed. */
  readonly supervisorRequestEnable: boolean;
  readonly executeRequestEnable: boolean;
  /** FSPM: 0 for 4 levels in the first stage, 1 for 5. */
  readonly firstStagePagingMode: number;
  /** WPE, NXE, SMEP, EAFE: as the CPU's controls of the same names. */
  readonly writeProtectEnable: boolean;
  readonly noExecuteEnable: boolean;
  readonly supervisorExecutePrevent: boolean;
  readonly extendedAccessedEnable: boolean;
  /** FSPTPTR: the top first-stage table; guest-physical when nested. */
  readonly firstStageTable: PhysPage;
}

export const PASID_ENTRY: Structure<PasidEntry> = {
  name: "PASID table entry",
  source: "VT-d specification, 9.6",
  words: 8,
  fields: {
    present: flag(0),
    faultProcessingDisable: flag(1),
    addressWidth: number(4, 2),
    secondStageExecuteEnable: flag(5),
    translationType: number(8, 6),
    secondStageAccessDirtyEnable: flag(9),
    secondStageTable: pointer(63, 12),
    domainId: number(79, 64),
    walkSnoop: flag(87),
    pageSnoop: flag(88),
    cacheDisable: flag(89),
    extendedMemoryTypeEnable: flag(90),
    extendedMemoryType: number(93, 91),
    walkWriteThrough: flag(94),
    walkCacheDisable: flag(95),
    pageAttributeTable: number(127, 96),
    supervisorRequestEnable: flag(128),
    executeRequestEnable: flag(129),
    firstStagePagingMode: number(131, 130),
    writeProtectEnable: flag(132),
    noExecuteEnable: flag(133),
    supervisorExecutePrevent: flag(134),
    extendedAccessedEnable: flag(135),
    firstStageTable: pointer(191, 140),
  },
};

/** A PASID entry with every field 0, to build others from. */
export const ABSENT_PASID_ENTRY: PasidEntry = decodeEntry(PASID_ENTRY, new Array<bigint>(8).fill(0n));

/** Translation table mode of the root table register (TTM). */
export const TABLE_MODE = { legacy: 0, scalable: 1, reserved: 2, abort: 3 } as const;

/** Root Table Address Register: where a unit's tables begin, and which kind they are. */
interface RootTableAddress {
  /** TTM: one of {@link TABLE_MODE}. */
  readonly mode: number;
  readonly rootTable: PhysPage;
}

export const ROOT_TABLE_ADDRESS: Structure<RootTableAddress> = {
  name: "root table address register",
  source: "VT-d specification, 11.4.5",
  words: 1,
  fields: { mode: number(11, 10), rootTable: pointer(63, 12) },
};

/** The register's value, read and built. */
export const decodeRootTableAddress = (value: bigint): RootTableAddress => decodeEntry(ROOT_TABLE_ADDRESS, [value]);
export const encodeRootTableAddress = (value: RootTableAddress): bigint => encodeEntry(ROOT_TABLE_ADDRESS, value)[0]!;

/**
 * Leaf sizes that a unit with this Capability Register walks (11.4.2), as binary logarithms of 4 KiB pages: SSLPS says
 * it of the second stage, FS1GP of the first, which always has 2 MiB.
 */
export function unitLeafSizes(capability: bigint, stage: "first" | "second"): number[] {
  const bit = (position: bigint): boolean => ((capability >> position) & 1n) === 1n;
  const [has2M, has1G] = stage === "first" ? [true, bit(56n)] : [bit(34n), bit(35n)];
  return [0, ...(has2M ? [9] : []), ...(has1G ? [18] : [])];
}
