/** `dmalink check`: what is wrong in recorded traces, and what to do. */
import { type Command, command } from "../command.ts";
import { UsageError } from "../exit-errors.ts";
import { BEST_EFFORT, DEVICES, file, flag, JSON_ANSWER, list, TRACE, text, wholeNumber } from "../options.ts";

export const check: Command = command({
  name: "check",
  summary: "what is wrong in recorded traces, and what to do",
  description:
    "Follows every mapping from its map to its unmap and judges it: leaks, double and short unmaps, addresses used too early or " +
    "too late, waste. Each finding names the events that show it, and what to do. Exit code 1 if there is an error or a warning.",
  arguments: [{ ...TRACE, many: true }],
  options: {
    rule: list("NAME", "this rule only", async () =>
      (await import("../../../analysis/index.ts")).RULES.map(({ name }) => name),
    ),
    device: DEVICES,
    dmaDump: file("what was mapped at the start: debugfs dma-api/dump"),
    snapshot: file("what was mapped at the start: page tables"),
    root: text("ADDRESS", "the snapshot's root table, without a NAME.json"),
    jobs: wholeNumber("traces at once; without it, one a processor", 1),
    json: JSON_ANSWER,
    sarif: flag("SARIF 2.1.0, on stdout"),
    bestEffort: BEST_EFFORT,
  },
  examples: ["dmalink check trace.dat.gz --device 0000:00:04.0", "dmalink check recorded/*.dat --jobs 4 --json"],
  async run({ arguments: traces, options, program }) {
    const { rule, device, ...rest } = options;
    if (options.root !== undefined && options.snapshot === undefined)
      throw new UsageError("--root is the root table of a snapshot: give --snapshot too");
    const { checkTraces } = await import("../check/check.ts");
    return checkTraces(traces, { ...rest, rules: rule, devices: device, version: program.version });
  },
});
