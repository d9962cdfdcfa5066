/**
 * Arm SMMUv3 commands: what software puts into an SMMU's command queue so that it forgets.
 *
 * Idea: an SMMU does not widen a range. With the range feature a command names (NUM + 1) x 2^SCALE granules, so a range is a
 * few commands, lowest bits first; without it every entry needs its own. Translations kept by devices (ATC) are named by
 * block, as on other units.
 * Promises: the same commands as Linux for every range of its tables; a series covers the range and at most one granule more.
 * Specified by: Arm SMMUv3 architecture (IHI 0070), 4.1 to 4.5; series by behaviour of Linux 7.2
 * (drivers/iommu/arm/arm-smmu-v3), judged by test/golden/invalidation.
 */
import type { IovaPage } from "../../base/index.ts";
import { blockStart, coveringOrder, END_OF_PAGES, trailingZeros } from "./blocks.ts";
import { badRange } from "./errors.ts";
import {
  checkField,
  type FieldMasks,
  flagAt,
  NO_PASID,
  pageHigh,
  pageLow,
  pageOf,
  putWords,
  reservedBits,
  WORD,
} from "./le-words.ts";

/** Bits 7:0 of word 0. `page...` name addresses; the others forget everything of an ASID, a VMID or the SMMU. */
export const SMMU_OPCODE = {
  allNonSecureEl1: 0x10,
  asidNonSecureEl1: 0x11,
  pageNonSecureEl1: 0x12,
  allEl2: 0x20,
  asidEl2: 0x21,
  pageEl2: 0x22,
  allOfVmid: 0x28,
  pageStage2: 0x2a,
  allNonSecure: 0x30,
  deviceTlb: 0x40,
  sync: 0x46,
} as const;

type Opcode = typeof SMMU_OPCODE;
export type SmmuPageOpcode = Opcode["pageNonSecureEl1" | "pageEl2" | "pageStage2"];
export type SmmuContextOpcode = Opcode[
  | "allNonSecureEl1"
  | "asidNonSecureEl1"
  | "allEl2"
  | "asidEl2"
  | "allOfVmid"
  | "allNonSecure"];

/** How the end of a barrier is signalled. */
export const SMMU_SIGNAL = { none: 0, interrupt: 1, event: 2 } as const;

/** One command as a value. Pages are of 4 KiB. */
export type SmmuCommand =
  | {
      readonly type: "tlb-pages";
      readonly opcode: SmmuPageOpcode;
      /** 0 where the opcode has none: stage 2 has no ASID, EL2 no VMID. */
      readonly asid: number;
      readonly vmid: number;
      readonly page: IovaPage;
      readonly leafOnly: boolean;
      /** TG: 0 = the one entry that holds `page`; 1, 2, 3 = a range of granules of 4, 16, 64 KiB. */
      readonly granule: number;
      /** TTL: the level the leaves are at; 0 = any. */
      readonly levelHint: number;
      /** NUM and SCALE: the range is (number + 1) x 2^scale granules. */
      readonly number: number;
      readonly scale: number;
    }
  | {
      readonly type: "tlb-context";
      readonly opcode: SmmuContextOpcode;
      readonly asid: number;
      readonly vmid: number;
    }
  | {
      readonly type: "device-tlb";
      readonly streamId: number;
      /** The PASID, or `NO_PASID`. */
      readonly substreamId: number;
      /** The SMMU ignores the `order` lowest bits. */
      readonly page: IovaPage;
      readonly order: number;
    }
  | { readonly type: "sync"; readonly signal: number };

export interface InvalidSmmuCommand {
  readonly type: "invalid";
  readonly reason: "unknown opcode" | "reserved bits";
}

/** A range to be forgotten, and what is known of it. */
export interface SmmuRange {
  readonly opcode: SmmuPageOpcode;
  readonly asid: number;
  readonly vmid: number;
  /** Pages [start, end); multiples of the entries' size. */
  readonly start: IovaPage;
  readonly end: IovaPage;
  /** Binary logarithm of the tables' granule in 4 KiB pages: 0, 2 or 4. */
  readonly granuleLg: number;
  /** The same of the entries that were removed. */
  readonly entryLg: number;
  /** No tables were freed with the range. */
  readonly leafOnly: boolean;
  /** The SMMU understands ranges. */
  readonly rangeFeature: boolean;
}

const NUMBERS = 31;
const LARGEST_SCALE = 31;
/** SSV in word 0 of a device-TLB command. */
const SUBSTREAM_VALID = 1 << 11;

