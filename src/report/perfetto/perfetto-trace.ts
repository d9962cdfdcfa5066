/**
 * A recording as a Perfetto trace: what ui.perfetto.dev and the trace processor read.
 *
 * Idea: each device is a process, and writes its events in the order of time. Its mappings are slices on as few tracks as hold them
 * without overlap, from map to unmap, with address, length, memory and task as arguments; bytes mapped and live mappings are
 * counters, whose values stand in the very events that change them; findings are instants on a track of their own. A mapping that is
 * live at the end is a slice that does not end.
 * Promises: a function of the recording; memory is a few words per mapping. A mapping is some 140 bytes, 45 of them where they can be
 * packed: names and texts are written once, and packets are packed by the million bytes.
 * Specified by: the Perfetto trace protos (TracePacket, InternedData, TrackDescriptor, TrackEvent, CounterDescriptor,
 * DebugAnnotation), which keep their field numbers.
 */
import type { Finding } from "../../analysis/index.ts";
import { bytes, hex } from "../../base/index.ts";
import type { Deflate } from "../html/png.ts";
import { KINDS, NO_DEVICE, REACHED, type Recording } from "../recording.ts";
import { InternedTexts } from "./interned-texts.ts";
import { type LaneEvents, laneEvents, stopOf } from "./lanes.ts";
import { ProtoWriter } from "./protobuf.ts";

/** Fields of the messages. */
const TRACE = { packet: 1 } as const;
const PACKET = {
  timestamp: 8,
  sequence: 10,
  trackEvent: 11,
  internedData: 12,
  sequenceFlags: 13,
  packed: 50,
  defaults: 59,
  trackDescriptor: 60,
} as const;
const DEFAULTS = { trackEvent: 11 } as const;
const TRACK = { uuid: 1, name: 2, process: 3, parent: 5, counter: 8 } as const;
const PROCESS = { pid: 1, name: 6 } as const;
const COUNTER = { unit: 3 } as const;
const EVENT = {
  category: 3,
  annotation: 4,
  type: 9,
  name: 10,
  track: 11,
  extraValue: 12,
  counterValue: 30,
  extraTrack: 31,
} as const;
const ANNOTATION = { name: 1, uint: 3, string: 6, pointer: 7 } as const;
const TYPE = { sliceBegin: 1, sliceEnd: 2, instant: 3, counter: 4 } as const;
const UNIT = { count: 2, bytes: 3 } as const;

const STATE_CLEARED = 1;
/** Track identities, apart by device. */
const DEVICE_STRIDE = 0x1_0000;
const BYTES_TRACK = 2;
const LIVE_TRACK = 3;
const FINDINGS_TRACK = 4;
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

/** Writes `recording` in pieces to `emit`; packed, with `deflate`: every reader of Perfetto traces unpacks them. */
export function writePerfetto(
  recording: Recording,
  emit: (bytes: Uint8Array) => void,
  deflate?: Deflate,
): PerfettoResult {
  if (!deflate) return new PerfettoExport(recording, emit).write();
  const out = new ProtoWriter(emit);
  const result = new PerfettoExport(recording, (packets) => {
    if (packets.length > 0) out.message(TRACE.packet, () => out.bytes(PACKET.packed, deflate(packets)));
  }).write();
  out.finish();
  return result;
}

class PerfettoExport {
  readonly #recording: Recording;
  readonly #ids: Uint32Array;
  readonly #out: ProtoWriter;
  readonly #base: bigint;
  /** What the device at hand has written once. */
  #texts = new InternedTexts();
  #sequence = 0;
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
      this.#mappings(
        device,
        laneEvents(mappings, Uint32Array.from(rows), (row) => this.#startOf(row)),
      );
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

