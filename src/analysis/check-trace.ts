/**
 * Checks a trace: follows every mapping from beginning to end, and asks every rule what it thinks of it.
 *
 * Promises: nothing is guessed. What began before the recording is judged only if the start state is given; what rests on
 * an event that is not there is not an error where events were lost or the file is cut. Memory follows what is live at
 * once, not the length of the trace.
 * Specified by: the grammar of the kernel's events, and the rules (findings/rules.ts).
 */

import type { EventBatch, KernelFact, Trace } from "../trace/index.ts";
import { type KernelSummary, KernelTold } from "./faults/kernel-told.ts";
import type { KernelLog } from "./faults/log-beside.ts";
import { RecordedAddresses } from "./faults/recorded-addresses.ts";
import type { Told } from "./faults/told.ts";
import { type Evidence, type Finding, SEVERITIES } from "./findings/finding.ts";
import type { Draft, Rule, Scene } from "./findings/rule.ts";
import { RULES } from "./findings/rules.ts";
import { Feed } from "./lifetimes/feed.ts";
import type { Place } from "./lifetimes/history.ts";
import { Ledger, type LifetimeSink } from "./lifetimes/ledger.ts";
import { Overdue } from "./lifetimes/overdue.ts";
import { NO_DEVICE, TORN } from "./lifetimes/table.ts";
import type { EventVisitor } from "./read-requests.ts";
import type { StartState } from "./start-state.ts";

export interface CheckOptions {
  /** Names of the rules to ask; default all. */
  readonly rules?: readonly string[];
  /** Findings of these devices only. */
  readonly devices?: readonly string[];
  /** What was mapped when the recording began. */
  readonly start?: StartState;
  /** Sees every lifetime. */
  readonly sink?: LifetimeSink;
  /** Sees every event, before it is judged. */
  readonly visit?: EventVisitor;
  /** Findings kept per rule; all are counted. Default {@link FINDINGS_PER_RULE}. */
  readonly findingsPerRule?: number;
  /** The kernel's log of the same machine. */
  readonly kernelLog?: KernelLog;
  /** Nanoseconds to add to that log's times to get the trace's; without it, found from lines that are in both. */
  readonly kernelLogOffsetNs?: number;
  /** Address bits that devices really drive, by name: mappings beyond are found before they fault. */
  readonly deviceBits?: ReadonlyMap<string, number>;
  /** Called with the number of events so far, once a batch. */
  readonly progress?: (events: number) => void;
}

export const FINDINGS_PER_RULE = 1000;

export interface CheckResult {
  /** Findings per rule, also those that were not kept; rules without any are not in it. */
  readonly summary: Readonly<Record<string, number>>;
  /** Errors first, then by time. */
  readonly findings: readonly Finding[];
  /** Mappings that no event names a device for. */
  readonly ambiguous: number;
  /** Of those, maps over an address that was live: another domain's, or one whose unmap is missing. */
  readonly mapsOverLive: number;
  /** Ends of mappings that began before the recording, or may have. */
  readonly unknownStart: number;
  readonly eventTotal: number;
  /** Events that were lost; -1: an unknown number. */
  readonly lost: number;
  readonly durationNs: number;
  /** Mappings that were seen to begin. */
  readonly mappings: number;
  readonly liveAtEnd: number;
  /** An `iommu:unmap` took their pages back, and the call of the DMA API that ended them is not in the recording: not live. */
  readonly endUnsaid: number;
  /** Devices that events named; those of the kernel's lines are in `kernel`. */
  readonly devices: readonly string[];
  /** What the kernel said in the recording, and in the log beside it. */
  readonly kernel: KernelSummary;
}