/** One command that names addresses, field by field. */
export function writeTlbPages(
  words: Uint32Array,
  at: number,
  opcode: SmmuPageOpcode,
  asid: number,
  vmid: number,
  page: IovaPage,
  leafOnly: boolean,
  granule: number,
  levelHint: number,
  number: number,
  scale: number,
): void {
  const ids = identifiers(opcode, asid, vmid);
  checkField("TLB invalidation", "page", page, 52);
  checkField("TLB invalidation", "granule", granule, 2);
  checkField("TLB invalidation", "levelHint", levelHint, 2);
  checkField("TLB invalidation", "number", number, 5);
  checkField("TLB invalidation", "scale", scale, 5);
  const w2 = flagAt(leafOnly, 0) | (levelHint << 8) | (granule << 10) | pageLow(page);
  putWords(words, at, opcode | (number << 12) | (scale << 20), ids, w2, pageHigh(page));
}

/**
 * The next command of a range's series, for the part from `page` on. A series is
 * `for (let page = range.start; page < range.end; page = writeTlbRange(words, at, range, page)) ...`.
 *
 * @param page `range.start`, or what the call before returned
 * @returns the page after what the command covers
 * @throws DmaError ERR_DMA_INVALIDATION_RANGE, ERR_DMA_INVALIDATION_FIELD (EINVAL)
 */
export function writeTlbRange(words: Uint32Array, at: number, range: SmmuRange, page: IovaPage): IovaPage {
  const { opcode, start, end, granuleLg, leafOnly } = range;
  if (!(start >= 0 && start <= page && page < end && end <= END_OF_PAGES)) throw badRange(page, end);
  const asid = opcode === SMMU_OPCODE.pageStage2 ? 0 : range.asid;
  const vmid = opcode === SMMU_OPCODE.pageEl2 ? 0 : range.vmid;
  if (!range.rangeFeature) {
    writeTlbPages(words, at, opcode, asid, vmid, page, leafOnly, 0, 0, 0, 0);
    return (page + 2 ** range.entryLg) as IovaPage;
  }
  const granulePages = 1 << granuleLg;
  let granules = Math.ceil((end - start) / granulePages);
  // One granule at no known level (NUM, SCALE and TTL all 0) is a reserved combination: name two instead.
  if (!leafOnly && (granules & NUMBERS) === 1) granules += 1;
  const left = granules - (page - start) / granulePages;
  const scale = Math.min(trailingZeros(left), LARGEST_SCALE);
  const units = left / 2 ** scale;
  const number = units % 32 || 32; // a whole multiple of 32 is left only at the largest scale
  // Levels are counted from the root, 3 the smallest; each resolves (granule bits - 3) address bits.
  const levelHint = leafOnly ? 4 - Math.floor((range.entryLg + 9) / (granuleLg + 9)) : 0;
  writeTlbPages(words, at, opcode, asid, vmid, page, leafOnly, (granuleLg + 2) >> 1, levelHint, number - 1, scale);
  return (page + number * 2 ** scale * granulePages) as IovaPage;
}

/**
 * Would the series be so long that forgetting the whole context is better? Never with the range feature; else from as many
 * entries on as one table has.
 */
export const isSeriesTooLong = ({ start, end, entryLg, rangeFeature }: SmmuRange): boolean =>
  !rangeFeature && (end - start) / 2 ** entryLg >= 2 ** (entryLg + 9);

/** What is sent instead of a series that is too long. */
export const wholeContextOpcode = (opcode: SmmuPageOpcode): SmmuContextOpcode =>
  opcode === SMMU_OPCODE.pageNonSecureEl1
    ? SMMU_OPCODE.asidNonSecureEl1
    : opcode === SMMU_OPCODE.pageEl2
      ? SMMU_OPCODE.asidEl2
      : SMMU_OPCODE.allOfVmid;

/** 4 KiB pages that a decoded command covers from its page on; 0 = the one entry that holds it, whatever its size. */
export const tlbPagesCovered = ({ granule, number, scale }: Extract<SmmuCommand, { type: "tlb-pages" }>): number =>
  granule === 0 ? 0 : (number + 1) * 2 ** scale * (1 << (2 * (granule - 1)));

/** By opcode: the bits of words 0 to 3 that are fields; the bits of word 1 say which of ASID (high) and VMID (low) it has. */
const ASID = 0xffff0000;
const VMID = 0x0000ffff;
const FIELDS: ReadonlyMap<number, FieldMasks> = new Map([
  [SMMU_OPCODE.allNonSecureEl1, [0xff, VMID, 0, 0]],
  [SMMU_OPCODE.asidNonSecureEl1, [0xff, WORD, 0, 0]],
  [SMMU_OPCODE.pageNonSecureEl1, [0x01f1f0ff, WORD, 0xffffff01, WORD]],
  [SMMU_OPCODE.allEl2, [0xff, 0, 0, 0]],
  [SMMU_OPCODE.asidEl2, [0xff, ASID, 0, 0]],
  [SMMU_OPCODE.pageEl2, [0x01f1f0ff, ASID, 0xffffff01, WORD]],
  [SMMU_OPCODE.allOfVmid, [0xff, VMID, 0, 0]],
  [SMMU_OPCODE.pageStage2, [0x01f1f0ff, VMID, 0xffffff01, WORD]],
  [SMMU_OPCODE.allNonSecure, [0xff, 0, 0, 0]],
  [SMMU_OPCODE.deviceTlb, [0xfffff8ff, WORD, 0xfffff03f, WORD]],
  [SMMU_OPCODE.sync, [0x30ff, 0, 0, 0]],
]);

