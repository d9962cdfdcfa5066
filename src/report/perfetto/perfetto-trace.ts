/**
 * A recording as a Perfetto trace: what ui.perfetto.dev and the trace processor read.
 *
 * Idea: each device is a process. Its mappings are slices on as few tracks as hold them without overlap, from map to unmap,
 * with address, length, memory and task as arguments; bytes mapped and live mappings are counters; findings are instants
 * on a track of their own. A mapping that is live at the end is a slice that does not end.
 * Promises: a function of the recording; memory is a few words per mapping. Specified by: the Perfetto trace protos
 * (TracePacket, TrackDescriptor, TrackEvent, CounterDescriptor, DebugAnnotation), which keep their field numbers.
 */
import type { Finding } from "../../analysis/index.ts";
import { bytes, hex } from "../../base/index.ts";
import { KINDS, type Mappings, NO_DEVICE, REACHED, type Recording } from "../recording.ts";
import { ProtoWriter } from "./protobuf.ts";

/** Fields of the messages. */
const TRACE = { packet: 1 } as const;
const PACKET = { timestamp: 8, sequence: 10, trackEvent: 11, sequenceFlags: 13, trackDescriptor: 60 } as const;
const TRACK = { uuid: 1, name: 2, process: 3, parent: 5, counter: 8 } as const;
const PROCESS = { pid: 1, name: 6 } as const;
const COUNTER = { unit: 3 } as const;
const EVENT = { annotation: 4, type: 9, track: 11, category: 22, name: 23, counterValue: 30 } as const;
const ANNOTATION = { uint: 3, string: 6, pointer: 7, name: 10 } as const;
const TYPE = { sliceBegin: 1, sliceEnd: 2, instant: 3, counter: 4 } as const;
const UNIT = { count: 2, bytes: 3 } as const;

/** One writer wrote it all. */
const SEQUENCE = 1;
const STATE_CLEARED = 1;
/** Tracks of mappings per device; what overlaps more is counted, not drawn. */
const MOST_LANES = 1000;
/** Track identities, apart by device. */
const DEVICE_STRIDE = 0x1_0000;
const LANE_BASE = 0x100;
/** Process ids that no real process of the trace has: a device is drawn as a process. */
const FIRST_PID = 0x4000_0000;

/** What was written. */
export interface PerfettoResult {
  /** Mappings that were drawn. */
  readonly slices: number;
  /** Values of counters that were written. */
  readonly counters: number;
  /** Findings that were drawn. */
  readonly instants: number;
  /** Mappings of which more than 1000 overlapped. */
  readonly leftOut: number;
}

/** Writes `recording` in pieces to `emit`. */
export function writePerfetto(recording: Recording, emit: (bytes: Uint8Array) => void): PerfettoResult {
  return new PerfettoExport(recording, emit).write();
}

class PerfettoExport {
  readonly #recording: Recording;
  readonly #ids: Uint32Array;
  readonly #out: ProtoWriter;
  readonly #base: bigint;
  #first = true;
  #slices = 0;
  #counters = 0;
  #instants = 0;
  #leftOut = 0;

  constructor(recording: Recording, emit: (bytes: Uint8Array) => void) {
    this.#recording = recording;
    this.#ids = recording.requests.columns.id; // in the order of beginning
    this.#out = new ProtoWriter(emit);
    this.#base = recording.trace.timeBase;
  }

  write(): PerfettoResult {
    const { mappings, result } = this.#recording;
    const byDevice = new Map<number, number[]>();
    for (let row = 0; row < mappings.count; row++) {
      const device = mappings.device[row]!;
      const rows = byDevice.get(device);
      if (rows) rows.push(row);
      else byDevice.set(device, [row]);
    }
    const names = new Map<string | undefined, number>();
    for (const device of byDevice.keys()) names.set(mappings.devices[device], device);
    // A finding may name a device that no mapping does.
    let next = mappings.devices.length;
    for (const { device } of result.findings)
      if (!names.has(device)) names.set(device, device === undefined ? NO_DEVICE : next++);
    for (const [name, device] of names) {
      this.#describeDevice(device, name ?? "no event names the device");
      const rows = byDevice.get(device) ?? [];
      rows.sort((a, b) => this.#startOf(a) - this.#startOf(b) || this.#ids[a]! - this.#ids[b]!);
      this.#mappings(device, rows);
      this.#occupancy(device, rows);
      this.#findings(
        device,
        result.findings.filter((finding) => finding.device === name),
      );
    }
    this.#out.finish();
    return { slices: this.#slices, counters: this.#counters, instants: this.#instants, leftOut: this.#leftOut };
  }

  #startOf(row: number): number {
    const start = this.#recording.mappings.startNs[row]!;
    return start < 0 ? this.#recording.firstNs : start;
  }

