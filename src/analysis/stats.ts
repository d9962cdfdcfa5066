/**
 * Stats: what a trace holds, per event and per device.
 *
 * Idea: a sink of the engine (follow.ts) that adds up and keeps nothing: memory does not grow with the trace. A mapping is one
 * request: a one-shot map, a scatterlist, a coherent allocation, a two-step range, or what one `iommu:unmap` takes back.
 * Promises: counts are exact, and those of `check`. Lifetimes are those of mappings whose beginning and end were both recorded,
 * from the call that maps to the call that unmaps, right to a thousandth (quantiles.ts); where the recording's times go back in between
 * there is none.
 */
import { PAGE_SIZE, pagesTouched } from "../base/index.ts";
import type { Trace } from "../trace/index.ts";
import type { DeviceStats, Histogram } from "./device-stats.ts";
import { DeviceUse } from "./device-use.ts";
import { Follow, type FollowOptions, type TraceCounts } from "./follow.ts";
import type { LifetimeSink } from "./lifetimes/lifetime-counts.ts";
import { PageSet } from "./lifetimes/page-set.ts";
import { FROM_BEFORE, KINDS, type LifetimeTable } from "./lifetimes/table.ts";
import { Quantiles } from "./quantiles.ts";
import { type UserMappings, UserMappingUse } from "./user-mappings.ts";

/** What a trace holds, over all and by device. */
export interface TraceStats extends Omit<TraceCounts, "devices"> {
  /** Those with the most mappings first. */
  readonly devices: readonly DeviceStats[];
  /** Devices that events named, selected or not. */
  readonly deviceNames: readonly string[];
  /** What programs mapped through VFIO and iommufd, as far as it can be told; absent: nothing. */
  readonly userMappings?: UserMappings;
}

/**
 * Reads all of `trace`.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function readStats(
  trace: Trace,
  options: Pick<FollowOptions, "selection" | "progress"> = {},
): Promise<TraceStats> {
  const tally = new StatsSink();
  const user = new UserMappingUse();
  const follow = new Follow(trace, { ...options, sinks: [tally, user] });
  follow.watch(user.watcher);
  const use = new DeviceUse(follow, trace);
  await follow.all();
  const counts = follow.finish();
  const userMappings = user.result((task) => trace.strings[task] ?? "");
  const devices = use.into(tally.byDevice(), counts.devices);
  return { ...counts, devices, deviceNames: counts.devices, ...(userMappings && { userMappings }) };
}

/** Adds up every mapping that it is shown. */
export class StatsSink implements LifetimeSink {
  readonly #tallies: (Tally | undefined)[] = [];
  readonly #places = new PageSet();
  readonly #together: boolean;
  #devices: readonly string[] = [];

  /** `together`: all devices as one, named "all"; their address spaces are not told apart then. */
  constructor(together = false) {
    this.#together = together;
  }

