/** A device used an address that the IOMMU refused: which mapping, past or present, explains it. */
import { type IommuFault, type KernelFact, requesterName } from "../../trace/index.ts";
import { explain } from "../faults/judge.ts";
import type { Cause, Hypothesis } from "../faults/relation.ts";
import { ADVICE_LOG_ALONE, adviceFor, sentence, type Telling } from "../faults/sentences.ts";
import { type FaultSource, type Stretch, Stretches, tallyOf } from "../faults/stretches.ts";
import type { Told } from "../faults/told.ts";
import { NO_DEVICE, NO_DIRECTION } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Evidence, FaultFacts, MappingFacts } from "./finding.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { address, count, plural, time } from "./words.ts";

/** Faults of a page that are each looked at in full; then every second, fourth, … one. */
const LOOKED_AT = 16;
/** Pages that are remembered for that. */
const MOST_PAGES = 1 << 16;
/** Two sources tell one fault within this. */
const SAME_FAULT_NS = 50e6;
/** A device that no mapping is of. */
const NOT_THERE = 0xfffd;
const PAGE_BITS = 12n;

type Fault = IommuFault<Told>;
type Explained = readonly [Hypothesis, ...Hypothesis[]];

/** What was found of a page's faults so far. */
interface Looked {
  times: number;
  hypotheses: Explained | undefined;
  source: FaultSource;
  timeNs: number | undefined;
}

class DeviceFaults implements Watcher {
  readonly #scene: RuleContext;
  readonly #stretches = new Stretches<Fault>();
  readonly #pages = new Map<string, Looked>();
  /** Lines that the kernel kept back. */
  #suppressed = 0;

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  said(fact: KernelFact<Told>): void {
    if (fact.kind === "suppressed") this.#suppressed += fact.count;
    if (fact.kind !== "fault") return;
    const { device, known } = this.#deviceOf(fact);
    const page = fact.address === undefined ? -1 : Number(fact.address >> PAGE_BITS);
    const { source, timeNs } = fact.at;
    const hypotheses = this.#explain(fact, device, known, page);
    this.#stretches.add({ device, page, access: fact.access, source, timeNs, told: fact }, hypotheses);
  }

  finish(): void {
    for (const stretch of this.#stretches.list) this.#report(stretch);
    for (const [device, faults] of this.#stretches.others)
      this.#scene.report({
        device: this.#scene.deviceIndex(device) ?? NO_DEVICE,
        deviceName: device,
        timeNs: this.#scene.lastNs(),
        confidence: "certain",
        message: `${device}: ${plural(faults, "fault")} more, at addresses that lie apart: too many places to look at each.`,
        evidence: [],
        selfEvident: true,
      });
  }

