/**
 * The ledger: opens and closes lifetimes, and tells the watchers.
 *
 * Idea: what every kind of mapping has in common is here: the table of what is live, the history of what ended, the
 * pages of each device's address space that are taken, and the event at hand. How events become openings and
 * closings is in mappings.ts (one-shot, lists, coherent), ranges.ts (two-step) and iommu-events.ts.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { End, Unmatched, Watcher } from "../findings/rule.ts";
import { History, type Place } from "./history.ts";
import { PageSet } from "./page-set.ts";
import { LifetimeTable, REPORTED, TORN, TRANSLATED } from "./table.ts";

/** Sees every lifetime once: when it ends, or at the end of the trace. Rows are reused: copy what is kept. */
export interface LifetimeSink {
  lifetime(table: LifetimeTable, row: number): void;
}

/** The event at hand, filled by the reader of events. */
class Moment implements Place {
  timeNs = 0;
  cpu = 0;
  pid = 0;
  task = 0;
  type = 0;
  site = 0;

  /** A copy that stays. */
  copy(): Place {
    const { timeNs, cpu, pid, task, type, site } = this;
    return { timeNs, cpu, pid, task, type, site };
  }
}

/** Pages before an address that are looked at for the mapping that contains it. */
const LOOK_BACK_PAGES = 1024;

/** Pages of the largest mapping that is watched for overlaps, 4 GiB: a damaged trace may say any length. */
const MOST_PAGES = 2 ** 20;

type Hooks = { readonly [Hook in keyof Watcher]-?: NonNullable<Watcher[Hook]>[] };

export class Ledger {
  readonly table: LifetimeTable = new LifetimeTable();
  readonly history: History = new History();
  /** Translated pages by device. */
  readonly taken: PageSet = new PageSet();
  readonly now: Moment = new Moment();
  readonly hooks: Hooks = {
    opened: [],
    closed: [],
    dropped: [],
    unmatched: [],
    wrongDevice: [],
    overlapped: [],
    invalid: [],
    linking: [],
    synced: [],
    unlinking: [],
    destroying: [],
    abandoned: [],
    truncated: [],
    syncedData: [],
    iommuMapped: [],
    iommuUnmapped: [],
    tookBack: [],
    flushed: [],
    faulted: [],
    said: [],
    bounced: [],
    freed: [],
    finish: [],
  };
  /** The list of what was live at the start is there. */
  startListed = false;
  /** What page tables held at the start, for the devices that have them. */
  readonly startPages: PageSet = new PageSet();
  readonly startDevices: Set<number> = new Set();
  /** Ends of what began before the recording. */
  unknownStart = 0;
  /** Direct mappings that were live and too many to be remembered. */
  letGo = 0;
  /** Mappings begun so far. */
  begun = 0;
  /** Events were lost up to this time; -1: none. */
  lossNs = -1;
  readonly #sink: LifetimeSink | undefined;
  /** The end at hand, reused. */
  readonly #end = { kind: 0, device: 0, iova: 0, length: -1, direction: -1 };

  constructor(sink: LifetimeSink | undefined) {
    this.#sink = sink;
  }

  watch(watcher: Watcher): void {
    for (const [name, list] of Object.entries(this.hooks) as [keyof Watcher, unknown[]][]) {
      const hook = watcher[name] as ((...args: never[]) => void) | undefined;
      if (hook) list.push(hook.bind(watcher));
    }
  }

  end(kind: number, device: number, iova: number, length: number, direction: number): End {
    const end = this.#end;
    end.kind = kind;
    end.device = device;
    end.iova = iova;
    end.length = length;
    end.direction = direction;
    return end;
  }

  /** A row for a mapping that begins by the event at hand. The caller then fills in the rest and calls {@link opened}. */
  begin(kind: number, device: number, iova: number, length: number, direction: number, handle = -1): number {
    const { table, now } = this;
    const row = table.take(device, iova, handle);
    table.kind[row] = kind;
    table.direction[row] = direction;
    table.translated[row] = 0;
    table.flags[row] = 0;
    table.length[row] = length;
    table.reserved[row] = length;
    table.phys[row] = -1;
    table.startNs[row] = now.timeNs;
    table.endNs[row] = -1;
    table.cpu[row] = now.cpu;
    table.pid[row] = now.pid;
    table.task[row] = now.task;
    table.type[row] = now.type;
    table.site[row] = now.site;
    table.segments[row] = 1;
    table.repeats[row] = 1;
    table.id[row] = this.begun++;
    table.unsynced[row] = 0;
    table.linkedEnd[row] = 0;
    return row;
  }

