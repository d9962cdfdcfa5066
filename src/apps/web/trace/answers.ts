/** What the trace worker answers: plain values, of which the answers of `dmalink stats --json` and `dmalink check --json` are parts. */
import type { DeviceStats, Finding, Severity } from "../../../analysis/index.ts";
import type { Trace } from "../../../trace/index.ts";
import type { TrackFacts } from "./pictures.ts";

/** What `dmalink.stats/2` says of a trace, as far as the page reads it. */
export interface StatsAnswer {
  readonly format: string;
  readonly events: Readonly<Record<string, number>>;
  readonly eventTotal: number;
  readonly lost: number;
  readonly durationNs: number;
  readonly devices: readonly DeviceStats[];
  readonly failed: number;
  readonly ambiguous: number;
  readonly liveAtStart: number;
  readonly endNotRecorded: number;
}

/** What a trace is, before it is judged. */
export interface Overview {
  readonly name: string;
  readonly sizeBytes: number;
  readonly stats: StatsAnswer;
  /** `dmalink.stats/2`, whole. */
  readonly statsJson: { readonly traces: readonly [StatsAnswer] };
  readonly trace: Pick<Trace, "format" | "clock" | "cpus" | "system" | "timing" | "damage" | "remarks" | "timeBase">;
  readonly wentBack: number;
  /** Why its packed file ended early. */
  readonly cut?: string;
}

/** What is wrong in it, and how far its pictures reach. */
export interface CheckAnswer {
  /** `dmalink.check/2`. */
  readonly check: {
    readonly summary: Readonly<Record<string, number>>;
    readonly severities: Readonly<Record<Severity, number>>;
  };
  readonly findings: readonly Finding[];
  /** Times of the first and last event, nanoseconds since the trace's time base. */
  readonly firstNs: number;
  readonly lastNs: number;
  readonly mappings: number;
  /** Devices that mapped anything, the busiest first. */
  readonly devices: readonly string[];
  readonly tracks: readonly TrackFacts[];
}