  /** Begins a sequence of packets, with the tracks that the device's events are on. */
  #describeDevice(device: number, name: string): void {
    this.#texts = new InternedTexts();
    this.#sequence++;
    const own = device * DEVICE_STRIDE;
    const counters = [
      { track: own + BYTES_TRACK, name: "IOVA bytes mapped", unit: UNIT.bytes },
      { track: own + LIVE_TRACK, name: "live mappings", unit: UNIT.count },
    ];
    this.#packet(() => {
      this.#out.uint(PACKET.sequenceFlags, STATE_CLEARED);
      this.#out.message(PACKET.defaults, () =>
        this.#out.message(DEFAULTS.trackEvent, () => {
          for (const { track } of counters) this.#out.uint(EVENT.extraTrack, track);
        }),
      );
    });
    this.#track(own + 1, () => {
      this.#out.message(TRACK.process, () => {
        this.#out.uint(PROCESS.pid, FIRST_PID + device);
        this.#out.string(PROCESS.name, name);
      });
    });
    for (const { track, name, unit } of counters)
      this.#track(track, () => {
        this.#out.uint(TRACK.parent, own + 1);
        this.#out.string(TRACK.name, name);
        this.#out.message(TRACK.counter, () => this.#out.uint(COUNTER.unit, unit));
      });
  }

  /** Slices on lanes, and the counters that they change, in the order of time. */
  #mappings(device: number, { rows, lane, lanes, leftOut, ends }: LaneEvents): void {
    const { mappings } = this.#recording;
    this.#leftOut += leftOut;
    for (let i = 0; i < lanes; i++)
      this.#track(laneOf(device, i), () => {
        this.#out.uint(TRACK.parent, device * DEVICE_STRIDE + 1);
        this.#out.string(TRACK.name, `mappings ${i + 1}`);
      });
    let [mapped, live, ended] = [0, 0, 0];
    const endBefore = (timeNs: number): void => {
      for (; ended < ends.length; ended++) {
        const at = ends[ended]!;
        const row = rows[at]!;
        const stop = stopOf(mappings.endNs[row]!, this.#startOf(row));
        if (stop > timeNs) return;
        mapped -= mappings.length[row]!;
        live--;
        this.#change(stop, TYPE.sliceEnd, device, lane[at]!, [mapped, live], () => {});
      }
    };
    for (const [at, row] of rows.entries()) {
      const start = this.#startOf(row);
      endBefore(start);
      mapped += mappings.length[row]!;
      live++;
      this.#begin(device, lane[at]!, row, start, mapped, live);
    }
    endBefore(Number.POSITIVE_INFINITY);
  }

  #begin(device: number, lane: number, row: number, start: number, mapped: number, live: number): void {
    const { mappings, trace } = this.#recording;
    const kind = KINDS[mappings.kind[row]!]!;
    const direction = mappings.directionOf(row);
    const name = this.#texts.name(`${kind} ${bytes(mappings.length[row]!)}`);
    const category = this.#texts.category(kind);
    this.#change(start, TYPE.sliceBegin, device, lane, [mapped, live], () => {
      this.#out.uint(EVENT.category, category);
      this.#out.uint(EVENT.name, name);
      this.#number("id", this.#ids[row]!);
      this.#address("iova", mappings.iova[row]!);
      this.#number("length", mappings.length[row]!);
      if (mappings.phys[row]! >= 0) this.#address("phys", mappings.phys[row]!);
      this.#number("segments", mappings.segments[row]!);
      if (direction !== undefined) this.#text("direction", direction);
      this.#text("reached", REACHED[mappings.reached[row]!]!);
      this.#text("task", `${trace.strings[mappings.task[row]!] ?? ""}-${mappings.pid[row]}`);
      this.#number("cpu", mappings.cpu[row]!);
    });
    if (lane >= 0) this.#slices++;
  }

  /** A slice of `lane` begins or ends, and both counters change; `lane` -1: they alone do. */
  #change(
    timeNs: number,
    type: number,
    device: number,
    lane: number,
    [mapped, live]: readonly [mapped: number, live: number],
    fill: () => void,
  ): void {
    this.#counters += 2;
    if (lane >= 0) {
      this.#event(timeNs, type, laneOf(device, lane), () => {
        for (const value of [mapped, live]) this.#out.uint(EVENT.extraValue, value);
        fill();
      });
      return;
    }
    const counters = [
      [BYTES_TRACK, mapped],
      [LIVE_TRACK, live],
    ] as const;
    for (const [track, value] of counters)
      this.#event(timeNs, TYPE.counter, device * DEVICE_STRIDE + track, () =>
        this.#out.uint(EVENT.counterValue, value),
      );
  }

  #findings(device: number, findings: readonly Finding[]): void {
    if (findings.length === 0) return;
    const track = device * DEVICE_STRIDE + FINDINGS_TRACK;
    this.#track(track, () => {
      this.#out.uint(TRACK.parent, device * DEVICE_STRIDE + 1);
      this.#out.string(TRACK.name, "findings");
    });
    for (const finding of findings) {
      const category = this.#texts.category(finding.severity);
      const name = this.#texts.name(finding.rule);
      this.#event(Math.max(finding.timeNs, 0), TYPE.instant, track, () => {
        this.#out.uint(EVENT.category, category);
        this.#out.uint(EVENT.name, name);
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
      this.#out.uint(PACKET.sequence, this.#sequence);
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
      this.#texts.write(this.#out, PACKET.internedData);
    });
  }

  #annotation(name: string, fill: () => void): void {
    this.#out.message(EVENT.annotation, () => {
      this.#out.uint(ANNOTATION.name, this.#texts.argument(name));
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

const laneOf = (device: number, lane: number): number => device * DEVICE_STRIDE + LANE_BASE + lane;