/** Word 1 of a TLB command. A number that the opcode does not have must be 0. */
function identifiers(opcode: number, asid: number, vmid: number): number {
  const has = FIELDS.get(opcode)![1];
  checkField("TLB invalidation", "asid", asid, (has & ASID) === 0 ? 0 : 16);
  checkField("TLB invalidation", "vmid", vmid, (has & VMID) === 0 ? 0 : 16);
  return vmid | (asid << 16);
}

/** Everything of an ASID, a VMID or the SMMU; a number that the opcode does not have must be 0. */
export function writeTlbContext(
  words: Uint32Array,
  at: number,
  opcode: SmmuContextOpcode,
  asid: number,
  vmid: number,
): void {
  putWords(words, at, opcode, identifiers(opcode, asid, vmid), 0, 0);
}

/** Translations that a device keeps: a block. `substreamId` is a PASID or `NO_PASID`. */
export function writeAtc(
  words: Uint32Array,
  at: number,
  streamId: number,
  substreamId: number,
  page: IovaPage,
  order: number,
): void {
  checkField("ATC invalidation", "streamId", streamId, 32);
  const valid = substreamId !== NO_PASID;
  checkField("ATC invalidation", "substreamId", valid ? substreamId : 0, 20);
  checkField("ATC invalidation", "page", page, 52);
  checkField("ATC invalidation", "order", order, 6);
  const w0 = SMMU_OPCODE.deviceTlb | (valid ? SUBSTREAM_VALID | (substreamId << 12) : 0);
  putWords(words, at, w0, streamId, order | pageLow(page), pageHigh(page));
}

/** The same for pages [start, end), widened to the block that covers them. One command. */
export function writeAtcRange(
  words: Uint32Array,
  at: number,
  streamId: number,
  substreamId: number,
  start: IovaPage,
  end: IovaPage,
): void {
  const order = coveringOrder(start, end);
  writeAtc(words, at, streamId, substreamId, blockStart(start, order), order);
}

/** The barrier. `signal` is one of {@link SMMU_SIGNAL}. */
export function writeSync(words: Uint32Array, at: number, signal: number): void {
  checkField("barrier", "signal", signal, 2);
  putWords(words, at, SMMU_OPCODE.sync | (signal << 12), 0, 0, 0);
}

/** Writes a command that is a value. @throws DmaError ERR_DMA_INVALIDATION_FIELD (EINVAL); the words are then unchanged */
export function encodeSmmu(c: SmmuCommand, words: Uint32Array, at: number): void {
  switch (c.type) {
    case "tlb-pages": {
      const { opcode, asid, vmid, page, leafOnly, granule, levelHint, number, scale } = c;
      writeTlbPages(words, at, opcode, asid, vmid, page, leafOnly, granule, levelHint, number, scale);
      break;
    }
    case "tlb-context":
      writeTlbContext(words, at, c.opcode, c.asid, c.vmid);
      break;
    case "device-tlb":
      writeAtc(words, at, c.streamId, c.substreamId, c.page, c.order);
      break;
    case "sync":
      writeSync(words, at, c.signal);
      break;
  }
}

/** The command at word `at`, as an SMMU reads it. Never throws: an SMMU stops at an illegal command. One object per call. */
export function decodeSmmu(words: Uint32Array, at: number): SmmuCommand | InvalidSmmuCommand {
  const [w0, w1, w2, w3] = [words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!];
  const opcode = w0 & 0xff;
  const fields = FIELDS.get(opcode);
  if (fields === undefined) return { type: "invalid", reason: "unknown opcode" };
  if (reservedBits(fields, w0, w1, w2, w3) !== 0) return { type: "invalid", reason: "reserved bits" };
  const page = pageOf(w2, w3);
  if (opcode === SMMU_OPCODE.sync) return { type: "sync", signal: (w0 >>> 12) & 3 };
  if (opcode === SMMU_OPCODE.deviceTlb) {
    const substreamId = (w0 & SUBSTREAM_VALID) === 0 ? NO_PASID : w0 >>> 12;
    return { type: "device-tlb", streamId: w1, substreamId, page, order: w2 & 0x3f };
  }
  const ids = { asid: w1 >>> 16, vmid: w1 & 0xffff };
  if (fields[3] === 0) return { type: "tlb-context", opcode: opcode as SmmuContextOpcode, ...ids };
  return {
    type: "tlb-pages",
    opcode: opcode as SmmuPageOpcode,
    ...ids,
    page,
    leafOnly: (w2 & 1) !== 0,
    granule: (w2 >>> 10) & 3,
    levelHint: (w2 >>> 8) & 3,
    number: (w0 >>> 12) & 0x1f,
    scale: (w0 >>> 20) & 0x1f,
  };
}
