/** The worker that reads traces: what the page asks of a recording is computed here, beside the page and not in its way. */
import { type Served, serve } from "../frame/calls.ts";
import { readTables, type TableFiles } from "../tables/read-tables.ts";
import { type OpenedFiles, OpenTrace } from "./open-trace.ts";
import type { SpaceAsked, TimelineAsked } from "./pictures.ts";
import { type CompareAsked, compareStrategies } from "./strategies.ts";

let opened: OpenTrace | undefined;

const theTrace = (): OpenTrace => {
  if (!opened) throw new Error("no trace is open");
  return opened;
};

const functions = {
  /** Opens a trace and counts what is in it; one that was open before is let go. */
  async open(files: OpenedFiles, tell) {
    opened = undefined;
    const trace = await OpenTrace.open(files, tell);
    opened = trace;
    return trace.overview;
  },
  /** Judges it and keeps its mappings, for pictures and tables; once. */
  check: (_: undefined, tell) => theTrace().check(tell),
  /** Replays the load of a trace; for a worker of its own, since nothing else is answered meanwhile. */
  compare: (asked: CompareAsked, tell) => compareStrategies(asked, tell),
  /** Page tables of a file; needs no trace. */
  tables: (files: TableFiles, tell) => readTables(files, tell),
  timeline: (asked: TimelineAsked) => theTrace().pictures.timeline(asked),
  at: ({ id, lane, ns, withinNs }: { id: string; lane: number; ns: number; withinNs: number }) =>
    theTrace().pictures.at(id, lane, ns, withinNs),
  next: ({ id, ns, step }: { id: string; ns: number; step: 1 | -1 }) => theTrace().pictures.next(id, ns, step),
  space: (device: string) => theTrace().pictures.space(device),
  paintSpace: (asked: SpaceAsked) => theTrace().pictures.paintSpace(asked),
  spaceAt: ({ device, ns, height, within }: SpacePlace) => theTrace().pictures.spaceAt(device, ns, height, within),
  mappingsIn: ({ device, fromNs, toNs, most }: Stretch & { device?: string }) =>
    theTrace().pictures.mappingsIn(device, fromNs, toNs, most),
  find: ({ query, group, most }: { query: string; group: string; most: number }) =>
    theTrace().pictures.find(query, group, most),
  search: ({ text, behindNs }: { text: string; behindNs: number }) => theTrace().pictures.search(text, behindNs),
  marksIn: ({ fromNs, toNs, most }: Stretch) => theTrace().pictures.marksIn(fromNs, toNs, most),
} satisfies Served;

/** A stretch of time, and the most rows that are answered. */
interface Stretch {
  readonly fromNs: number;
  readonly toNs: number;
  readonly most: number;
}

/** A place in a device's address space over time. */
interface SpacePlace {
  readonly device: string;
  readonly ns: number;
  readonly height: number;
  readonly within: { readonly ns: number; readonly height: number };
}

/** What this worker serves. */
export type TraceCalls = typeof functions;

serve(functions);
