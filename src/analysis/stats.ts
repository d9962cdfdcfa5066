/**
 * Stats: what a trace holds, per event and per device.
 *
 * Counts are exact; lifetimes are those of mappings whose beginning and end were both recorded. A mapping is one request:
 * a one-shot map, a scatterlist, a coherent allocation or a two-step range.
 */
import { PAGE_SIZE } from "../base/index.ts";
import { type EventBatch, LOST_EVENTS, type Trace } from "../trace/index.ts";
import { readRequests } from "./read-requests.ts";
import type { Request, Requests } from "./requests.ts";

/** How many values fall in [2^n, 2^(n+1)); the key is 2^n. */
export type Histogram = Readonly<Record<string, number>>;

export interface DeviceStats {
  /** PCI address, or "unknown": what no event attributes to a device. */
  readonly name: string;
  readonly maps: number;
  readonly unmaps: number;
  readonly segments: number;
  readonly bytesMapped: number;
  readonly liveAtEnd: number;
  readonly liveBytesAtEnd: number;
  /** Bytes per segment and per request. */
  readonly segmentSizes: Histogram;
  readonly requestSizes: Histogram;
  /** Nanoseconds from map to unmap. */
  readonly lifetimeNs:
    | { readonly p50: number; readonly p90: number; readonly p99: number; readonly max: number }
    | undefined;
  /** Segments by the largest page that their alignment and length allow. */
  readonly pageSizes: { readonly "4K": number; readonly "2M": number; readonly "1G": number };
  /** Bytes between two mapped neighbours in the device's address space, the widest; over the whole trace. */
  readonly largestGap: number;
  /** Requests by how the kernel mapped them. */
  readonly kinds: Readonly<Record<string, number>>;
}

export interface TraceStats {
  readonly events: Readonly<Record<string, number>>;
  readonly eventTotal: number;
  /** Events the kernel or the recorder says were lost; -1 when it only says that some were. */
  readonly lost: number;
  readonly durationNs: number;
  readonly devices: readonly DeviceStats[];
  /** Requests whose device no event names. */
  readonly ambiguous: number;
  readonly liveAtStart: number;
  readonly requests: Requests;
}

/** Reads all of `trace`. */
export async function readStats(trace: Trace): Promise<TraceStats> {
  const counts: number[] = [];
  let firstNs = Number.POSITIVE_INFINITY;
  let lastNs = 0;
  let eventTotal = 0;
  const requests = await readRequests(trace, (batch: EventBatch, row: number) => {
    const type = batch.type[row]!;
    counts[type] = (counts[type] ?? 0) + 1;
    const time = batch.timeNs[row]!;
    if (time < firstNs) firstNs = time;
    if (time > lastNs) lastNs = time;
    eventTotal++;
  });
  const events: Record<string, number> = {};
  for (const [type, count] of counts.entries()) {
    const { name } = trace.types[type]!;
    if (count && name !== LOST_EVENTS) events[name] = (events[name] ?? 0) + count;
  }
  const byDevice = new Map<string, Request[]>();
  for (const request of requests.requests) {
    const name = request.device ?? "unknown";
    const list = byDevice.get(name);
    if (list) list.push(request);
    else byDevice.set(name, [request]);
  }
  return {
    events: Object.fromEntries(Object.entries(events).sort((a, b) => b[1] - a[1])),
    eventTotal,
    lost: trace.lost,
    durationNs: eventTotal > 0 ? lastNs - firstNs : 0,
    devices: [...byDevice].map(([name, list]) => deviceStats(name, list)).sort((a, b) => b.maps - a.maps),
    ambiguous: requests.ambiguous,
    liveAtStart: requests.liveAtStart,
    requests,
  };
}

function deviceStats(name: string, requests: readonly Request[]): DeviceStats {
  const lifetimes: number[] = [];
  const segmentSizes = new Map<number, number>();
  const requestSizes = new Map<number, number>();
  const pageSizes = { "4K": 0, "2M": 0, "1G": 0 };
  const kinds: Record<string, number> = {};
  const places: [number, number][] = [];
  let [unmaps, segments, bytesMapped, liveBytesAtEnd] = [0, 0, 0, 0];
  for (const request of requests) {
    kinds[request.kind] = (kinds[request.kind] ?? 0) + 1;
    bytesMapped += request.length;
    bump(requestSizes, request.length);
    if (request.endNs === undefined) liveBytesAtEnd += request.length;
    else {
      unmaps++;
      lifetimes.push(request.endNs - request.startNs);
    }
    for (const { iova, phys, length } of request.segments) {
      segments++;
      bump(segmentSizes, length);
      pageSizes[largestPage(iova, phys, length)]++;
      places.push([iova, iova + length]);
    }
  }
  return {
    name,
    maps: requests.length,
    unmaps,
    segments,
    bytesMapped,
    liveAtEnd: requests.length - unmaps,
    liveBytesAtEnd,
    segmentSizes: histogram(segmentSizes),
    requestSizes: histogram(requestSizes),
    lifetimeNs: percentiles(lifetimes),
    pageSizes,
    largestGap: largestGap(places),
    kinds,
  };
}

const bump = (sizes: Map<number, number>, value: number): void => {
  const bucket = value < 1 ? 0 : 2 ** Math.floor(Math.log2(value));
  sizes.set(bucket, (sizes.get(bucket) ?? 0) + 1);
};

const histogram = (sizes: Map<number, number>): Histogram =>
  Object.fromEntries([...sizes].sort((a, b) => a[0] - b[0]).map(([size, count]) => [String(size), count]));

/** The largest page that fits inside the segment at an address that agrees with the memory's. */
function largestPage(iova: number, phys: number, length: number): "4K" | "2M" | "1G" {
  for (const [name, size] of [
    ["1G", 2 ** 30],
    ["2M", 2 ** 21],
  ] as const) {
    const toNext = (size - (iova % size)) % size;
    if (iova % size === phys % size && toNext + size <= length) return name;
  }
  return "4K";
}

function percentiles(values: number[]): DeviceStats["lifetimeNs"] {
  if (values.length === 0) return undefined;
  values.sort((a, b) => a - b);
  const at = (share: number): number => values[Math.min(values.length - 1, Math.floor(values.length * share))]!;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: values.at(-1)! };
}

function largestGap(places: [number, number][]): number {
  places.sort((a, b) => a[0] - b[0]);
  let largest = 0;
  let end: number | undefined;
  for (const [start, stop] of places) {
    // Neighbours on one page have no gap: the page is the smallest that can be mapped.
    if (end !== undefined) largest = Math.max(largest, Math.floor(start / PAGE_SIZE) * PAGE_SIZE - end);
    end = Math.max(end ?? 0, Math.ceil(stop / PAGE_SIZE) * PAGE_SIZE);
  }
  return largest;
}
