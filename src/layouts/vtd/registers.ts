/**
 * Bits of a VT-d unit's registers, as software and unit both read them.
 *
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
