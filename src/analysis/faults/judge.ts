/**
 * From a fault and what is known of its address to what may have caused it, the best explanation first.
 *
 * Idea: each explanation that the recording allows gets a weight: the less likely it is to fit by mere chance, the higher.
 * What the kernel printed of the tables (an absent page, a page of the wrong kind) decides between explanations where it is
 * there; how long ago something ended decides where it is not.
 * Promises: pure; the same fault and survey give the same answer; `unexplained` is an answer.
 * Not for: words (sentences.ts), nor for counting (stretches.ts).
 */
import type { Access, TableEntry } from "../../trace/index.ts";
import type { Confidence, Relation } from "../findings/finding.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Holder, Survey } from "./address-history.ts";
import type { Cause, Hypothesis } from "./relation.ts";

/** Of a fault, what the explanation depends on. */
export interface FaultInQuestion {
  /** Page of the address. */
  readonly page: number;
  /** Bytes; rounded above 2^53. */
  readonly address: number;
  readonly access: Access;
  /** What the tables held when it was printed. */
  readonly entry: TableEntry | undefined;
  /** The unit says that permission was missing (true), or the page (false). */
  readonly permission: boolean | undefined;
  /** The unit says that the device has no tables at all. */
  readonly detached: boolean;
  /** `undefined`: times cannot be compared. */
  readonly timeNs: number | undefined;
  /** The fault names its device, so that another one's mapping is another one's. */
  readonly deviceKnown: boolean;
}

/** Of the recording, what bears on every fault. */
interface RecordingInQuestion {
  /** It began in the midst of things, and what was mapped then is not known. */
  readonly startUnknown: boolean;
  /** Some of its mappings are a device's by name. */
  readonly namesDevices: boolean;
}

const MS = 1e6;
/** What ended within this is what a device at work still uses; the kernel prints a fault some milliseconds late besides. */
const JUST_NOW_NS = 1000 * MS;
const LATELY_NS = 60_000 * MS;
/** A mapping this young may have begun after the fault that is printed now. */
const PRINTING_NS = 5 * MS;
const NEXT_PAGE_BYTES = 4096;
/** Address widths that devices and buses really have. */
const WIDTHS: ReadonlySet<number> = new Set([
  24, 26, 27, 28, 29, 30, 31, 32, 34, 35, 36, 38, 39, 40, 42, 44, 46, 47, 48, 52,
]);
const NO_DIRECTION = 255;
/**
 * A mapping that no event names a device for may be another's: what rests on it weighs less, and little less where no event names any
 * device at all, because then it is all that can be known.
 */
const UNATTRIBUTED = 0.75;
const ALL_UNATTRIBUTED = 0.92;

/** Weights from which an explanation is certain, or likely. */
const CERTAIN = 90;
const LIKELY = 60;

type Weighed = Omit<Hypothesis, "confidence"> & { weight: number };

/** Explanations of `fault`, best first; never empty. */
export function explain(
  fault: FaultInQuestion,
  survey: Survey,
  recording: RecordingInQuestion,
): readonly [Hypothesis, ...Hypothesis[]] {
  const found: Weighed[] = [
    ...ofLive(fault, survey),
    ...ofEnded(fault, survey),
    ...ofNeighbours(fault, survey),
    ...ofCut(survey),
    ...ofNever(fault, survey, recording),
  ];
  const share = recording.namesDevices ? UNATTRIBUTED : ALL_UNATTRIBUTED;
  for (const one of found) if (one.holder?.device === NO_DEVICE) one.weight *= share;
  found.sort((a, b) => b.weight - a.weight);
  const [best, ...others] = found as [Weighed, ...Weighed[]];
  // Two that explain it as well as each other make neither certain.
  const rival = others.find(({ cause }) => cause !== best.cause)?.weight ?? 0;
  const seen = new Set<Cause>([best.cause]);
  const least = Math.max(LEAST, best.weight - WORTH);
  const kept = others.filter(({ cause, weight }) => weight >= least && !seen.has(cause) && seen.add(cause));
  // That nothing explains it is as sure as the recording is whole.
  if (best.cause === "unexplained" && !recording.startUnknown) best.weight = LIKELY;
  return [hypothesis(best, rival), ...kept.map((one) => hypothesis(one, best.weight))];
}

