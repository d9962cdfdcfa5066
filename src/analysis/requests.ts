/**
 * Requests: all mappings of a trace with their memory, to be kept, drawn and replayed.
 *
 * Idea: what the kernel maps for one transfer and tears down at once is one mapping: a one-shot map, a list, coherent memory, a
 * two-step range, or what one `iommu:unmap` takes back that no event names. Each is shown once by the engine (follow.ts) and copied
 * into columns; as a value it exists only while somebody looks at it.
 * Cost: about 70 bytes a request, and 24 a segment where a request has several.
 * Promises: nothing is guessed. A request whose device no event names has none; what is live at the end stays so.
 */
import { DIRECTIONS, type Direction, directionNumber } from "../base/index.ts";
import type { Trace } from "../trace/index.ts";
import { type FollowOptions, followTrace, type TraceCounts } from "./follow.ts";
import { type Column, widened } from "./lifetimes/columns.ts";
import { type LifetimeCounts, type LifetimeSink, noCounts } from "./lifetimes/lifetime-counts.ts";
import {
  KINDS,
  type Kind,
  type LifetimeTable,
  NO_DEVICE,
  NO_DIRECTION,
  TRANSLATED,
  TWO_STEP,
} from "./lifetimes/table.ts";

/** Memory of a request that is contiguous for the device and in memory. Bytes. */
export interface Segment {
  /** -1: unknown, an entry of a list that no event shows the memory of. */
  readonly phys: number;
  /** Bytes; they follow each other. */
  readonly length: number;
  /** Where the kernel placed it; the device's address. */
  readonly iova: number;
}

/** One request of a device: what was mapped together, and for how long. */
export interface Request {
  /** In the order of beginning, from 0. */
  readonly id: number;
  /** The device that an event named; `undefined` where none did. */
  readonly device: string | undefined;
  /** How the kernel mapped it, as far as the trace shows. */
  readonly kind: Kind;
  /** `undefined` where no event says: only `iommu:map` events, or a range without a link. */
  readonly direction: Direction | undefined;
  /** Its memory, in the order of its addresses. */
  readonly segments: readonly Segment[];
  /** Sum of the segments' lengths, bytes. */
  readonly length: number;
  /** Nanoseconds since the trace's time base, of the event that names it, or of its first map; -1: before the recording. */
  readonly startNs: number;
  /** `undefined`: live at the end of the recording, or (direct mapping) never unmapped by the driver. */
  readonly endNs: number | undefined;
  /** An IOMMU translated it. */
  readonly translated: boolean;
}

/** A request of a load of one's own: what {@link Requests.of} needs to know of it. */
export type RequestValue = Pick<Request, "segments" | "startNs" | "endNs"> & Partial<Request>;

/** The kernel's number of a direction in words; `undefined` for what is none. */
export const directionOf = (code: number): Direction | undefined => DIRECTIONS[code];

const FIRST_ROWS = 4096;

/** All requests of a trace, in the order of their beginning. */
export class Requests implements Iterable<Request> {
  /** What was counted while they were read. */
  readonly counts: LifetimeCounts;
  /** Events of the recording by name; none of a load of one's own. */
  readonly events: Readonly<Record<string, number>>;
  /** Devices that events named, selected or not; none of a load of one's own. */
  readonly deviceNames: readonly string[];
  /** The order of the recording: `id` where a request begins, `~id` where it ends. */
  readonly order: Int32Array;
  readonly #rows: Uint32Array;
  readonly #columns: RequestColumns;

