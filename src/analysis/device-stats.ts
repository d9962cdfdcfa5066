/** What is counted of one device: the values that `stats` answers with. */

/** How many values fall in [2^n, 2^(n+1)); the key is 2^n. */
export type Histogram = Readonly<Record<string, number>>;

/** What one device mapped: how often, how large, for how long. */
export interface DeviceStats {
  /** PCI address, or "unknown": what no event attributes to a device. */
  readonly name: string;
  /** Mappings that were seen to begin. */
  readonly maps: number;
  /** Mappings that were seen to end. */
  readonly unmaps: number;
  /** Contiguous pieces of the mappings that were seen to begin. */
  readonly segments: number;
  /** Bytes of the mappings that were seen to begin. */
  readonly bytesMapped: number;
  /** Mappings that are live when the recording ends. */
  readonly liveAtEnd: number;
  /** Bytes of those. */
  readonly liveBytesAtEnd: number;
  /** Bytes per segment. */
  readonly segmentSizes: Histogram;
  /** Bytes per request. */
  readonly requestSizes: Histogram;
  /** Nanoseconds from map to unmap; undefined: no mapping was seen from begin to end. */
  readonly lifetimeNs:
    | {
        /** Half of them lived no longer. */
        readonly p50: number;
        /** Nine of ten lived no longer. */
        readonly p90: number;
        /** Ninety-nine of a hundred lived no longer. */
        readonly p99: number;
        /** The longest. */
        readonly max: number;
      }
    | undefined;
  /** Segments by the largest page that their alignment and length allow. */
  readonly pageSizes: {
    /** Segments that only pages of 4 KiB fit into. */
    readonly "4K": number;
    /** Segments with room for a page of 2 MiB, and none of 1 GiB. */
    readonly "2M": number;
    /** Segments with room for a page of 1 GiB. */
    readonly "1G": number;
  };
  /** Bytes between two mapped neighbours in the device's address space, the widest; over the whole trace. `undefined`: too scattered. */
  readonly largestGap: number | undefined;
  /** Requests by how the kernel mapped them. */
  readonly kinds: Readonly<Record<string, number>>;
  /** The most bytes of address space that its mappings held at once, of those that were seen to begin. */
  readonly peakBytes: number;
  /** What it had in the pool of bounce buffers; `undefined`: nothing. */
  readonly bounce: BounceStats | undefined;
  /** Mappings of device memory, not RAM (attribute MMIO, or `dma_map_resource`): a peer's, as a rule. `undefined`: none. */
  readonly deviceMemory: { readonly mappings: number; readonly bytes: number } | undefined;
  /** Calls that failed, by function and errno: `{ "dma_map_sg EREMOTEIO": 3 }`. */
  readonly failures: Readonly<Record<string, number>>;
}

/** A device's share of the pool of bounce buffers, in slots of 2 KiB: at least; the pool's size no event tells. */
export interface BounceStats {
  /** Mappings that were bounced, or a part of them. */
  readonly mappings: number;
  /** The most slots at once, and those that are held at the end. */
  readonly peakSlots: number;
  readonly slotsAtEnd: number;
  /** The largest piece, bytes; more than 256 KiB never fits. */
  readonly largestPiece: number;
  /** Mappings that failed, because no slots were found. */
  readonly failed: number;
}
