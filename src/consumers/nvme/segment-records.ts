/**
 * Segment records: what has to be unmapped, for requests that are not one range.
 *
 * PRPs alone lose where segments begin and end, so address and length of each are kept here: 16 bytes a segment, where a request
 * of two steps keeps two words in all. Objects go round in a pool.
 */

import { FreeStack } from "./free-stack.ts";

/** As many data segments as one request may have. */
export const MAX_SEGMENTS = 256;
/** Bytes that are kept for a segment that is unmapped by itself. */
export const RECORD_BYTES = 16;

/** Addresses and lengths of segments that are unmapped one by one. */
export class SegmentRecords {
  /** DMA address of each segment; the first `count` are in use. */
  readonly addresses: Float64Array = new Float64Array(MAX_SEGMENTS);
  /** Bytes of each segment; the first `count` are in use. */
  readonly lengths: Float64Array = new Float64Array(MAX_SEGMENTS);
  /** Segments noted. */
  count = 0;

  /** Notes a segment: DMA address and length, bytes. There is room for {@link MAX_SEGMENTS}; not checked. */
  add(address: number, length: number): void {
    this.addresses[this.count] = address;
    this.lengths[this.count++] = length;
  }
}

/** Records that serve one request after the other. */
export class RecordPool {
  /** Records taken and not given back. */
  inUse = 0;
  readonly #free = new FreeStack<SegmentRecords>();

  /** Empty records, used before where possible. Never fails. */
  take(): SegmentRecords {
    this.inUse++;
    const records = this.#free.take() ?? new SegmentRecords();
    records.count = 0;
    return records;
  }

  /** Gives records back, once; their segments must be unmapped. */
  give(records: SegmentRecords): void {
    this.inUse--;
    this.#free.give(records);
  }
}