  /** Takes over `columns`, which are complete, and sets their ids. Cost: one sort of the rows. */
  constructor(columns: RequestColumns, counts: LifetimeCounts & Partial<Pick<TraceCounts, "events" | "devices">>) {
    this.#columns = columns;
    this.counts = counts;
    this.events = counts.events ?? {};
    this.deviceNames = counts.devices ?? [];
    [this.#rows, columns.id, this.order] = sorted(columns);
  }

  /** A load of one's own, in the order of `startNs` and `endNs`. */
  static of(values: readonly RequestValue[]): Requests {
    return requestsOf(values);
  }

  /** How many there are. */
  get count(): number {
    return this.#rows.length;
  }

  /** The row of request `id` in {@link columns}. */
  rowOf(id: number): number {
    return this.#rows[id]!;
  }

  /** For who reads many of them, and few values of each. */
  get columns(): RequestColumns {
    return this.#columns;
  }

  /** Request `id` as a value. */
  at(id: number): Request {
    const columns = this.#columns;
    const row = this.#rows[id]!;
    const segments: Segment[] = [];
    columns.eachSegment(row, (iova, phys, length) => void segments.push({ phys, length, iova }));
    const endNs = columns.endNs[row]!;
    return {
      id,
      device: columns.deviceOf(row),
      kind: KINDS[columns.kind[row]!]!,
      direction: directionOf(columns.direction[row]!),
      segments,
      length: columns.length[row]!,
      startNs: columns.startNs[row]!,
      endNs: endNs < 0 ? undefined : endNs,
      translated: columns.reached[row] === TRANSLATED,
    };
  }

  /** Every request as a value, in the order of their ids; each is made anew, so a loop over the columns is cheaper. */
  *[Symbol.iterator](): Generator<Request> {
    for (let id = 0; id < this.count; id++) yield this.at(id);
  }
}

/** The columns of {@link Requests}: a row for each mapping, in the order of their ends, live ones last. */
export class RequestColumns implements LifetimeSink {
  /** Rows that are in use; the arrays are longer. */
  count = 0;
  /** Index into KINDS. */
  kind: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Index into {@link devices}, or NO_DEVICE. */
  device: Uint16Array = new Uint16Array(FIRST_ROWS);
  /** The kernel's number of the direction, or NO_DIRECTION where no event says. */
  direction: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** Index into REACHED. */
  reached: Uint8Array = new Uint8Array(FIRST_ROWS);
  /** DMA address, bytes. */
  iova: Float64Array = new Float64Array(FIRST_ROWS);
  /** Bytes mapped: the sum of its segments. */
  length: Float64Array = new Float64Array(FIRST_ROWS);
  /** -1: unknown. */
  phys: Float64Array = new Float64Array(FIRST_ROWS);
  /** Nanoseconds since the trace's time base; -1: before the recording. */
  startNs: Float64Array = new Float64Array(FIRST_ROWS);
  /** Nanoseconds since the trace's time base; -1: live at its end. */
  endNs: Float64Array = new Float64Array(FIRST_ROWS);
  /** CPU that recorded its beginning. */
  cpu: Uint16Array = new Uint16Array(FIRST_ROWS);
  /** Task that was running at its beginning; -1: not recorded. */
  pid: Int32Array = new Int32Array(FIRST_ROWS);
  /** Index into the trace's strings. */
  task: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** Who called, by number (`CheckResult.sites`); 0: that was not recorded. */
  site: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** Segments; those of a list that no event shows are counted, and not kept. */
  segments: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** Place of its beginning in the recording. */
  started: Uint32Array = new Uint32Array(FIRST_ROWS);
  /** Place of its end in the recording; -1: live. */
  ended: Int32Array = new Int32Array(FIRST_ROWS);
  /** In the order of beginning, from 0: known once the trace was read, to {@link Requests}. */
  id: Uint32Array = new Uint32Array(0);
  /** Where its segments begin among all; those of the next row follow. A row of a single segment has none there. */
  #firstPiece: Uint32Array = new Uint32Array(FIRST_ROWS + 1);
  #pieceCount = 0;
  #pieceIova: Float64Array = new Float64Array(FIRST_ROWS);
  #piecePhys: Float64Array = new Float64Array(FIRST_ROWS);
  #pieceLength: Float64Array = new Float64Array(FIRST_ROWS);
  /** Names; NO_DEVICE has none. */
  devices: readonly string[] = [];

