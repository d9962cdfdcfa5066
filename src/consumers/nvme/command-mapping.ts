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
  direction: Direction = "from-device";

  /** How the data are described: not at all, by one address of one segment, by PRPs, or by SGL descriptors. */
  form: "none" | "single" | "prp" | "sgl" = "none";
  readonly data: MappedRequest = new Mapped();
  bytes = 0;
  /** The first segment, where it was mapped by itself. */
  address = 0;
  length = 0;
  /** Descriptor blocks, in chain order; the first {@link blockCount} are in use. The array stays. */
  readonly blocks: DescriptorBlock[] = [];
  blockCount = 0;
  /** Descriptors in the SGL list that the driver wrote. */
  sglEntries = 0;
  records: SegmentRecords | undefined = undefined;

  metadataForm: "none" | "single" | "sgl" = "none";
  readonly metadata: MappedRequest = new Mapped();
  metadataAddress = 0;
  metadataLength = 0;
  metadataBlock: DescriptorBlock | undefined = undefined;
  metadataEntries = 0;
}