  /** Says that `row` is complete; where its pages are taken by another live mapping of the device, says that first. */
  opened(row: number): void {
    const { table, hooks } = this;
    if (table.translated[row] === TRANSLATED) {
      const device = table.device[row]!;
      const page = Math.floor(table.iova[row]! / PAGE_SIZE);
      const pages = pagesOf(table.iova[row]!, table.reserved[row]!);
      if (pages <= MOST_PAGES) {
        if (this.taken.overlaps(device, page, pages)) this.#overlap(row, page, pages);
        this.taken.add(device, page, pages);
      }
    }
    for (const hook of hooks.opened) hook(row);
  }

  /** Ends `row` by the event at hand and gives it back. */
  close(row: number, end: End): void {
    const { table, now } = this;
    table.endNs[row] = now.timeNs;
    for (const hook of this.hooks.closed) hook(row, end);
    this.history.ended(table.device[row]!, table.iova[row]!, table.length[row]!, this.startOf(row), now);
    this.#release(row);
  }

  /** Takes `row` out without an end of its own. */
  drop(row: number): void {
    for (const hook of this.hooks.dropped) hook(row);
    this.#release(row);
  }

  #release(row: number): void {
    const { table } = this;
    this.untake(row);
    this.#sink?.lifetime(table, row);
    table.release(row);
  }

  /** Shows `row` to the sink as it is, although it stays. */
  show(row: number): void {
    this.#sink?.lifetime(this.table, row);
  }

  /** Its pages are free for another mapping. */
  untake(row: number): void {
    const { table } = this;
    if (table.translated[row] !== TRANSLATED || (table.flags[row]! & TORN) !== 0) return;
    const pages = pagesOf(table.iova[row]!, table.reserved[row]!);
    if (pages <= MOST_PAGES) this.taken.remove(table.device[row]!, Math.floor(table.iova[row]! / PAGE_SIZE), pages);
  }

  /** Takes back what {@link untake} freed: they were not its pages. */
  retake(row: number): void {
    const { table } = this;
    const pages = pagesOf(table.iova[row]!, table.reserved[row]!);
    if (pages <= MOST_PAGES) this.taken.add(table.device[row]!, Math.floor(table.iova[row]! / PAGE_SIZE), pages);
  }

  startOf(row: number): Place | undefined {
    const { table } = this;
    if (table.startNs[row]! < 0) return undefined;
    return {
      timeNs: table.startNs[row]!,
      cpu: table.cpu[row]!,
      pid: table.pid[row]!,
      task: table.task[row]!,
      type: table.type[row]!,
      site: table.site[row]!,
    };
  }

  unmatched(end: End, reason: Unmatched): void {
    if (reason.why === "unknown-start") this.unknownStart++;
    for (const hook of this.hooks.unmatched) hook(end, reason);
  }

  /** The live mapping of `device` that contains `address`, which is not where it begins; -1: none. */
  containing(device: number, address: number): number {
    const { table } = this;
    const page = Math.floor(address / PAGE_SIZE);
    for (let at = page; at >= 0 && at > page - LOOK_BACK_PAGES; at--)
      for (let row = table.firstAt(at); row >= 0; row = table.nextAt(row, at)) {
        const start = table.iova[row]!;
        if (table.device[row] === device && start < address && address < start + table.reserved[row]!) return row;
      }
    return -1;
  }

  isDoubtful(timeNs: number): boolean {
    return timeNs <= this.lossNs;
  }

  #overlap(row: number, page: number, pages: number): void {
    const { table } = this;
    const device = table.device[row]!;
    const found: number[] = [];
    for (let at = page + pages - 1; at > page - LOOK_BACK_PAGES && at >= 0; at--)
      for (let older = table.firstAt(at); older >= 0; older = table.nextAt(older, at)) {
        if (older === row || table.device[older] !== device || table.translated[older] !== TRANSLATED) continue;
        if ((table.flags[older]! & TORN) !== 0) continue;
        const pageEnd = Math.ceil((table.iova[older]! + table.reserved[older]!) / PAGE_SIZE);
        if (pageEnd > page) found.push(older);
      }
    for (const older of found) {
      if (this.isDoubtful(table.startNs[older]!)) {
        this.drop(older); // its end was lost
        continue;
      }
      if ((table.flags[older]! & REPORTED) !== 0) continue;
      for (const hook of this.hooks.overlapped) hook(row, older);
      table.flags[older] = table.flags[older]! | REPORTED;
    }
  }
}

/** Pages that [address, address + length) touches; at least one. */
export const pagesOf = (address: number, length: number): number =>
  Math.max(1, Math.ceil((address + length) / PAGE_SIZE) - Math.floor(address / PAGE_SIZE));
