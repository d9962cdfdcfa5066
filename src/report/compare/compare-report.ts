/**
 * What a comparison of mapping strategies says, before it is text or JSON: the counts, and what the kernel itself did.
 *
 * Idea: one value for all forms, so that they cannot say different things. Not for: running the strategies (replay).
 */
import type { Requests } from "../../analysis/index.ts";
import { count, plural } from "../../base/index.ts";
import type { FormatName } from "../../layouts/pagetable/index.ts";
import type { CompareOptions, Comparison, NvmeReplay, StrategyName } from "../../replay/index.ts";
import type { Trace } from "../../trace/index.ts";

/** Names of questions that change one thing. */
export type WhatIf = "huge-pages" | "iova-cache" | "lazy";

/** What each question changes, and how it is asked. */
export const WHAT_IF: Readonly<
  Record<WhatIf, { readonly change: Partial<CompareOptions>; readonly question: string }>
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
  readonly iommu?: FormatName;
  readonly mode?: "strict" | "lazy";
  readonly cachingMode?: boolean;
  /** Bytes; longer requests were mapped in pieces of this. */
  readonly requestCap?: number;
  readonly hugePages?: boolean;
  readonly seed?: number;
  readonly whatIf?: WhatIf;
}

/** Everything that is said of one trace, in whatever form. */
export interface CompareReport {
  /** The trace, as it was named. */
  readonly path: string;
  readonly result: Comparison;
  readonly requests: Requests;
  /** `undefined` where the recording says nothing that could be held against the counts. */
  readonly kernel: KernelCheck | undefined;
  readonly options: ComparedAs;
  readonly damage: Trace["damage"];
  /** The same load with one thing changed. */
  readonly changed: Comparison | undefined;
  /** The same load as NVMe commands. */
  readonly nvme: NvmeReplay | undefined;
}

/** The kernel's own invalidations of this load, held against what was counted for the way it mapped. */
export interface KernelCheck {
  readonly unmapEvents: number;
  readonly unmapsOfUnknown: number;
  readonly strategy: StrategyName;
  readonly invalidations: number;
  readonly equal: boolean;
  readonly explanation: string;
}

/** Holds what the kernel did against `result`; `undefined` where the two are not of one thing. */
export function kernelCheck(
  requests: Requests,
  result: Comparison,
  { requestCap, hugePages, cachingMode }: ComparedAs,
): KernelCheck | undefined {
  const { unmapEvents, unmapsOfUnknown } = requests.counts;
  if (result.mode !== "strict" || unmapEvents === 0 || requestCap || hugePages || cachingMode) return undefined;
  // NVMe and its like: several segments by two-step, a single one by one-shot. That is what two-step replays.
  const { invalidations } = result.strategies.find(({ name }) => name === "two-step")!;
  const expected = unmapEvents - unmapsOfUnknown;
  const equal = invalidations === expected;
  const seen = unmapsOfUnknown > 0 ? ` (${count(unmapsOfUnknown)} more for what is not in the recording)` : "";
  const explanation = equal
    ? `The kernel unmapped ${plural(expected, "time")} in this recording${seen}, in strict mode as many invalidations; two-step needs the same here.`
    : `The kernel unmapped ${plural(expected, "time")} in this recording${seen}; two-step invalidates ${plural(invalidations, "time")} here. ` +
      `The difference: ${difference(requests)}.`;
  return { unmapEvents, unmapsOfUnknown, strategy: "two-step", invalidations, equal, explanation };
}

function difference({ counts: { mapsOverLive } }: Requests): string {
  return mapsOverLive > 0
    ? `${count(mapsOverLive)} maps lie over live ones, of a second domain that the events do not tell apart`
    : "requests with gaps between their segments, which two-step maps one by one";
}
