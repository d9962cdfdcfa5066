/**
 * The pool of bounce buffers had no room for a piece: whether the piece could ever have fitted, and who filled the pool.
 *
 * Idea: a mapping that fails right after `swiotlb_bounced` found no slots; the kernel's own line, where there is one, adds how large the
 * pool is. A piece larger than the limit never fits; else what is live in the recording is what fills it.
 */
import { BOUNCE_PIECE_BYTES, BOUNCE_SLOT_BYTES, type BouncePoolFull, type KernelFact } from "../../trace/index.ts";
import type { Told } from "../faults/told.ts";
import type { BounceOfDevice } from "../lifetimes/bounce-use.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Evidence } from "./finding.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { count, plural, share, size } from "./words.ts";

/** Devices that are told one by one. */
const MOST_DEVICES = 1000;
/** Devices that are named as users of the pool. */
const MOST_USERS = 3;
/** A pool with this share in use and less is not full: the piece found no run of free slots. */
const SCATTERED_SHARE = 0.9;
/** So many mappings of which hardly any ended are a leak. */
const LEAST_LEAKED = 16;

/** What the kernel told of one device. */
interface Lines {
  readonly first: BouncePoolFull<Told>;
  fullest: BouncePoolFull<Told>;
  largest: number;
  count: number;
  tooLarge: number;
}

/** What the events show of one device. */
interface Failures {
  readonly first: Evidence;
  readonly timeNs: number;
  count: number;
  tooLarge: number;
  largest: number;
  /** The smallest that should have fitted, bytes. */
  smallest: number;
  /** Slots in use when it failed first though it should have fitted, by device. */
  users: readonly (readonly [device: number, own: BounceOfDevice])[];
}

const usedShare = ({ usedSlots, totalSlots }: BouncePoolFull<Told>): number | undefined =>
  usedSlots === undefined || totalSlots === undefined || totalSlots === 0 ? undefined : usedSlots / totalSlots;

class BouncePool implements Watcher {
  readonly #scene: RuleContext;
  readonly #lines = new Map<string, Lines>();
  readonly #failures = new Map<number, Failures>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  said(fact: KernelFact<Told>): void {
    if (fact.kind !== "bounce-full") return;
    const key = fact.device ?? "";
    let own = this.#lines.get(key);
    if (!own) {
      if (this.#lines.size >= MOST_DEVICES) return;
      own = { first: fact, fullest: fact, largest: 0, count: 0, tooLarge: 0 };
      this.#lines.set(key, own);
    }
    own.count++;
    own.largest = Math.max(own.largest, fact.size);
    if ((usedShare(fact) ?? 0) > (usedShare(own.fullest) ?? 0)) own.fullest = fact;
    if (fact.size > BOUNCE_PIECE_BYTES) own.tooLarge++;
  }

  failed(device: number): void {
    const { bounce, current, now } = this.#scene;
    const bytes = bounce.failedPiece;
    if (bytes === undefined) return;
    let own = this.#failures.get(device);
    if (!own) {
      const first = current("failed", undefined, bytes);
      own = {
        first,
        timeNs: now.timeNs,
        count: 0,
        tooLarge: 0,
        largest: 0,
        smallest: Number.POSITIVE_INFINITY,
        users: [],
      };
      this.#failures.set(device, own);
    }
    own.count++;
    own.largest = Math.max(own.largest, bytes);
    if (bytes > BOUNCE_PIECE_BYTES) {
      own.tooLarge++;
      return;
    }
    if (own.smallest === Number.POSITIVE_INFINITY)
      own.users = [...bounce.devices]
        .filter(([, { slots }]) => slots > 0)
        .sort(([, a], [, b]) => b.slots - a.slots)
        .map(([user, use]) => [user, { ...use }] as const);
    own.smallest = Math.min(own.smallest, bytes);
  }

  finish(): void {
    const told = new Set<string>();
    for (const [device, failures] of this.#failures) {
      const name = this.#scene.deviceName(device);
      told.add(name);
      this.#reportFailures(device, failures, this.#lines.get(name));
    }
    for (const [name, lines] of this.#lines) if (!told.has(name)) this.#reportLines(lines);
    this.#attempts();
  }

  /** Failures that the events show. */
  #reportFailures(device: number, failures: Failures, lines: Lines | undefined): void {
    const { count: times, tooLarge, largest, smallest, users, first, timeNs } = failures;
    const { deviceName, told, report } = this.#scene;
    const fits = times - tooLarge;
    const cause = fits > 0 ? this.#filledBy(users, smallest) : undefined;
    report({
      device,
      length: largest,
      timeNs,
      message: `${deviceName(device)}: ${plural(times, "mapping")} failed, because no bounce buffer was found for ${times === 1 ? "" : "up to "}${size(largest)}.${lines ? poolOf(lines) : ""}${limitOf(tooLarge, times)}${cause?.text ?? ""}`,
      advice:
        tooLarge === times ? ADVICE_PIECE : cause?.isLeak ? ADVICE_LEAK : tooLarge > 0 ? ADVICE_PIECE : ADVICE_LOAD,
      evidence: [first, ...(lines ? [told("reported by the kernel", lines.first.at, lines.first.text)] : [])],
      selfEvident: true,
    });
  }

