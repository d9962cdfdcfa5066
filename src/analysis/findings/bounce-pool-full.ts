/** The pool of bounce buffers had no room for a piece: how full it was, and whether the piece could ever have fitted. */
import { BOUNCE_PIECE_BYTES, BOUNCE_SLOT_BYTES, type BouncePoolFull, type KernelFact } from "../../trace/index.ts";
import type { Told } from "../faults/told.ts";
import { NO_DEVICE } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { plural, share, size } from "./words.ts";

/** Devices that are told one by one. */
const MOST_DEVICES = 1000;
/** A pool with this share in use and less is not full: the piece found no run of free slots. */
const SCATTERED_SHARE = 0.9;

interface OfDevice {
  readonly first: BouncePoolFull<Told>;
  largest: BouncePoolFull<Told>;
  fullest: BouncePoolFull<Told>;
  count: number;
  tooLarge: number;
}

const usedShare = ({ usedSlots, totalSlots }: BouncePoolFull<Told>): number | undefined =>
  usedSlots === undefined || totalSlots === undefined || totalSlots === 0 ? undefined : usedSlots / totalSlots;

class BouncePool implements Watcher {
  readonly #scene: RuleContext;
  readonly #devices = new Map<string, OfDevice>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  said(fact: KernelFact<Told>): void {
    if (fact.kind !== "bounce-full") return;
    const key = fact.device ?? "";
    let own = this.#devices.get(key);
    if (!own) {
      if (this.#devices.size >= MOST_DEVICES) return;
      own = { first: fact, largest: fact, fullest: fact, count: 0, tooLarge: 0 };
      this.#devices.set(key, own);
    }
    own.count++;
    if (fact.size > own.largest.size) own.largest = fact;
    if ((usedShare(fact) ?? 0) > (usedShare(own.fullest) ?? 0)) own.fullest = fact;
    if (fact.size > BOUNCE_PIECE_BYTES) own.tooLarge++;
  }

  finish(): void {
    for (const own of this.#devices.values()) this.#report(own);
  }

  #report({ first, largest, fullest, count: times, tooLarge }: OfDevice): void {
    const { device, driver, at, text } = first;
    const who = device === undefined ? "A device" : `${device}${driver === undefined ? "" : ` (${driver})`}`;
    const full = usedShare(fullest);
    const pool =
      full === undefined
        ? ""
        : ` The pool of ${size(fullest.totalSlots! * BOUNCE_SLOT_BYTES)} was ${share(full)} in use (${size(fullest.usedSlots! * BOUNCE_SLOT_BYTES)})${full < SCATTERED_SHARE && tooLarge < times ? ": free slots lie apart, or another area of it is meant" : ""}.`;
    const limit =
      tooLarge === 0
        ? ""
        : ` ${tooLarge === times ? (times === 1 ? "It is" : "All are") : plural(tooLarge, "piece")}${tooLarge === times ? "" : tooLarge === 1 ? " is" : " are"} larger than ${size(BOUNCE_PIECE_BYTES)}, which is the most that can be bounced at once, however empty the pool is.`;
    this.#scene.report({
      device: device === undefined ? NO_DEVICE : (this.#scene.deviceIndex(device) ?? NO_DEVICE),
      ...(device !== undefined && { deviceName: device }),
      length: largest.size,
      timeNs: at.timeNs ?? -1,
      message: `${who}: ${plural(times, "mapping")} failed, because no bounce buffer was found for ${times === 1 ? "" : "up to "}${size(largest.size)}.${pool}${limit}`,
      advice: tooLarge > 0 ? ADVICE_PIECE : ADVICE_FULL,
      evidence: [this.#scene.told("reported by the kernel", at, text)],
      selfEvident: true,
    });
  }
}

const ADVICE_PIECE =
  "Limit the driver's pieces to dma_max_mapping_size(dev) (blk_queue_max_hw_sectors, max_segment_size); or set the device's real mask, so that nothing is bounced.";
const ADVICE_FULL =
  "Find who holds the slots: record swiotlb:swiotlb_bounced and dma:* (dmalink record), and check the trace for leaks; then raise the pool with swiotlb=SLOTS if the load really needs it. A device that can address all memory needs no bounce: set its mask.";

export const bouncePoolFull: Rule = {
  name: "bounce-pool-full",
  severity: "error",
  summary: "a mapping failed because the pool of bounce buffers had no room (needs the kernel's log)",
  advice: ADVICE_FULL,
  watch: (scene) => new BouncePool(scene),
};
