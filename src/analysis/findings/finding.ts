/** What a rule has to say: one fact about one device, with the events that show it. Plain values. */

/** Error: memory or address space is corrupted, lost or exposed. Warning: it works, and hurts. Advice: it could be cheaper. */
export type Severity = "error" | "warning" | "advice";
/** From grave to harmless. */
export const SEVERITIES: readonly Severity[] = ["error", "warning", "advice"];

/** Certain: the events leave no other reading. Likely: another reading needs a coincidence. Possible: look at it. */
export type Confidence = "certain" | "likely" | "possible";

/** One event that shows what happened. */
export interface Evidence {
  /** What it means here: "mapped", "unmapped again" … */
  readonly what: string;
  /** The event's name. */
  readonly event: string;
  /** Nanoseconds since the trace's time base; -1: before the recording, or by a clock that cannot be compared. */
  readonly timeNs: number;
  /** Which CPU recorded it. */
  readonly cpu: number;
  /** Which task was running; -1: not recorded. */
  readonly pid: number;
  /** Name of that task; empty where it was not recorded. */
  readonly task: string;
  /** DMA address, bytes. */
  readonly iova: number | undefined;
  /** Bytes. */
  readonly length: number | undefined;
  /** Who called, where the event says so or was recorded with its stack: "nvme_prep_rq ← nvme_queue_rq". */
  readonly site: string | undefined;
  /** The driver's functions that led there, the innermost first, where the stack was recorded. */
  readonly code?: readonly string[];
  /** What the kernel printed, where the evidence is a line of its log. */
  readonly text?: string;
  /** Line of the log, from 1. */
  readonly line?: number;
}

/** What a fault has to do with the mappings of the recording. */
export type Relation =
  /** Mapped for the device when it faulted. */
  | "live"
  /** Mapped for the device before, and unmapped by then. */
  | "ended"
  /** Right behind or before a mapping of the device. */
  | "near"
  /** Equal to a mapping of the device in its lower bits: the upper ones were lost. */
  | "cut"
  /** Nothing of it was ever mapped for the device in this recording. */
  | "never";

/** A stretch of faults of one device. */
export interface FaultFacts {
  /** As the kernel names devices; where only the IOMMU's number for it is told, that. */
  readonly device: string;
  /** Of the first fault, exact; `undefined`: what faulted has no address (an interrupt). VT-d tells pages only. */
  readonly address: bigint | undefined;
  /** Bytes from the first page of the stretch to the end of the last. */
  readonly lengthBytes: number;
  /** What the device tried; of the first fault where they differ, see `reads` and `writes`. */
  readonly access: "read" | "write" | "unknown";
  /** Faults of the stretch. */
  readonly count: number;
  /** Of those, reads. */
  readonly reads: number;
  /** Of those, writes. */
  readonly writes: number;
  /** Why, in the IOMMU's words. */
  readonly reason: string;
  /** Who told: the trace event of that name, the kernel's messages in the trace, or a log beside it. */
  readonly source: "io_page_fault" | "console" | "kernel-log";
  /** Of the first fault, nanoseconds since the trace's time base; `undefined`: by a clock that cannot be compared. */
  readonly firstNs: number | undefined;
  /** Of the last one, in the same way. */
  readonly lastNs: number | undefined;
  /** The IOMMU's name, where it is told. */
  readonly unit: string | undefined;
  /** The IOMMU's number for the device, where it is told. */
  readonly stream: number | undefined;
  /** Which of the device's address spaces, where it is told. */
  readonly pasid: number | undefined;
}

/** A mapping that may explain a fault, and how. */
export interface MappingFacts {
  /** How the address lies to the mapping. */
  readonly relation: Relation;
  /** Which explanation it is, by a name that stays. */
  readonly cause: string;
  /** How sure it is. */
  readonly confidence: Confidence;
  /** The cause in one sentence. */
  readonly message: string;
  /** The device that it was mapped for. */
  readonly device: string | undefined;
  /** DMA address of the mapping, bytes; `undefined`, as all below, where there is no such mapping. */
  readonly iova: number | undefined;
  /** Bytes of the mapping. */
  readonly lengthBytes: number | undefined;
  /** The kernel's number; `undefined`: no event says. */
  readonly direction: number | undefined;
  /** Nanoseconds since the trace's time base; `undefined`: before the recording. */
  readonly mappedNs: number | undefined;
  /** `undefined`: it is live. */
  readonly endedNs: number | undefined;
  /** The task that mapped. */
  readonly mappedBy: string | undefined;
  /** The task that unmapped. */
  readonly endedBy: string | undefined;
  /** Near: bytes between the mapping and the address. */
  readonly distanceBytes: number | undefined;
  /** Near: on which side of the mapping the address lies. */
  readonly side: "behind" | "before" | undefined;
  /** Cut: address bits that were left. */
  readonly bits: number | undefined;
}

/** One finding: what happened, the events that show it, and what to do. */
export interface Finding {
  /** Which rule found it: the name that options take. */
  readonly rule: string;
  /** How bad it is. */
  readonly severity: Severity;
  /** How sure it is. */
  readonly confidence: Confidence;
  /** `undefined`: no event names it. */
  readonly device: string | undefined;
  /** DMA address, bytes. */
  readonly iova: number | undefined;
  /** Bytes. */
  readonly length: number | undefined;
  /** Nanoseconds since the trace's time base; -1: by a clock that cannot be compared. */
  readonly timeNs: number;
  /** What happened, with the numbers: one or two sentences. */
  readonly message: string;
  /** What to do about it. */
  readonly advice: string;
  /** Events that show it, in the order of time. */
  readonly evidence: readonly Evidence[];
  /** The code that mapped, or did what the first event with a stack shows: "nvme_prep_rq ← nvme_queue_rq". */
  readonly caller?: string;
  /** All functions of that stack, the innermost first. */
  readonly code?: readonly string[];
  /** A device's fault: what was told of it. */
  readonly fault?: FaultFacts;
  /** Whose the address was, by the best explanation; `undefined`: there are no mappings to look at. */
  readonly mapping?: MappingFacts;
  /** All explanations, the best first. */
  readonly hypotheses?: readonly MappingFacts[];
}
