/** Calls that failed, and addresses of failed calls that are used all the same. */
import { ERRNO_NAMES } from "../../trace/index.ts";
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { plural, size } from "./words.ts";

/** Calls of one device, one function and one reason. */
interface Failures {
  count: number;
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

export const invalidAddress: Rule = {
  name: "invalid-address",
  severity: "error",
  summary: "a mapping or allocation failed, or the address of one that failed is unmapped",
  advice:
    "Check every map with dma_mapping_error before its address is stored or given to the device. If maps fail: look at the device's DMA mask and at leaks of address space; a bounce buffer was not asked for, as far as the events show.",
  watch: ({ now, bounce, deviceName, eventName, current, report }) => {
    const groups = new Map<
      string,
      Failures & {
        readonly device: number;
        readonly call: string;
        readonly error: number;
        readonly isAllocation: boolean;
      }
    >();
    return {
      failed(device, length, error, isAllocation) {
        // What did not fit into the pool is that rule's.
        if (bounce.failedPiece !== undefined) return;
        const call = eventName(now.type).replace(/_err$/, "");
        const key = `${device} ${call} ${error}`;
        const known = groups.get(key);
        if (!known) {
          if (groups.size >= MOST_GROUPS) return;
          const first = current("failed", undefined, length < 0 ? undefined : length);
          const group = { device, call, error, isAllocation, count: 1, smallest: length, largest: length };
          groups.set(key, { ...group, first, last: undefined, timeNs: now.timeNs });
          return;
        }
        known.count++;
        known.smallest = Math.min(known.smallest, length);
        known.largest = Math.max(known.largest, length);
        known.last = current("failed last", undefined, length < 0 ? undefined : length);
      },
      failedUsed(device, length) {
        report({
          device,
          ...(length >= 0 && { length }),
          message: `${deviceName(device)}: the address of a mapping that failed (all-ones) is unmapped.`,
          evidence: [current("unmapped", undefined, length < 0 ? undefined : length)],
          selfEvident: true,
        });
      },
      finish() {
        for (const {
          device,
          call,
          error,
          isAllocation,
          count: times,
          smallest,
          largest,
          first,
          last,
          timeNs,
        } of groups.values()) {
          const what = isAllocation ? "allocation" : "mapping";
          const of =
            largest < 0
              ? ""
              : smallest === largest
                ? ` of ${size(largest)}`
                : ` of ${size(smallest)} to ${size(largest)}`;
          const back = isAllocation
            ? error === ENOMEM
              ? "no memory came back"
              : "no address came back"
            : call.includes("_sg")
              ? "nothing of the list was mapped"
              : "all-ones came back instead of an address";
          report({
            ...(isAllocation && { severity: "warning" as const, advice: ADVICE_ALLOCATION }),
            device,
            ...(largest >= 0 && { length: largest }),
            timeNs,
            message: `${deviceName(device)}: ${plural(times, what)}${of} failed (${call}, ${ERRNO_NAMES[error] ?? `error ${-error}`}); ${back}.`,
            evidence: last ? [first, last] : [first],
            selfEvident: true,
          });
        }
      },
    };
  },
};

const ENOMEM = -12;
