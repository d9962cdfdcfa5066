/**
 * What several reports say, said alike: sentences about a whole recording.
 *
 * Numbers with their units are in base/wording.ts, because findings say them too. Not for: what one report alone says.
 */
import { count, plural } from "../base/index.ts";

/** What is said instead of "no errors" where there was nothing that could have had one. */
export const NOTHING_RECORDED =
  "No mapping was recorded, so there is nothing to judge. Were dma:* or iommu:* events on?";

/** How many events the recorder lost; below 0: it says that some were, and not how many. */
export const lostWords = (lost: number): string =>
  lost === 0 ? "none lost" : lost < 0 ? "some lost" : `${count(lost)} lost`;

/** Of mappings whose pages went, and nobody said why: neither live nor a leak, and check and stats say it alike. */
export const endNotRecordedNote = (mappings: number): string =>
  `${plural(mappings, "mapping")} ended by an iommu:unmap alone: the device cannot reach the memory any more, so not live, but the ` +
  "dma_unmap or dma_free that goes with it is not in the recording (lost, filtered out, or after its end).";
