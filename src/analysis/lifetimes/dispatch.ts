/**
 * From the columns of a trace to the life of mappings: passes each event of a known meaning to the module that follows its
 * kind.
 *
 * Idea: what an event means, and in which field it says what, is worked out once per event type; then every event is a few
 * reads from the batch's words. Events beside lost-event marks are followed too; the ledger notes which conclusions such a
 * loss makes doubtful.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { type EventBatch, known, NOTHING_DONE, type Trace } from "../../trace/index.ts";
import { CallSites } from "./call-sites.ts";
import {
  addressAt,
  type EventPlan,
  isOfDeviceMemory,
  items,
  planOf,
  read,
  readIfThere,
  stateAt,
} from "./event-plan.ts";
import { IommuMatcher } from "./iommu-matcher.ts";
import type { Ledger } from "./ledger.ts";
import { type ListEvent, Lists } from "./lists.ts";
import { OneShot } from "./one-shot.ts";
import { Ranges } from "./ranges.ts";
import { UnmatchedEnds } from "./unmatched-ends.ts";

/** Buffers of several CPUs that are printed as they come are this much out of order, and not more. */
const DISORDER_NS = 1_000_000;

/** Index into the table's devices, by string. */
const UNKNOWN = -1;

export class Dispatch {
  readonly iommu: IommuMatcher;
  readonly oneShot: OneShot;
  readonly lists: Lists;
  readonly ranges: Ranges;
  readonly ends: UnmatchedEnds;
  /** Who called, by number. */
  readonly sites: CallSites = new CallSites();
  /** Time of the last event of every CPU, by which a file that is cut is judged. */
  readonly lastOfCpu: number[] = [];
  firstNs = -1;
  lastNs = 0;
  eventTotal = 0;
  /** Events by type. */
  readonly typeCounts: number[] = [];
  lostMarks = 0;
  /** Events whose time lies more than a moment before that of one before them in the file. */
  wentBack = 0;
  /** Called when events before now were lost on the CPU at hand, since `sinceNs`. */
  onLoss: ((sinceNs: number) => void) | undefined;
  readonly #ledger: Ledger;
  readonly #trace: Trace;
  readonly #plans: EventPlan[] = [];
  #latestNs = -1;
  #deviceOf = new Int32Array(256).fill(UNKNOWN);

  constructor(ledger: Ledger, trace: Trace) {
    this.#ledger = ledger;
    this.#trace = trace;
    this.ends = new UnmatchedEnds(ledger);
    this.iommu = new IommuMatcher(ledger);
    this.oneShot = new OneShot(ledger, this.iommu, this.ends);
    this.lists = new Lists(ledger, this.iommu, this.ends);
    this.ranges = new Ranges(ledger, this.iommu, this.ends);
  }

  /** `dma:*` events are recorded, as far as the trace says. */
  get namesAllocations(): boolean {
    return this.#trace.types.some((type) => known(type)?.meaning.startsWith("dma-"));
  }