  lifetime(table: LifetimeTable, row: number): void {
    const at = this.#row();
    this.kind[at] = table.kind[row]!;
    this.device[at] = table.device[row]!;
    this.direction[at] = table.direction[row]!;
    this.reached[at] = table.reached[row]!;
    this.iova[at] = table.iova[row]!;
    this.length[at] = table.length[row]!;
    this.phys[at] = table.phys[row]!;
    this.startNs[at] = table.startNs[row]!;
    this.endNs[at] = table.endNs[row]!;
    this.cpu[at] = table.cpu[row]!;
    this.pid[at] = table.pid[row]!;
    this.task[at] = table.task[row]!;
    this.site[at] = table.site[row]!;
    this.segments[at] = table.segments[row]!;
    this.started[at] = table.id[row]!;
    this.ended[at] = table.endOrder[row]!;
    this.devices = table.devices;
    if (table.firstSegment[row]! >= 0) table.eachPiece(row, (iova, phys, length) => this.#piece(iova, phys, length));
    this.#firstPiece[at + 1] = this.#pieceCount;
  }

  /** The device of `row`; `undefined` where no event names it. */
  deviceOf(row: number): string | undefined {
    return this.devices[this.device[row]!];
  }

  /** Calls `visit` with each segment of `row` that is known. */
  eachSegment(row: number, visit: (iova: number, phys: number, length: number) => void): void {
    const [from, to] = [this.#firstPiece[row]!, this.#firstPiece[row + 1]!];
    if (from === to && this.segments[row]! > 0) visit(this.iova[row]!, this.phys[row]!, this.length[row]!);
    for (let at = from; at < to; at++) visit(this.#pieceIova[at]!, this.#piecePhys[at]!, this.#pieceLength[at]!);
  }

  /** How `row` was mapped. */
  kindOf(row: number): Kind {
    return KINDS[this.kind[row]!]!;
  }

  /** Which way the data of `row` go; `undefined` where no event says. */
  directionOf(row: number): Direction | undefined {
    return directionOf(this.direction[row]!);
  }

  /** Calls `visit` with each run of device addresses of `row`: its segments, neighbours joined. */
  eachRun(row: number, visit: (iova: number, length: number) => void): void {
    let [from, to] = [0, -1];
    this.eachSegment(row, (iova, _phys, length) => {
      if (iova === to) {
        to += length;
        return;
      }
      if (to >= 0) visit(from, to - from);
      [from, to] = [iova, iova + length];
    });
    if (to >= 0) visit(from, to - from);
  }

  /** Adds a request of one's own; `order` are places that no other has. */
  add(value: RequestValue, devices: string[], started: number, ended: number): void {
    const { segments, direction, kind = "unattributed", translated = true, device } = value;
    const at = this.#row();
    const known = device === undefined ? NO_DEVICE : devices.indexOf(device);
    this.devices = devices;
    this.kind[at] = KINDS.indexOf(kind);
    this.device[at] = known >= 0 ? known : devices.push(device!) - 1;
    this.direction[at] = direction === undefined ? NO_DIRECTION : directionNumber(direction);
    this.reached[at] = translated || KINDS[TWO_STEP] === kind ? TRANSLATED : 0;
    this.iova[at] = segments[0]?.iova ?? 0;
    this.length[at] = segments.reduce((sum, { length }) => sum + length, 0);
    this.phys[at] = segments[0]?.phys ?? -1;
    this.startNs[at] = value.startNs;
    this.endNs[at] = value.endNs ?? -1;
    this.segments[at] = segments.length;
    this.started[at] = started;
    this.ended[at] = ended;
    if (segments.length > 1) for (const { iova, phys, length } of segments) this.#piece(iova, phys, length);
    this.#firstPiece[at + 1] = this.#pieceCount;
  }

  #row(): number {
    if (this.count === this.kind.length) this.#grow();
    return this.count++;
  }

  #piece(iova: number, phys: number, length: number): void {
    const at = this.#pieceCount++;
    if (at === this.#pieceIova.length) {
      this.#pieceIova = widened(this.#pieceIova, at * 2);
      this.#piecePhys = widened(this.#piecePhys, at * 2);
      this.#pieceLength = widened(this.#pieceLength, at * 2);
    }
    this.#pieceIova[at] = iova;
    this.#piecePhys[at] = phys;
    this.#pieceLength[at] = length;
  }

  #grow(): void {
    const twice = <T extends Column>(column: T): T => widened(column, column.length * 2);
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
    this.site = twice(this.site);
    this.segments = twice(this.segments);
    this.started = twice(this.started);
    this.ended = twice(this.ended);
    this.#firstPiece = widened(this.#firstPiece, this.kind.length + 1);
  }
}

/**
 * Reads all of `trace` to its requests. Memory: proportional to its mappings, not to its events or bytes.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function readRequests(
  trace: Trace,
  options: Pick<FollowOptions, "selection" | "progress"> = {},
): Promise<Requests> {
  const columns = new RequestColumns();
  const counts = await followTrace(trace, { ...options, sinks: [columns] });
  return new Requests(columns, counts);
}

function requestsOf(values: readonly RequestValue[]): Requests {
  const columns = new RequestColumns();
  const devices: string[] = [];
  // At one time what is given back comes first.
  const steps = values.flatMap(({ startNs, endNs }, i) => [
    { at: startNs, order: 1, end: false, i },
    ...(endNs === undefined ? [] : [{ at: endNs, order: endNs === startNs ? 2 : 0, end: true, i }]),
  ]);
  steps.sort((a, b) => a.at - b.at || a.order - b.order || a.i - b.i);
  const [started, ended] = [new Array<number>(values.length), new Array<number>(values.length).fill(-1)];
  for (const [place, { end, i }] of steps.entries()) (end ? ended : started)[i] = place;
  for (const [i, value] of values.entries()) columns.add(value, devices, started[i]!, ended[i]!);
  const live = values.filter(({ endNs }) => endNs === undefined).length;
  const ambiguous = values.filter(({ device }) => device === undefined).length;
  return new Requests(columns, { ...noCounts(), mappings: values.length, liveAtEnd: live, ambiguous });
}

/** Rows by their beginning, the other way round, and all beginnings and ends in the order of the recording. */
function sorted({ count, started, ended }: RequestColumns): [rows: Uint32Array, ids: Uint32Array, order: Int32Array] {
  let places = 0;
  let ends = 0;
  for (let row = 0; row < count; row++) {
    places = Math.max(places, started[row]! + 1, ended[row]! + 1);
    if (ended[row]! >= 0) ends++;
  }
  // Places are whole numbers that no two share: no comparisons are needed.
  const at = new Int32Array(places);
  for (let row = 0; row < count; row++) {
    at[started[row]!] = row + 1;
    if (ended[row]! >= 0) at[ended[row]!] = -(row + 1);
  }
  const rows = new Uint32Array(count);
  const idOf = new Uint32Array(count);
  const order = new Int32Array(count + ends);
  let [id, next] = [0, 0];
  for (const step of at) {
    if (step === 0) continue;
    if (step > 0) {
      rows[id] = step - 1;
      idOf[step - 1] = id++;
    }
    order[next++] = step > 0 ? id - 1 : ~idOf[-step - 1]!;
  }
  return [rows, idOf, order];
}
