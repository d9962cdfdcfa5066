/**
 * The measures by which two traces are held against each other: what each is of, and when more of it is worse.
 *
 * Idea: a load that ran longer has more of everything, so what grows with the load is told per request. What the recording does not
 * show (invalidations without their events) has no value, and is never taken for zero.
 */
import type { TraceSide } from "./trace-side.ts";

/** A measure by its name, as --fail-on takes it. */
export interface Measure {
  /** As --fail-on takes it. */
  readonly name: string;
  /** What it is, for people. */
  readonly meaning: string;
  /** What it is counted in. */
  readonly unit: "count" | "bytes" | "ns";
  /** Divided by the number of requests. */
  readonly perRequest: boolean;
  /** More of it is worse; of others more is only more. */
  readonly worse: boolean;
  /** `undefined`: the recording does not show it. */
  of(side: TraceSide): number | undefined;
}

const events = ({ result }: TraceSide, ...names: readonly string[]): number =>
  names.reduce((sum, name) => sum + (result.events[name] ?? 0), 0);

/** Shown where any of its kind was recorded; events are of all requests, and say nothing of some that were selected. */
const recorded = (side: TraceSide, names: readonly string[]): number | undefined => {
  if (side.isSelected) return undefined;
  const found = events(side, ...names);
  return found > 0 ? found : undefined;
};

const measure = (
  name: string,
  meaning: string,
  of: Measure["of"],
  { unit = "count", perRequest = false, worse = false }: Partial<Pick<Measure, "unit" | "perRequest" | "worse">> = {},
): Measure => ({ name, meaning, unit, perRequest, worse, of });

const COST = { perRequest: true, worse: true } as const;

/** All of them, in the order of reports. */
export const MEASURES: readonly Measure[] = [
  measure("requests", "requests", ({ total }) => total.maps),
  measure("bytes", "bytes mapped", ({ total }) => total.bytesMapped, { unit: "bytes" }),
  measure("request-size", "bytes a request", ({ total }) => total.bytesMapped, { unit: "bytes", perRequest: true }),
  measure("segments", "segments a request", ({ total }) => total.segments, COST),
  measure("iommu-maps", "iommu:map a request", (side) => recorded(side, ["map"]), COST),
  measure(
    "iommu-unmaps",
    "iommu:unmap a request",
    (side) => (side.isSelected ? undefined : side.result.unmapEvents || undefined),
    COST,
  ),
  measure(
    "invalidations",
    "invalidations a request",
    ({ isSelected, machine: { invalidations } }) =>
      isSelected ? undefined : invalidations && invalidations.unmaps + invalidations.maps,
    COST,
  ),
  measure("bounces", "bounced a request", (side) => recorded(side, ["swiotlb_bounced"]), COST),
  measure(
    "syncs",
    "dma_sync a request",
    (side) =>
      recorded(
        side,
        Object.keys(side.result.events).filter((name) => name.startsWith("dma_sync_")),
      ),
    COST,
  ),
  measure("lifetime-p50", "lifetime, median", ({ total }) => total.lifetimeNs?.p50, { unit: "ns", worse: true }),
  measure("lifetime-p90", "lifetime, 90 %", ({ total }) => total.lifetimeNs?.p90, { unit: "ns", worse: true }),
  measure("lifetime-p99", "lifetime, 99 %", ({ total }) => total.lifetimeNs?.p99, { unit: "ns", worse: true }),
  measure("live", "live at the end", ({ total }) => total.liveAtEnd, { worse: true }),
  measure("live-bytes", "bytes live at the end", ({ total }) => total.liveBytesAtEnd, { unit: "bytes", worse: true }),
];

/** The value of `measure` in one trace; `undefined`: not shown, or there are no requests that it could be of. */
export function measuredIn({ of, perRequest }: Measure, side: TraceSide): number | undefined {
  const value = of(side);
  if (value === undefined || !perRequest) return value;
  return side.total.maps === 0 ? undefined : value / side.total.maps;
}
