/** The worker that reads traces: what the page asks of a recording is computed here, beside the page and not in its way. */
import { type Served, serve } from "../frame/calls.ts";
import { type OpenedFiles, OpenTrace } from "./open-trace.ts";

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
} satisfies Served;

/** What this worker serves. */
export type TraceCalls = typeof functions;

serve(functions);
