/** What a trace holds as data: `dmalink.stats/1`. Lengths are bytes, times nanoseconds. */
import type { TraceStats } from "../../analysis/index.ts";
import type { Trace } from "../../trace/index.ts";

/** The whole answer for one file. */
export function statsJson(
  file: string,
  { format, damage }: Pick<Trace, "format" | "damage">,
  result: TraceStats,
): object {
  const { events, eventTotal, lost, durationNs, devices, failed, ambiguous, unknownStart, endNotRecorded } = result;
  return {
    schema: "dmalink.stats/1",
    file,
    format,
    ...(damage && { damage }),
    events,
    eventTotal,
    lost,
    durationNs,
    devices,
    failed,
    ambiguous,
    liveAtStart: unknownStart,
    endNotRecorded,
  };
}
