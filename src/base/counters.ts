/**
 * Counters: what the work cost, counted where it is done, never guessed.
 *
 * One value travels with a device; every report, benchmark and test reads it. Fields are plain numbers so that counting
 * costs one addition. The names of the cost model are in the comments (specification of the DMA API, cost matrix).
 */
export class Counters {
  /** IOVA ranges allocated (IA). */
  iovaAllocations = 0;
  /** IOVA ranges given back to their allocator; with a flush queue that is after the flush. */
  iovaFrees = 0;
  /** Nodes or gaps that Linux's allocator would have looked at for the same answers. */
  iovaSteps = 0;
  /** Leaf entries set in page tables (PTW, with the three below). */
  leavesWritten = 0;
  /** Leaf entries cleared, one by one, with the table around them, or by what took their place. */
  leavesCleared = 0;
  /** Of the leaves cleared: those that went with the table around them, or by the write of what took their place. */
  leavesReplaced = 0;
  /** Pointers to tables set or cleared. */
  tableEntriesWritten = 0;
  /** Pages taken for page tables. */
  tablePagesAllocated = 0;
  /** Pages of page tables given back. */
  tablePagesFreed = 0;
  /** Map syncs: calls that make new entries visible (MSYNC). */
  mapSyncs = 0;
  /** IOTLB invalidations of a range (INV, with the next). */
  rangeInvalidations = 0;
  /** IOTLB invalidations of everything that a domain has there. */
  domainInvalidations = 0;
  /** Ranges parked in a flush queue (lazy mode). */
  flushQueueEntries = 0;
  /** Bytes copied into and out of bounce buffers (BC). */
  bouncedBytes = 0;
  /** Ranges of CPU cache that were cleaned or invalidated, for devices that do not look there (CMO). */
  cacheOperations = 0;
  /** Barriers that wait until cache maintenance has taken effect (CMOB). */
  cacheBarriers = 0;
  /** Bytes of bookkeeping that the caller's strategy needs per request (scatterlist entries, per-segment records). */
  metadataBytes = 0;

  /** Everything written to page tables. */
  get pteWrites(): number {
    return this.leavesWritten + this.leavesCleared - this.leavesReplaced + this.tableEntriesWritten;
  }

  /** IOTLB invalidations of either kind (INV). */
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
