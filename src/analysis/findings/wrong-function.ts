/** A mapping that is ended by the function of another kind of mapping. */
import { DIRECT, FROM_BEFORE, REPORTED, SCATTERLIST } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, noun, size } from "./words.ts";

/** Lists that are looked for among single mappings: a search through all that is live each. */
const MOST_LOOKUPS = 256;

/** Functions that belong together, by the events that they write; an event that is in none is not judged. */
const FAMILIES: Readonly<Record<string, string>> = {
  dma_map_phys: "dma_map_page",
  dma_map_page: "dma_map_page",
  dma_unmap_phys: "dma_map_page",
  dma_unmap_page: "dma_map_page",
  map_single: "dma_map_page",
  bounce_map_single: "dma_map_page",
  unmap_single: "dma_map_page",
  bounce_unmap_single: "dma_map_page",
  dma_map_resource: "dma_map_resource",
  dma_unmap_resource: "dma_map_resource",
  dma_map_sg: "dma_map_sg",
  dma_unmap_sg: "dma_map_sg",
  dma_alloc: "dma_alloc_coherent",
  dma_free: "dma_alloc_coherent",
  dma_alloc_pages: "dma_alloc_pages",
  dma_free_pages: "dma_alloc_pages",
  dma_alloc_sgt: "dma_alloc_noncontiguous",
  dma_free_sgt: "dma_alloc_noncontiguous",
};

const ENDS: Readonly<Record<string, string>> = {
  dma_map_page: "dma_unmap_page",
  dma_map_resource: "dma_unmap_resource",
  dma_map_sg: "dma_unmap_sg",
  dma_alloc_coherent: "dma_free_coherent",
  dma_alloc_pages: "dma_free_pages",
  dma_alloc_noncontiguous: "dma_free_noncontiguous",
};

export const wrongFunction: Rule = {
  name: "wrong-function",
  severity: "error",
  summary: "a mapping is ended by the function of another kind: coherent, single, scatterlist, pages",
  advice:
    "End each mapping with the function that belongs to the one that made it: another one frees what it must not, leaves memory allocated, or takes the address space of a whole list for one page.",
  watch: ({ table, now, deviceName, eventName, begun, current, isDoubtful, report }) => {
    let lookups = 0;
    return {
      closed(row, end) {
        const made = FAMILIES[eventName(table.type[row]!)];
        const ended = FAMILIES[eventName(now.type)];
        if (made === undefined || ended === undefined || made === ended) return;
        if ((table.flags[row]! & FROM_BEFORE) !== 0 || isDoubtful(table.startNs[row]!)) return;
        // Which of several mappings of the same memory ends cannot be told.
        if (end.length < 0 && end.direction < 0 && table.reached[row] === DIRECT) return;
        report({
          device: end.device,
          iova: table.iova[row]!,
          length: table.length[row]!,
          message: `${deviceName(end.device)}: the ${noun(table.kind[row]!)} of ${size(table.length[row]!)} at ${address(table.iova[row]!)} was made by ${made} and is ended by ${ENDS[ended]}; ${ENDS[made]} belongs to it.`,
          evidence: [begun(row), current("ended", table.iova[row]!, end.length < 0 ? undefined : end.length)],
        });
      },
      unmatched(end, reason) {
        // A list is named by its memory: if no list has it, a single mapping of that memory may be meant.
        if (end.kind !== SCATTERLIST || reason.why === "again" || lookups >= MOST_LOOKUPS) return;
        lookups++;
        for (let row = 0; row < table.used; row++) {
          if (!table.isLive(row) || table.device[row] !== end.device || table.kind[row] === SCATTERLIST) continue;
          if (table.phys[row] !== end.iova || (table.flags[row]! & (REPORTED | FROM_BEFORE)) !== 0) continue;
          if (table.reached[row] === DIRECT && reason.why !== "not-at-start") continue;
          if (isDoubtful(table.startNs[row]!)) continue;
          const made = FAMILIES[eventName(table.type[row]!)];
          if (made === undefined) continue;
          table.flags[row] = table.flags[row]! | REPORTED;
          report({
            confidence: "likely",
            device: end.device,
            iova: table.iova[row]!,
            length: table.length[row]!,
            message: `${deviceName(end.device)}: the ${noun(table.kind[row]!)} of ${size(table.length[row]!)} at ${address(table.iova[row]!)} was made by ${made}, and its memory is unmapped by dma_unmap_sg as a list that was not seen to be mapped; ${ENDS[made]} belongs to it.`,
            evidence: [begun(row), current("ended")],
          });
          return;
        }
      },
    };
  },
};
