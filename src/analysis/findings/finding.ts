/** What a rule has to say: one fact about one device, with the events that show it. Plain values. */

/** Error: memory or address space is corrupted, lost or exposed. Warning: it works, and hurts. Advice: it could be cheaper. */
export type Severity = "error" | "warning" | "advice";
export const SEVERITIES: readonly Severity[] = ["error", "warning", "advice"];

/** Certain: the events leave no other reading. Likely: another reading needs a coincidence. Possible: look at it. */
export type Confidence = "certain" | "likely" | "possible";

/** One event that shows what happened. */
export interface Evidence {
  /** What it means here: "mapped", "unmapped again" … */
  readonly what: string;
  /** The event's name. */
  readonly event: string;
  /** Nanoseconds since the trace's time base; -1: before the recording. */
  readonly timeNs: number;
  readonly cpu: number;
  readonly pid: number;
  readonly task: string;
  /** DMA address, bytes. */
  readonly iova: number | undefined;
  /** Bytes. */
  readonly length: number | undefined;
  /** Who called, where the event says so. */
  readonly site: string | undefined;
}

export interface Finding {
  readonly rule: string;
  readonly severity: Severity;
  readonly confidence: Confidence;
  /** `undefined`: no event names it. */
  readonly device: string | undefined;
  /** DMA address, bytes. */
  readonly iova: number | undefined;
  /** Bytes. */
  readonly length: number | undefined;
  /** Nanoseconds since the trace's time base. */
  readonly timeNs: number;
  /** What happened, with the numbers: one or two sentences. */
  readonly message: string;
  /** What to do about it. */
  readonly advice: string;
  readonly evidence: readonly Evidence[];
}
