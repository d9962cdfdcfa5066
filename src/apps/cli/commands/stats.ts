/** `dmalink stats TRACE`: what a trace holds. */
import { readStats } from "../../../analysis/index.ts";
import { statsJson, statsText } from "../../../report/index.ts";
import { sayDamage, withTrace } from "../files/with-trace.ts";
import { print, printJson } from "../terminal/print.ts";

export interface StatsOptions {
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

/** Prints the statistics of `path`; the exit code. */
export function stats(path: string, options: StatsOptions): Promise<number> {
  return withTrace(path, options, async (trace, progress) => {
    const result = await readStats(trace);
    progress.done();
    sayDamage(path, trace);
    if (options.json) printJson(statsJson(path, trace, result));
    else print(statsText(path, trace, result));
    return trace.damage ? 2 : 0;
  });
}
