/** What a trace holds as data: `dmalink.stats/1`. Lengths are bytes, times nanoseconds. */
import type { Selection, TraceStats } from "../../analysis/index.ts";
import type { Trace } from "../../trace/index.ts";
import { selectionJson } from "../wording.ts";

/** The whole answer for one file. */
export function statsJson(
  file: string,
  { format, damage }: Pick<Trace, "format" | "damage">,
  result: TraceStats,
  selection?: Selection,
): object {
  const {
    events,
    eventTotal,
    lost,
    durationNs,
    devices,
    failed,
    ambiguous,
    unknownStart,
    endNotRecorded,
    userMappings,
  } = result;
  return {
    schema: "dmalink.stats/1",
    file,
    format,
    ...(damage && { damage }),
    ...selectionJson(selection),
    events,
    eventTotal,
    lost,
    durationNs,
    devices,
    failed,
    ambiguous,
    liveAtStart: unknownStart,
    endNotRecorded,
    ...(userMappings && { userMappings }),
  };
}