/** Explanations with less weight are not worth a line, nor those with so much less than the best. */
const LEAST = 25;
const WORTH = 35;

function hypothesis({ weight, ...rest }: Weighed, rival: number): Hypothesis {
  const confidence: Confidence =
    weight >= CERTAIN && rival < CERTAIN ? "certain" : weight >= LIKELY ? "likely" : "possible";
  return { ...rest, confidence };
}

const about = (
  weight: number,
  relation: Relation,
  cause: Cause,
  holder?: Holder,
  more: Partial<Pick<Hypothesis, "distanceBytes" | "side" | "bits">> = {},
): Weighed => ({
  weight,
  relation,
  cause,
  holder,
  distanceBytes: undefined,
  side: undefined,
  bits: undefined,
  ...more,
});

function ofLive(fault: FaultInQuestion, { live, ended }: Survey): Weighed[] {
  const holder = live[0];
  if (!holder) return [];
  const found: Weighed[] = [];
  const untimed = fault.timeNs === undefined;
  const absent = fault.entry === "absent" || fault.permission === false;
  if (fault.detached) found.push(about(99, "live", "not-attached", holder));
  const offset = fault.page * 4096 + 4096 - holder.iova;
  if (holder.unsynced > 0) found.push(about(92, "live", "not-synced", holder));
  else if (holder.linkedEnd < holder.length && offset > holder.linkedEnd)
    found.push(about(92, "live", "not-linked", holder));
  const allowed = allows(holder.direction, fault.access);
  const refused = fault.entry !== undefined && !absent && !allows(ENTRY_DIRECTION[fault.entry] ?? 0, fault.access);
  if (allowed === false || refused)
    // Absent is absent, whatever the direction; else a direction that forbids it needs no other reason.
    found.push(about(absent ? 45 : untimed ? 80 : 97, "live", "wrong-direction", holder));
  else if (allowed === undefined && holder.direction !== 0) found.push(about(55, "live", "wrong-direction", holder));
  if (allowed === false) return found;
  // It may be younger than the fault: the address was used again before the kernel printed.
  const young = fault.timeNs !== undefined && holder.startNs >= 0 && fault.timeNs - holder.startNs < PRINTING_NS;
  const other = young && ended !== undefined;
  found.push(about(other || untimed ? 28 : 50, "live", "stale-translation", holder));
  return found;
}

/** What an entry allows, as a direction. */
const ENTRY_DIRECTION: Readonly<Partial<Record<TableEntry, number>>> = {
  "read-only": 1,
  "write-only": 2,
  "read-write": 0,
};

/** Whether memory mapped in `direction` may be accessed so; `undefined`: one of the two is not known. */
function allows(direction: number, access: Access): boolean | undefined {
  if (direction === 0) return true;
  if (access === "unknown" || direction === NO_DIRECTION) return undefined;
  return direction === (access === "read" ? 1 : 2);
}

function ofEnded(fault: FaultInQuestion, { ended, live }: Survey): Weighed[] {
  if (!ended) return [];
  const found: Weighed[] = [];
  const age = fault.timeNs === undefined ? undefined : Math.max(0, fault.timeNs - ended.endNs);
  const present = fault.entry !== undefined && fault.entry !== "absent";
  const allowed = allows(ended.direction, fault.access);
  let weight = age === undefined ? 65 : age <= JUST_NOW_NS ? 93 : age <= LATELY_NS ? 62 : 48;
  // The walk found the page: by then it was not unmapped.
  if (present) weight = 40;
  // A live mapping of the same page: only if that one is too young to have been meant.
  const holder = live[0];
  if (holder && age !== undefined) {
    const young = fault.timeNs! - holder.startNs < PRINTING_NS && holder.startNs >= 0;
    weight = Math.min(weight, young ? 70 : 46);
  }
  if (fault.detached) found.push(about(98, "ended", "not-attached", ended));
  found.push(about(weight, "ended", "used-after-unmap", ended));
  const printedLate = age !== undefined && age < 100 * MS && fault.entry !== "absent";
  if (allowed === false && (printedLate || present))
    found.push(about(present ? 90 : 52, "ended", "wrong-direction", ended));
  return found;
}

