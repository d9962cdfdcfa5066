/**
 * NVMe commands: 64 bytes in a submission queue.
 *
 * Idea: offsets and numbers as data; who writes a command puts fields into the queue itself, without an object per command.
 * Specified by: NVM Express base specification 2.0, 3.3.3 (submission queue entry) and chapter 5 (admin command set); NVM
 * command set specification 1.0, chapter 3.
 */
import { put64 } from "./le-words.ts";

export const COMMAND_BYTES = 64;

/** Byte offsets in a command. */
export const COMMAND = {
  opcode: 0,
  flags: 1,
  id: 2,
  namespace: 4,
  metadataPointer: 16,
  dataPointer: 24,
  cdw10: 40,
  cdw11: 44,
  cdw12: 48,
  cdw13: 52,
  cdw14: 56,
  cdw15: 60,
  /** Of reads and writes: first block, and the number of blocks less one. */
  firstBlock: 40,
  blocks0: 48,
  control: 50,
} as const;

/** Bits 7:6 of the flags: what the data pointer and the metadata pointer are. */
export const POINTERS = {
  mask: 0xc0,
  prp: 0x00,
  /** An SGL descriptor; the metadata pointer is an address. */
  sgl: 0x40,
  /** An SGL descriptor; the metadata pointer points at one, too. */
  sglMetadata: 0x80,
} as const;

export const ADMIN = {
  deleteSubmissionQueue: 0x00,
  createSubmissionQueue: 0x01,
  getLogPage: 0x02,
  deleteCompletionQueue: 0x04,
  createCompletionQueue: 0x05,
  identify: 0x06,
  abort: 0x08,
  setFeatures: 0x09,
  getFeatures: 0x0a,
  asyncEvent: 0x0c,
} as const;

export const IO = {
  flush: 0x00,
  write: 0x01,
  read: 0x02,
  compare: 0x05,
  writeZeroes: 0x08,
  datasetManagement: 0x09,
} as const;

/** CNS of identify. */
export const IDENTIFY = { namespace: 0, controller: 1, activeNamespaces: 2 } as const;

export const FEATURE = { numberOfQueues: 0x07 } as const;
export const LOG_PAGE = { error: 1, health: 2, firmware: 3 } as const;

/** Flags of the create-queue commands (dword 11). */
export const QUEUE = { contiguous: 1, interrupts: 2 } as const;

/** Control word of reads and writes: force unit access, limited retry; where protection information is checked. */
export const CONTROL = { forceUnitAccess: 0x4000, limitedRetry: 0x8000 } as const;

/** Dataset management: the blocks are not needed any more. */
export const DEALLOCATE = 4;
export const DSM_RANGE_BYTES = 16;
export const MAX_DSM_RANGES = 256;

/** Writes a range of a dataset management command at `at`. */
export function putDsmRange(view: DataView, at: number, firstBlock: number, blocks: number): void {
  view.setUint32(at, 0, true);
  view.setUint32(at + 4, blocks, true);
  put64(view, at + 8, firstBlock);
}

/** Bytes `at` to `at + 64` become a command with nothing but its opcode, namespace and id. */
export function putCommand(view: DataView, at: number, opcode: number, namespace: number, id: number): void {
  for (let offset = 8; offset < COMMAND_BYTES; offset += 4) view.setUint32(at + offset, 0, true);
  view.setUint32(at, opcode | (id << 16), true);
  view.setUint32(at + COMMAND.namespace, namespace, true);
}

/** First block, number of blocks and control word of a read, write, compare or write zeroes. */
export function putBlocks(view: DataView, at: number, firstBlock: number, blocks: number, control: number): void {
  put64(view, at + COMMAND.firstBlock, firstBlock);
  view.setUint32(at + COMMAND.blocks0, (blocks - 1) | (control << 16), true);
}

/**
 * Command ids: 12 bits of tag, 4 bits of generation, so that a completion that comes late, or twice, does not pass for that
 * of the next command with the same tag.
 */
export const commandId = (tag: number, generation: number): number => tag | ((generation & 0xf) << 12);
export const tagOf = (id: number): number => id & 0xfff;
export const generationOf = (id: number): number => id >>> 12;