  /** The device as the recording names it, and whether the fault names it at all. */
  #deviceOf(fact: Fault): { device: string; known: boolean } {
    const { deviceIndex } = this.#scene;
    if (fact.device !== undefined) {
      if (deviceIndex(fact.device) !== undefined) return { device: fact.device, known: true };
      // A line without a segment is read as of segment 0; where only one device fits, it is that one.
      const tail = fact.device.startsWith("0000:") ? fact.device.slice(4) : undefined;
      const named = tail === undefined ? [] : this.#scene.table.devices.filter((name) => name.endsWith(tail));
      return { device: named.length === 1 ? named[0]! : fact.device, known: true };
    }
    if (fact.stream !== undefined && fact.stream <= 0xffff) {
      // On PCI, the number by which a unit knows a device is the requester id, on most machines.
      const name = requesterName(fact.stream);
      if (deviceIndex(name) !== undefined) return { device: name, known: true };
    }
    return { device: labelOf(fact), known: false };
  }

  /** The explanations of one fault; of a page that faults again and again, those of an earlier one. */
  #explain(fact: Fault, device: string, known: boolean, page: number): Explained | undefined {
    if (this.#scene.isLog() || page < 0 || fact.unit === "gpu") return undefined;
    const key = `${device} ${page}`;
    const { source, toleranceNs } = fact.at;
    const timeNs = this.#outside(fact.at) === undefined ? fact.at.timeNs : undefined;
    let looked = this.#pages.get(key);
    if (!looked) {
      if (this.#pages.size >= MOST_PAGES) this.#pages.clear();
      looked = { times: 0, hypotheses: undefined, source, timeNs };
      this.#pages.set(key, looked);
    }
    const again =
      looked.source !== source && timeNs !== undefined && Math.abs(timeNs - (looked.timeNs ?? -1e18)) < SAME_FAULT_NS;
    looked.times++;
    const due = looked.times <= LOOKED_AT || Number.isInteger(Math.log2(looked.times));
    if (looked.hypotheses && (again || !due)) return looked.hypotheses;
    const bytes = Number(fact.address);
    const index = known ? (this.#scene.deviceIndex(device) ?? NOT_THERE) : undefined;
    const survey = this.#scene.addresses.survey({ device: index, page, address: bytes, timeNs, toleranceNs });
    const { access, entry, permission, detached } = fact;
    const recording = {
      startUnknown: this.#scene.startUnknown(),
      namesDevices: this.#scene.table.devices.length > 0,
    };
    const asked = { page, address: bytes, access, entry, permission, detached, timeNs, deviceKnown: known };
    const hypotheses = explain(asked, survey, recording);
    Object.assign(looked, { hypotheses, source, timeNs });
    return hypotheses;
  }

  /** A fault of a log may be older or younger than the recording. */
  #outside({ source, timeNs, toleranceNs }: Told): "before" | "after" | undefined {
    if (source !== "kernel-log" || timeNs === undefined) return undefined;
    if (timeNs + toleranceNs < this.#scene.firstNs()) return "before";
    return timeNs - toleranceNs > this.#scene.lastNs() ? "after" : undefined;
  }

  /** Why a fault could be joined by its address alone; empty: it was joined by time too. */
  #untimed(at: Told): string {
    if (at.timeNs === undefined) return "The log's times cannot be compared with the trace's: joined by address alone.";
    const outside = this.#outside(at);
    if (outside === undefined) return "";
    const away = outside === "before" ? this.#scene.firstNs() - at.timeNs : at.timeNs - this.#scene.lastNs();
    return `That was ${time(away)} ${outside === "before" ? "before the recording began" : "after the recording ended"}: joined by address alone.`;
  }

  #report(stretch: Stretch<Fault>): void {
    const { first, hypotheses } = stretch;
    const fact = first.told;
    const untimed = hypotheses ? this.#untimed(fact.at) : "";
    const telling = this.#telling(untimed === "" ? first.timeNs : undefined, first.access);
    const facts = factsOf(stretch);
    const best = hypotheses?.[0];
    const explained = hypotheses?.map((one): MappingFacts => this.#mapping(one, telling));
    const why = best
      ? sentence(best, telling)
      : fact.unit === "gpu" || facts.address === undefined
        ? ""
        : ofLogAlone(fact);
    const others = (hypotheses ?? [])
      .slice(1)
      .filter(({ cause }) => cause !== "unexplained")
      .slice(0, MOST_OTHERS)
      .map((one) => `Less likely: ${sentence(one, telling)}`);
    this.#scene.report({
      ...(fact.unit === "gpu" && { severity: "warning" }),
      confidence: best?.confidence ?? "certain",
      device: this.#scene.deviceIndex(first.device) ?? NO_DEVICE,
      deviceName: first.device,
      ...(facts.address !== undefined && { iova: Number(facts.address), length: facts.lengthBytes }),
      timeNs: Math.max(-1, first.timeNs ?? -1),
      message: [headOf(stretch, facts, this.#suppressed > 0), untimed, why, ...others]
        .filter((part) => part !== "")
        .join(" "),
      advice: this.#advice(best?.cause, fact),
      evidence: this.#evidenceOf(stretch, facts),
      selfEvident: true,
      fault: facts,
      ...(explained && { mapping: explained[0]!, hypotheses: explained }),
    });
  }

  #advice(cause: Cause | undefined, fact: Fault): string {
    if (cause !== undefined) return adviceFor(cause);
    if (fact.unit === "gpu") return ADVICE_GPU;
    if (fact.address === undefined) return fact.detached ? adviceFor("not-attached") : ADVICE_NO_ADDRESS;
    return ADVICE_LOG_ALONE;
  }

  #telling(timeNs: number | undefined, access: Fault["access"]): Telling {
    const { deviceName, evidence } = this.#scene;
    return {
      access,
      timeNs,
      deviceName,
      taskOf: (holder, step) => {
        const place = step === "began" ? holder.began : holder.ended;
        if (!place) return undefined;
        const { task, pid, site } = evidence("", place);
        const name = task === "" ? undefined : `${task}-${pid}`;
        return site === undefined ? name : `${name ?? "an unknown task"} in ${site}`;
      },
    };
  }

  /** The events that show it, in the order in which they happened. */
  #evidenceOf({ first, hypotheses }: Stretch<Fault>, { count: faults, address: at }: FaultFacts): Evidence[] {
    const { evidence, told } = this.#scene;
    const fault = told(faults > 1 ? "first fault" : "fault", first.told.at, first.told.text, Number(at ?? 0n));
    const holder = hypotheses?.[0].holder;
    if (!holder) return [fault];
    const { began, ended, iova, length } = holder;
    const mapped = began ? [evidence("mapped", began, iova, length)] : [];
    const unmapped = ended ? [evidence("unmapped", ended, iova, length)] : [];
    const later = fault.timeNs >= 0 && (ended?.timeNs ?? 0) > fault.timeNs;
    return later ? [...mapped, fault, ...unmapped] : [...mapped, ...unmapped, fault];
  }

  #mapping(hypothesis: Hypothesis, telling: Telling): MappingFacts {
    const { relation, cause, confidence, holder, distanceBytes, side, bits } = hypothesis;
    const known = holder !== undefined;
    return {
      relation,
      cause,
      confidence,
      message: sentence(hypothesis, telling),
      device: known && holder.device !== NO_DEVICE ? this.#scene.deviceName(holder.device) : undefined,
      iova: holder?.iova,
      lengthBytes: holder?.length,
      direction: known && holder.direction !== NO_DIRECTION ? holder.direction : undefined,
      mappedNs: known && holder.startNs >= 0 ? holder.startNs : undefined,
      endedNs: known && holder.endNs >= 0 ? holder.endNs : undefined,
      mappedBy: holder && telling.taskOf(holder, "began"),
      endedBy: holder && telling.taskOf(holder, "ended"),
      distanceBytes,
      side,
      bits,
    };
  }
}