function ofNeighbours(fault: FaultInQuestion, { behind, before, live }: Survey): Weighed[] {
  if (live.length > 0) return [];
  const found: Weighed[] = [];
  const untimed = fault.timeNs === undefined ? 15 : 0;
  if (behind) {
    const { holder, distanceBytes } = behind;
    const close = distanceBytes < NEXT_PAGE_BYTES ? 82 : distanceBytes < 16 * NEXT_PAGE_BYTES ? 60 : 42;
    const weight =
      close - untimed - (holder.endNs >= 0 ? 12 : 0) - (allows(holder.direction, fault.access) === false ? 10 : 0);
    found.push(about(weight, "near", "past-the-end", holder, { distanceBytes, side: "behind" }));
  }
  if (before) {
    const { holder, distanceBytes } = before;
    const close = distanceBytes <= NEXT_PAGE_BYTES ? 66 : distanceBytes < 16 * NEXT_PAGE_BYTES ? 50 : 38;
    const weight =
      close - untimed - (holder.endNs >= 0 ? 12 : 0) - (allows(holder.direction, fault.access) === false ? 10 : 0);
    found.push(about(weight, "near", "before-the-start", holder, { distanceBytes, side: "before" }));
  }
  return found;
}

function ofCut({ cut, live }: Survey): Weighed[] {
  if (!cut || live.length > 0) return [];
  const { holder, bits } = cut;
  const weight = (WIDTHS.has(bits) ? 86 : 70) - (holder.endNs >= 0 ? 15 : 0);
  return [about(weight, "cut", "address-cut", holder, { bits })];
}

function ofNever(fault: FaultInQuestion, survey: Survey, recording: RecordingInQuestion): Weighed[] {
  const { live, ended, physical, other, mappings, behind, before, cut } = survey;
  const anonymousNear = [behind, before, cut].some((one) => one?.holder.device === NO_DEVICE);
  const own = (holder: Holder | undefined): boolean => holder !== undefined && holder.device !== NO_DEVICE;
  if (own(live[0]) || own(ended)) return [];
  const found: Weighed[] = [];
  if (fault.detached) found.push(about(99, "never", "not-attached"));
  if (fault.page === 0) found.push(about(95, "never", "no-address"));
  if (isAllOnes(fault.address)) found.push(about(88, "never", "failed-address"));
  if (physical) found.push(about(84, "never", "physical-address", physical));
  // Only where nothing of the address is known: a mapping that names nobody may be this device's.
  if (mappings === 0 && fault.deviceKnown && live.length === 0 && !ended)
    found.push(about(anonymousNear ? 40 : 61, "never", recording.namesDevices ? "maps-nothing" : "no-device-named"));
  if (other) found.push(about(mappings === 0 ? 64 : 45, "never", "other-device", other));
  // Where another device's or the memory's address explains it, or 0 does, that it is unexplained is no news.
  if (found.length > 0 || live.length > 0 || ended) return found;
  found.push(about(30, "never", "unexplained"));
  if (recording.startUnknown) found.push(about(26, "never", "from-before"));
  return found;
}

/** All ones, as far as a device drives them: DMA_MAPPING_ERROR, and a few bytes before its end. Above 2^53 an address is rounded. */
const isAllOnes = (address: number): boolean =>
  [32, 48].some((bits) => address >= 2 ** bits - 16 && address < 2 ** bits) || address >= 2 ** 64 - 4096;
