/**
 * Checks a trace: follows every mapping from beginning to end, and passes each step of it to every rule.
 *
 * Promises: nothing is guessed. What began before the recording is judged only if the start state is given; what rests on
 * an event that is not there is not an error where events were lost or the file is cut. Memory follows what is live at
 * once, not the length of the trace.
 * Specified by: the grammar of the kernel's events, and the rules (findings/rules.ts).
 */

import type { KernelFact, Trace } from "../trace/index.ts";
import { type KernelSummary, KernelTold } from "./faults/kernel-told.ts";
import type { KernelLog } from "./faults/log-beside.ts";
import { RecordedAddresses } from "./faults/recorded-addresses.ts";
import type { Told } from "./faults/told.ts";
import { type Evidence, type Finding, SEVERITIES, type Severity } from "./findings/finding.ts";
import { Overdue } from "./findings/overdue.ts";
import type { Draft, Rule, RuleContext } from "./findings/rule.ts";
import { RULES } from "./findings/rules.ts";
import { type EventVisitor, Follow, type TraceCounts } from "./follow.ts";
import { BounceUse } from "./lifetimes/bounce-use.ts";
import type { Place } from "./lifetimes/history.ts";
import type { LifetimeSink } from "./lifetimes/lifetime-counts.ts";
import { NO_DEVICE } from "./lifetimes/table.ts";
import { type LiveAtEnd, liveAtEnd } from "./live-list.ts";
import { isSelective, type Selection, Selector } from "./selection.ts";
import type { StartState } from "./start-state.ts";
import { UserMappingUse } from "./user-mappings.ts";

/** Which rules are asked, of which devices, and what is known besides the trace. */
export interface CheckOptions {
  /** Names of the rules to ask; default all. */
  readonly rules?: readonly string[];
  /** Findings and mappings of these devices, tasks and CPUs only; a finding is of a task or CPU if one of its events is. */
  readonly selection?: Selection;
  /** What was mapped when the recording began. */
  readonly start?: StartState;
  /** See every mapping once, when it ends or when the trace does. */
  readonly sinks?: readonly LifetimeSink[];
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
  /** List what is live at the end. */
  readonly live?: boolean;
  /** Called with the number of events so far, once a batch. */
  readonly progress?: (events: number) => void;
}

/** Findings that are kept of each rule; all are counted. */
export const FINDINGS_PER_RULE = 1000;

/** What was found, and how much was seen. */
export interface CheckResult extends TraceCounts {
  /** Findings per rule, also those that were not kept; rules without any are not in it. */
  readonly summary: Readonly<Record<string, number>>;
  /** All findings by severity, also those that were not kept. */
  readonly severities: Readonly<Record<Severity, number>>;
  /** Errors first, then by time. */
  readonly findings: readonly Finding[];
  /** What the kernel said in the recording, and in the log beside it. */
  readonly kernel: KernelSummary;
  /** Who called, by the number in the columns of mappings; 0 is none. */
  readonly sites: readonly string[];
  /** If it was asked for: what is live at the end, the oldest first by how long its kind lives. */
  readonly live?: readonly LiveAtEnd[];
}

/**
 * Reads all of `trace` and judges it. Cost: well under a microsecond an event.
 *
 * @throws DmaError ERR_DMA_TRACE_DAMAGED (EINVAL), unless the trace was opened for best effort
 */
export async function checkTrace(trace: Trace, options: CheckOptions = {}): Promise<CheckResult> {
  const check = new Check(trace, options);
  return check.all();
}

class Check {
  readonly #follow: Follow;
  readonly #trace: Trace;
  readonly #options: CheckOptions;
  readonly #kept = new Map<string, (Finding & { readonly selfEvident: boolean })[]>();
  readonly #counts = new Map<string, number>();
  /** All findings by severity, also those that were not kept: one rule may find worse and better. */
  readonly #severities: Record<Severity, number> = { error: 0, warning: 0, advice: 0 };
  readonly #selector: Selector | undefined;
  readonly #overdue: Overdue;
  readonly #bounce: BounceUse;
  readonly #addresses: RecordedAddresses;
  readonly #user = new UserMappingUse();
  readonly #kernel: KernelTold;

