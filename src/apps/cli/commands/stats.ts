/** `dmalink stats`: what a trace holds. */
import { type Command, command } from "../command.ts";
import { BEST_EFFORT, JSON_ANSWER, PART, TRACE } from "../options.ts";
import { answerStyle, print, printJson } from "../terminal/print.ts";

export const stats: Command = command({
  name: "stats",
  summary: "what a trace holds, per event and device",
  description:
    "Counts events, and for each device its mappings: how many and how large, how they were made, how long they lived, which " +
    "page sizes their memory would allow, and what was live at the end.",
  arguments: [TRACE],
  options: { json: JSON_ANSWER, ...PART, bestEffort: BEST_EFFORT },
  examples: ["dmalink stats trace.dat.gz", "trace-cmd report trace.dat | dmalink stats -"],
  async run({ arguments: [path], options }) {
    const { readStats } = await import("../../../analysis/index.ts");
    const { statsJson, statsText } = await import("../../../report/index.ts");
    const { sayDamage, sayRemarks, toldEvents, withTrace } = await import("../files/with-trace.ts");
    const { refuseUnknown, selectionOf } = await import("../files/selection.ts");
    const selected = selectionOf(options);
    return withTrace(path!, options, async (trace, progress) => {
      const result = await readStats(trace, { ...selected, progress: toldEvents(progress) });
      progress.done();
      refuseUnknown(selected, result.deviceNames, result.mappings + result.unknownStart);
      sayDamage(path!, trace);
      sayRemarks(path!, trace);
      if (options.json) printJson(statsJson(path!, trace, result, selected.selection));
      else print(statsText(path!, trace, result, answerStyle(), selected.selection));
      return trace.damage ? 2 : 0;
    });
  },
});
