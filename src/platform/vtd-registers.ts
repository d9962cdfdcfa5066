/**
 * The registers of a VT-d unit, as the stack drives them. Where their bits are: `layouts/vtd/registers.ts`.
 *
 * Idea: one method per register, in the units of the register; hot ones are numbers, those met once are bigints as the
 * specification writes them. Everything bigger than a register (root, context and PASID tables, the invalidation queue,
 * status words, the page-request queue) lies in table memory that both sides see.
 * Promises: nothing throws; a register that the unit does not have reads 0.
 * Specified by: VT-d specification, 11.4.
 */

/** The register file of one VT-d unit. */
export interface VtdRegisters {
  /** CAP: domains, levels, page sizes, caching mode (VT-d specification, 11.4.2). */
  readonly capability: bigint;
  /** ECAP: queued invalidation, scalable mode, PASIDs, page requests (VT-d specification, 11.4.3). */
  readonly extendedCapability: bigint;

  /** GCMD: bits of the Global Command register (`GLOBAL` in layouts/vtd); one-shot bits take effect, the others are as written. */
  writeGlobalCommand(bits: number): void;
  /** GSTS. */
  readGlobalStatus(): number;
  /** RTADDR: page-aligned byte address of the root table, translation table mode in bits 11:10. Takes effect with `setRootTable`. */
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
  /** PQH: software has read everything before byte `offset` of the queue. */
  writePageRequestHead(offset: number): void;
  /** PQT: where the unit writes next, bytes in the queue. */
  readPageRequestTail(): number;
  /** PRS. */
  readPageRequestStatus(): number;
  /** PRS: clears the bits that are set in `bits`. */
  clearPageRequestStatus(bits: number): void;

  /** One turn of a loop that polls the unit. Where a unit lives in this process, it goes on with its work here. */
  relax(): void;
}
