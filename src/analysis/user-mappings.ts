/**
 * User mappings: what programs map for devices through VFIO and iommufd, of which the kernel tells `iommu:map` and `iommu:unmap` alone.
 *
 * Idea: no event of theirs names a device, so they are what is left when every DMA API call has taken its own. Each run that one
 * unmap takes back is a *mapping*, and so an entry of a container; each map call tells which leaves it was given. A leaf of 2 MiB
 * that could have been is found by its memory: 512 pages of one aligned block, all mapped at one moment, at addresses that
 * run with them. What is live at the end no unmap has shown the ends of: neighbours are one mapping there, unless their memory
 * runs on too, which one call would have mapped in one go.
 * Promises: counts are exact but for what `incomplete` says. Not for: telling a program's mapping from a two-step one that was
 * recorded without probes; both look like this, and where that matters it is said.
 */
import { PAGE_SIZE } from "../base/index.ts";
import type { Place } from "./lifetimes/history.ts";
import type { LifetimeSink } from "./lifetimes/lifetime-counts.ts";
import { FROM_BEFORE, type LifetimeTable, UNATTRIBUTED } from "./lifetimes/table.ts";
import type { Unattributed } from "./lifetimes/unattributed.ts";
import type { Watcher } from "./lifetimes/watcher.ts";
import { SmallLeaves } from "./small-leaves.ts";

/** Mappings that a VFIO container takes unless it is told otherwise; iommufd has no such limit. */
export const ENTRY_BUDGET = 65_535;
const LARGE = 2 ** 21;
const HUGE = 2 ** 30;
/** Mappings whose times are kept, for the most that there were at once. */
const MOST_TIMES = 4_000_000;
/** Tasks that are told apart. */
const MOST_TASKS = 1000;

/** What was seen of them. */
export interface UserMappings {
  readonly mappings: number;
  /** The most at once: entries of one container, if all were in one. */
  readonly peak: number;
  readonly budget: number;
  /** Mappings by who mapped them first, most first: the task's name. */
  readonly tasks: Readonly<Record<string, number>>;
  /** Leaves that an IOMMU with pages of 4 KiB, 2 MiB and 1 GiB makes of the map calls. */
  readonly leaves: { readonly "4K": number; readonly "2M": number; readonly "1G": number };
  /** Blocks of 2 MiB of contiguous memory that leaves of 4 KiB cover: as things are, and with addresses aligned as the memory is. */
  readonly missed: { readonly fits: number; readonly misplaced: number };
  /** Unmaps of all kinds that took back less or more than asked, and by how many bytes. */
  readonly short: { readonly unmaps: number; readonly bytes: number };
  readonly long: { readonly unmaps: number; readonly bytes: number };
  /** More was in use at once than is kept: `peak` or `missed` are at least this. */
  readonly incomplete: boolean;
}

/** A missed leaf, for whoever tells of it: where, and the mapping that completed its block. */
interface MissedLeaf {
  readonly iova: number;
  readonly phys: number;
  readonly place: Place;
}

/** Where mappings began, column by column. */
interface Beginnings {
  readonly startNs: ArrayLike<number>;
  readonly cpu: ArrayLike<number>;
  readonly pid: ArrayLike<number>;
  readonly task: ArrayLike<number>;
  readonly type: ArrayLike<number>;
  readonly site: ArrayLike<number>;
}

