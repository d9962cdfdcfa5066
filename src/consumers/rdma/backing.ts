/** What all kinds of a region's memory have in common. */
import type { Steps } from "../../platform/index.ts";

/** The list of a region, as its adapter is told. */
export interface RegionList {
  /** DMA address of its first entry. */
  readonly list: number;
  /** Entries of the list. */
  readonly entries: number;
  /** Bytes of a block; of a list of keys what each key covers. */
  readonly blockBytes: number;
  /** What the entries are: addresses of blocks, or keys of other regions. */
  readonly listOf: "blocks" | "keys";
  /** A block that is not there is asked for. */
  readonly onDemand: boolean;
}

/** How pages of a region are brought. */
export interface BringOptions {
  /** The device is going to write. */
  readonly write: boolean;
  /** Only what is there is mapped, and nothing brought. */
  readonly presentOnly?: boolean;
  /** The device may read, and not write, whatever the page allows. */
  readonly readOnly?: boolean;
}

/** The memory of a region, with its page list. */
export interface RegionBacking {
  /** How its pages come to be there. */
  readonly kind: "pinned" | "on-demand" | "implicit" | "buffer";
  /** The device may be let write. */
  readonly writable: boolean;
  /** Undefined for software devices, which have none. */
  readonly list: RegionList | undefined;
  /** Bytes of all lists that grow with the region: for the device, and for the driver. */
  readonly listBytes: number;
  /**
   * Makes sure that [address, + length), as users of the region count, can be reached. Only for what comes on demand.
   *
   * @throws DmaError if it cannot be brought
   */
  bringSteps?(address: number, length: number, how: BringOptions): Steps<void>;
  /** The same at one go: what is there already costs no garbage. */
  bring?(address: number, length: number, how: BringOptions): void;
  /** Ends it. The adapter does not know the region any more. A second time does nothing. */
  release(): void;
}
