/**
 * Finds the mappings that may explain one fault, in one pass over all that a recording knows.
 *
 * Idea: `look` compares numbers alone, so that the many mappings that have nothing to do with the fault cost a few
 * comparisons; only what is kept becomes an object. An IOMMU knows pages, so a mapping holds all of the pages that it
 * touches.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import { type Holder, MOST_HOLDERS, type Neighbour, type Question, type Survey } from "./address-history.ts";

/** A device that reads ahead, or a loop that runs on, stays within this of its buffer. */
const NEAR_BYTES: number = 64 * 1024;
/** A long buffer has as much beside it. */
const NEAR_MOST_BYTES: number = 1 << 20;
/** What ended this short a time ago may still be what the device works on. */
const RECENT_NS = 1e9;
/** Below this an address is equal to many others in its lower bits, by chance. */
const CUT_LEAST_PAGE: number = 2 ** 20 / PAGE_SIZE;

/** A mapping whose device no event names may be anybody's: it counts as if it were this much older. */
const UNATTRIBUTED_NS = 1e15;

/** It held the address then; the bit is taken out where a beginning is not known well enough to say so. */
export const LIVE = 1;
const ENDED = 2;
const LATER = 4;
const BEHIND = 8;
const BEFORE = 16;
const CUT = 32;
const PHYSICAL = 64;
const OTHER = 128;

export class Finder {
  readonly #question: Question;
  readonly #fromNs: number;
  readonly #toNs: number;
  /** The smallest power of two above the page: what an address loses it loses from there up. */
  readonly #span: number;
  #live: Holder[] = [];
  #ended: Holder | undefined;
  #endedNs = Number.NEGATIVE_INFINITY;
  #later: Holder | undefined;
  #laterNs = Number.POSITIVE_INFINITY;
  #behind: Neighbour | undefined;
  #behindCost = Number.POSITIVE_INFINITY;
  #before: Neighbour | undefined;
  #beforeCost = Number.POSITIVE_INFINITY;
  #cut: Survey["cut"];
  #cutNs = Number.NEGATIVE_INFINITY;
  #physical: Holder | undefined;
  #physicalNs = Number.NEGATIVE_INFINITY;
  #other: Holder | undefined;
  #mappings = 0;
  // What `look` found of the mapping at hand.
  #startNs = 0;
  #endedAs = 0;
  #distance = 0;
  #cost = 0;
  #bits = 0;

  constructor(question: Question) {
    const { timeNs, toleranceNs, page } = question;
    this.#question = question;
    this.#fromNs = timeNs === undefined ? Number.NEGATIVE_INFINITY : timeNs - toleranceNs;
    this.#toNs = timeNs === undefined ? Number.POSITIVE_INFINITY : timeNs + toleranceNs;
    this.#span = 2 ** Math.max(1, Math.floor(Math.log2(page + 0.5)) + 1);
  }

