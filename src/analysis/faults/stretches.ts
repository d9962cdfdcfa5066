/**
 * Stretches: faults of one device at neighbouring addresses with the same cause, which are reported as one.
 *
 * Idea: a device with a wrong address faults thousands of times, page after page; the first fault is looked at in full, the
 * others are added to the stretch that they continue. One fault may be told by several sources (the trace event, the
 * kernel's line): each is counted by itself, and the largest count is the number of faults.
 * Promises: memory is bounded: past {@link MOST_STRETCHES} stretches, what begins a new one is counted for its device only.
 */
import type { Access } from "../../trace/index.ts";
import type { Hypothesis } from "./relation.ts";

/** Where a fault is told. */
export type FaultSource = "io_page_fault" | "console" | "kernel-log";

/** Stretches that are kept. */
const MOST_STRETCHES = 1000;
/** Parts of address spaces in which stretches are looked for. */
const MOST_PLACES = 1 << 16;
/** Faults this far apart are one stretch: 64 KiB. */
const GAP_PAGES = 16;
/** Where nothing was ever mapped there are no mappings to tell apart, and the kernel keeps lines of a flood back: 1 MiB. */
const GAP_PAGES_NEVER = 256;

/** One fault, ready to be counted. */
interface CountedFault<Told> {
  /** The device's name, or what stands for it. */
  readonly device: string;
  readonly page: number;
  readonly access: Access;
  readonly source: FaultSource;
  /** `undefined`: by a clock that cannot be compared. */
  readonly timeNs: number | undefined;
  /** The fault itself, kept of the first. */
  readonly told: Told;
}

/** How many faults, by what the device tried. */
type Tally = Record<Access, number>;

export interface Stretch<Told> {
  readonly first: CountedFault<Told>;
  readonly hypotheses: readonly [Hypothesis, ...Hypothesis[]] | undefined;
  /** Pages [start, end) in which the faults lie. */
  startPage: number;
  endPage: number;
  /** Faults by where they are told. */
  readonly tallies: Readonly<Record<FaultSource, Tally>>;
  firstNs: number | undefined;
  lastNs: number | undefined;
}

const sumOf = ({ read, write, unknown }: Tally): number => read + write + unknown;

/** The faults that a stretch stands for: what several sources tell of the same fault is one. */
export function tallyOf({
  tallies,
}: Stretch<unknown>): Tally & { readonly source: FaultSource; readonly count: number } {
  const { io_page_fault: events, console, "kernel-log": log } = tallies;
  // What a log has beside the trace's own lines was not in the trace.
  const lines = {
    read: console.read + log.read,
    write: console.write + log.write,
    unknown: console.unknown + log.unknown,
  };
  if (sumOf(events) >= sumOf(lines)) return { ...events, source: "io_page_fault", count: sumOf(events) };
  return { ...lines, source: sumOf(console) >= sumOf(log) ? "console" : "kernel-log", count: sumOf(lines) };
}

export class Stretches<Told> {
  readonly list: Stretch<Told>[] = [];
  /** Faults that began a stretch when there was no room for one, by device. */
  readonly others: Map<string, number> = new Map();
  /** Stretches by cause and by the part of the address space in which they have faults. */
  readonly #places = new Map<string, Stretch<Told>>();

  /** Adds `fault`, with what explains it; `undefined`: there is nothing to explain it with. */
  add(fault: CountedFault<Told>, hypotheses: readonly [Hypothesis, ...Hypothesis[]] | undefined): void {
    const best = hypotheses?.[0];
    const cause = `${fault.device}\n${best ? `${best.relation} ${best.cause}` : ""}`;
    const { page } = fault;
    const gap = best?.relation === "never" ? GAP_PAGES_NEVER : GAP_PAGES;
    // Address 0, and what has no address, is a cause of its own, not the neighbour of what lies behind it.
    const part = page <= 0 ? page - 1 : Math.floor(page / gap);
    const near = page <= 0 ? this.#places.get(`${cause} ${part}`) : this.#near(cause, page, gap);
    if (near) {
      count(near, fault);
      this.#place(`${cause} ${part}`, near);
      return;
    }
    if (this.list.length >= MOST_STRETCHES) {
      if (this.others.size < MOST_STRETCHES || this.others.has(fault.device))
        this.others.set(fault.device, (this.others.get(fault.device) ?? 0) + 1);
      return;
    }
    const stretch: Stretch<Told> = {
      first: fault,
      hypotheses,
      startPage: page,
      endPage: page + 1,
      tallies: { io_page_fault: noFaults(), console: noFaults(), "kernel-log": noFaults() },
      firstNs: undefined,
      lastNs: undefined,
    };
    count(stretch, fault);
    this.#place(`${cause} ${part}`, stretch);
    this.list.push(stretch);
  }

  /** A stretch that `page` continues: it has faults in the same part of the address space, or in the next. */
  #near(cause: string, page: number, gap: number): Stretch<Told> | undefined {
    const part = Math.floor(page / gap);
    for (const at of [part, part - 1, part + 1]) {
      const stretch = this.#places.get(`${cause} ${at}`);
      if (stretch && stretch.startPage > 0 && page >= stretch.startPage - gap && page < stretch.endPage + gap)
        return stretch;
    }
    return undefined;
  }

  #place(key: string, stretch: Stretch<Told>): void {
    if (this.#places.size < MOST_PLACES || this.#places.has(key)) this.#places.set(key, stretch);
  }
}

const noFaults = (): Tally => ({ read: 0, write: 0, unknown: 0 });

function count<Told>(stretch: Stretch<Told>, { page, access, source, timeNs }: CountedFault<Told>): void {
  stretch.startPage = Math.min(stretch.startPage, page);
  stretch.endPage = Math.max(stretch.endPage, page + 1);
  stretch.tallies[source][access]++;
  if (timeNs === undefined) return;
  stretch.firstNs = Math.min(stretch.firstNs ?? timeNs, timeNs);
  stretch.lastNs = Math.max(stretch.lastNs ?? timeNs, timeNs);
}
