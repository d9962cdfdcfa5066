/**
 * AMD commands: what software puts into the command buffer of an AMD IOMMU so that it forgets.
 *
 * Idea: four words per command; a range is widened to the smallest block that covers it, encoded as device TLBs do. On an
 * emulated unit the range is better split exactly (`pieceOrder`), since every page it names may cost the hypervisor work.
 * Specified by: AMD I/O Virtualization Technology specification (48882), 2.4; ranges by behaviour of Linux 7.2
 * (drivers/iommu/amd/iommu.c), judged by test/golden/invalidation.
 */
import type { IovaPage, PhysAddr } from "../../base/index.ts";
import { blockStart, coveringOrder, EVERYTHING, encodeBlock, encodedOrder, encodedStart } from "./blocks.ts";
import {
  addressHigh,
  addressOf,
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

/** Bits 31:28 of word 1. */
export const AMD_OPCODE = {
  completionWait: 1,
  invalidateDeviceEntry: 2,
  invalidatePages: 3,
  invalidateIotlbPages: 4,
  invalidateAll: 8,
} as const;

/** One command as a value. A block is `order`, `page`. */
export type AmdCommand =
  | {
      readonly type: "completion-wait";
      /** Written to `storeAddress` when all earlier commands are done: two words of 32 bits. */
      readonly store: boolean;
      readonly interrupt: boolean;
      readonly flushQueue: boolean;
      /** Bytes; a multiple of 8, at most 52 bits. */
      readonly storeAddress: PhysAddr;
      readonly dataLow: number;
      readonly dataHigh: number;
    }
  | { readonly type: "invalidate-device-entry"; readonly deviceId: number }
  | {
      readonly type: "invalidate-pages";
      readonly domainId: number;
      /** The guest's address space, or `NO_PASID`: the addresses are those of the host tables. */
      readonly pasid: number;
      readonly page: IovaPage;
      readonly order: number;
      /** PDE: cached table pointers go too. */
      readonly tablesToo: boolean;
    }
  | {
      readonly type: "invalidate-iotlb-pages";
      readonly deviceId: number;
      readonly queueId: number;
      /** Invalidations that may be in flight to the device. */
      readonly queueDepth: number;
      readonly pasid: number;
      readonly page: IovaPage;
      readonly order: number;
    }
  | { readonly type: "invalidate-all" };

export interface InvalidAmdCommand {
  readonly type: "invalid";
  readonly reason: "unknown opcode" | "reserved bits";
}

/** The largest order a command can name: 2^52 bytes. Above it only everything. */
const LARGEST = 40;

/**
 * The order of the block that commands name for pages [start, end): 0 to 40, or 52.
 * @throws DmaError ERR_DMA_INVALIDATION_RANGE (EINVAL)
 */
export function amdOrder(start: IovaPage, end: IovaPage): number {
  const order = coveringOrder(start, end);
  return order > LARGEST ? EVERYTHING : order;
}

/** The unit's own caches: translations of one domain, or of one guest address space in it. */
export function writeInvalidatePages(
  words: Uint32Array,
  at: number,
  domainId: number,
  pasid: number,
  page: IovaPage,
  order: number,
  tablesToo: boolean,
): void {
  const guest = pasid !== NO_PASID;
  checkField("page invalidation", "domainId", domainId, 16);
  checkField("page invalidation", "pasid", guest ? pasid : 0, 20);
  checkField("page invalidation", "page", page, 52);
  const encoded = encodeBlock(page, order);
  const flags = flagAt(order > 0, 0) | flagAt(tablesToo, 1) | flagAt(guest, 2);
  const w1 = domainId | (AMD_OPCODE.invalidatePages << 28);
  putWords(words, at, guest ? pasid : 0, w1, flags | pageLow(encoded), pageHigh(encoded));
}

/** The translations that a device keeps. `queueId` groups devices that share a limit; Linux gives each its own. */
export function writeInvalidateIotlbPages(
  words: Uint32Array,
  at: number,
  deviceId: number,
  queueId: number,
  queueDepth: number,
  pasid: number,
  page: IovaPage,
  order: number,
): void {
  const guest = pasid !== NO_PASID;
  checkField("device TLB invalidation", "deviceId", deviceId, 16);
  checkField("device TLB invalidation", "queueId", queueId, 16);
  checkField("device TLB invalidation", "queueDepth", queueDepth, 8);
  checkField("device TLB invalidation", "pasid", guest ? pasid : 0, 20);
  checkField("device TLB invalidation", "page", page, 52);
  const encoded = encodeBlock(page, order);
  const bits = guest ? pasid : 0;
  const w0 = deviceId | (((bits >>> 8) & 0xff) << 16) | (queueDepth << 24);
  const w1 = queueId | ((bits & 0xff) << 16) | ((bits >>> 16) << 24) | (AMD_OPCODE.invalidateIotlbPages << 28);
  putWords(words, at, w0, w1, flagAt(order > 0, 0) | flagAt(guest, 2) | pageLow(encoded), pageHigh(encoded));
}

/** The barrier: everything before it is done when the data is at `storeAddress`. */
export function writeCompletionWait(
  words: Uint32Array,
  at: number,
  storeAddress: PhysAddr,
  dataLow: number,
  dataHigh: number,
  store: boolean,
  interrupt: boolean,
  flushQueue: boolean,
): void {
  checkField("completion wait", "storeAddress / 8", storeAddress / 8, 49);
  checkField("completion wait", "dataLow", dataLow, 32);
  checkField("completion wait", "dataHigh", dataHigh, 32);
  const flags = flagAt(store, 0) | flagAt(interrupt, 1) | flagAt(flushQueue, 2);
  const w1 = addressHigh(storeAddress) | (AMD_OPCODE.completionWait << 28);
  putWords(words, at, storeAddress | flags, w1, dataLow, dataHigh);
}

/**
 * Pages [start, end) of a domain, widened to the block that covers them. One command.
 * @param tablesFreed whether tables were freed with the range: cached pointers to them must go
 */
export function writeInvalidatePageRange(
  words: Uint32Array,
  at: number,
  domainId: number,
  pasid: number,
  start: IovaPage,
  end: IovaPage,
  tablesFreed: boolean,
): void {
  const order = amdOrder(start, end);
  writeInvalidatePages(words, at, domainId, pasid, blockStart(start, order), order, tablesFreed);
}

/**
 * Writes a command that is a value.
 * @throws DmaError ERR_DMA_INVALIDATION_FIELD, ERR_DMA_INVALIDATION_ALIGNMENT (EINVAL). The words are then unchanged.
 */
export function encodeAmd(c: AmdCommand, words: Uint32Array, at: number): void {
  switch (c.type) {
    case "completion-wait": {
      const { storeAddress, dataLow, dataHigh, store, interrupt, flushQueue } = c;
      writeCompletionWait(words, at, storeAddress, dataLow, dataHigh, store, interrupt, flushQueue);
      break;
    }
    case "invalidate-device-entry":
      checkField("device-entry invalidation", "deviceId", c.deviceId, 16);
      putWords(words, at, c.deviceId, AMD_OPCODE.invalidateDeviceEntry << 28, 0, 0);
      break;
    case "invalidate-pages":
      writeInvalidatePages(words, at, c.domainId, c.pasid, c.page, c.order, c.tablesToo);
      break;
    case "invalidate-iotlb-pages": {
      const { deviceId, queueId, queueDepth, pasid, page, order } = c;
      writeInvalidateIotlbPages(words, at, deviceId, queueId, queueDepth, pasid, page, order);
      break;
    }
    case "invalidate-all":
      putWords(words, at, 0, AMD_OPCODE.invalidateAll << 28, 0, 0);
      break;
  }
}

/** By opcode: the bits of words 0 to 3 that are fields, the opcode's own left out. */
const FIELDS: Readonly<Record<number, FieldMasks>> = {
  [AMD_OPCODE.completionWait]: [WORD, 0x000fffff, WORD, WORD],
  [AMD_OPCODE.invalidateDeviceEntry]: [0x0000ffff, 0, 0, 0],
  [AMD_OPCODE.invalidatePages]: [0x000fffff, 0x0000ffff, 0xfffff007, WORD],
  [AMD_OPCODE.invalidateIotlbPages]: [WORD, 0x0fffffff, 0xfffff005, WORD],
  [AMD_OPCODE.invalidateAll]: [0, 0, 0, 0],
};

/** The command at word `at`, as a unit reads it. Never throws: a unit stops at an invalid command. One object per call. */
export function decodeAmd(words: Uint32Array, at: number): AmdCommand | InvalidAmdCommand {
  const [w0, w1, w2, w3] = [words[at]!, words[at + 1]!, words[at + 2]!, words[at + 3]!];
  const opcode = w1 >>> 28;
  const fields = FIELDS[opcode];
  if (fields === undefined) return { type: "invalid", reason: "unknown opcode" };
  const beside = w1 & 0x0fffffff;
  if (reservedBits(fields, w0, beside, w2, w3) !== 0) return { type: "invalid", reason: "reserved bits" };
  const named = pageOf(w2, w3);
  const sized = (w2 & 1) !== 0;
  const block = { page: sized ? encodedStart(named) : named, order: sized ? encodedOrder(named) : 0 };
  const guest = (w2 & 4) !== 0;
  switch (opcode) {
    case AMD_OPCODE.completionWait:
      return {
        type: "completion-wait",
        store: (w0 & 1) !== 0,
        interrupt: (w0 & 2) !== 0,
        flushQueue: (w0 & 4) !== 0,
        storeAddress: addressOf(w0 & ~7, beside),
        dataLow: w2,
        dataHigh: w3,
      };
    case AMD_OPCODE.invalidateDeviceEntry:
      return { type: "invalidate-device-entry", deviceId: w0 };
    case AMD_OPCODE.invalidatePages: {
      const pasid = guest ? w0 : NO_PASID;
      return { type: "invalidate-pages", domainId: beside, pasid, ...block, tablesToo: (w2 & 2) !== 0 };
    }
    case AMD_OPCODE.invalidateIotlbPages: {
      const bits = ((beside >>> 24) << 16) | (((w0 >>> 16) & 0xff) << 8) | ((beside >>> 16) & 0xff);
      const pasid = guest ? bits : NO_PASID;
      const device = { deviceId: w0 & 0xffff, queueId: beside & 0xffff, queueDepth: w0 >>> 24 };
      return { type: "invalidate-iotlb-pages", ...device, pasid, ...block };
    }
    default:
      return { type: "invalidate-all" };
  }
}
