/** What the mappers of data and metadata are told of a controller, and what they count. */

export interface MapperOptions {
  /** What the controller says of SGLs (SGLS bits 1:0 not 0), on this queue. */
  readonly sgls: boolean;
  /** The metadata pointer may point at a descriptor (SGLS bit 19). */
  readonly metadataSgls: boolean;
  /** Mean segment from which on SGLs are preferred to PRPs, bytes; 0 for never. */
  readonly sglThreshold: number;
  /** Descriptors are not believed when they are read back: addresses are kept in host memory, too. */
  readonly untrusted: boolean;
}

/** Average bytes of a segment from which an SGL is used: 32 KiB, as in Linux. */
export const DEFAULT_SGL_THRESHOLD = 32_768;
/** Two words: the reference to the range, and how memory is reached. */
export const RANGE_STATE_BYTES = 16;

/** What mapping did and needed. */
export class MapperCounters {
  /** Requests with data that were to be mapped. */
  requests = 0;
  /** Requests that were one segment, mapped by itself. */
  singles = 0;
  /** Requests that were one IOVA range. */
  ranges = 0;
  /** Requests of several segments, each mapped by itself. */
  scattered = 0;
  /** PRPs of data, in commands and lists; pointers to lists are none. */
  prpEntries = 0;
  /** SGL descriptors of data, in commands and lists. */
  sglDescriptors = 0;
  /** Lists, of PRPs a page each at most, or of SGL descriptors. */
  lists = 0;
  /** Bytes of lists that the controller reads. */
  listBytes = 0;
  /** Bytes kept in host memory until the request ends. */
  metadataBytes = 0;
}