  /** Who held what was in use. */
  #filledBy(users: Failures["users"], bytes: number): { readonly text: string; readonly isLeak: boolean } {
    const needed = Math.ceil(bytes / BOUNCE_SLOT_BYTES);
    const piece = ` A piece of ${size(bytes)} needs ${plural(needed, "slot")} of ${size(BOUNCE_SLOT_BYTES)} in a row.`;
    if (users.length === 0)
      return {
        text: `${piece} Nothing that the recording shows was bounced then: what fills the pool is from before it.`,
        isLeak: false,
      };
    const all = users.reduce((sum, [, { slots }]) => sum + slots, 0);
    const list = users
      .slice(0, MOST_USERS)
      .map(
        ([user, { slots, mappings, ended, largest }]) =>
          `${this.#scene.deviceName(user)} ${share(slots / all)} (${plural(mappings - ended, "mapping")}, the largest piece ${size(largest)})`,
      )
      .join(", ");
    const [[top, use]] = users as [Failures["users"][number]];
    const isLeak = use.mappings >= LEAST_LEAKED && use.ended <= use.mappings / 8;
    const why = isLeak
      ? ` ${this.#scene.deviceName(top)} never gives its slots back: ${count(use.ended)} of its ${plural(use.mappings, "bounced mapping")} had ended. That leak is the cause.`
      : ` ${this.#scene.deviceName(top)} gives its slots back (${count(use.ended)} of ${plural(use.mappings, "mapping")} had ended): the load is more than the pool holds, or free slots lie apart.`;
    return {
      text: `${piece} In use then, by what the recording shows: ${plural(all, "slot")} (${size(all * BOUNCE_SLOT_BYTES)}), of these ${list}.${why}`,
      isLeak,
    };
  }

  /** Pieces that can never be bounced, where no event tells that their mapping failed. */
  #attempts(): void {
    for (const [device, { tooLarge, largest, failed }] of this.#scene.bounce.devices) {
      if (tooLarge === 0 || failed > 0 || this.#lines.has(this.#scene.deviceName(device))) continue;
      this.#scene.report({
        device,
        length: largest,
        timeNs: this.#scene.lastNs(),
        message: `${this.#scene.deviceName(device)}: ${plural(tooLarge, "piece")} of up to ${size(largest)} ${tooLarge === 1 ? "was" : "were"} to be bounced;${limitOf(tooLarge, tooLarge)}`,
        advice: ADVICE_PIECE,
        evidence: [],
        selfEvident: true,
      });
    }
  }

  /** Failures that only the kernel's lines tell. */
  #reportLines(lines: Lines): void {
    const { first, largest, count: times, tooLarge } = lines;
    const { device, driver, at, text } = first;
    const who = device === undefined ? "A device" : `${device}${driver === undefined ? "" : ` (${driver})`}`;
    this.#scene.report({
      device: device === undefined ? NO_DEVICE : (this.#scene.deviceIndex(device) ?? NO_DEVICE),
      ...(device !== undefined && { deviceName: device }),
      length: largest,
      timeNs: at.timeNs ?? -1,
      message: `${who}: ${plural(times, "mapping")} failed, because no bounce buffer was found for ${times === 1 ? "" : "up to "}${size(largest)}.${poolOf(lines)}${limitOf(tooLarge, times)}`,
      advice: tooLarge > 0 ? ADVICE_PIECE : ADVICE_FULL,
      evidence: [this.#scene.told("reported by the kernel", at, text)],
      selfEvident: true,
    });
  }
}

/** How full the pool was when it was fullest, as the kernel tells it. */
function poolOf({ fullest, tooLarge, count: times }: Lines): string {
  const full = usedShare(fullest);
  if (full === undefined) return "";
  const apart =
    full < SCATTERED_SHARE && tooLarge < times ? ": free slots lie apart, or another area of it is meant" : "";
  return ` The pool of ${size(fullest.totalSlots! * BOUNCE_SLOT_BYTES)} was ${share(full)} in use (${size(fullest.usedSlots! * BOUNCE_SLOT_BYTES)})${apart}.`;
}

function limitOf(tooLarge: number, times: number): string {
  if (tooLarge === 0) return "";
  const which =
    tooLarge === times
      ? times === 1
        ? "It is"
        : "All are"
      : `${plural(tooLarge, "piece")} ${tooLarge === 1 ? "is" : "are"}`;
  return ` ${which} larger than ${size(BOUNCE_PIECE_BYTES)}, which is the most that can be bounced at once, however empty the pool is.`;
}

const ADVICE_PIECE =
  "Limit the driver's pieces to dma_max_mapping_size(dev) (blk_queue_max_hw_sectors, max_segment_size); or set the device's real mask, so that nothing is bounced.";
const ADVICE_FULL =
  "Find who holds the slots: record swiotlb:swiotlb_bounced and dma:* (dmalink record), and check the trace for leaks; then raise the pool with swiotlb=SLOTS if the load really needs it. A device that can address all memory needs no bounce: set its mask.";
const ADVICE_LEAK =
  "Mend the leak: find the path of that device's driver that ends without its unmap. A larger pool only fills later.";
const ADVICE_LOAD =
  "Raise the pool with swiotlb=SLOTS, or let the driver have less in flight; a device that can address all memory needs no bounce: set its mask.";

export const bouncePoolFull: Rule = {
  name: "bounce-pool-full",
  severity: "error",
  summary: "a mapping failed because the pool of bounce buffers had no room, or never could have",
  advice: ADVICE_FULL,
  watch: (scene) => new BouncePool(scene),
};
