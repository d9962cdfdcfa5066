/**
 * What a comparison of mapping strategies says, before it is text or JSON: the counts, and what the kernel itself did.
 *
 * Idea: one value for all forms, so that they cannot say different things. Not for: running the strategies (replay).
 */
import { type Kind, type Requests, recordedMachine, type Selection } from "../../analysis/index.ts";
import { count, plural } from "../../base/index.ts";
import type { FormatName } from "../../layouts/pagetable/index.ts";
import type { CompareOptions, Comparison, NvmeReplay, StrategyName } from "../../replay/index.ts";
import type { Trace } from "../../trace/index.ts";

/** Names of questions that change one thing. */
export type WhatIf = "huge-pages" | "iova-cache" | "lazy";

/** What each question changes, and how it is asked. */
export const WHAT_IF: Readonly<
  Record<
    WhatIf,
    {
      /** The options that the question sets. */
      readonly change: Partial<CompareOptions>;
      /** As people ask it. */
      readonly question: string;
    }
  >
> = {
  "huge-pages": {
    change: { hugePages: true },
    question: "What if every buffer lay in one piece of memory, as huge pages give it?",
  },
  "iova-cache": {
    change: { largestCached: 1024 },
    question: "What if the allocator cached ranges up to 4 MiB, instead of 128 KiB?",
  },
  lazy: {
    change: { mode: "lazy" },
    question: "What if unmapped ranges waited in a queue, to be invalidated together (lazy mode)?",
  },
};

/** How the load was replayed, as far as a report says it; defaults are those of the replay. */
export interface ComparedAs {
  /** Format of the page tables. */
  readonly iommu?: FormatName;
  /** With an invalidation at each unmap, or with a flush queue. */
  readonly mode?: "strict" | "lazy";
  /** The unit remembers absent entries too. */
  readonly cachingMode?: boolean;
  /** Bytes; longer requests were mapped in pieces of this. */
  readonly requestCap?: number;
  /** Buffers were taken to lie in one piece of memory each. */
  readonly hugePages?: boolean;
  /** Of the bytes, and of what is drawn besides. */
  readonly seed?: number;
  /** What was changed for `changed`. */
  readonly whatIf?: WhatIf;
}

/** Everything that is said of one trace, in whatever form. */
export interface CompareReport {
  /** The trace, as it was named. */
  readonly path: string;
  /** The load under each strategy. */
  readonly result: Comparison;
  /** The recorded requests. */
  readonly requests: Requests;
  /** `undefined` where the recording says nothing that could be held against the counts. */
  readonly kernel: KernelCheck | undefined;
  /** How they were replayed. */
  readonly options: ComparedAs;
  /** Where the trace stopped making sense; undefined if it did not. */
  readonly damage: Trace["damage"];
  /** The same load with one thing changed. */
  readonly changed: Comparison | undefined;
  /** The same load as NVMe commands. */
  readonly nvme: NvmeReplay | undefined;
  /** What was asked for, where that is not all. */
  readonly selection?: Selection;
}

/** The kernel's own invalidations of this load, held against what was counted for the way it mapped. */
export interface KernelCheck {
  /** Unmaps that the recording has. */
  readonly unmapEvents: number;
  /** Of those, unmaps of what was mapped before the recording began. */
  readonly unmapsOfUnknown: number;
  /** As the recording's invalidation events have them, or, in strict mode without those, as many as unmaps. */
  readonly recorded: number;
  /** The strategy that it was held against: what drivers like this one do; what the kernel did is in `recorded` of the answer. */
  readonly heldAgainst: StrategyName;
  /** What was counted for that strategy. */
  readonly invalidations: number;
  /** The two numbers are the same, unmaps of unknown left out. */
  readonly equal: boolean;
  /** What is to be said of them, in a sentence. */
  readonly explanation: string;
}

