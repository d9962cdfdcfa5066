/**
 * Counters: what the work cost, counted where it is done, never guessed.
 *
 * One value travels with a device; every report, benchmark and test reads it. Fields are plain numbers so that counting
 * costs one addition. The names of the cost model are in the comments (specification of the DMA API, cost matrix).
 */
export class Counters {
  /** IOVA ranges allocated and freed (IA: the allocations alone). */
  iovaAllocations = 0;
  iovaFrees = 0;
  /** Nodes or gaps that Linux's allocator would have looked at for the same answers. */
  iovaSteps = 0;
  /** Page-table entries written: leaves set, leaves cleared, table pointers set or cleared (PTW). */
  leavesWritten = 0;
  leavesCleared = 0;
  /** Of the leaves cleared: those that went with the table around them, or by the write of what took their place. */
  leavesReplaced = 0;
  tableEntriesWritten = 0;
  /** Table pages taken and given back. */
  tablePagesAllocated = 0;
  tablePagesFreed = 0;
  /** Map syncs: calls that make new entries visible (MSYNC). */
  mapSyncs = 0;
  /** IOTLB invalidation requests, by range or of a whole domain (INV). */
  rangeInvalidations = 0;
  domainInvalidations = 0;
  /** Ranges parked in a flush queue (lazy mode). */
  flushQueueEntries = 0;
  /** Bytes copied into and out of bounce buffers (BC). */
  bouncedBytes = 0;
  /** CPU cache maintenance: ranges, and barriers that complete them (CMO, CMOB). */
  cacheOperations = 0;
  cacheBarriers = 0;
  /** Bytes of bookkeeping that the caller's strategy needs per request (scatterlist entries, per-segment records). */
  metadataBytes = 0;

  /** Everything written to page tables. */
  get pteWrites(): number {
    return this.leavesWritten + this.leavesCleared - this.leavesReplaced + this.tableEntriesWritten;
  }

  get invalidations(): number {
    return this.rangeInvalidations + this.domainInvalidations;
  }

  /** A copy, to subtract from later. */
  snapshot(): Counters {
    return Object.assign(new Counters(), this);
  }

  /** What was counted since `before`. */
  since(before: Counters): Counters {
    const difference = new Counters();
    for (const key of COUNTER_NAMES) difference[key] = this[key] - before[key];
    return difference;
  }
}

/** What is counted: a field of {@link Counters}. */
export type CounterName = Exclude<
  { [K in keyof Counters]: Counters[K] extends number ? K : never }[keyof Counters],
  "pteWrites" | "invalidations"
>;
/** Every counter, in the order of reports. */
export const COUNTER_NAMES: readonly CounterName[] = Object.keys(new Counters()) as CounterName[];
