/**
 * What is wrong in recorded traces: one is read and judged here, several by workers.
 *
 * Exit code 1 when there is an error or a warning, 2 when a trace cannot be read (or is damaged), else 0.
 */
import { checkTrace, RULES, type StartState } from "../../../analysis/index.ts";
import { count, DmaError } from "../../../base/index.ts";
import { type CheckedTrace, checkJson, checkSarif, checkText } from "../../../report/index.ts";
import { sayDamage, withTrace } from "../files/with-trace.ts";
import { print, printJson } from "../terminal/print.ts";

/** What is asked of each trace; plain values, so that workers get it too. */
export interface CheckSettings {
  /** Empty: all. */
  readonly rules: readonly string[];
  /** Empty: all. */
  readonly devices: readonly string[];
  readonly bestEffort: boolean;
  readonly dmaDump: string | undefined;
  readonly snapshot: string | undefined;
  readonly root: string | undefined;
  /** The kernel's log of the same machine. */
  readonly kernelLog: string | undefined;
  /** Nanoseconds from that log's clock to the trace's; `undefined`: to be found. */
  readonly kernelLogOffsetNs: number | undefined;
  /** Address bits that devices really drive, by name. */
  readonly deviceBits: ReadonlyMap<string, number>;
}

/** And how it is answered. */
export interface CheckOptions extends CheckSettings {
  readonly json: boolean;
  readonly sarif: boolean;
  /** Worker threads for several traces; `undefined`: one a processor. */
  readonly jobs: number | undefined;
  /** Of dmalink, for SARIF. */
  readonly version: string;
}

/** Checks `paths` and prints the answer; the exit code. */
export async function checkTraces(paths: readonly string[], options: CheckOptions): Promise<number> {
  for (const rule of options.rules)
    if (!RULES.some(({ name }) => name === rule))
      throw new DmaError(
        "ERR_DMA_INPUT",
        "EINVAL",
        `--rule ${rule}: there are ${RULES.map(({ name }) => name).join(", ")}`,
      );
  if (paths.length > 1) return (await import("./check-many.ts")).checkMany(paths, options);
  if (options.sarif) return checkToSarif(paths[0]!, options);
  const checked = await checkFile(paths[0]!, options);
  refuseUnknownDevices(options.devices, [checked]);
  if (options.json) printJson(checkJson(checked.file, checked, checked.result));
  else print(checkText(checked));
  return exitCodeOf(checked);
}

/** A trace that cannot be read is told in the document too: without it the run would look clean, or not there. */
async function checkToSarif(path: string, options: CheckOptions): Promise<number> {
  let checked: CheckedTrace;
  try {
    checked = await checkFile(path, options);
  } catch (error) {
    if (error instanceof DmaError) printJson(checkSarif([], options.version, [{ file: path, message: error.message }]));
    throw error;
  }
  refuseUnknownDevices(options.devices, [checked]);
  printJson(checkSarif([checked], options.version));
  return exitCodeOf(checked);
}

/** A device that no event names would make every trace look clean. */
export function refuseUnknownDevices(asked: readonly string[], checked: readonly CheckedTrace[]): void {
  const found = new Set(checked.flatMap(({ result }) => [...result.devices, ...result.kernel.devices]));
  for (const device of asked)
    if (!found.has(device))
      throw new DmaError(
        "ERR_DMA_INPUT",
        "ENODEV",
        `--device ${device}: no event names it; ${found.size === 0 ? "none names any" : `there are ${[...found].sort().join(", ")}`}`,
        { device },
      );
}

export function exitCodeOf({ result, damage }: CheckedTrace): number {
  if (damage) return 2;
  return result.findings.some(({ severity }) => severity !== "advice") ? 1 : 0;
}

/** Reads and judges one trace. */
export async function checkFile(path: string, settings: CheckSettings): Promise<CheckedTrace> {
  const start = await startState(settings);
  const kernelLog =
    settings.kernelLog === undefined
      ? undefined
      : await (await import("./kernel-log.ts")).readLog(settings.kernelLog, settings.bestEffort);
  let checked: CheckedTrace | undefined;
  await withTrace(path, settings, async (trace, progress) => {
    const result = await checkTrace(trace, {
      ...(settings.rules.length > 0 && { rules: settings.rules }),
      ...(settings.devices.length > 0 && { devices: settings.devices }),
      ...(start && { start }),
      ...(kernelLog && { kernelLog }),
      ...(settings.kernelLogOffsetNs !== undefined && { kernelLogOffsetNs: settings.kernelLogOffsetNs }),
      deviceBits: settings.deviceBits,
      progress: (events) => progress.say(`checking ${path}: ${count(events)} events`),
    });
    progress.done();
    sayDamage(path, trace);
    const { format, timeBase, clock, damage } = trace;
    checked = { file: path, format, timeBase, clock, damage, result };
    return 0;
  });
  return checked!;
}

async function startState({ dmaDump, snapshot, root }: CheckSettings): Promise<StartState | undefined> {
  if (dmaDump === undefined && snapshot === undefined) return undefined;
  return (await import("./start-state.ts")).readStartState(dmaDump, snapshot, root);
}
