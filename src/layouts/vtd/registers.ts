/**
 * The registers of a VT-d unit, as the stack drives them, and where their bits are.
 *
 * Idea: one method per register, in the units of the register; hot ones are numbers, those met once are bigints as the
 * specification writes them. Everything bigger than a register (root, context and PASID tables, the invalidation queue,
 * status words, the page-request queue) lies in table memory that both sides see.
 * Promises: nothing throws; a register that the unit does not have reads 0.
 * Specified by: VT-d specification, 11.4; bits as used by Linux 7.2.
 */

/** Global command and global status registers (11.4.4). */
export const GLOBAL = {
  /** WBF: flushes the write buffer; status shows it until it is done. */
  writeBufferFlush: 0x0800_0000,
  /** QIE: the invalidation queue is used. */
  queuedInvalidation: 0x0400_0000,
  /** SRTP: the root table address register takes effect. */
  setRootTable: 0x4000_0000,
  /** TE: requests are translated. */
  translation: 0x8000_0000,
} as const;

/** Fault status register (11.4.7.1). All but PPF and FRI are cleared by writing 1. */
export const FAULT_STATUS = {
  /** PFO: a fault was lost because all records were in use. */
  overflow: 0x01,
  /** PPF: some record has its F bit set. */
  pending: 0x02,
  /** IQE, ICE, ITE: the invalidation queue met a bad descriptor, an unexpected completion, a device that did not answer. */
  queueError: 0x10,
  completionError: 0x20,
  timeOut: 0x40,
  /** PRO: a page request was lost because the queue was full. */
  pageRequestOverflow: 0x80,
  /** FRI, bits 15:8: the first record with a fault. */
  firstRecordShift: 8,
} as const;

/** Page-request status register (11.4.11.3); cleared by writing 1. */
export const PAGE_REQUEST_STATUS = { pending: 0x01, overflow: 0x02 } as const;

/** Invalidation queue address register (11.4.9.3): QS in bits 2:0, DW in bit 11, page of the queue from bit 12. */
export const QUEUE_WIDE_DESCRIPTORS = 0x800;

/** Slots of the invalidation queue, as Linux makes it. */
export const QUEUE_SLOTS = 256;

export interface VtdRegisters {
  /** CAP and ECAP: what the unit can do. */
  readonly capability: bigint;
  readonly extendedCapability: bigint;

  /** GCMD: bits of {@link GLOBAL}; one-shot bits take effect, the others are as written. */
  writeGlobalCommand(bits: number): void;
  /** GSTS. */
  readGlobalStatus(): number;
  /** RTADDR, see {@link encodeRootTableAddress}. Takes effect with `setRootTable`. */
  writeRootTableAddress(value: bigint): void;

  /** IQA. */
  writeQueueAddress(value: bigint): void;
  /** IQT: the byte in the queue after the last descriptor; the unit starts to work. */
  writeQueueTail(offset: number): void;
  /** IQH: the byte of the descriptor that is fetched next. */
  readQueueHead(): number;
  /** IQERCD: bits 47:32 name the device of a time-out, 0 if the unit does not say. */
  readQueueError(): bigint;

  /** FSTS. */
  readFaultStatus(): number;
  /** Clears the error bits that are 1 in `bits`. */
  clearFaultStatus(bits: number): void;
  /** Dword `word` (0 to 3) of fault record `index`. */
  readFaultRecord(index: number, word: number): number;
  /** Writes the F bit of a record: it may be used again. */
  clearFaultRecord(index: number): void;

  /** PQA: page of the page-request queue in bits 63:12, its size in 4 KiB pages as 2^(bits 2:0). */
  writePageRequestAddress(value: bigint): void;
  /** PQH and PQT: bytes in the queue. The unit writes at the tail, software reads at the head. */
  readPageRequestHead(): number;
  writePageRequestHead(offset: number): void;
  readPageRequestTail(): number;
  /** PRS. */
  readPageRequestStatus(): number;
  clearPageRequestStatus(bits: number): void;

  /** One turn of a loop that polls the unit. Where a unit lives in this process, it goes on with its work here. */
  relax(): void;
}
