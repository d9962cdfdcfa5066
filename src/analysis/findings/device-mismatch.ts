/** An unmap by another device than the one that mapped. */
import type { Evidence } from "./finding.ts";
import type { Rule } from "./rule.ts";
import { address, size } from "./words.ts";

export const deviceMismatch: Rule = {
  name: "device-mismatch",
  severity: "error",
  summary: "a mapping of one device is unmapped for another",
  advice:
    "Map and unmap with the same struct device, and take care with functions of one card and with bridges: the mapping of the first device stays, and the second one's address space is changed.",
  watch: ({ table, deviceName, begun, current, suspicionOf, overdue, isDoubtful, isCut, report }) => {
    const say = (row: number, by: number, evidence: Evidence, later: readonly Evidence[]): void =>
      report({
        confidence: later.length > 0 ? "certain" : "likely",
        device: table.device[row]!,
        iova: table.iova[row]!,
        length: table.length[row]!,
        timeNs: evidence.timeNs,
        message: `${address(table.iova[row]!)} (${size(table.length[row]!)}) was mapped for ${deviceName(table.device[row]!)} and unmapped for ${deviceName(by)}, which has nothing there.`,
        evidence: [begun(row), evidence, ...later],
      });
    return {
      wrongDevice(row, by) {
        say(row, by, current("unmapped by another device", table.iova[row]!, table.length[row]!), []);
      },
      overlapped(row, older) {
        const suspicion = suspicionOf(older);
        if (suspicion) say(older, suspicion.by, suspicion.event, [begun(row, "mapped again for the first device")]);
      },
      finish() {
        if (isCut()) return;
        for (let row = 0; row < table.used; row++) {
          const suspicion = table.isLive(row) ? suspicionOf(row) : undefined;
          if (suspicion && !isDoubtful(table.startNs[row]!) && overdue(row))
            say(row, suspicion.by, suspicion.event, []);
        }
      },
    };
  },
};
