/** Calls that failed, and addresses of failed calls that are used all the same. */
import { ENOMEM, ERRNO_NAMES } from "../../trace/index.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Evidence } from "./finding.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { plural, size } from "./words.ts";

/** Calls of one device, one function and one reason. */
interface Failures {
  readonly device: number;
  readonly call: string;
  readonly error: number;
  readonly isAllocation: boolean;
  count: number;
  /** Bytes; -1: the event does not say. */
  smallest: number;
  largest: number;
  readonly first: Evidence;
  last: Evidence | undefined;
  readonly timeNs: number;
}

/** Devices, functions and reasons that are told one by one. */
const MOST_GROUPS = 1000;

const ADVICE_ALLOCATION =
  "Check what the allocation returns before it is used. If it fails: ask for less at once (the memory must lie in one piece without an IOMMU), allocate early, or raise cma=SIZE.";

class Failed implements Watcher {
  readonly #scene: RuleContext;
  readonly #groups = new Map<string, Failures>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  failed(device: number, length: number, error: number, isAllocation: boolean): void {
    const { bounce, current, eventName, now } = this.#scene;
    // What did not fit into the pool is that rule's.
    if (bounce.failedPiece !== undefined) return;
    const call = eventName(now.type).replace(/_err$/, "");
    const key = `${device} ${call} ${error}`;
    const bytes = length < 0 ? undefined : length;
    const known = this.#groups.get(key);
    if (known) {
      known.count++;
      known.smallest = Math.min(known.smallest, length);
      known.largest = Math.max(known.largest, length);
      known.last = current("failed last", undefined, bytes);
      return;
    }
    if (this.#groups.size >= MOST_GROUPS) return;
    const sizes = { count: 1, smallest: length, largest: length };
    const first = current("failed", undefined, bytes);
    this.#groups.set(key, { device, call, error, isAllocation, ...sizes, first, last: undefined, timeNs: now.timeNs });
  }

  failedUsed(device: number, length: number): void {
    const { deviceName, current, report } = this.#scene;
    report({
      device,
      ...(length >= 0 && { length }),
      message: `${deviceName(device)}: the address of a mapping that failed (all-ones) is unmapped.`,
      evidence: [current("unmapped", undefined, length < 0 ? undefined : length)],
      selfEvident: true,
    });
  }

  finish(): void {
    for (const failures of this.#groups.values()) this.#report(failures);
  }

  #report({ device, call, error, isAllocation, count, smallest, largest, first, last, timeNs }: Failures): void {
    const range = smallest === largest ? size(largest) : `${size(smallest)} to ${size(largest)}`;
    const what = `${plural(count, isAllocation ? "allocation" : "mapping")}${largest < 0 ? "" : ` of ${range}`}`;
    this.#scene.report({
      ...(isAllocation && { severity: "warning", advice: ADVICE_ALLOCATION }),
      device,
      ...(largest >= 0 && { length: largest }),
      timeNs,
      message: `${this.#scene.deviceName(device)}: ${what} failed (${call}, ${ERRNO_NAMES[error] ?? `error ${-error}`}); ${answerOf(call, error, isAllocation)}.`,
      evidence: last ? [first, last] : [first],
      selfEvident: true,
    });
  }
}

/** What the caller got. */
function answerOf(call: string, error: number, isAllocation: boolean): string {
  if (isAllocation) return error === ENOMEM ? "no memory came back" : "no address came back";
  return call.includes("_sg") ? "nothing of the list was mapped" : "all-ones came back instead of an address";
}

export const invalidAddress: Rule = {
  name: "invalid-address",
  severity: "error",
  summary: "a mapping or allocation failed, or the address of one that failed is unmapped",
  advice:
    "Check every map with dma_mapping_error before its address is stored or given to the device. If maps fail: look at the device's DMA mask and at leaks of address space; a bounce buffer was not asked for, as far as the events show.",
  watch: (scene) => new Failed(scene),
};
