/** What a trace holds as data: `dmalink.stats/2`. Lengths are bytes, times nanoseconds. */
import type { Selection, TraceStats } from "../../analysis/index.ts";
import type { Trace } from "../../trace/index.ts";
import { selectionJson } from "../wording.ts";

/** The whole answer: an entry a trace, which is one. */
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
  const about = {
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
  return { schema: "dmalink.stats/2", traces: [about] };
}
