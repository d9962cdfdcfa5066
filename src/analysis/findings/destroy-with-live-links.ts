/** A range given back while parts of it are linked. */
import type { Rule } from "./rule.ts";
import { address, count, size } from "./words.ts";

export const destroyWithLiveLinks: Rule = {
  name: "destroy-with-live-links",
  severity: "error",
  summary: "a two-step range is destroyed or freed while parts of it are still linked",
  advice:
    "Give destroy the number of bytes that are linked, from the beginning of the range, and unlink what lies behind them first: the address space is given to someone else while the device still reaches the old pages.",
  watch: ({ table, deviceName, begun, current, isDoubtful, report }) => ({
    destroying(row, mapped, beyond) {
      if (beyond === 0 || isDoubtful(table.startNs[row]!)) return;
      report({
        device: table.device[row]!,
        iova: table.iova[row]!,
        length: table.reserved[row]!,
        message: `${deviceName(table.device[row]!)}: the range at ${address(table.iova[row]!)} is ${mapped === 0 ? "freed" : `destroyed as ${size(mapped)} linked`} while ${size(beyond)} more are linked (${count(table.segments[row]!)} links in all).`,
        evidence: [begun(row, "reserved"), current(mapped === 0 ? "freed" : "destroyed", table.iova[row]!, mapped)],
      });
    },
  }),
};
