/** An unmap or a sync in another direction than the map. */
import { COHERENT, FROM_BEFORE, NO_DIRECTION } from "../lifetimes/table.ts";
import type { Rule } from "./rule.ts";
import { address, noun, way } from "./words.ts";

const BOTH = 0;

export const directionMismatch: Rule = {
  name: "direction-mismatch",
  severity: "error",
  summary: "an unmap or sync gives another direction than the map did",
  advice:
    "Use one direction for map, sync and unmap: with bounce buffers or caches that the device does not see, the wrong one loses data or writes over it.",
  watch: ({ table, deviceName, begun, current, isDoubtful, report }) => {
    const check = (row: number, direction: number, what: string): void => {
      if ((table.flags[row]! & FROM_BEFORE) === 0 && isDoubtful(table.startNs[row]!)) return;
      report({
        device: table.device[row]!,
        iova: table.iova[row]!,
        length: table.length[row]!,
        message: `${deviceName(table.device[row]!)}: the ${noun(table.kind[row]!)} at ${address(table.iova[row]!)} was mapped ${way(table.direction[row]!)} and is ${what} ${way(direction)}.`,
        evidence: [begun(row), current(what, table.iova[row]!, table.length[row]!)],
      });
    };
    return {
      closed(row, end) {
        if (end.direction < 0 || table.kind[row] === COHERENT || table.direction[row] === NO_DIRECTION) return;
        // That it is the wrong function is told; this one has no direction of its own.
        if (end.kind === COHERENT) return;
        // A range without links, and a destroy of nothing, have no direction.
        if (table.segments[row] === 0 || end.length === 0) return;
        if (end.direction !== table.direction[row]) check(row, end.direction, "unmapped");
      },
      syncedData(row, direction) {
        const mapped = table.direction[row]!;
        if (direction < 0 || mapped === BOTH || mapped === NO_DIRECTION || mapped === direction) return;
        if (table.kind[row] === COHERENT) return;
        check(row, direction, "synced");
      },
    };
  },
};
