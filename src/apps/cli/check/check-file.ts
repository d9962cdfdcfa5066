/** One trace read and judged, by the command itself or by one of its workers. */
import { checkTrace, type Selection, type StartState } from "../../../analysis/index.ts";
import type { CheckedTrace } from "../../../report/index.ts";
import { refuseUnknown } from "../files/selection.ts";
import type { TimeWindow } from "../files/time-window.ts";
import { sayDamage, toldEvents, withTrace } from "../files/with-trace.ts";

/** What is asked of each trace; plain values, so that workers get it too. */
export interface CheckSettings extends TimeWindow {
  /** Empty: all. */
  readonly rules: readonly string[];
  /** Which mappings and findings; without it all. */
  readonly selection?: Selection;
  readonly bestEffort: boolean;
  /** List what is live at the end. */
  readonly live: boolean;
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

/**
 * Reads and judges the trace at `path`.
 *
 * @throws DmaError: it cannot be read, or what is said to be mapped at its start cannot
 */
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
      ...(settings.selection && { selection: settings.selection }),
      ...(start && { start }),
      ...(kernelLog && { kernelLog }),
      ...(settings.kernelLogOffsetNs !== undefined && { kernelLogOffsetNs: settings.kernelLogOffsetNs }),
      deviceBits: settings.deviceBits,
      live: settings.live,
      progress: toldEvents(progress),
    });
    progress.done();
    sayDamage(path, trace);
    const { format, timeBase, clock, damage, remarks, timing } = trace;
    const { selection } = settings;
    checked = { file: path, format, timeBase, clock, damage, remarks, timing, result, ...(selection && { selection }) };
    return 0;
  });
  return checked!;
}

async function startState({ dmaDump, snapshot, root }: CheckSettings): Promise<StartState | undefined> {
  if (dmaDump === undefined && snapshot === undefined) return undefined;
  return (await import("./start-state.ts")).readStartState(dmaDump, snapshot, root);
}

/** @throws DmaError ERR_DMA_INPUT: what was selected is in none of the traces */
export function refuseUnselected(settings: CheckSettings, checked: readonly CheckedTrace[]): void {
  refuseUnknown(
    settings,
    checked.flatMap(({ result }) => [...result.devices, ...result.kernel.devices]),
    checked.reduce((sum, { result }) => sum + result.mappings + result.unknownStart + result.findings.length, 0),
  );
}

/** 2 if it is damaged, 1 if there is an error or a warning, else 0. */
export function exitCodeOf({ result, damage }: CheckedTrace): number {
  if (damage) return 2;
  return result.findings.some(({ severity }) => severity !== "advice") ? 1 : 0;
}