/**
 * Reads all of `trace` and judges it. Cost: well under a microsecond an event.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function checkTrace(trace: Trace, options: CheckOptions = {}): Promise<CheckResult> {
  const check = new Check(trace, options);
  for await (const batch of trace.batches()) {
    if (options.visit) for (let row = 0; row < batch.count; row++) options.visit(batch, row);
    check.batch(batch);
    options.progress?.(check.feed.eventTotal);
  }
  return check.finish();
}

class Check {
  readonly feed: Feed;
  readonly #ledger: Ledger;
  readonly #trace: Trace;
  readonly #options: CheckOptions;
  readonly #kept = new Map<string, (Finding & { readonly selfEvident: boolean })[]>();
  readonly #counts = new Map<string, number>();
  readonly #overdue: Overdue;
  readonly #addresses: RecordedAddresses;
  readonly #kernel: KernelTold;

  constructor(trace: Trace, options: CheckOptions) {
    this.#trace = trace;
    this.#options = options;
    this.#ledger = new Ledger({
      lifetime: (table, row) => {
        this.#addresses.lifetime(table, row);
        options.sink?.lifetime(table, row);
      },
    });
    this.#addresses = new RecordedAddresses(
      this.#ledger.table,
      this.#ledger.now,
      this.#ledger.history,
      () => this.feed.iommu.pieces,
    );
    this.#kernel = new KernelTold(trace, options.kernelLog, options.kernelLogOffsetNs, (fact) => this.#said(fact));
    this.feed = new Feed(this.#ledger, trace);
    this.feed.iommu.onPieceEnded = (piece) => this.#addresses.pieceEnded(piece);
    this.#overdue = new Overdue(this.#ledger.table);
    this.#ledger.watch(this.#overdue);
    this.feed.onLoss = (sinceNs) => this.#retract(sinceNs);
    for (const rule of RULES)
      if (!options.rules || options.rules.includes(rule.name)) this.#ledger.watch(rule.watch(this.#sceneOf(rule)));
    if (options.start) options.start.seed(this.feed, this.#ledger);
  }

  batch(batch: EventBatch): void {
    this.feed.batch(batch);
    this.#kernel.batch(batch);
  }

  #said(fact: KernelFact<Told>): void {
    for (const hook of this.#ledger.hooks.said) hook(fact);
  }

  finish(): CheckResult {
    const { feed } = this;
    const ledger = this.#ledger;
    const kernel = this.#kernel.finish();
    feed.iommu.finish();
    if (this.#cut) this.#retract(this.#horizonNs());
    for (const hook of ledger.hooks.finish) hook();
    const { table } = ledger;
    let liveAtEnd = ledger.letGo;
    let endUnsaid = 0;
    for (let row = 0; row < table.used; row++)
      if (table.isLive(row)) {
        if ((table.flags[row]! & TORN) !== 0) endUnsaid++;
        else liveAtEnd += table.repeats[row]!;
        ledger.show(row);
      }
    // Lost, but not said where: nothing that rests on what is not there is certain.
    const unsure = this.#trace.lost !== 0 && feed.lostMarks === 0;
    const findings = [...this.#kept.values()].flat().map(({ selfEvident, ...finding }): Finding => {
      const shaken = unsure && !selfEvident && finding.confidence === "certain";
      return shaken ? { ...finding, confidence: "likely" } : finding;
    });
    const order = (finding: Finding): number => SEVERITIES.indexOf(finding.severity);
    findings.sort((a, b) => order(a) - order(b) || a.timeNs - b.timeNs);
    const summary: Record<string, number> = {};
    for (const { name } of RULES) if ((this.#counts.get(name) ?? 0) > 0) summary[name] = this.#counts.get(name)!;
    return {
      summary,
      findings,
      ambiguous: feed.iommu.ambiguous + feed.iommu.pieces.live,
      mapsOverLive: feed.iommu.overLive,
      unknownStart: ledger.unknownStart,
      eventTotal: feed.eventTotal,
      lost: this.#trace.lost,
      durationNs: feed.eventTotal > 0 ? feed.lastNs - feed.firstNs : 0,
      mappings: ledger.begun,
      liveAtEnd,
      endUnsaid,
      devices: table.devices,
      kernel,
    };
  }

  /** Up to where all CPUs were read: a damaged file ends at another time on each. */
  #horizonNs(): number {
    const { lastOfCpu } = this.feed;
    let horizon = Number.POSITIVE_INFINITY;
    for (let cpu = 0; cpu < Math.max(lastOfCpu.length, this.#trace.cpus ?? 0); cpu++)
      horizon = Math.min(horizon, lastOfCpu[cpu] ?? -1);
    return horizon;
  }

  /** What `rule` sees; what it reports bears its name. */
  #sceneOf(rule: Rule): Scene {
    return {
      table: this.#ledger.table,
      now: this.#ledger.now,
      lastNs: () => this.feed.lastNs,
      firstNs: () => this.feed.firstNs,
      isCut: () => this.#cut,
      hasLost: () => this.#trace.lost !== 0,
      iommu: this.feed.iommu,
      isDoubtful: (timeNs) => this.#ledger.isDoubtful(timeNs),
      deviceName: (device) => this.#deviceName(device),
      overdue: (row) => this.#overdue.judge(row, this.feed.lastNs),
      suspicionOf: (row) => {
        const suspicion = this.feed.mappings.suspicionOf(row);
        if (!suspicion) return undefined;
        const { table } = this.#ledger;
        const event = this.#evidence(
          "unmapped by another device",
          suspicion.event,
          table.iova[row]!,
          table.length[row]!,
        );
        return { by: suspicion.by, event };
      },
      addresses: this.#addresses,
      deviceBits: this.#options.deviceBits ?? new Map(),
      isLog: () => this.#trace.format === "kernel log",
      startUnknown: () => this.#options.start === undefined && this.#ledger.unknownStart > 0,
      deviceIndex: (name) => {
        const index = this.#ledger.table.devices.indexOf(name);
        return index < 0 ? undefined : index;
      },
      told: (what, at, text, iova) => this.#toldEvidence(what, at, text, iova),
      evidence: (what, place, iova, length) => this.#evidence(what, place, iova, length),
      begun: (row, what = "mapped") => this.#begun(row, what),
      current: (what, iova, length) => this.#evidence(what, this.#ledger.now, iova, length),
      report: (draft) => this.#report(rule, draft),
    };
  }

  get #cut(): boolean {
    return this.#trace.damage !== undefined;
  }

  #deviceName(device: number): string {
    return this.#ledger.table.devices[device] ?? "an unknown device";
  }

  #evidence(what: string, place: Place, iova?: number, length?: number): Evidence {
    return {
      what,
      event: this.#trace.types[place.type]?.name ?? "",
      timeNs: place.timeNs,
      cpu: place.cpu,
      pid: place.pid,
      task: this.#trace.strings[place.task] ?? "",
      iova,
      length,
      site: place.site === 0 ? undefined : this.feed.sites[place.site],
    };
  }

  #toldEvidence(what: string, at: Told, text: string, iova: number | undefined): Evidence {
    const { place, line, source, timeNs } = at;
    const shown = { ...(source === "io_page_fault" ? {} : { text }), ...(line !== undefined && { line }) };
    if (place) return { ...this.#evidence(what, place, iova), ...shown };
    const nobody = { cpu: 0, pid: 0, task: "", length: undefined, site: undefined };
    return { what, event: "kernel log", timeNs: timeNs ?? -1, iova, ...nobody, ...shown };
  }

  #begun(row: number, what: string): Evidence {
    const { table } = this.#ledger;
    const start = this.#ledger.startOf(row);
    const place = start ?? { timeNs: -1, cpu: 0, pid: 0, task: 0, type: table.type[row]!, site: 0 };
    return this.#evidence(what, place, table.iova[row]!, table.reserved[row]!);
  }

  #report(rule: Rule, draft: Draft): void {
    const name =
      draft.deviceName ?? (draft.device === NO_DEVICE ? undefined : this.#ledger.table.devices[draft.device]);
    if (this.#options.devices && (name === undefined || !this.#options.devices.includes(name))) return;
    this.#counts.set(rule.name, (this.#counts.get(rule.name) ?? 0) + 1);
    let list = this.#kept.get(rule.name);
    if (!list) {
      list = [];
      this.#kept.set(rule.name, list);
    }
    if (list.length >= (this.#options.findingsPerRule ?? FINDINGS_PER_RULE)) return;
    list.push({
      rule: rule.name,
      severity: draft.severity ?? rule.severity,
      confidence: draft.confidence ?? "certain",
      device: name,
      iova: draft.iova,
      length: draft.length,
      timeNs: draft.timeNs ?? this.#ledger.now.timeNs,
      message: draft.message,
      advice: draft.advice ?? rule.advice,
      evidence: draft.evidence,
      selfEvident: draft.selfEvident ?? false,
      ...(draft.fault && { fault: draft.fault }),
      ...(draft.mapping && { mapping: draft.mapping }),
      ...(draft.hypotheses && { hypotheses: draft.hypotheses }),
    });
  }

  /** Events were lost after `sinceNs`: what was concluded from their absence is taken back. */
  #retract(sinceNs: number): void {
    for (const [rule, list] of this.#kept) {
      const left = list.filter((finding) => finding.selfEvident || finding.timeNs <= sinceNs);
      this.#counts.set(rule, (this.#counts.get(rule) ?? 0) - (list.length - left.length));
      this.#kept.set(rule, left);
    }
  }
}