/** Adds up user mappings. */
export class UserMappingUse implements LifetimeSink {
  /** Sees unmaps that take back less or more. */
  readonly watcher: Watcher = {
    iommuUnmapped: (_iova, asked, done) => {
      if (done === asked) return;
      const tally = done < asked ? this.#short : this.#long;
      tally.unmaps++;
      tally.bytes += Math.abs(asked - done);
    },
  };
  readonly #tasks = new Map<number, number>();
  readonly #leaves = { "4K": 0, "2M": 0, "1G": 0 };
  readonly #short = { unmaps: 0, bytes: 0 };
  readonly #long = { unmaps: 0, bytes: 0 };
  readonly #small = new SmallLeaves();
  /** Times of beginnings, and of ends. */
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];
  #mappings = 0;
  #first: MissedLeaf | undefined;
  #isCut = false;
  #isSettled = false;

  /** Blocks of 2 MiB in leaves of 4 KiB, and the first of them. */
  get missed(): { readonly fits: number; readonly misplaced: number; readonly first: MissedLeaf | undefined } {
    const { fits, misplaced } = this.#small;
    return { fits, misplaced, first: this.#first };
  }

  /** The trace has ended: what waits is live. It is added now, for who asks before it is shown, and not again then. */
  settle(waiting: Unattributed): void {
    if (this.#isSettled) return;
    this.#isSettled = true;
    const { page, pages, phys, startNs, task } = waiting;
    for (const run of waiting.runs()) {
      const start = Math.min(...run.slice(0, 64).map((piece) => startNs[piece]!));
      this.#count(start, -1, task[run[0]!]!);
      let nextPhys = -1;
      for (const piece of run) {
        const [at, length] = [phys[piece]!, pages[piece]! * PAGE_SIZE];
        if (at === nextPhys) this.#count(startNs[piece]!, -1, task[piece]!);
        nextPhys = at + length;
        this.#piece(page[piece]! * PAGE_SIZE, at, length, start, -1);
      }
      this.#noteFirst(waiting, run[0]!);
    }
  }

  /** The mapping at hand, the one of number `at`, has completed the first block. */
  #noteFirst({ startNs, cpu, pid, task, type, site }: Beginnings, at: number): void {
    const { first } = this.#small;
    if (!first || this.#first) return;
    const where = { timeNs: startNs[at]!, cpu: cpu[at]!, pid: pid[at]!, task: task[at]! };
    this.#first = { ...first, place: { ...where, type: type[at]!, site: site[at]! } };
  }

  lifetime(table: LifetimeTable, row: number): void {
    if (this.#isSettled || table.kind[row] !== UNATTRIBUTED || (table.flags[row]! & FROM_BEFORE) !== 0) return;
    const [start, end] = [table.startNs[row]!, table.endNs[row]!];
    this.#count(start, end, table.task[row]!);
    const { firstSegment, iova, phys, length, pieces } = table;
    let at = firstSegment[row]!;
    if (at < 0) this.#piece(iova[row]!, phys[row]!, length[row]!, start, end);
    let nextPhys = -1;
    for (; at >= 0; at = pieces.next[at]!) {
      const [memory, bytes] = [pieces.phys[at]!, pieces.length[at]!];
      if (end < 0 && memory === nextPhys) this.#count(start, end, table.task[row]!);
      nextPhys = memory + bytes;
      this.#piece(pieces.iova[at]!, memory, bytes, start, end);
    }
    this.#noteFirst(table, row);
  }

  #count(startNs: number, endNs: number, task: number): void {
    this.#mappings++;
    if (this.#tasks.size < MOST_TASKS || this.#tasks.has(task)) this.#tasks.set(task, (this.#tasks.get(task) ?? 0) + 1);
    if (this.#starts.length < MOST_TIMES) {
      this.#starts.push(startNs);
      this.#ends.push(endNs < 0 ? Number.POSITIVE_INFINITY : endNs);
    } else this.#isCut = true;
  }

  /** One map call. */
  #piece(iova: number, phys: number, length: number, startNs: number, endNs: number): void {
    if (phys < 0 || length < PAGE_SIZE) return;
    const leaves = this.#leaves;
    const end = iova + length;
    const lastNs = endNs < 0 ? Number.POSITIVE_INFINITY : endNs;
    if (length < LARGE || (phys - iova) % LARGE !== 0) {
      leaves["4K"] += length / PAGE_SIZE;
      this.#small.add(iova, phys, length, startNs, lastNs);
      return;
    }
    const first = Math.ceil(iova / LARGE) * LARGE;
    const last = Math.max(first, Math.floor(end / LARGE) * LARGE);
    const small = Math.min(first, end) - iova + Math.max(0, end - last);
    leaves["4K"] += small / PAGE_SIZE;
    if (first > iova) this.#small.add(iova, phys, Math.min(first, end) - iova, startNs, lastNs);
    if (end > last) this.#small.add(last, phys + last - iova, end - last, startNs, lastNs);
    const firstHuge = Math.ceil(first / HUGE) * HUGE;
    const huge = (phys - iova) % HUGE === 0 ? Math.max(0, Math.floor((last - firstHuge) / HUGE)) : 0;
    leaves["1G"] += huge;
    leaves["2M"] += (last - first - huge * HUGE) / LARGE;
  }

  /** What was added so far; undefined: nothing. */
  result(taskName: (task: number) => string): UserMappings | undefined {
    if (this.#mappings === 0 && this.#short.unmaps + this.#long.unmaps === 0) return undefined;
    const tasks = [...this.#tasks].sort((a, b) => b[1] - a[1]);
    const byName: Record<string, number> = {};
    for (const [task, mappings] of tasks) {
      const name = taskName(task);
      byName[name] = (byName[name] ?? 0) + mappings;
    }
    return {
      mappings: this.#mappings,
      peak: this.peak(),
      budget: ENTRY_BUDGET,
      tasks: byName,
      leaves: { ...this.#leaves },
      missed: { fits: this.#small.fits, misplaced: this.#small.misplaced },
      short: { ...this.#short },
      long: { ...this.#long },
      incomplete: this.#isCut || this.#small.isCut,
    };
  }

  /** The most mappings at once. Cost: sorts all of them. */
  peak(): number {
    const starts = Float64Array.from(this.#starts).sort();
    const ends = Float64Array.from(this.#ends).sort();
    let [most, ended] = [0, 0];
    for (let begun = 0; begun < starts.length; begun++) {
      while (ends[ended]! <= starts[begun]!) ended++;
      most = Math.max(most, begun + 1 - ended);
    }
    return most;
  }
}
