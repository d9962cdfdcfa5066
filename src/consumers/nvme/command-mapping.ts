/**
 * What a command in flight keeps of its memory: enough to take it away from the device again, and no more.
 *
 * One lives as long as its tag does and is used again and again. A request that is one range needs two words of it.
 */
import type { Direction } from "../../base/index.ts";
import type { P2pMapType } from "../../p2p/index.ts";
import type { MappedRequest, RequestRange } from "../block/index.ts";
import type { DescriptorBlock } from "./descriptor-pool.ts";
import type { SegmentRecords } from "./segment-records.ts";

class Mapped implements MappedRequest {
  range: RequestRange | undefined = undefined;
  spare: RequestRange | undefined = undefined;
  peer: P2pMapType = "none";
}

/** What the mapping of one command needs until it is undone; made once for each slot. */
export class CommandMapping {
  /** Of the data: who wrote them. */
  direction: Direction = "from-device";

  /** How the data are described: not at all, by one address of one segment, by PRPs, or by SGL descriptors. */
  form: "none" | "single" | "prp" | "sgl" = "none";
  /** The data, where they are one range or a peer's. */
  readonly data: MappedRequest = new Mapped();
  /** Bytes of data. */
  bytes = 0;
  /** DMA address of the first segment, where it was mapped by itself. */
  address = 0;
  /** Bytes of that segment. */
  length = 0;
  /** Descriptor blocks, in chain order; the first {@link blockCount} are in use. The array stays. */
  readonly blocks: DescriptorBlock[] = [];
  /** Descriptor blocks in use. */
  blockCount = 0;
  /** Descriptors in the SGL list that the driver wrote. */
  sglEntries = 0;
  /**
   * Segments to unmap one by one, where descriptors do not say them (PRPs) or the device could change them; else
   * undefined.
   */
  records: SegmentRecords | undefined = undefined;

  /** How the metadata are described: not at all, by one address, or by SGL descriptors. */
  metadataForm: "none" | "single" | "sgl" = "none";
  /** The metadata, where they are one range or a peer's. */
  readonly metadata: MappedRequest = new Mapped();
  /** DMA address of the metadata, where they are one segment mapped by itself. */
  metadataAddress = 0;
  /** Bytes of that segment. */
  metadataLength = 0;
  /** Where the SGL descriptors of the metadata are; undefined without. */
  metadataBlock: DescriptorBlock | undefined = undefined;
  /** Those descriptors. */
  metadataEntries = 0;
}