  batch(batch: EventBatch): void {
    const { now } = this.#ledger;
    const { count, type, cpu, pid, task, chain, timeNs } = batch;
    const plans = this.#plans;
    const { typeCounts } = this;
    if (count > 0 && this.firstNs < 0) this.firstNs = timeNs[0]!;
    this.eventTotal += count;
    for (let row = 0; row < count; row++) {
      const at = timeNs[row]!;
      if (at > this.#latestNs) this.#latestNs = at;
      else if (at < this.#latestNs - DISORDER_NS) this.#back(at);
      else if (at < this.firstNs) this.firstNs = at;
      const typeId = type[row]!;
      const plan = plans[typeId] ?? this.#plan(typeId);
      typeCounts[typeId]!++;
      const onCpu = cpu[row]!;
      if (plan.what !== undefined) {
        now.timeNs = timeNs[row]!;
        now.cpu = onCpu;
        now.pid = pid[row]!;
        now.task = task[row]!;
        now.type = typeId;
        now.isOfDeviceMemory = isOfDeviceMemory(plan, batch, row);
        now.site = chain[row] === 0 && plan.site < 0 ? 0 : this.#site(plan, batch, row);
        this.#event(plan, batch, row);
      }
      this.lastOfCpu[onCpu] = timeNs[row]!;
    }
    if (count > 0) this.lastNs = Math.max(this.lastNs, this.#latestNs);
  }

  /** Another recording in the same file, or lines in another order: what rests on their order proves nothing. */
  #back(timeNs: number): void {
    this.wentBack++;
    if (timeNs < this.firstNs) this.firstNs = timeNs;
    this.#ledger.lossNs = Math.max(this.#ledger.lossNs, this.#latestNs);
  }

  /** Nanoseconds from the earliest event to the latest, in whatever order they came. */
  get durationNs(): number {
    return this.eventTotal > 0 ? this.lastNs - this.firstNs : 0;
  }

  /** The device's index in the table. */
  device(name: string): number {
    const { devices } = this.#ledger.table;
    const index = devices.indexOf(name);
    return index >= 0 ? index : devices.length < 0xfffe ? devices.push(name) - 1 : 0xfffe;
  }

  #event(plan: EventPlan, batch: EventBatch, row: number): void {
    const { oneShot, ranges, iommu } = this;
    switch (plan.what) {
      case "iommu-map": {
        const link = iommu.map(read(batch, row, plan.iova), read(batch, row, plan.size), read(batch, row, plan.phys));
        if (link) ranges.linkMapped(link);
        return;
      }
      case "iommu-unmap": {
        const asked = read(batch, row, plan.size);
        iommu.unmap(read(batch, row, plan.iova), asked, plan.unmapped < 0 ? asked : read(batch, row, plan.unmapped));
        return;
      }
      case "dma-map":
        if (this.#hasFailed(plan, batch, row)) return;
        oneShot.map(
          this.#deviceAt(plan, batch, row),
          addressAt(batch, row, plan.address),
          read(batch, row, plan.size),
          read(batch, row, plan.phys),
          readIfThere(batch, row, plan.direction),
        );
        return;
      case "dma-unmap":
        oneShot.unmap(
          this.#deviceAt(plan, batch, row),
          addressAt(batch, row, plan.address),
          readIfThere(batch, row, plan.size),
          readIfThere(batch, row, plan.direction),
        );
        return;
      case "dma-alloc":
        if (this.#hasFailed(plan, batch, row)) return;
        oneShot.alloc(
          this.#deviceAt(plan, batch, row),
          addressAt(batch, row, plan.address),
          read(batch, row, plan.size),
          readIfThere(batch, row, plan.direction),
        );
        return;
      case "dma-free":
        if (plan.outcome(batch, row) === NOTHING_DONE) return;
        oneShot.free(
          this.#deviceAt(plan, batch, row),
          addressAt(batch, row, plan.address),
          readIfThere(batch, row, plan.size),
          readIfThere(batch, row, plan.direction),
        );
        return;
      case "range-link":
        ranges.link(
          this.#deviceAt(plan, batch, row),
          stateAt(batch, row, plan.state),
          read(batch, row, plan.address),
          read(batch, row, plan.offset),
          read(batch, row, plan.size),
          read(batch, row, plan.phys),
          readIfThere(batch, row, plan.direction),
        );
        return;
      default:
        this.#rarer(plan, batch, row);
    }
  }

  #rarer(plan: EventPlan, batch: EventBatch, row: number): void {
    const { oneShot, lists, ranges } = this;
    const { hooks, now } = this.#ledger;
    const device = (): number => this.#deviceAt(plan, batch, row);
    const state = (): number => stateAt(batch, row, plan.state);
    switch (plan.what) {
      case "range-reserve":
        if (read(batch, row, plan.field("ok")) !== 0)
          ranges.reserve(device(), state(), read(batch, row, plan.address), read(batch, row, plan.size));
        return;
      case "range-sync":
        ranges.sync(device(), state(), read(batch, row, plan.offset), read(batch, row, plan.size));
        return;
      case "range-unlink":
        ranges.unlink(device(), state(), read(batch, row, plan.offset), read(batch, row, plan.size));
        return;
      case "range-free":
        ranges.destroy(device(), state(), read(batch, row, plan.address), 0, -1);
        return;
      case "range-destroy":
        ranges.destroy(
          device(),
          state(),
          read(batch, row, plan.address),
          read(batch, row, plan.size),
          readIfThere(batch, row, plan.direction),
        );
        return;
      case "dma-map-list":
        lists.map(device(), readIfThere(batch, row, plan.direction), listOf(plan, batch, row));
        return;
      case "dma-unmap-list":
        lists.unmap(device(), readIfThere(batch, row, plan.direction), items(batch, row, plan.field("physAddrs")));
        return;
      case "dma-sync":
        if (plan.address >= 0)
          oneShot.sync(
            device(),
            addressAt(batch, row, plan.address),
            read(batch, row, plan.size),
            readIfThere(batch, row, plan.direction),
          );
        else lists.sync(device(), readIfThere(batch, row, plan.direction), listOf(plan, batch, row));
        return;
      case "dma-failed":
        this.#hasFailed(plan, batch, row);
        return;
      case "iommu-fault": {
        const at = device();
        for (const hook of hooks.faulted) hook(at, read(batch, row, plan.iova));
        return;
      }
      case "bounced": {
        const at = device();
        const mask = read(batch, row, plan.named("dma_mask"));
        const forced = read(batch, row, plan.named("force")) !== 0;
        for (const hook of hooks.bounced)
          hook(at, mask, read(batch, row, plan.address), read(batch, row, plan.size), forced);
        return;
      }
      case "flush":
        this.#flush(plan, batch, row);
        return;
      case "freed": {
        const page = read(batch, row, plan.named("pfn"));
        for (const hook of hooks.freed) hook(page, 2 ** read(batch, row, plan.named("order")));
        return;
      }
      case "lost": {
        this.lostMarks++;
        const since = this.lastOfCpu[now.cpu] ?? this.firstNs;
        this.#ledger.lossNs = Math.max(this.#ledger.lossNs, now.timeNs);
        this.onLoss?.(since);
        return;
      }
      default:
    }
  }

  /** Says so if the call that the event reports has failed. */
  #hasFailed(plan: EventPlan, batch: EventBatch, row: number): boolean {
    const outcome = plan.outcome(batch, row);
    if (outcome >= 0) return false;
    const isAllocation = plan.what === "dma-alloc" || plan.type.name.startsWith("dma_alloc");
    this.oneShot.failed(this.#deviceAt(plan, batch, row), readIfThere(batch, row, plan.size), outcome, isAllocation);
    return true;
  }

  #flush(plan: EventPlan, batch: EventBatch, row: number): void {
    const { hooks } = this.#ledger;
    let [from, to] = [0, Number.POSITIVE_INFINITY];
    const [start, end, text] = [plan.named("start"), plan.named("end"), plan.named("text")];
    if (start >= 0 && end >= 0) {
      from = read(batch, row, start);
      to = read(batch, row, end);
    } else if (plan.iova >= 0 && plan.size >= 0) {
      from = read(batch, row, plan.iova);
      to = from + read(batch, row, plan.size) - 1;
    } else if (text >= 0) {
      // Printed: "… [0x0-0xffffffffffffffff] addr …"
      const range = /\[0x([0-9a-f]+)-0x([0-9a-f]+)\]/.exec(
        this.#trace.strings[batch.words[batch.start[row]! + text * 2]!] ?? "",
      );
      if (range) [from, to] = [Number.parseInt(range[1]!, 16), Number.parseInt(range[2]!, 16)];
    }
    for (const hook of hooks.flushed) hook(Math.floor(from / PAGE_SIZE), Math.floor(to / PAGE_SIZE) + 1);
  }

  #deviceAt(plan: EventPlan, batch: EventBatch, row: number): number {
    if (plan.device < 0) return 0xffff;
    const text = batch.words[batch.start[row]! + plan.device * 2]!;
    const index = text < this.#deviceOf.length ? this.#deviceOf[text]! : UNKNOWN;
    return index >= 0 ? index : this.#newDevice(text);
  }

