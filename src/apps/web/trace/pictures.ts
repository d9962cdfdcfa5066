/**
 * What the page's pictures and tables ask of a trace that was read: pixels of a stretch of time, and what lies at a place in them.
 *
 * Idea: per device its mappings in the order of their beginnings, in lanes, as steps of live bytes, and (when it is first asked for) as
 * an address space. Everything a picture shows can also be had as rows of a table.
 */
import { KINDS, NO_DEVICE } from "../../../analysis/index.ts";
import type { Mappings, Recording } from "../../../report/index.ts";
import { handOver } from "../frame/calls.ts";
import { MARKS, type Marks } from "../pictures/marks.ts";
import { paintSpace } from "../pictures/paint-space.ts";
import { type Band, type Palette, paintCurve, paintLanes, paintMarks } from "../pictures/paint-timeline.ts";
import { firstFrom } from "../pictures/search.ts";
import { addressAt, type Space, type Stretch, spaceOf } from "../pictures/space.ts";
import { byStart, type Lanes, type Lives, lanesOf, livesOf, type Steps, stepsOf } from "../pictures/tracks.ts";
import { findMappings, type Group } from "./filter.ts";

/** A track of the timeline. */
export interface TrackFacts {
  readonly id: string;
  readonly label: string;
  readonly kind: "bytes" | "requests" | "events";
  /** Mappings or events. */
  readonly count: number;
  /** Lanes of requests; the most bytes at once of a curve. */
  readonly lanes: number;
  readonly peak: number;
  /** Requests that found no lane. */
  readonly without: number;
}

/** A mapping, as a table shows it. */
export interface MappingFacts {
  readonly row: number;
  readonly device: string | undefined;
  readonly kind: string;
  readonly direction: string | undefined;
  readonly iova: number;
  readonly phys: number;
  readonly length: number;
  /** -1: before the recording; of the end: live. */
  readonly startNs: number;
  readonly endNs: number;
  readonly cpu: number;
  readonly task: string;
  readonly pid: number;
  readonly site: string | undefined;
  readonly segments: number;
}

/** An event, as a table shows it. */
export interface MarkFacts {
  readonly timeNs: number;
  readonly name: string;
  readonly mark: string;
  readonly cpu: number;
}

/** How a mapping is coloured in the address space. */
export type ColourBy = "kind" | "size" | "age" | "task";

/** What is drawn of the timeline. */
export interface TimelineAsked {
  readonly fromNs: number;
  readonly toNs: number;
  readonly width: number;
  readonly height: number;
  readonly bands: readonly (Band & { readonly id: string })[];
  readonly palette: Palette;
}

/** What is drawn of an address space. */
export interface SpaceAsked {
  readonly device: string;
  readonly fromNs: number;
  readonly toNs: number;
  readonly width: number;
  readonly rows: number;
  readonly low: number;
  readonly high: number;
  readonly by: ColourBy;
  /** Colours of what it is coloured by, 0xBBGGRR. */
  readonly colours: readonly number[];
}

interface DeviceData {
  readonly index: number;
  readonly name: string;
  readonly rows: Uint32Array;
  readonly lanes: Lanes;
  readonly steps: Steps;
  space?: Space;
}

/** The name of mappings that no event attributes to a device, as in `stats`. */
const UNKNOWN = "unknown";

export class Pictures {
  readonly #recording: Recording;
  readonly #mappings: Mappings;
  readonly #marks: Marks;
  readonly #lives: Lives;
  readonly #devices: readonly DeviceData[];
  readonly #cpus: readonly number[];

  constructor(recording: Recording, marks: Marks) {
    const { mappings, firstNs, lastNs } = recording;
    this.#recording = recording;
    this.#mappings = mappings;
    this.#marks = marks;
    marks.finish();
    this.#lives = livesOf(mappings, firstNs, lastNs);
    this.#devices = this.#split();
    const cpus = new Set<number>();
    for (let row = 0; row < marks.count; row++) cpus.add(marks.cpu[row]!);
    this.#cpus = [...cpus].sort((a, b) => a - b);
  }

  /** Devices that mapped anything, the busiest first. */
  get devices(): readonly string[] {
    return this.#devices.map(({ name }) => name);
  }