  /** What of the mapping bears on the question, as bits; 0: nothing does. */
  look(device: number, iova: number, length: number, phys: number, startNs: number, endNs: number): number {
    const { device: asked, page, address } = this.#question;
    const first = Math.floor(iova / PAGE_SIZE);
    const end = Math.ceil((iova + Math.max(1, length)) / PAGE_SIZE);
    const begun = startNs <= this.#toNs;
    const held = page >= first && page < end;
    const live = begun && (endNs < 0 || endNs > this.#fromNs);
    this.#startNs = startNs;
    const shared = device === NO_DEVICE;
    if (asked !== undefined && device !== asked && !shared) return held && live ? OTHER : 0;
    if (!shared) this.#mappings++;
    this.#endedAs = shared ? endNs - UNATTRIBUTED_NS : endNs;
    let rank = 0;
    if (held) {
      if (live) rank |= LIVE;
      if (begun && endNs >= 0 && endNs <= this.#toNs && this.#endedAs > this.#endedNs) rank |= ENDED;
      if (!begun && startNs < this.#laterNs) rank |= LATER;
      return rank;
    }
    if (!begun) return 0;
    const recent = live || endNs >= this.#fromNs - RECENT_NS;
    if (!recent) return 0;
    // A live one explains more than one that has ended: that one counts as if it lay one page further off.
    const penalty = (live ? 0 : PAGE_SIZE) + (shared ? NEAR_MOST_BYTES : 0);
    const reach = Math.min(NEAR_MOST_BYTES, Math.max(NEAR_BYTES, length));
    if (page >= end) {
      const distance = address - (iova + length);
      if (distance <= reach && distance + penalty < this.#behindCost) {
        this.#distance = distance;
        this.#cost = distance + penalty;
        return BEHIND;
      }
    } else {
      const distance = iova - address;
      if (distance <= reach && distance + penalty < this.#beforeCost) {
        this.#distance = distance;
        this.#cost = distance + penalty;
        return BEFORE;
      }
    }
    if (shared) return 0;
    if (phys >= 0 && phys !== iova && address >= phys - (phys % PAGE_SIZE) && address < phys + length) {
      const since = live ? startNs + RECENT_NS * 1e6 : startNs;
      if (since > this.#physicalNs) {
        this.#physicalNs = since;
        return PHYSICAL;
      }
    }
    return this.#isCut(first, end, live) ? CUT : 0;
  }

  /** Whether the mapping holds an address that equals the page in the bits below the span. */
  #isCut(first: number, end: number, live: boolean): boolean {
    const { page } = this.#question;
    if (page < CUT_LEAST_PAGE || end <= page) return false;
    const span = this.#span;
    const whole = first + ((((page - first) % span) + span) % span);
    if (whole >= end || whole === page) return false;
    const since = live ? this.#startNs + RECENT_NS * 1e6 : this.#startNs;
    if (since <= this.#cutNs) return false;
    this.#cutNs = since;
    // The lowest bit that is missing; 12 bits lie within the page.
    let bits = 0;
    for (let difference = (whole - page) / span; difference % 2 === 0; difference /= 2) bits++;
    this.#bits = Math.round(Math.log2(span)) + bits + 12;
    return true;
  }

  /** Keeps the mapping that was looked at last; `make` copies it. */
  take(rank: number, make: () => Holder): void {
    const holder = make();
    if ((rank & LIVE) !== 0) {
      this.#live.push(holder);
      this.#live.sort((a, b) => ageOf(b) - ageOf(a));
      this.#live = this.#live.slice(0, MOST_HOLDERS);
    }
    if ((rank & ENDED) !== 0) {
      this.#ended = holder;
      this.#endedNs = this.#endedAs;
    }
    if ((rank & LATER) !== 0) {
      this.#later = holder;
      this.#laterNs = this.#startNs;
    }
    if ((rank & BEHIND) !== 0) {
      this.#behind = { holder, distanceBytes: this.#distance };
      this.#behindCost = this.#cost;
    }
    if ((rank & BEFORE) !== 0) {
      this.#before = { holder, distanceBytes: this.#distance };
      this.#beforeCost = this.#cost;
    }
    if ((rank & CUT) !== 0) this.#cut = { holder, bits: this.#bits };
    if ((rank & PHYSICAL) !== 0) this.#physical = holder;
    if ((rank & OTHER) !== 0) this.#other ??= holder;
  }

  survey(): Survey {
    return {
      live: this.#live,
      ended: this.#ended,
      later: this.#later,
      behind: this.#behind,
      before: this.#before,
      cut: this.#cut,
      physical: this.#physical,
      other: this.#other,
      mappings: this.#mappings,
    };
  }
}

/** When it began, for the order: whose device is named comes first. */
const ageOf = ({ device, startNs }: Holder): number => (device === NO_DEVICE ? startNs - UNATTRIBUTED_NS : startNs);