  #describeDevice(device: number, name: string): void {
    this.#track(device * DEVICE_STRIDE + 1, () => {
      this.#out.message(TRACK.process, () => {
        this.#out.uint(PROCESS.pid, FIRST_PID + device);
        this.#out.string(PROCESS.name, name);
      });
    });
  }

  /** Mappings sorted by start, each on the first lane that is free. */
  #mappings(device: number, rows: readonly number[]): void {
    const { mappings } = this.#recording;
    const freeAt: number[] = [];
    for (const row of rows) {
      const start = this.#startOf(row);
      let lane = freeAt.findIndex((end) => end <= start);
      if (lane < 0) {
        lane = freeAt.length;
        if (lane === MOST_LANES) {
          this.#leftOut++;
          continue;
        }
        this.#track(this.#laneOf(device, lane), () => {
          this.#out.uint(TRACK.parent, device * DEVICE_STRIDE + 1);
          this.#out.string(TRACK.name, `mappings ${lane + 1}`);
        });
      }
      const end = mappings.endNs[row]!;
      // A slice of no length is an instant; and the next one on the lane must not begin inside it.
      const stop = end < 0 ? Number.POSITIVE_INFINITY : Math.max(end, start + 1);
      freeAt[lane] = stop;
      this.#slice(this.#laneOf(device, lane), row, start, stop);
    }
  }

  #laneOf(device: number, lane: number): number {
    return device * DEVICE_STRIDE + LANE_BASE + lane;
  }

  #slice(track: number, row: number, start: number, stop: number): void {
    const { mappings, trace } = this.#recording;
    const kind = KINDS[mappings.kind[row]!]!;
    this.#event(start, TYPE.sliceBegin, track, () => {
      this.#out.string(EVENT.category, kind);
      this.#out.string(EVENT.name, `${kind} ${bytes(mappings.length[row]!)}`);
      this.#number("id", this.#ids[row]!);
      this.#address("iova", mappings.iova[row]!);
      this.#number("length", mappings.length[row]!);
      if (mappings.phys[row]! >= 0) this.#address("phys", mappings.phys[row]!);
      this.#number("segments", mappings.segments[row]!);
      const direction = mappings.directionOf(row);
      if (direction !== undefined) this.#text("direction", direction);
      this.#text("reached", REACHED[mappings.reached[row]!]!);
      this.#text("task", `${trace.strings[mappings.task[row]!] ?? ""}-${mappings.pid[row]}`);
      this.#number("cpu", mappings.cpu[row]!);
    });
    this.#slices++;
    if (stop !== Number.POSITIVE_INFINITY) this.#event(stop, TYPE.sliceEnd, track, () => {});
  }

  /** Bytes mapped and mappings alive, at each change. */
  #occupancy(device: number, rows: readonly number[]): void {
    const { mappings } = this.#recording;
    const counters = [
      { track: device * DEVICE_STRIDE + 2, name: "IOVA bytes mapped", unit: UNIT.bytes },
      { track: device * DEVICE_STRIDE + 3, name: "live mappings", unit: UNIT.count },
    ];
    for (const { track, name, unit } of counters)
      this.#track(track, () => {
        this.#out.uint(TRACK.parent, device * DEVICE_STRIDE + 1);
        this.#out.string(TRACK.name, name);
        this.#out.message(TRACK.counter, () => this.#out.uint(COUNTER.unit, unit));
      });
    const changes = changesOf(mappings, rows, (row) => this.#startOf(row));
    let [mapped, live] = [0, 0];
    for (const [i, { timeNs, length }] of changes.entries()) {
      mapped += length;
      live += length < 0 || Object.is(length, -0) ? -1 : 1;
      if (changes[i + 1]?.timeNs === timeNs) continue;
      for (const [at, value] of [mapped, live].entries()) {
        this.#event(timeNs, TYPE.counter, counters[at]!.track, () => this.#out.uint(EVENT.counterValue, value));
        this.#counters++;
      }
    }
  }

  #findings(device: number, findings: readonly Finding[]): void {
    if (findings.length === 0) return;
    const track = device * DEVICE_STRIDE + 4;
    this.#track(track, () => {
      this.#out.uint(TRACK.parent, device * DEVICE_STRIDE + 1);
      this.#out.string(TRACK.name, "findings");
    });
    for (const finding of findings) {
      this.#event(Math.max(finding.timeNs, 0), TYPE.instant, track, () => {
        this.#out.string(EVENT.category, finding.severity);
        this.#out.string(EVENT.name, finding.rule);
        this.#text("message", finding.message);
        this.#text("advice", finding.advice);
        this.#text("confidence", finding.confidence);
        if (finding.iova !== undefined) this.#address("iova", finding.iova);
        if (finding.length !== undefined) this.#number("length", finding.length);
        for (const [i, { what, event, task, pid, cpu, iova, site }] of finding.evidence.entries())
          this.#text(
            `evidence ${i + 1}`,
            `${what}: ${event} by ${task}-${pid} on CPU ${cpu}${iova === undefined ? "" : `, iova ${hex(iova)}`}${site === undefined ? "" : `, from ${site}`}`,
          );
      });
      this.#instants++;
    }
  }

  // Packets.

  #packet(fill: () => void): void {
    this.#out.message(TRACE.packet, () => {
      this.#out.uint(PACKET.sequence, SEQUENCE);
      if (this.#first) this.#out.uint(PACKET.sequenceFlags, STATE_CLEARED);
      this.#first = false;
      fill();
    });
  }

  #track(uuid: number, fill: () => void): void {
    this.#packet(() =>
      this.#out.message(PACKET.trackDescriptor, () => {
        this.#out.uint(TRACK.uuid, uuid);
        fill();
      }),
    );
  }

  #event(timeNs: number, type: number, track: number, fill: () => void): void {
    this.#packet(() => {
      this.#out.uint(PACKET.timestamp, this.#base + BigInt(Math.round(timeNs)));
      this.#out.message(PACKET.trackEvent, () => {
        this.#out.uint(EVENT.type, type);
        this.#out.uint(EVENT.track, track);
        fill();
      });
    });
  }

  #annotation(name: string, fill: () => void): void {
    this.#out.message(EVENT.annotation, () => {
      this.#out.string(ANNOTATION.name, name);
      fill();
    });
  }

  #text(name: string, value: string): void {
    this.#annotation(name, () => this.#out.string(ANNOTATION.string, value));
  }

  #number(name: string, value: number): void {
    this.#annotation(name, () => this.#out.uint(ANNOTATION.uint, value));
  }

  #address(name: string, value: number): void {
    this.#annotation(name, () => this.#out.uint(ANNOTATION.pointer, BigInt(value)));
  }
}

/** When bytes are mapped (positive) and given back (negative, -0 for none), in time order; at one time, given back first. */
function changesOf(
  mappings: Mappings,
  rows: readonly number[],
  startOf: (row: number) => number,
): { readonly timeNs: number; readonly length: number }[] {
  const changes: { timeNs: number; length: number }[] = [];
  for (const row of rows) {
    const length = mappings.length[row]!;
    const start = startOf(row);
    changes.push({ timeNs: start, length });
    const end = mappings.endNs[row]!;
    if (end >= 0) changes.push({ timeNs: Math.max(end, start), length: -length });
  }
  return changes.sort((a, b) => a.timeNs - b.timeNs || a.length - b.length);
}
