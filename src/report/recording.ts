/**
 * A whole trace in memory, as columns: its mappings and requests, and what the rules found. For pictures and tables.
 *
 * Idea: one pass over the trace; the analysis shows every lifetime once, and it is copied into columns that grow.
 * Cost: about 80 bytes a mapping. Not for: events, which are handed on one by one (`visit`) and not kept.
 */
import {
  type CheckResult,
  checkTrace,
  type EventVisitor,
  KINDS,
  type LifetimeTable,
  NO_DEVICE,
  NO_DIRECTION,
  type Request,
  RequestReader,
  type Requests,
} from "../analysis/index.ts";
import type { Trace } from "../trace/index.ts";

/** How the device's address leads to memory, by the number in {@link Mappings.reached}. */
export const REACHED: readonly string[] = ["direct", "translated", "remapped"];
/** What the events call the directions, by the kernel's number. */
const DIRECTIONS: readonly string[] = ["bidirectional", "to-device", "from-device", "none"];
export const directionWord = (direction: number): string | undefined => DIRECTIONS[direction];
/** How mappings are made, by the number in {@link Mappings.kind}. */
export { KINDS, NO_DEVICE };

const FIRST_ROWS = 4096;

/** Every mapping of a trace: those with a device in the order of their ends, live ones last; then those without. */
export class Mappings {
  count = 0;
  /** Index into {@link KINDS}, {@link devices} and {@link REACHED}; the kernel's number of a direction, or {@link NO_DIRECTION} where no event says. */
  kind: Uint8Array = new Uint8Array(FIRST_ROWS);
  device: Uint16Array = new Uint16Array(FIRST_ROWS);
  direction: Uint8Array = new Uint8Array(FIRST_ROWS);
  reached: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Bytes. */
  iova: Float64Array = new Float64Array(FIRST_ROWS);
  length: Float64Array = new Float64Array(FIRST_ROWS);
  /** -1: unknown. */
  phys: Float64Array = new Float64Array(FIRST_ROWS);
  /** Nanoseconds since the trace's time base; start -1: before the recording, end -1: live at its end. */
  startNs: Float64Array = new Float64Array(FIRST_ROWS);
  endNs: Float64Array = new Float64Array(FIRST_ROWS);
  cpu: Uint16Array = new Uint16Array(FIRST_ROWS);
  pid: Int32Array = new Int32Array(FIRST_ROWS);
  /** Index into the trace's strings. */
  task: Uint32Array = new Uint32Array(FIRST_ROWS);
  segments: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** In the order of beginning, from 0; those without a device have numbers of their own behind the others. */
  id: Float64Array = new Float64Array(FIRST_ROWS);
  /** Names; {@link NO_DEVICE} has none. */
  devices: readonly string[] = [];

  add(table: LifetimeTable, row: number): void {
    if (this.count === this.kind.length) this.#grow();
    const at = this.count++;
    this.kind[at] = table.kind[row]!;
    this.device[at] = table.device[row]!;
    this.direction[at] = table.direction[row]!;
    this.reached[at] = table.translated[row]!;
    this.iova[at] = table.iova[row]!;
    this.length[at] = table.length[row]!;
    this.phys[at] = table.phys[row]!;
    this.startNs[at] = table.startNs[row]!;
    this.endNs[at] = table.endNs[row]!;
    this.cpu[at] = table.cpu[row]!;
    this.pid[at] = table.pid[row]!;
    this.task[at] = table.task[row]!;
    this.segments[at] = table.segments[row]!;
    this.id[at] = table.id[row]!;
    this.devices = table.devices;
  }

  /** A request that only `iommu:map` events show: nobody knows who asked for it. */
  addUnattributed(request: Request, id: number): void {
    if (this.count === this.kind.length) this.#grow();
    const at = this.count++;
    this.kind[at] = KINDS.indexOf("unattributed");
    this.device[at] = NO_DEVICE;
    this.direction[at] = NO_DIRECTION;
    this.reached[at] = REACHED.indexOf("translated");
    this.iova[at] = request.segments.reduce((least, { iova }) => Math.min(least, iova), request.segments[0]!.iova);
    this.length[at] = request.length;
    this.phys[at] = request.segments[0]!.phys;
    this.startNs[at] = request.startNs;
    this.endNs[at] = request.endNs ?? -1;
    this.segments[at] = request.segments.length;
    this.id[at] = id;
  }

  /** Which way the data of mapping `row` go; `undefined` where no event says. */
  directionOf(row: number): string | undefined {
    return directionWord(this.direction[row]!);
  }

  /** The device of mapping `row`; `undefined` where no event names it. */
  deviceOf(row: number): string | undefined {
    return this.devices[this.device[row]!];
  }

  #grow(): void {
    this.kind = twice(this.kind);
    this.device = twice(this.device);
    this.direction = twice(this.direction);
    this.reached = twice(this.reached);
    this.iova = twice(this.iova);
    this.length = twice(this.length);
    this.phys = twice(this.phys);
    this.startNs = twice(this.startNs);
    this.endNs = twice(this.endNs);
    this.cpu = twice(this.cpu);
    this.pid = twice(this.pid);
    this.task = twice(this.task);
    this.segments = twice(this.segments);
    this.id = twice(this.id);
  }
}

type Column = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float64Array;

function twice<T extends Column>(column: T): T {
  const longer = new (column.constructor as new (length: number) => T)(column.length * 2);
  longer.set(column);
  return longer;
}

/** A trace that was read whole. */
export interface Recording {
  readonly trace: Trace;
  readonly result: CheckResult;
  readonly mappings: Mappings;
  readonly requests: Requests;
  /** Times of the first and last event, nanoseconds since the trace's time base; 0 and 0 for an empty trace. */
  readonly firstNs: number;
  readonly lastNs: number;
}

/**
 * Reads all of `trace`.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function readRecording(trace: Trace, visit?: EventVisitor): Promise<Recording> {
  const mappings = new Mappings();
  const requests = new RequestReader(trace);
  let firstNs = Number.POSITIVE_INFINITY;
  let lastNs = 0;
  const result = await checkTrace(trace, {
    sink: { lifetime: (table, row) => mappings.add(table, row) },
    visit(batch, row) {
      const time = batch.timeNs[row]!;
      if (time < firstNs) firstNs = time;
      if (time > lastNs) lastNs = time;
      requests.event(batch, row);
      visit?.(batch, row);
    },
  });
  const asked = requests.finish();
  let id = result.mappings;
  for (const request of asked.requests) if (request.kind === "unattributed") mappings.addUnattributed(request, id++);
  return {
    trace,
    result,
    mappings,
    requests: asked,
    firstNs: Number.isFinite(firstNs) ? firstNs : 0,
    lastNs,
  };
}
