/** What it cost: the library's counters, in all and for the last step, and what they come to by the published prices. */
import type { VNode } from "preact";
import { COUNTER_NAMES, type CounterName, count, duration } from "../../../../base/index.ts";
import { short } from "../pictures/words.ts";
import { before, standing } from "../session.ts";

const WORDS: Readonly<Partial<Record<CounterName, string>>> = {
  iovaAllocations: "reservations",
  iovaFrees: "reservations ended",
  leavesWritten: "entries written",
  leavesCleared: "entries cleared",
  leavesReplaced: "entries replaced",
  tableEntriesWritten: "pointers to tables written",
  tablePagesAllocated: "tables taken",
  tablePagesFreed: "tables given back",
  mapSyncs: "syncs",
  rangeInvalidations: "invalidations of a range",
  domainInvalidations: "invalidations of everything",
  flushQueueEntries: "put in the flush queue",
  bouncedBytes: "bytes copied",
  cacheOperations: "cache operations",
  cacheBarriers: "cache barriers",
};

export function Counts(): VNode {
  const counts = standing.value?.picture.counts ?? [];
  return (
    <section class="machine-figure" aria-label="what it cost">
      <h2>
        What it cost <small>in all, and in the last step</small>
      </h2>
      {counts.length === 0 ? <p class="quiet">No device is open.</p> : null}
      {counts.map(({ device, counts: now, priceNs }) => {
        const then = before.value?.picture.counts.find((each) => each.device === device);
        const rows = COUNTER_NAMES.filter((name) => now[name] > 0 && WORDS[name] !== undefined);
        return (
          <table key={device} class="machine-counts">
            <caption>{short(device)}</caption>
            <tbody>
              {rows.map((name) => (
                <tr key={name}>
                  <th scope="row">{WORDS[name]}</th>
                  <td class="number">{count(now[name])}</td>
                  <td class="number machine-delta">{signed(now[name] - (then?.counts[name] ?? 0))}</td>
                </tr>
              ))}
              <tr class="machine-price">
                <th scope="row">
                  {now.bouncedBytes + now.cacheOperations > 0 ? "price, copies not counted" : "price"}
                </th>
                <td class="number">{duration(Math.round(priceNs))}</td>
                <td class="number machine-delta">
                  {priceNs > (then?.priceNs ?? 0) ? `+${duration(Math.round(priceNs - (then?.priceNs ?? 0)))}` : ""}
                </td>
              </tr>
            </tbody>
          </table>
        );
      })}
    </section>
  );
}

const signed = (value: number): string => (value > 0 ? `+${count(value)}` : "");