  #newDevice(text: number): number {
    if (text >= this.#deviceOf.length) {
      const wider = new Int32Array(2 ** Math.ceil(Math.log2(text + 1))).fill(UNKNOWN);
      wider.set(this.#deviceOf);
      this.#deviceOf = wider;
    }
    const index = this.device(this.#trace.strings[text] ?? "");
    this.#deviceOf[text] = index;
    return index;
  }

  #site(plan: EventPlan, batch: EventBatch, row: number): number {
    const chain = batch.chain[row]!;
    if (chain !== 0) return this.sites.ofChain(chain, this.#trace.chains[chain]!);
    const at = batch.start[row]! + plan.site * 2;
    const [low, high] = [batch.words[at]!, batch.words[at + 1]!];
    if (plan.siteIsText) return this.sites.named(this.#trace.strings[low] ?? "");
    if (high === 0 && low === 0) return 0;
    return this.sites.named(
      `0x${(high === 0 ? "" : high.toString(16)) + low.toString(16).padStart(high === 0 ? 0 : 8, "0")}`,
    );
  }

  #plan(typeId: number): EventPlan {
    const plan = planOf(this.#trace.types[typeId]!, this.#trace.longBytes);
    this.#plans[typeId] = plan;
    while (this.typeCounts.length <= typeId) this.typeCounts.push(0);
    return plan;
  }
}

function listOf(plan: EventPlan, batch: EventBatch, row: number): ListEvent {
  const phys = items(batch, row, plan.field("physAddrs"));
  const iovas = items(batch, row, plan.field("dmaAddrs"));
  const lengths = items(batch, row, plan.field("lengths"));
  const [given, made] = [plan.named("full_nents"), plan.named("full_ents")];
  return {
    phys,
    iovas,
    lengths,
    given: given >= 0 ? read(batch, row, given) : phys.length,
    made: made >= 0 ? read(batch, row, made) : iovas.length,
  };
}
