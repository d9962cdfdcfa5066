/**
 * What one trace says in a comparison of two: what was mapped, what that cost the machine, how long it lived, what is wrong.
 *
 * Idea: one pass over the trace by the engine of check and stats, so that both commands and this one say the same numbers.
 */
import {
  type CheckResult,
  checkTrace,
  type DeviceStats,
  KINDS,
  NOTHING_MAPPED,
  type RecordedMachine,
  RequestColumns,
  Requests,
  recordedMachine,
  type Selection,
  StatsSink,
} from "../../analysis/index.ts";
import type { Trace } from "../../trace/index.ts";

/** One of the two. */
export interface TraceSide {
  /** As it was named. */
  readonly file: string;
  /** Of which kind it is. */
  readonly format: Trace["format"];
  /** Where it stopped making sense; undefined if it did not. */
  readonly damage: Trace["damage"];
  /** What was found in it. */
  readonly result: CheckResult;
  /** Some mappings only; counts of events are of all. */
  readonly isSelected: boolean;
  /** What the recording says of the machine. */
  readonly machine: RecordedMachine;
  /** What was mapped, by device. */
  readonly devices: readonly DeviceStats[];
  /** Of all devices together. */
  readonly total: DeviceStats;
}

/**
 * Reads all of `trace`.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function readSide(
  file: string,
  trace: Trace,
  options: { readonly selection?: Selection; readonly progress?: (events: number) => void } = {},
): Promise<TraceSide> {
  const columns = new RequestColumns();
  const [byDevice, together] = [new StatsSink(), new StatsSink(true)];
  const result = await checkTrace(trace, { ...options, sinks: [columns, byDevice, together] });
  return {
    file,
    format: trace.format,
    damage: trace.damage,
    result,
    isSelected: options.selection !== undefined,
    machine: recordedMachine(new Requests(columns, result)),
    devices: byDevice.byDevice(),
    total: together.byDevice()[0] ?? NOTHING,
  };
}

/** Of a trace without mappings. */
const NOTHING: DeviceStats = {
  ...NOTHING_MAPPED,
  name: "all",
  kinds: Object.fromEntries(KINDS.map((kind) => [kind, 0])),
};