  lifetime(table: LifetimeTable, row: number): void {
    this.#devices = table.devices;
    const device = this.#together ? 0 : table.device[row]!;
    let tally = this.#tallies[device];
    if (!tally) {
      tally = new Tally(device, this.#places);
      this.#tallies[device] = tally;
    }
    tally.add(table, row);
  }

  /** The sums so far, one for each device that mapped anything; those with the most mappings first. */
  byDevice(): DeviceStats[] {
    const tallies = this.#tallies.filter((tally) => tally !== undefined);
    return tallies
      .map((tally) => tally.stats(this.#together ? "all" : (this.#devices[tally.device] ?? "unknown")))
      .sort((a, b) => b.maps - a.maps);
  }
}

/** Blocks of 2 MiB of address space that are told apart, over all devices: 100 MiB of memory. */
const MOST_BLOCKS = 2 ** 20;
/** Pages of the largest segment whose place is kept: 4 GiB. */
const MOST_PAGES = 2 ** 20;

class Tally {
  readonly device: number;
  readonly #places: PageSet;
  readonly #kinds = new Float64Array(KINDS.length);
  readonly #segmentSizes = new Float64Array(65);
  readonly #requestSizes = new Float64Array(65);
  readonly #lifetimes = new Quantiles();
  readonly #pageSizes = { "4K": 0, "2M": 0, "1G": 0 };
  #maps = 0;
  #unmaps = 0;
  #live = 0;
  #liveBytes = 0;
  #segments = 0;
  #bytes = 0;
  /** A place was left out. */
  #scattered = false;

  constructor(device: number, places: PageSet) {
    this.device = device;
    this.#places = places;
  }

  add(table: LifetimeTable, row: number): void {
    const length = table.length[row]!;
    if (table.endNs[row]! < 0) {
      this.#live++;
      this.#liveBytes += length;
    }
    if ((table.flags[row]! & FROM_BEFORE) !== 0) return;
    this.#maps++;
    this.#kinds[table.kind[row]!]!++;
    this.#bytes += length;
    this.#segments += table.segments[row]!;
    this.#requestSizes[sizeOf(length)]!++;
    if (table.endNs[row]! >= 0) {
      this.#unmaps++;
      const life = Math.round(table.endNs[row]! - table.startNs[row]!);
      if (life >= 0) this.#lifetimes.add(life); // where times go back, an end before the start is no life
    }
    const { firstSegment, iova, phys, pieces } = table;
    let at = firstSegment[row]!;
    if (at < 0 && table.segments[row]! > 0) this.#segment(iova[row]!, phys[row]!, length);
    for (; at >= 0; at = pieces.next[at]!) this.#segment(pieces.iova[at]!, pieces.phys[at]!, pieces.length[at]!);
  }

  #segment(iova: number, phys: number, length: number): void {
    this.#segmentSizes[sizeOf(length)]!++;
    this.#pageSizes[largestPage(iova, phys, length)]++;
    const pages = Math.max(1, pagesTouched(iova, length));
    if (pages > MOST_PAGES || this.#places.blocks >= MOST_BLOCKS) this.#scattered = true;
    else this.#places.add(this.device, Math.floor(iova / PAGE_SIZE), pages);
  }

  stats(name: string): DeviceStats {
    const lives = this.#lifetimes;
    return {
      name,
      maps: this.#maps,
      unmaps: this.#unmaps,
      segments: this.#segments,
      bytesMapped: this.#bytes,
      liveAtEnd: this.#live,
      liveBytesAtEnd: this.#liveBytes,
      segmentSizes: histogram(this.#segmentSizes),
      requestSizes: histogram(this.#requestSizes),
      lifetimeNs:
        lives.count === 0 ? undefined : { p50: lives.at(0.5), p90: lives.at(0.9), p99: lives.at(0.99), max: lives.max },
      pageSizes: this.#pageSizes,
      largestGap: this.#scattered ? undefined : this.#largestGap(),
      peakBytes: 0,
      bounce: undefined,
      deviceMemory: undefined,
      failures: {},
      kinds: Object.fromEntries(KINDS.flatMap((kind, i) => (this.#kinds[i]! > 0 ? [[kind, this.#kinds[i]!]] : []))),
    };
  }

  /** Neighbours on one page have no gap: the page is the smallest that can be mapped. */
  #largestGap(): number {
    let largest = 0;
    let end = -1;
    this.#places.eachRun(this.device, (page, pages) => {
      if (end >= 0) largest = Math.max(largest, page - end);
      end = page + pages;
    });
    return largest * PAGE_SIZE;
  }
}

/** The number of a size: 0 of nothing, else 1 more than its power of two. */
const sizeOf = (bytes: number): number => (bytes < 1 ? 0 : 1 + Math.min(63, Math.floor(Math.log2(bytes))));

const histogram = (sizes: Float64Array): Histogram =>
  Object.fromEntries(
    Array.from(sizes).flatMap((count, size) => (count > 0 ? [[String(size === 0 ? 0 : 2 ** (size - 1)), count]] : [])),
  );

/** The largest page that fits inside the segment at an address that agrees with the memory's. */
function largestPage(iova: number, phys: number, length: number): "4K" | "2M" | "1G" {
  if (length < 2 ** 21 || phys < 0) return "4K";
  for (const [name, size] of [
    ["1G", 2 ** 30],
    ["2M", 2 ** 21],
  ] as const) {
    const toNext = (size - (iova % size)) % size;
    if (iova % size === phys % size && toNext + size <= length) return name;
  }
  return "4K";
}