/** Holds what the kernel did against `result`; `undefined` where the two are not of one thing. */
export function kernelCheck(
  requests: Requests,
  result: Comparison,
  { requestCap, hugePages, cachingMode = false }: ComparedAs,
): KernelCheck | undefined {
  const { unmapEvents, unmapsOfUnknown } = requests.counts;
  const machine = recordedMachine(requests);
  const replayedAsRecorded = (machine.mode ?? "strict") === result.mode && machine.cachingMode === cachingMode;
  if (unmapEvents === 0 || requestCap || hugePages || !replayedAsRecorded) return undefined;
  // NVMe and its like: several segments by two-step, a single one by one-shot. That is what two-step replays.
  const { invalidations } = result.strategies.find(({ name }) => name === "two-step")!;
  const unmaps = unmapEvents - unmapsOfUnknown;
  const seen = unmapsOfUnknown > 0 ? ` (${count(unmapsOfUnknown)} more for what is not in the recording)` : "";
  const unmapped = `The kernel unmapped ${plural(unmaps, "time")} in this recording${seen}`;
  const checked = { unmapEvents, unmapsOfUnknown, heldAgainst: "two-step", invalidations } as const;
  if (result.mode === "lazy") {
    // When a queue is flushed depends on clocks and processors: the two are near each other at best.
    const recorded = machine.invalidations?.unmaps;
    if (recorded === undefined) return undefined;
    const explanation = `${unmapped} and invalidated ${plural(recorded, "time")}; two-step ${plural(invalidations, "time")} here, where one queue is flushed by the recording's clock.`;
    return { ...checked, recorded, equal: invalidations === recorded, explanation };
  }
  const recorded = machine.cachingMode ? machine.invalidations!.unmaps + machine.invalidations!.maps : unmaps;
  const equal = invalidations === recorded;
  const made = machine.cachingMode
    ? `${unmapped} and invalidated ${plural(recorded, "time")}, ${count(machine.invalidations!.maps)} of them for maps (caching mode)`
    : equal
      ? `${unmapped}, in strict mode as many invalidations`
      : unmapped;
  const explanation = equal
    ? `${made}; two-step needs the same here.`
    : `${made}; two-step invalidates ${plural(invalidations, "time")} here. The difference: ${difference(requests)}.`;
  return { ...checked, recorded, equal, explanation };
}

function difference({ counts: { mapsOverLive } }: Requests): string {
  return mapsOverLive > 0
    ? `${count(mapsOverLive)} maps lie over live ones, of a second domain that the events do not tell apart`
    : "requests with gaps between their segments, which two-step maps one by one";
}

/** How the load was recorded, in a sentence or two, and what follows from that for the costs. */
export function recordedAs(requests: Requests): string {
  const { reached, mode, shownBy, cachingMode, invalidations, mostly } = recordedMachine(requests);
  if (reached === undefined) return "";
  if (reached !== "translated")
    return `Recorded without translation (${reached === "direct" ? "addresses are the memory's" : "through bounce buffers"}): the costs below are of an IOMMU that this machine did not pay for.`;
  const by =
    shownBy === "invalidations"
      ? `${count(invalidations!.unmaps)} invalidations for ${plural(requests.counts.unmapEvents, "unmap")}`
      : "by when addresses are used again";
  const how =
    mode === undefined
      ? "The recording does not show when the IOTLB was invalidated; strict is assumed"
      : `Recorded in ${mode} mode (${by})`;
  return `${how}${cachingMode ? ", on a unit in caching mode" : ""}. ${SAID[mostly ?? "unattributed"]}`;
}

/** What a driver does already. */
const SAID: Readonly<Record<Kind, string>> = {
  "one-shot": "Most was mapped by one-shot calls.",
  scatterlist: "Most was mapped as scatterlists.",
  coherent: "All of it is coherent memory.",
  "two-step": "Most was mapped in two steps already.",
  unattributed: "Which calls mapped most of it is not in the recording.",
};
