/** What the ledger counts of mappings, and the interface by which each mapping is shown to a report. */
import type { LifetimeTable } from "./table.ts";

/** Sees every lifetime once: when it ends, or at the end of the trace. Rows are reused: copy what is kept. */
export interface LifetimeSink {
  /** `row` of `table` is complete: ended, or live at the end of the trace. The row is valid until the call returns. */
  lifetime(table: LifetimeTable, row: number): void;
}

/** What became of the mappings of a trace: one count of each, for whoever reports them. */
export interface LifetimeCounts {
  /** Mappings that were seen to begin. */
  readonly mappings: number;
  /** Mappings that no event ends. Of those the ones from before the recording that are known are counted too. */
  readonly liveAtEnd: number;
  /** Of the mappings, those that no event names a device for. */
  readonly ambiguous: number;
  /** Calls that failed: nothing was mapped or allocated. They are no mappings. */
  readonly failed: number;
  /** Ends of mappings that began before the recording, or may have. */
  readonly unknownStart: number;
  /** Ended by an `iommu:unmap` alone: the call of the DMA API that ended them is not in the recording. They are not live. */
  readonly endNotRecorded: number;
  /** Of the maps without a device, those over an address that was live: two domains that the events do not tell apart. */
  readonly mapsOverLive: number;
  /** `iommu:unmap` events that took pages back: in strict mode each is one IOTLB invalidation of the kernel. */
  readonly unmapEvents: number;
  /** Of those, the ones that took back nothing that was seen to be mapped. */
  readonly unmapsOfUnknown: number;
}

/** Nothing counted so far. */
export const noCounts = (): { -readonly [Name in keyof LifetimeCounts]: number } => ({
  mappings: 0,
  liveAtEnd: 0,
  ambiguous: 0,
  failed: 0,
  unknownStart: 0,
  endNotRecorded: 0,
  mapsOverLive: 0,
  unmapEvents: 0,
  unmapsOfUnknown: 0,
});