  constructor(trace: Trace, options: CheckOptions) {
    this.#trace = trace;
    this.#options = options;
    const { selection } = options;
    this.#selector = selection && isSelective(selection) ? new Selector(selection) : undefined;
    this.#follow = new Follow(trace, {
      ...options,
      sinks: [{ lifetime: (table, row) => this.#addresses.lifetime(table, row) }, this.#user, ...(options.sinks ?? [])],
      afterBatch: (batch) => this.#kernel.batch(batch),
    });
    const { ledger, dispatch } = this.#follow;
    this.#addresses = new RecordedAddresses(ledger.table, ledger.now, ledger.history, {
      pieces: () => dispatch.iommu.waiting,
      takenBy: () => dispatch.iommu.takenBy(),
    });
    this.#kernel = new KernelTold(trace, options.kernelLog, options.kernelLogOffsetNs, (fact) => this.#said(fact));
    this.#bounce = new BounceUse(ledger.now, (row) => ledger.table.device[row]!);
    this.#follow.watch(this.#bounce);
    this.#overdue = new Overdue(ledger.table);
    this.#follow.watch(this.#overdue);
    dispatch.onLoss = (sinceNs) => this.#retract(sinceNs);
    for (const rule of RULES)
      if (!options.rules || options.rules.includes(rule.name)) this.#follow.watch(rule.watch(this.#contextOf(rule)));
  }

  #said(fact: KernelFact<Told>): void {
    for (const hook of this.#follow.ledger.hooks.said) hook(fact);
  }

  async all(): Promise<CheckResult> {
    await this.#follow.all();
    const kernel = this.#kernel.finish();
    if (this.#cut) this.#retract(this.#horizonNs());
    const live = this.#options.live ? this.#live() : undefined;
    const counts = this.#follow.finish();
    // Lost, but not said where: nothing that rests on what is not there is certain.
    const unsure = this.#trace.lost !== 0 && this.#follow.dispatch.lostMarks === 0;
    const findings = [...this.#kept.values()].flat().map(({ selfEvident, ...finding }): Finding => {
      const shaken = unsure && !selfEvident && finding.confidence === "certain";
      return shaken ? { ...finding, confidence: "likely" } : finding;
    });
    const order = (finding: Finding): number => SEVERITIES.indexOf(finding.severity);
    findings.sort((a, b) => order(a) - order(b) || a.timeNs - b.timeNs);
    const summary: Record<string, number> = {};
    for (const { name } of RULES) if ((this.#counts.get(name) ?? 0) > 0) summary[name] = this.#counts.get(name)!;
    const sites = this.#follow.dispatch.sites.texts;
    return { ...counts, summary, severities: { ...this.#severities }, findings, kernel, sites, ...(live && { live }) };
  }

  #live(): readonly LiveAtEnd[] {
    const { ledger, dispatch } = this.#follow;
    const { iommu, sites, firstNs, lastNs } = dispatch;
    const { strings } = this.#trace;
    const { table, selects } = ledger;
    return liveAtEnd({ table, iommu, overdue: this.#overdue, sites, strings, firstNs, lastNs, selects });
  }

  /** Up to where all CPUs were read: a damaged file ends at another time on each. */
  #horizonNs(): number {
    const { lastOfCpu } = this.#follow.dispatch;
    let horizon = Number.POSITIVE_INFINITY;
    for (let cpu = 0; cpu < Math.max(lastOfCpu.length, this.#trace.cpus ?? 0); cpu++)
      horizon = Math.min(horizon, lastOfCpu[cpu] ?? -1);
    return horizon;
  }

  /** What `rule` sees; what it reports bears its name. */
  #contextOf(rule: Rule): RuleContext {
    const { ledger, dispatch } = this.#follow;
    return {
      table: ledger.table,
      now: ledger.now,
      lastNs: () => dispatch.lastNs,
      firstNs: () => dispatch.firstNs,
      isCut: () => this.#cut,
      hasLost: () => this.#trace.lost !== 0,
      bounce: this.#bounce,
      eventName: (type) => this.#trace.types[type]?.name ?? "",
      codeAt: (site) => dispatch.sites.codeAt(site),
      taskName: (task) => this.#trace.strings[task] ?? "",
      iommu: dispatch.iommu,
      user: this.#user,
      namesAllocations: () => dispatch.namesAllocations,
      isDoubtful: (timeNs) => ledger.isDoubtful(timeNs),
      eachExtent: (row, visit) => ledger.eachExtent(row, visit),
      deviceName: (device) => this.#deviceName(device),
      overdue: (row) => this.#overdue.judge(row, dispatch.lastNs),
      suspicionOf: (row) => {
        const suspicion = dispatch.oneShot.suspicionOf(row);
        if (!suspicion) return undefined;
        const { table } = ledger;
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
      startUnknown: () => this.#options.start === undefined && this.#follow.ledger.unknownStarts > 0,
      deviceIndex: (name) => {
        const index = this.#follow.ledger.table.devices.indexOf(name);
        return index < 0 ? undefined : index;
      },
      told: (what, at, text, iova) => this.#toldEvidence(what, at, text, iova),
      evidence: (what, place, iova, length) => this.#evidence(what, place, iova, length),
      begun: (row, what = "mapped") => this.#begun(row, what),
      current: (what, iova, length) => this.#evidence(what, ledger.now, iova, length),
      report: (draft) => this.#report(rule, draft),
    };
  }

  get #cut(): boolean {
    return this.#trace.damage !== undefined;
  }

  #deviceName(device: number): string {
    return this.#follow.ledger.table.devices[device] ?? "an unknown device";
  }

  #evidence(what: string, place: Place, iova?: number, length?: number): Evidence {
    const { sites } = this.#follow.dispatch;
    const code = sites.codeAt(place.site);
    return {
      what,
      event: this.#trace.types[place.type]?.name ?? "",
      timeNs: place.timeNs,
      cpu: place.cpu,
      pid: place.pid,
      task: this.#trace.strings[place.task] ?? "",
      iova,
      length,
      site: place.site === 0 ? undefined : sites.texts[place.site],
      ...(code && { code }),
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
    const { table } = this.#follow.ledger;
    const start = this.#follow.ledger.startOf(row);
    const place = start ?? { timeNs: -1, cpu: 0, pid: 0, task: 0, type: table.type[row]!, site: 0 };
    return this.#evidence(what, place, table.iova[row]!, table.reserved[row]!);
  }

  #report(rule: Rule, draft: Draft): void {
    // From where the file is out of order on, only what one event proves is told.
    if (this.#follow.dispatch.wentBack > 0 && !draft.selfEvident && rule.severity !== "advice") return;
    const name =
      draft.deviceName ?? (draft.device === NO_DEVICE ? undefined : this.#follow.ledger.table.devices[draft.device]);
    if (this.#selector && !isOf(draft, name, this.#selector)) return;
    this.#counts.set(rule.name, (this.#counts.get(rule.name) ?? 0) + 1);
    this.#severities[draft.severity ?? rule.severity]++;
    let list = this.#kept.get(rule.name);
    if (!list) {
      list = [];
      this.#kept.set(rule.name, list);
    }
    if (list.length >= (this.#options.findingsPerRule ?? FINDINGS_PER_RULE)) return;
    const shown = draft.evidence.find(({ code }) => code !== undefined);
    list.push({
      rule: rule.name,
      severity: draft.severity ?? rule.severity,
      confidence: draft.confidence ?? "certain",
      device: name,
      iova: draft.iova,
      length: draft.length,
      timeNs: draft.timeNs ?? this.#follow.ledger.now.timeNs,
      message: shown ? `${draft.message} ${callerSentence(shown)}` : draft.message,
      ...(shown && { caller: shown.site!, code: shown.code! }),
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
      const left: typeof list = [];
      for (const finding of list)
        if (finding.selfEvident || finding.timeNs <= sinceNs) left.push(finding);
        else this.#severities[finding.severity]--;
      this.#counts.set(rule, (this.#counts.get(rule) ?? 0) - (list.length - left.length));
      this.#kept.set(rule, left);
    }
  }
}

/** `draft` of the device `name` is what `selector` asks for: of the device, and shown by an event of the task on the CPU. */
const isOf = (draft: Draft, name: string | undefined, selector: Selector): boolean =>
  selector.hasDevice(name) &&
  (!selector.asksForPlace ||
    draft.evidence.some(
      ({ event, timeNs, task, pid, cpu }) => timeNs >= 0 && event !== "kernel log" && selector.hasPlace(task, pid, cpu),
    ));

/** "Mapped by nvme_prep_rq ← nvme_queue_rq.": which code the first event that has its stack came from. */
const callerSentence = ({ what, site }: Evidence): string => `${what[0]!.toUpperCase()}${what.slice(1)} by ${site}.`;
