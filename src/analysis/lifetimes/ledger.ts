/**
 * The ledger: opens and closes lifetimes, counts them, and tells who watches.
 *
 * Idea: what every kind of mapping has in common is here: the table of what is live, the history of what ended, the
 * pages of each device's address space that are taken, and the event at hand. How events become openings and
 * closings is in one-shot.ts, lists.ts, ranges.ts (two-step) and iommu-matcher.ts.
 * Promises: every mapping that was seen to begin is shown to the sink once, when it ends or when the trace does, and the
 * counts are counts of what was shown: whoever adds them up gets the same.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { HeldPages } from "./held-pages.ts";
import { History, type Place } from "./history.ts";
import { type LifetimeSink, noCounts } from "./lifetime-counts.ts";
import { Moment } from "./moment.ts";
import { PageSet } from "./page-set.ts";
import { QueueLinks, RowQueue } from "./row-queue.ts";
import {
  APART,
  CONTESTED,
  DIRECT,
  END_NOT_RECORDED,
  FROM_BEFORE,
  LifetimeTable,
  PAGES_GONE,
  REPORTED,
  TRANSLATED,
} from "./table.ts";
import type { End, Unmatched, Watcher } from "./watcher.ts";

/** Pages before an address that are looked at for the mapping that contains it. */
const LOOK_BACK_PAGES = 1024;

/** Older mappings at one place, beyond which those that a finding was made of are forgotten. */
const MOST_OVERLAPPED = 8;

/** Direct mappings that are remembered, and others: what nobody ends would pile up. The oldest is forgotten, live as it is. */
const MOST_DIRECT = 2 ** 18;
const MOST_OTHERS = 2 ** 19;
/** Mappings whose pages are gone that wait for the event that names them; it comes at once, or never. */
const MOST_GONE = 2 ** 14;

type Hooks = { readonly [Hook in keyof Watcher]-?: NonNullable<Watcher[Hook]>[] };

