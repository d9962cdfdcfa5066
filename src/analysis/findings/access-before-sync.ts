/** A range that was used before its links were promised to the device. */
import { FROM_BEFORE, TWO_STEP } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, size } from "./words.ts";

/** Faults that are looked at: a device that faults all the time says no more. */
const MOST_FAULTS = 1000;

/** A range that is destroyed as soon after its last link was given up: a device needs longer. Nanoseconds. */
const QUICK_NS = 20_000;

export const accessBeforeSync: Rule = {
  name: "access-before-sync",
  severity: "error",
  summary: "a two-step range is used by the device before, or without, the sync of its links",
  advice:
    "Call dma_iova_sync once after the last link and before the device is told: without it, some IOMMUs have not seen the new entries, and the device faults or reads old ones.",
  watch: ({ table, deviceName, now, begun, current, isDoubtful, report }) => {
    /** Ranges of some device were synced: the probe is there. */
    let syncs = false;
    /** By row: when it was linked last. */
    const linkedNs = new Map<number, number>();
    /** The shortest that a synced range lived after its last link: nothing is used in less. */
    let shortestNs = QUICK_NS;
    let faults = 0;
    return {
      synced() {
        syncs = true;
      },
      linking: (row) => void linkedNs.set(row, now.timeNs),
      dropped: (row) => void linkedNs.delete(row),
      destroying(row, mapped, beyond, hole) {
        const unsynced = table.unsynced[row]!;
        const afterNs = now.timeNs - (linkedNs.get(row) ?? Number.NEGATIVE_INFINITY);
        linkedNs.delete(row);
        if (unsynced === 0 && mapped > 0) shortestNs = Math.min(shortestNs, afterNs);
        // A link that failed is destroyed without a sync, as it should be: then less than was asked for is linked.
        if (!syncs || mapped === 0 || beyond > 0 || hole >= 0 || mapped < table.reserved[row]!) return;
        if (unsynced === 0 || isDoubtful(table.startNs[row]!)) return;
        if (afterNs < shortestNs) return; // given up before the device was told
        report({
          confidence: "likely",
          device: table.device[row]!,
          iova: table.iova[row]!,
          length: mapped,
          message: `${deviceName(table.device[row]!)}: the range of ${size(mapped)} at ${address(table.iova[row]!)} was linked in full and destroyed again, but ${size(unsynced)} of it were never synced.`,
          evidence: [begun(row, "reserved"), current("destroyed", table.iova[row]!, mapped)],
        });
      },
      faulted(device, iova) {
        if (++faults > MOST_FAULTS) return;
        for (let row = 0; row < table.used; row++) {
          if (!table.isLive(row) || table.kind[row] !== TWO_STEP || table.device[row] !== device) continue;
          if (iova < table.iova[row]! || iova >= table.iova[row]! + table.reserved[row]!) continue;
          if (table.unsynced[row] === 0 || (table.flags[row]! & FROM_BEFORE) !== 0) continue;
          report({
            device,
            iova,
            message: `${deviceName(device)} faulted at ${address(iova)}, in a range whose last ${size(table.unsynced[row]!)} of links were not synced yet.`,
            evidence: [begun(row, "reserved"), current("fault", iova)],
          });
        }
      },
    };
  },
};