/** Other explanations that are told in the text; the data have all. */
const MOST_OTHERS = 2;

/** What a log tells of the cause by itself. */
function ofLogAlone({ address: at, access, entry }: Fault): string {
  if (at! < 4096n) return "The kernel maps nothing at address 0: the device was given no address, or lost it.";
  if (entry === "absent" || entry === undefined) return "Whose the address was, a log alone cannot tell.";
  const allowed = { "read-only": "reading only", "write-only": "writing only", "read-write": "both" }[entry];
  const wrong = entry !== "read-write" && access !== (entry === "read-only" ? "read" : "write");
  return `The tables held a page there that allows ${allowed}${wrong ? ": it is mapped, in the wrong direction" : ", when the kernel looked a moment later"}. Whose it is, a log alone cannot tell.`;
}

const ADVICE_GPU =
  "This is a fault in the graphics unit's own page tables: a bug of a program, of Mesa or of the graphics driver. No DMA mapping of the kernel is at fault; the process is named in the lines before.";
const ADVICE_NO_ADDRESS =
  "What was refused has no DMA address. An interrupt: the device's vector was freed or moved while it was still used. A table that could not be read: the IOMMU itself is at fault.";

/** What stands for a device that is not named. */
function labelOf({ stream, unitName, unit }: Fault): string {
  const where = unitName ?? unit ?? "the IOMMU";
  return stream === undefined ? `a device of ${where}` : `stream 0x${stream.toString(16)} of ${where}`;
}

function factsOf(stretch: Stretch<Fault>): FaultFacts {
  const { first, startPage, endPage, firstNs, lastNs } = stretch;
  const fact = first.told;
  const { read, write, count: faults, source } = tallyOf(stretch);
  return {
    device: first.device,
    address: fact.address,
    lengthBytes: fact.address === undefined ? 0 : (endPage - startPage) * 4096,
    access: first.access,
    count: faults,
    reads: read,
    writes: write,
    reason: fact.reason,
    source,
    firstNs,
    lastNs,
    unit: fact.unitName ?? fact.unit,
    stream: fact.stream,
    pasid: fact.pasid,
  };
}

const TRIED = { read: "could not read", write: "could not write", unknown: "could not reach" } as const;

/** Who tried what, where, how often. */
function headOf(stretch: Stretch<Fault>, facts: FaultFacts, keptBack: boolean): string {
  const { startPage, endPage } = stretch;
  const { device, count: faults, access, firstNs, lastNs, reason } = facts;
  const fact = stretch.first.told;
  const at = fact.address === undefined ? undefined : `0x${fact.address.toString(16)}`;
  if (fact.unit === "gpu")
    return `${device}: ${plural(faults, "fault")} of its own page tables, the first at ${at ?? "an unknown address"}.`;
  const told = fact.at.source === "io_page_fault" ? "" : ` (${reason})`;
  const what = at === undefined ? `${device}: ${reason}` : `${device} ${TRIED[access]} ${at}${told}`;
  const more = keptBack && facts.source !== "io_page_fault";
  if (faults === 1) return more ? `${what}: once, as far as the kernel printed it.` : `${what}.`;
  const pages = endPage - startPage;
  const where =
    at === undefined
      ? ""
      : pages === 1
        ? " in one page"
        : ` in ${address(startPage * 4096)} to ${address(endPage * 4096)}`;
  const mixed =
    facts.reads > 0 && facts.writes > 0 ? `, ${plural(facts.reads, "read")} and ${plural(facts.writes, "write")}` : "";
  const within =
    firstNs === undefined || lastNs === undefined || lastNs === firstNs ? "" : ` within ${time(lastNs - firstNs)}`;
  return `${what}: ${more ? "at least " : ""}${count(faults)} faults${where}${mixed}${within}.`;
}

export const deviceFault: Rule = {
  name: "device-fault",
  severity: "error",
  summary:
    "the IOMMU refused what a device asked for: who had the address, and when (needs iommu:io_page_fault, printk:console or a kernel log)",
  advice: adviceFor("unexplained"),
  watch: (scene) => new DeviceFaults(scene),
};
