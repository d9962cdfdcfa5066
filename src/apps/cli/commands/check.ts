/** `dmalink check`: what is wrong in recorded traces, and what to do. */
import { DmaError } from "../../../base/index.ts";
import type { CheckedTrace } from "../../../report/index.ts";
import type { CheckOptions } from "../check/check-file.ts";
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import {
  BEST_EFFORT,
  deviceBits,
  file,
  flag,
  JSON_ANSWER,
  list,
  PART,
  seconds,
  TRACE,
  text,
  wholeNumber,
} from "../options.ts";
import { answerStyle, print, printJson } from "../terminal/print.ts";

const ruleNames = async (): Promise<string[]> =>
  (await import("../../../analysis/index.ts")).RULES.map(({ name }) => name);

export const check: Command = command({
  name: "check",
  summary: "what is wrong in recorded traces, and what to do",
  description:
    "Follows every mapping from its map to its unmap and judges it: leaks, double and short unmaps, addresses used too early or " +
    "too late, waste. A device's faults are joined with whoever had the address: by iommu:io_page_fault, by the kernel's lines in the " +
    "trace, or by its log beside it. A log alone (dmesg, journalctl -k) can be checked too, and a copy of debugfs dma-api/dump or two of them: what is live, what came and went. Each finding names the events that show " +
    "it, and what to do. Exit code 1 if there is an error or a warning.",
  arguments: [{ ...TRACE, meaning: `${TRACE.meaning}; or a folder of them`, many: true }],
  options: {
    rule: list("NAME", "this rule only", ruleNames),
    dmaDump: file("what was mapped at the start: debugfs dma-api/dump"),
    snapshot: file("what was mapped at the start: page tables"),
    root: text("ADDRESS", "the snapshot's root table, without a NAME.json"),
    kernelLog: file("the kernel's log of the same machine: dmesg or journalctl -k, in any of their formats"),
    kernelLogOffset: seconds(
      "what to add to that log's times to get the trace's; without it, found from lines in both",
    ),
    deviceBits: deviceBits("address bits that a device really drives: mappings beyond are found before they fault"),
    live: flag("also list what is live at the end, the oldest of its kind first, and who mapped it"),
    jobs: wholeNumber("traces at once; without it, one a processor", 1),
    json: JSON_ANSWER,
    sarif: flag("SARIF 2.1.0, on stdout"),
    ...PART,
    bestEffort: BEST_EFFORT,
  },
  examples: [
    "dmalink check trace.dat.gz --device 0000:00:04.0",
    "dmalink check trace.dat --kernel-log dmesg.txt",
    "dmalink check recorded --jobs 4 --json",
  ],
  async run({ arguments: traces, options, program }) {
    const { rule, device, task, cpu, kernelLogOffset, ...rest } = options;
    if (kernelLogOffset !== undefined && options.kernelLog === undefined)
      throw new UsageError("--kernel-log-offset is the difference to a log: give --kernel-log too");
    if (options.root !== undefined && options.snapshot === undefined)
      throw new UsageError("--root is the root table of a snapshot: give --snapshot too");
    const { selectionOf } = await import("../files/selection.ts");
    const asked = {
      ...rest,
      rules: rule,
      ...selectionOf({ device, task, cpu }),
      kernelLogOffsetNs: kernelLogOffset,
      version: program.version,
    };
    await refuseUnknownRules(rule);
    const { isFolder, tracesAt } = await import("../files/folder.ts");
    if (traces.length <= 2 && !traces.some(isFolder)) {
      const { checkDumps, isDmaDump } = await import("../check/dumps.ts");
      const areDumps = await Promise.all(traces.map(isDmaDump));
      if (areDumps.every((isDump) => isDump)) return checkDumps(traces, device, options.json);
    }
    if (traces.length > 1 || traces.some(isFolder))
      return (await import("../check/check-many.ts")).checkMany(tracesAt(traces), asked);
    const { checkJson, checkSarif, checkText } = await import("../../../report/index.ts");
    const { exitCodeOf, refuseUnselected } = await import("../check/check-file.ts");
    const checked = await judged(traces[0]!, asked);
    refuseUnselected(asked, [checked]);
    if (options.sarif) printJson(checkSarif([checked], program.version));
    else if (options.json) printJson(checkJson([checked]));
    else print(checkText(checked, answerStyle()));
    return exitCodeOf(checked);
  },
});

/** A trace that cannot be read is told in SARIF too: without it the run would look clean, or not there. */
async function judged(path: string, options: CheckOptions): Promise<CheckedTrace> {
  const { checkFile } = await import("../check/check-file.ts");
  try {
    return await checkFile(path, options);
  } catch (error) {
    if (options.sarif && error instanceof DmaError) {
      const { checkSarif } = await import("../../../report/index.ts");
      printJson(checkSarif([], options.version, [{ file: path, message: error.message }]));
    }
    throw error;
  }
}

async function refuseUnknownRules(asked: readonly string[]): Promise<void> {
  const names = await ruleNames();
  for (const rule of asked)
    if (!names.includes(rule))
      throw new DmaError("ERR_DMA_INPUT", "EINVAL", `--rule ${rule}: there are ${names.join(", ")}`, { rule });
}
