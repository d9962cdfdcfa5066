/**
 * What several reports say, said alike: sentences about a whole recording.
 *
 * Numbers with their units are in base/wording.ts, because findings say them too. Not for: what one report alone says.
 */
import type { Selection } from "../analysis/index.ts";
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

/** What a report is about where not all was asked for; empty where it was. */
export function selectionWords({ devices = [], tasks = [], cpus = [] }: Selection = {}): string {
  const parts = [
    ...(devices.length > 0 ? [`of ${devices.join(", ")}`] : []),
    ...(tasks.length > 0 ? [`begun by ${tasks.join(", ")}`] : []),
    ...(cpus.length > 0 ? [`on CPU ${cpus.join(", ")}`] : []),
  ];
  return parts.length === 0
    ? ""
    : `Mappings ${parts.join(", ")} only; the events of all were followed, and are counted.`;
}

/** The same as data; nothing where all was asked for. */
export const selectionJson = (selection: Selection = {}): object => {
  const asked = Object.entries(selection).filter(([, list]) => (list?.length ?? 0) > 0);
  return asked.length === 0 ? {} : { selection: Object.fromEntries(asked) };
};