  get tracks(): TrackFacts[] {
    const perCpu = new Map<number, number>();
    for (let row = 0; row < this.#marks.count; row++) {
      const cpu = this.#marks.cpu[row]!;
      perCpu.set(cpu, (perCpu.get(cpu) ?? 0) + 1);
    }
    return [
      ...this.#devices.flatMap(({ name, rows, lanes, steps }): TrackFacts[] => [
        { id: `bytes:${name}`, label: name, kind: "bytes", count: rows.length, lanes: 0, peak: steps.peak, without: 0 },
        {
          id: `requests:${name}`,
          label: name,
          kind: "requests",
          count: rows.length,
          lanes: lanes.lanes.length,
          peak: 0,
          without: lanes.without,
        },
      ]),
      ...this.#cpus.map(
        (cpu): TrackFacts => ({
          id: `cpu:${cpu}`,
          label: `CPU ${cpu}`,
          kind: "events",
          count: perCpu.get(cpu) ?? 0,
          lanes: 0,
          peak: 0,
          without: 0,
        }),
      ),
    ];
  }

  timeline({ fromNs, toNs, width, height, bands, palette }: TimelineAsked): { readonly pixels: Uint32Array } {
    const pixels = new Uint32Array(width * height);
    const canvas = { pixels, width, fromNs, toNs };
    for (const band of bands) {
      const [kind, name] = parted(band.id);
      const device = this.#devices.find((each) => each.name === name);
      if (kind === "cpu") paintMarks(canvas, band, this.#marks, Number(name), palette);
      else if (kind === "bytes" && device) paintCurve(canvas, band, device.steps, palette);
      else if (device) paintLanes(canvas, band, device.lanes, this.#mappings, palette);
    }
    return handOver({ pixels }, [pixels]);
  }

  /** What lies on track `id` at a time, in a lane; within `withinNs`. */
  at(id: string, lane: number, ns: number, withinNs: number): MappingFacts | MarkFacts | undefined {
    const [kind, name] = parted(id);
    if (kind === "cpu") {
      const row = this.#nearestMark(Number(name), ns, withinNs);
      return row === undefined ? undefined : this.#mark(row);
    }
    const found = this.#devices.find((each) => each.name === name)?.lanes.lanes[lane];
    if (kind !== "requests" || !found) return undefined;
    const after = firstFrom(found.start, ns + withinNs);
    const at = after - 1;
    return at >= 0 && found.end[at]! >= ns - withinNs ? this.mapping(found.rows[at]!) : undefined;
  }

  /** The next event before (-1) or behind (1) a time, on a track. */
  next(id: string, ns: number, step: 1 | -1): number | undefined {
    const [kind, name] = parted(id);
    if (kind === "cpu") {
      const { timeNs, cpu, count } = this.#marks;
      let row = step > 0 ? this.#marks.from(ns + 1e-6) : this.#marks.from(ns) - 1;
      if (step > 0) while (row < count && timeNs[row]! <= ns) row++;
      while (row >= 0 && row < count && cpu[row] !== Number(name)) row += step;
      return row >= 0 && row < count ? timeNs[row] : undefined;
    }
    const steps = this.#devices.find((each) => each.name === name)?.steps;
    if (!steps) return undefined;
    let at = firstFrom(steps.timeNs, ns) + (step > 0 ? 0 : -1);
    while (step > 0 && steps.timeNs[at] === ns) at++;
    return steps.timeNs[at];
  }

  space(device: string): { readonly stretches: readonly Stretch[]; readonly height: number; readonly count: number } {
    const { stretches, height, row } = this.#spaceOf(device);
    return { stretches, height, count: row.length };
  }

  paintSpace(asked: SpaceAsked): { readonly pixels: Uint32Array } {
    const { width, rows, fromNs, toNs, low, high } = asked;
    const pixels = new Uint32Array(width * rows);
    const space = this.#spaceOf(asked.device);
    paintSpace({ pixels, width, fromNs, toNs }, { low, high, rows }, space, this.#lives, this.#colouring(asked));
    return handOver({ pixels }, [pixels]);
  }

  /** The mapping at a time and a height of a device's space. */
  spaceAt(
    device: string,
    ns: number,
    height: number,
    within: { ns: number; height: number },
  ): MappingFacts | undefined {
    const space = this.#spaceOf(device);
    let best: number | undefined;
    for (let i = 0; i < space.row.length && space.startNs[i]! <= ns + within.ns; i++) {
      const row = space.row[i]!;
      if (this.#lives.endNs[row]! < ns - within.ns) continue;
      if (space.at[i]! > height + within.height || space.at[i]! + space.length[i]! <= height - within.height) continue;
      best = row; // the latest lies on top
    }
    return best === undefined ? undefined : this.mapping(best);
  }

  /** Address at a height of a device's space. */
  addressAt(device: string, height: number): number | undefined {
    return addressAt(this.#spaceOf(device).stretches, height);
  }

  /** Mapping `row` as a table shows it. */
  mapping(row: number): MappingFacts {
    const { iova, phys, length, startNs, endNs, cpu, pid, task, site, segments } = this.#mappings;
    const { trace, result } = this.#recording;
    return {
      row,
      device: this.#mappings.deviceOf(row),
      kind: this.#mappings.kindOf(row),
      direction: this.#mappings.directionOf(row),
      iova: iova[row]!,
      phys: phys[row]!,
      length: length[row]!,
      startNs: startNs[row]!,
      endNs: endNs[row]!,
      cpu: cpu[row]!,
      pid: pid[row]!,
      task: trace.strings[task[row]!] ?? "",
      site: site[row] === 0 ? undefined : result.sites[site[row]!],
      segments: segments[row]!,
    };
  }

  /** Mappings that live between two times, in the order of their beginnings; at most `most` of them, and how many there are. */
  mappingsIn(device: string | undefined, fromNs: number, toNs: number, most: number): Rows<MappingFacts> {
    const rows: MappingFacts[] = [];
    let [total, bytes] = [0, 0];
    for (const data of this.#devices) {
      if (device !== undefined && data.name !== device) continue;
      for (const row of data.rows) {
        if (this.#lives.startNs[row]! >= toNs) break;
        if (this.#lives.endNs[row]! < fromNs) continue;
        total++;
        bytes += this.#mappings.length[row]!;
        if (rows.length < most) rows.push(this.mapping(row));
      }
    }
    return { rows, total, bytes };
  }

  /** Events between two times. */
  marksIn(fromNs: number, toNs: number, most: number): Rows<MarkFacts> & { readonly byName: Record<string, number> } {
    const from = this.#marks.from(fromNs);
    const to = this.#marks.from(toNs);
    const byType = new Map<number, number>();
    for (let row = from; row < to; row++) {
      const type = this.#marks.type[row]!;
      byType.set(type, (byType.get(type) ?? 0) + 1);
    }
    const names: Record<string, number> = {};
    for (const [type, n] of byType) names[this.#nameOf(type)] = (names[this.#nameOf(type)] ?? 0) + n;
    const rows = Array.from({ length: Math.min(most, to - from) }, (_, i) => this.#mark(from + i));
    return { rows, total: to - from, bytes: 0, byName: names };
  }

  /** The first time behind `behindNs` where a mapping of an address or a task begins, or an event of that name is; then the first at all. */
  search(text: string, behindNs: number): number | undefined {
    const wanted = text.trim().toLowerCase();
    if (wanted === "") return undefined;
    const address = /^(0x)?[0-9a-f]{4,16}$/.test(wanted) ? Number.parseInt(wanted.replace(/^0x/, ""), 16) : undefined;
    const { strings } = this.#recording.trace;
    const { iova, length, task, pid, count } = this.#mappings;
    let [after, first] = [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY];
    const found = (ns: number): void => {
      if (ns > behindNs && ns < after) after = ns;
      if (ns < first) first = ns;
    };
    for (let row = 0; row < count; row++) {
      const holds = address !== undefined && address >= iova[row]! && address < iova[row]! + Math.max(length[row]!, 1);
      if (holds || `${strings[task[row]!]}-${pid[row]}`.toLowerCase().includes(wanted))
        found(this.#lives.startNs[row]!);
    }
    const types = this.#recording.trace.types.map(({ name }) => name.toLowerCase().includes(wanted));
    for (let row = 0; row < this.#marks.count; row++)
      if (types[this.#marks.type[row]!]) found(this.#marks.timeNs[row]!);
    return Number.isFinite(after) ? after : Number.isFinite(first) ? first : undefined;
  }

  /** Mappings that a query finds, and sums by a column. */
  find(query: string, group: string, most: number): Rows<MappingFacts> & { readonly groups: readonly Group[] } {
    const { rows, total, bytes, groups } = findMappings(this.#recording, query, group, most);
    return { rows: rows.map((row) => this.mapping(row)), total, bytes, groups };
  }

  #mark(row: number): MarkFacts {
    const { timeNs, kind, cpu, type } = this.#marks;
    return { timeNs: timeNs[row]!, name: this.#nameOf(type[row]!), mark: MARKS[kind[row]!]!, cpu: cpu[row]! };
  }

  #nameOf(type: number): string {
    return this.#recording.trace.types[type]?.name ?? "";
  }

  #nearestMark(cpu: number, ns: number, withinNs: number): number | undefined {
    let best: number | undefined;
    const { timeNs, count, kind } = this.#marks;
    for (let row = this.#marks.from(ns - withinNs); row < count && timeNs[row]! <= ns + withinNs; row++) {
      if (this.#marks.cpu[row] !== cpu) continue;
      const away = Math.abs(timeNs[row]! - ns);
      const graver = best === undefined || kind[row]! > kind[best]!;
      if (best === undefined || graver || (kind[row] === kind[best] && away < Math.abs(timeNs[best]! - ns))) best = row;
    }
    return best;
  }

  #spaceOf(name: string): Space {
    const device = this.#devices.find((each) => each.name === name);
    if (!device) return spaceOf(new Uint32Array(0), this.#mappings, this.#lives);
    device.space ??= spaceOf(device.rows, this.#mappings, this.#lives);
    return device.space;
  }

  #colouring({ by, colours }: SpaceAsked): (row: number) => number {
    const { kind, length, task, endNs } = this.#mappings;
    const { startNs, endNs: until } = this.#lives;
    const last = colours.length - 1;
    if (by === "kind") return (row) => colours[kind[row]!]!;
    if (by === "task") return (row) => colours[task[row]! % colours.length]!;
    if (by === "size")
      return (row) => colours[Math.min(last, Math.max(0, Math.floor(Math.log2(length[row]! / 4096) / 2)))]!;
    // By how long it lived, a colour a decade from 10 µs on; what is live at the end has the last colour.
    return (row) =>
      endNs[row]! < 0
        ? colours[last]!
        : colours[Math.min(last - 1, Math.max(0, Math.floor(Math.log10((until[row]! - startNs[row]! + 1) / 1e4))))]!;
  }

  #split(): DeviceData[] {
    const { device, count, devices } = this.#mappings;
    const counts = new Map<number, number>();
    for (let row = 0; row < count; row++) counts.set(device[row]!, (counts.get(device[row]!) ?? 0) + 1);
    return [...counts]
      .sort((a, b) => Number(a[0] === NO_DEVICE) - Number(b[0] === NO_DEVICE) || b[1] - a[1])
      .map(([index, n]) => {
        const rows = new Uint32Array(n);
        for (let row = 0, next = 0; next < n; row++) if (device[row] === index) rows[next++] = row;
        const sorted = byStart(rows, this.#lives);
        return {
          index,
          name: devices[index] ?? UNKNOWN,
          rows: sorted,
          lanes: lanesOf(sorted, this.#lives),
          steps: stepsOf(sorted, this.#mappings, this.#lives),
        };
      });
  }
}

/** Rows of a table that may not show all. */
export interface Rows<T> {
  readonly rows: readonly T[];
  readonly total: number;
  /** Of all, together. */
  readonly bytes: number;
}

export const KIND_NAMES: readonly string[] = KINDS;

function parted(id: string): [kind: string, name: string] {
  const colon = id.indexOf(":");
  return [id.slice(0, colon), id.slice(colon + 1)];
}
