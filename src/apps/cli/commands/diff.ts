/** `dmalink diff`: two traces of one load, before and after a change. */
import type { FailOn } from "../../../report/index.ts";
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { STANDARD_INPUT } from "../files/standard-input.ts";
import { BEST_EFFORT, JSON_ANSWER, list, PART, TRACE } from "../options.ts";
import { answerStyle, print, printJson } from "../terminal/print.ts";

const names = async (): Promise<readonly string[]> => (await import("../../../report/index.ts")).FAIL_ON_NAMES;

/** More of a measure than this share is a regression, unless said otherwise: what is less may be noise. Of findings any is. */
const ALLOWED = 0.1;

export const diff: Command = command({
  name: "diff",
  summary: "two traces of one load, before and after a change: what is more, less, new and gone",
  description:
    "Reads both traces, says whether their loads can be compared, and prints counts, bytes, costs a request, lifetimes, and which " +
    "findings came and went. Exit code 1 if something that --fail-on names got worse: errors, warnings, advice or findings (a " +
    "kind that was not there, or more of them a request), a rule, or a measure such as invalidations, segments, lifetime-p99 or " +
    "live, by more than 10 % or by more than is said (lifetime-p99=25%). A measure that cannot be judged is said, and exits 2.",
  arguments: [
    { ...TRACE, name: "BEFORE" },
    { ...TRACE, name: "AFTER", meaning: "the same load after the change" },
  ],
  options: {
    failOn: list("NAME[=PERCENT]", "what must not get worse", names),
    json: JSON_ANSWER,
    ...PART,
    bestEffort: BEST_EFFORT,
  },
  examples: [
    "dmalink diff before.dat after.dat",
    "dmalink diff main.dat pull-request.dat --fail-on errors,invalidations=5%",
  ],
  async run({ arguments: [first, second], options }) {
    if (first === STANDARD_INPUT && second === STANDARD_INPUT)
      throw new UsageError("standard input is one of the traces only: name a file for the other");
    const { diffJson, diffText, diffTraces, readSide } = await import("../../../report/index.ts");
    const failOn = await failOnOf(options.failOn);
    const { refuseUnknown, selectionOf } = await import("../files/selection.ts");
    const { sayDamage, sayRemarks, toldEvents, withTrace } = await import("../files/with-trace.ts");
    const selected = selectionOf(options);
    const side = async (path: string) => {
      let read: Awaited<ReturnType<typeof readSide>> | undefined;
      await withTrace(path, options, async (trace, progress) => {
        read = await readSide(path, trace, { ...selected, progress: toldEvents(progress) });
        progress.done();
        sayDamage(path, trace);
        sayRemarks(path, trace);
        return 0;
      });
      return read!;
    };
    const [before, after] = [await side(first!), await side(second!)];
    refuseUnknown(
      selected,
      [...before.result.devices, ...after.result.devices],
      before.result.mappings + after.result.mappings,
    );
    const result = diffTraces(before, after, failOn);
    if (options.json) printJson(diffJson(result, selected.selection));
    else print(diffText(result, answerStyle(), selected.selection));
    if (before.damage || after.damage || result.unjudged.length > 0) return 2;
    return result.regressions.length > 0 ? 1 : 0;
  },
});

/** "errors", "lifetime-p99=25%". */
async function failOnOf(words: readonly string[]): Promise<FailOn[]> {
  const { FAIL_ON_NAMES, MEASURES } = await import("../../../report/index.ts");
  const { didYouMean } = await import("../terminal/did-you-mean.ts");
  return words.map((word) => {
    const match = /^([a-z0-9-]+)(?:=(\d{1,6}(?:\.\d{1,3})?)%?)?$/.exec(word);
    if (!match) throw new UsageError(`--fail-on ${word}: a name is needed, or one with a share: lifetime-p99=25%`);
    const [, name, percent] = match;
    if (!FAIL_ON_NAMES.includes(name!))
      throw new UsageError(
        `--fail-on ${name}: not one of ${FAIL_ON_NAMES.join(", ")}${didYouMean(name!, [...FAIL_ON_NAMES])}`,
      );
    const isMeasure = MEASURES.some((measure) => measure.name === name);
    return { name: name!, allowed: percent === undefined ? (isMeasure ? ALLOWED : 0) : Number(percent) / 100 };
  });
}