export class Ledger {
  readonly table: LifetimeTable = new LifetimeTable();
  readonly history: History = new History();
  /** Which pages of the devices' address spaces are held. */
  readonly held: HeldPages = new HeldPages(this.table);
  readonly now: Moment = new Moment();
  readonly hooks: Hooks = {
    opened: [],
    closed: [],
    dropped: [],
    unmatched: [],
    wrongDevice: [],
    overlapped: [],
    failed: [],
    failedUsed: [],
    linking: [],
    synced: [],
    unlinking: [],
    destroying: [],
    abandoned: [],
    truncated: [],
    syncedData: [],
    syncMissed: [],
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
  /** Mappings that were live and too many to be remembered. */
  evicted = 0;
  /** Events were lost up to this time; -1: none. */
  lossNs = -1;
  /** Which mappings are counted and shown; all are followed. `undefined`: all. */
  selects: ((device: number, task: number, pid: number, cpu: number) => boolean) | undefined;
  /** Ends of what began before the recording, selected or not. */
  unknownStarts = 0;
  /** Live ones are counted when the trace ends. */
  readonly counts: ReturnType<typeof noCounts> = noCounts();
  readonly #sinks: readonly LifetimeSink[];
  readonly #links = new QueueLinks();
  readonly #directs = new RowQueue(this.#links);
  readonly #others = new RowQueue(this.#links);
  readonly #gone = new RowQueue(this.#links);
  /** Beginnings and ends so far. */
  #steps = 0;
  /** The end at hand, reused. */
  readonly #end = { kind: 0, device: 0, iova: 0, length: -1, direction: -1, entries: -1 };

  constructor(sinks: readonly LifetimeSink[] = []) {
    this.#sinks = sinks;
  }

  watch(watcher: Watcher): void {
    for (const [name, list] of Object.entries(this.hooks) as [keyof Watcher, unknown[]][]) {
      const hook = watcher[name] as ((...args: never[]) => void) | undefined;
      if (hook) list.push(hook.bind(watcher));
    }
  }

  end(kind: number, device: number, iova: number, length: number, direction: number, entries = -1): End {
    const end = this.#end;
    end.kind = kind;
    end.device = device;
    end.iova = iova;
    end.length = length;
    end.direction = direction;
    end.entries = entries;
    return end;
  }

  /** A place in the order of beginnings and ends, later than all before. */
  step(): number {
    return this.#steps++;
  }

  /** A row for a mapping that begins by the event at hand. The caller then fills in the rest and calls {@link opened}. */
  begin(kind: number, device: number, iova: number, length: number, direction: number, handle = -1): number {
    const { table, now } = this;
    const row = table.take();
    if (row >= this.#links.younger.length) this.#links.grow(table.capacity);
    table.kind[row] = kind;
    table.device[row] = device;
    table.direction[row] = direction;
    table.reached[row] = DIRECT;
    table.iova[row] = iova;
    table.length[row] = length;
    table.reserved[row] = length;
    table.phys[row] = -1;
    table.page[row] = 0;
    table.pages[row] = 0;
    table.startNs[row] = now.timeNs;
    table.endNs[row] = -1;
    table.cpu[row] = now.cpu;
    table.pid[row] = now.pid;
    table.task[row] = now.task;
    table.type[row] = now.type;
    table.site[row] = now.site;
    table.segments[row] = 1;
    table.entries[row] = 0;
    table.overlaps[row] = 0;
    table.id[row] = this.#steps++;
    table.endOrder[row] = -1;
    table.handle[row] = handle;
    table.linked[row] = 0;
    table.unsynced[row] = 0;
    table.linkedEnd[row] = 0;
    return row;
  }

  /**
   * Says that `row` is complete: it can be found, it is counted, and whoever watches is told; first, where its pages are those of
   * another live mapping of the device, of that.
   */
  opened(row: number): void {
    const { table } = this;
    this.enter(row);
    if ((table.flags[row]! & FROM_BEFORE) === 0 && this.#isSelected(row)) this.counts.mappings++;
    if (table.reached[row] === TRANSLATED) this.held.take(row, this.#overlap);
    for (const hook of this.hooks.opened) hook(row);
  }

  /** Makes `row` findable, without saying that it began: it was there before. */
  enter(row: number): void {
    const { table } = this;
    table.enter(row);
    const queue = this.#queueOf(row);
    queue.push(row);
    if (queue.length <= (queue === this.#directs ? MOST_DIRECT : MOST_OTHERS)) return;
    this.evicted++;
    this.drop(queue.oldest);
  }

  /** Ends `row` by the event at hand and gives it back. */
  close(row: number, end: End): void {
    const { table, now } = this;
    table.endNs[row] = now.timeNs;
    table.endOrder[row] = this.#steps++;
    for (const hook of this.hooks.closed) hook(row, end);
    this.history.endedRow(table, row, now);
    this.#release(row);
  }

  /**
   * Ends `row` without the event that names it: its pages were taken back before (then it ended when they were), or the event at
   * hand shows that it has ended.
   */
  closeUnnamed(row: number): void {
    const { table, now } = this;
    if (table.endNs[row]! < 0) {
      table.endNs[row] = now.timeNs;
      table.endOrder[row] = this.#steps++;
    }
    table.flags[row] = table.flags[row]! | END_NOT_RECORDED;
    for (const hook of this.hooks.dropped) hook(row);
    this.#release(row);
  }

  /** Takes `row` out, live or ended as it is: nothing more will be known of it. */
  drop(row: number): void {
    for (const hook of this.hooks.dropped) hook(row);
    this.#release(row);
  }

  #release(row: number): void {
    const { table } = this;
    if (table.reached[row] === TRANSLATED && (table.flags[row]! & PAGES_GONE) === 0) this.held.free(row);
    this.#queueOf(row).remove(row);
    this.#show(row);
    table.release(row);
  }

  /** Counts `row` as it is now, and shows it to the sinks. */
  #show(row: number): void {
    if (!this.#isSelected(row)) return;
    const { table, counts } = this;
    if (table.endNs[row]! < 0) counts.liveAtEnd++;
    else if ((table.flags[row]! & END_NOT_RECORDED) !== 0) counts.endNotRecorded++;
    for (const sink of this.#sinks) sink.lifetime(table, row);
  }

  /** Somebody wants to see every mapping. */
  get isShown(): boolean {
    return this.#sinks.length > 0 || this.selects !== undefined;
  }

  #isSelected(row: number): boolean {
    const { table, selects } = this;
    return !selects || selects(table.device[row]!, table.task[row]!, table.pid[row]!, table.cpu[row]!);
  }

  /** Shows a row that {@link begin} gave and nobody was told of: a mapping without a device, known only now that it has ended. */
  showUnattributed(row: number): void {
    const { table } = this;
    if (this.#isSelected(row)) {
      this.countUnattributed(table.endNs[row]! < 0);
      for (const sink of this.#sinks) sink.lifetime(table, row);
    }
    table.release(row);
  }

  /** Counts a mapping without a device. */
  countUnattributed(isLive: boolean): void {
    this.counts.mappings++;
    this.counts.ambiguous++;
    if (isLive) this.counts.liveAtEnd++;
  }

  /** The trace has ended: what is left is shown as it is, live, or ended without a name. It stays in the table. */
  finish(): void {
    const { table } = this;
    for (let row = 0; row < table.used; row++) {
      if (!table.isLive(row)) continue;
      if ((table.flags[row]! & PAGES_GONE) !== 0) table.flags[row] = table.flags[row]! | END_NOT_RECORDED;
      this.#show(row);
    }
  }

  /** An `iommu:unmap` took the pages of `row`: they are free for another mapping. Who says so by name is still to come. */
  pagesGone(row: number): void {
    const { table } = this;
    this.held.free(row);
    this.#others.remove(row);
    table.flags[row] = table.flags[row]! | PAGES_GONE;
    table.endNs[row] = this.now.timeNs; // unless an event says more: the device cannot reach it any more
    table.endOrder[row] = this.#steps++;
    this.#gone.push(row);
    if (this.#gone.length > MOST_GONE) this.closeUnnamed(this.#gone.oldest);
  }

  /** Takes the pages again that {@link pagesGone} gave away: it was another mapping's unmap. */
  restorePages(row: number): void {
    const { table } = this;
    this.#gone.remove(row);
    table.flags[row] = table.flags[row]! & ~(PAGES_GONE | CONTESTED);
    table.endNs[row] = -1;
    table.endOrder[row] = -1;
    this.#others.push(row);
    this.held.take(row);
  }

  /** Calls `visit` with each run of pages that `row` holds of its device's address space. */
  eachExtent(row: number, visit: (page: number, pages: number) => void): void {
    this.held.eachExtent(row, visit);
  }

  /** The first page of 4 KiB of the granule that `address` lies in. */
  firstPage(address: number): number {
    return this.held.firstPage(address);
  }

  /** Pages of 4 KiB that the granules of [address, address + length) have; at least one granule. */
  pagesOf(address: number, length: number): number {
    return this.held.pagesOf(address, length);
  }

  /** Where `row` began; `undefined`: before the recording. */
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

  /** Counts an end, by the event at hand, of what began before the recording. */
  countUnknownStart(device: number): void {
    const { now, selects } = this;
    this.unknownStarts++;
    if (!selects || selects(device, now.task, now.pid, now.cpu)) this.counts.unknownStart++;
  }

  unmatched(end: End, reason: Unmatched): void {
    if (reason.why === "unknown-start") this.countUnknownStart(end.device);
    for (const hook of this.hooks.unmatched) hook(end, reason);
  }

  /** The live mapping of `device` that contains `address`, which is not where it begins; -1: none. Direct ones are not looked at. */
  containing(device: number, address: number): number {
    const { table } = this;
    const place = Math.floor(address / table.granule);
    for (let at = place; at >= 0 && at > place - LOOK_BACK_PAGES; at--)
      for (let row = table.firstNear(at * table.granule); row >= 0; row = table.nextNear(row)) {
        if (table.device[row] !== device || (table.flags[row]! & APART) !== 0) continue;
        const start = table.iova[row]!;
        if (start < address && address < start + table.reserved[row]!) return row;
      }
    return -1;
  }

  isDoubtful(timeNs: number): boolean {
    return timeNs <= this.lossNs;
  }

  #queueOf(row: number): RowQueue {
    if (this.table.reached[row] === DIRECT) return this.#directs;
    return (this.table.flags[row]! & PAGES_GONE) === 0 ? this.#others : this.#gone;
  }

  /** [page, page + pages), which `row` is about to take, is not all free: says of which mappings. */
  readonly #overlap = (row: number, page: number, pages: number): void => {
    const { table } = this;
    const device = table.device[row]!;
    const step = table.granule / PAGE_SIZE;
    const found: number[] = [];
    for (let at = page + pages - step; at > page - LOOK_BACK_PAGES && at >= 0; at -= step)
      for (let older = table.firstNear(at * PAGE_SIZE); older >= 0; older = table.nextNear(older)) {
        if (older === row || table.device[older] !== device || table.reached[older] !== TRANSLATED) continue;
        if ((table.flags[older]! & PAGES_GONE) !== 0) continue;
        if (table.page[older]! + table.pages[older]! > page) found.push(older);
      }
    for (const older of found) {
      if (this.isDoubtful(table.startNs[older]!)) {
        this.closeUnnamed(older); // its end was lost
        continue;
      }
      if ((table.flags[older]! & REPORTED) !== 0) {
        if (found.length > MOST_OVERLAPPED) this.drop(older);
        continue;
      }
      for (const hook of this.hooks.overlapped) hook(row, older);
      table.flags[older] = table.flags[older]! | REPORTED;
    }
  };
}
