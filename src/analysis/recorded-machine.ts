/**
 * On what kind of machine a load was recorded: how its devices reached memory, and when the IOTLB was invalidated.
 *
 * Idea: the recording shows it. Invalidation events are counted against unmaps; without them the addresses tell: in strict mode an
 * address that is given back is taken again at once, by the next mapping of its size, while in lazy mode it waits for a flush.
 * Promises: nothing is guessed. What neither events nor enough addresses show is `undefined`.
 * Specified by: the caches and the flush queue of Linux's IOVA allocator; recordings of both modes on four kinds of machine.
 */

import type { Kind } from "./lifetimes/table.ts";
import type { Request, Requests } from "./requests.ts";

/** How a load was mapped when it was recorded. */
export interface RecordedMachine {
  /** How devices reached memory: by an IOMMU, by bounce buffers, or directly; `undefined`: nothing was mapped. */
  readonly reached: "translated" | "bounced" | "direct" | undefined;
  /** When the IOTLB was invalidated; `undefined`: nothing shows it. */
  readonly mode: "strict" | "lazy" | undefined;
  /** What shows it. */
  readonly shownBy: "invalidations" | "addresses" | undefined;
  /** The IOMMU caches absent entries: new ones are invalidated too. */
  readonly cachingMode: boolean;
  /** Recorded invalidations, for unmaps and for maps; `undefined`: they were not recorded. */
  readonly invalidations: { readonly unmaps: number; readonly maps: number } | undefined;
  /** The way of mapping that most requests were mapped by. */
  readonly mostly: Kind | undefined;
  /** Each segment of a request was mapped by itself, so that the recording does not show what a request is. */
  readonly hidesRequests: boolean;
}

/** Events that invalidate after an unmap, and after a map. */
const AFTER_UNMAP = ["cache_tag_flush_range", "cache_tag_flush_all", "iotlb_sync"];
const AFTER_MAP = ["cache_tag_flush_range_np"];
/** In lazy mode many unmaps share an invalidation; in strict mode each has one. */
const STRICT_SHARE = 0.9;
const LAZY_SHARE = 0.5;
/** A mapping so soon after one of its size was given back takes that one's address, in strict mode. Nanoseconds. */
const SOON_NS = 2e6;
/** So many of those say something; this share is strict, that share is lazy. */
const LEAST_SOON = 32;
const STRICT_REUSE = 0.4;
const LAZY_REUSE = 0.12;
/** Beginnings and ends that are looked at: what so many do not show, more do not either. */
const MOST_STEPS = 100_000;

/** Several parts of one report ask. */
const known = new WeakMap<Requests, RecordedMachine>();

/** What `requests` were recorded on. */
export function recordedMachine(requests: Requests): RecordedMachine {
  const machine = known.get(requests) ?? found(requests);
  known.set(requests, machine);
  return machine;
}

function found(requests: Requests): RecordedMachine {
  const { events, counts } = requests;
  const sum = (names: readonly string[]): number => names.reduce((all, name) => all + (events[name] ?? 0), 0);
  const [unmaps, maps] = [sum(AFTER_UNMAP), sum(AFTER_MAP)];
  const kinds = new Map<Kind, number>();
  const reached = { translated: 0, bounced: 0, direct: 0 };
  for (let id = 0; id < requests.count; id++) {
    const row = requests.rowOf(id);
    const kind = requests.columns.kindOf(row);
    kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    if (kind !== "coherent") reached[HOW[requests.columns.reached[row]!]!]++;
  }
  const how = mostOf(Object.entries(reached) as [keyof typeof reached, number][]);
  const mostly = mostOf([...kinds].filter(([kind]) => kind !== "coherent"));
  const recorded = unmaps > 0 ? { unmaps, maps } : undefined;
  const byEvents = recorded && counts.unmapEvents > 0 ? modeByEvents(recorded.unmaps, counts.unmapEvents) : undefined;
  const byAddresses = byEvents === undefined && how === "translated" ? modeByAddresses(requests) : undefined;
  return {
    reached: how,
    mode: byEvents ?? byAddresses,
    shownBy: byEvents ? "invalidations" : byAddresses ? "addresses" : undefined,
    cachingMode: maps > 0,
    invalidations: recorded,
    mostly,
    hidesRequests: (how === "direct" || how === "bounced") && mostly === "one-shot",
  };
}

/** By the number of REACHED: an address that is neither the memory's nor translated is a bounce slot's. */
const HOW = ["direct", "translated", "bounced"] as const;

function mostOf<Name>(counts: readonly (readonly [Name, number])[]): Name | undefined {
  let most: readonly [Name | undefined, number] = [undefined, 0];
  for (const one of counts) if (one[1] > most[1]) most = one;
  return most[0];
}

function modeByEvents(invalidations: number, unmaps: number): RecordedMachine["mode"] {
  const share = invalidations / unmaps;
  return share >= STRICT_SHARE ? "strict" : share <= LAZY_SHARE ? "lazy" : undefined;
}

function modeByAddresses(requests: Requests): RecordedMachine["mode"] {
  /** When an address, and an address of that size, was given back last. */
  const freed = new Map<string, number>();
  const freedOfSize = new Map<string, number>();
  let [soon, again] = [0, 0];
  for (const step of requests.order.subarray(0, MOST_STEPS)) {
    const request = requests.at(step < 0 ? ~step : step);
    const place = placeOf(request);
    if (!place) continue;
    if (step < 0) {
      freed.set(place.address, request.endNs!);
      freedOfSize.set(place.size, request.endNs!);
      continue;
    }
    if (request.startNs - (freedOfSize.get(place.size) ?? Number.NEGATIVE_INFINITY) > SOON_NS) continue;
    soon++;
    if (request.startNs - (freed.get(place.address) ?? Number.NEGATIVE_INFINITY) <= SOON_NS) again++;
  }
  if (soon < LEAST_SOON) return undefined;
  return again / soon >= STRICT_REUSE ? "strict" : again / soon <= LAZY_REUSE ? "lazy" : undefined;
}

/** Where a request lies in its device's address space, and how much the allocator takes for it: a power of two of pages. */
function placeOf({
  device,
  segments,
  translated,
}: Request): { readonly address: string; readonly size: string } | undefined {
  const [first, last] = [segments[0], segments.at(-1)];
  if (!translated || !first || !last) return undefined;
  const page = Math.floor(first.iova / 4096);
  const pages = Math.max(1, Math.ceil((last.iova + last.length) / 4096) - page);
  return { address: `${device} ${page}`, size: `${device} ${Math.ceil(Math.log2(pages))}` };
}
