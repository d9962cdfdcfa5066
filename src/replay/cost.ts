/**
 * The cost model: counts times nanoseconds. A prediction, never a measurement.
 *
 * Idea: what mapping costs is, in the main, five things that are counted exactly: invalidations, writes to page tables, calls
 * of the address allocator, steps of its search, and, for a driver in user space, calls into the kernel. Their prices
 * differ by machine: they are fitted from one published pair of measurements, or given by who knows better.
 * Not for: waiting on locks, caches of the device (ATS), virtual IOMMUs, where an invalidation costs an exit.
 */
import { DmaError } from "../base/index.ts";

/** Nanoseconds. */
export interface CostModel {
  /** An IOTLB invalidation that is waited for. */
  readonly invalidationNs: number;
  /** A write to a page-table entry. */
  readonly pteWriteNs: number;
  /** A reservation or release of addresses, cached ones too, with the calls around it. */
  readonly iovaOpNs: number;
  /** A node that the allocator's search looks at. */
  readonly iovaStepNs: number;
  /** A map or unmap call from user space (ioctl); 0 for a driver in the kernel. */
  readonly callNs: number;
}

/** The prices of a {@link CostModel}, by name. */
export const COST_NAMES: readonly (keyof CostModel)[] = [
  "invalidationNs",
  "pteWriteNs",
  "iovaOpNs",
  "iovaStepNs",
  "callNs",
];

/** Operations a second, each mapping and unmapping one page, on one machine. */
export interface MeasuredPair {
  /** With an invalidation at each unmap. */
  readonly strict: number;
  /** With a flush queue. */
  readonly lazy: number;
  /** The same without any mapping at the time of the operation. */
  readonly premapped: number;
}

/**
 * Reads the prices out of a pair: strict differs from lazy by an invalidation; lazy from premapped by two calls of the
 * allocator and two writes.
 */
export function fitCost(pair: MeasuredPair, pteWriteNs: number, iovaStepNs: number): CostModel {
  const ns = (perSecond: number): number => 1e9 / perSecond;
  return {
    invalidationNs: Math.round(ns(pair.strict) - ns(pair.lazy)),
    pteWriteNs,
    iovaOpNs: Math.round((ns(pair.lazy) - ns(pair.premapped)) / 2 - pteWriteNs),
    iovaStepNs,
    callNs: 0,
  };
}

/**
 * Operations of io_uring, taken as one page each: strict 570 thousand a second, lazy 1.93 million, premapped 5.01 million
 * (Gupta, on the mailing list, 24 November 2025). A page-table write: 384 ns for 256 on VT-d (commit messages of Linux's generic
 * page tables). A step: Linux's own allocator in user space, 761 ns for 172 steps with 1024 ranges live.
 */
export const PUBLISHED_COST: CostModel = fitCost({ strict: 570_000, lazy: 1_930_000, premapped: 5_010_000 }, 1.5, 4.4);

/** What the counts of a load come to. */
export interface Counted {
  /** IOTLB invalidations, of ranges and of everything. */
  readonly invalidations: number;
  /** Entries of page tables set or cleared, pointers included. */
  readonly pteWrites: number;
  /** Reservations and releases of addresses. */
  readonly iovaOps: number;
  /** Nodes that the allocator's search looks at. */
  readonly iovaSteps: number;
  /** Map and unmap calls from user space; 0 for a driver in the kernel. */
  readonly calls: number;
}

/** Nanoseconds in all. */
export const predict = (counted: Counted, model: CostModel): number =>
  counted.invalidations * model.invalidationNs +
  counted.pteWrites * model.pteWriteNs +
  counted.iovaOps * model.iovaOpNs +
  counted.iovaSteps * model.iovaStepNs +
  counted.calls * model.callNs;

/**
 * Prices from somebody's JSON; what it leaves out is as published.
 *
 * @throws DmaError ERR_DMA_COST (EINVAL)
 */
export function costOf(text: string, name: string): CostModel {
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw badCost(name, `no JSON (${(error as Error).message})`);
  }
  if (typeof given !== "object" || given === null || Array.isArray(given)) throw badCost(name, "not an object");
  for (const [key, value] of Object.entries(given)) {
    if (!(COST_NAMES as readonly string[]).includes(key)) throw badCost(name, `${JSON.stringify(key)} is none of them`);
    if (typeof value !== "number" || !(value >= 0)) throw badCost(name, `${key} is ${JSON.stringify(value)}`);
  }
  return { ...PUBLISHED_COST, ...(given as Partial<CostModel>) };
}

const badCost = (name: string, found: string): DmaError =>
  new DmaError(
    "ERR_DMA_COST",
    "EINVAL",
    `${name}: ${found}; an object with nanoseconds, 0 or more, for some of ${COST_NAMES.join(", ")} is needed`,
    { name },
  );
