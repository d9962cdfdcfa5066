/** An address that is mapped again while the IOMMU may still remember its last use. */
import type { Place } from "../lifetimes/history.ts";
import { PageSet } from "../lifetimes/page-set.ts";
import { APART, FROM_BEFORE, TRANSLATED } from "../lifetimes/table.ts";
import type { Draft, Rule } from "./rule.ts";
import { address, size, time } from "./words.ts";

/** Unmaps that are remembered with their place until they are flushed. */
const MOST_PLACES = 65_536;
const MOST_DRAFTS = 1000;
/** Unmaps without one invalidation that show that invalidations are not recorded: no queue of the kernel's holds as many. */
const MOST_UNFLUSHED = 65_536;
/** Pages of the largest mapping that is followed: 4 GiB. */
const MOST_PAGES = 2 ** 20;

export const iovaReuseBeforeFlush: Rule = {
  name: "iova-reuse-before-flush",
  severity: "error",
  summary: "an address is mapped again before the IOTLB forgot its last mapping (needs invalidation events)",
  advice:
    "Give an address back only after its invalidation is done: until then the device can reach the old pages by it, whatever the tables say.",
  watch: ({ table, eachExtent, deviceName, now, evidence, begun, report }) => {
    const stale = new PageSet();
    const places = new Map<number, Place>();
    const drafts: Draft[] = [];
    let flushes = 0;
    let unflushed = 0;
    const reused = (device: number, page: number, pages: number): boolean => {
      if (pages > MOST_PAGES || !stale.overlaps(device, page, pages)) return false;
      stale.remove(device, page, pages);
      return true;
    };
    return {
      tookBack(device, page, pages) {
        if (pages > MOST_PAGES || unflushed > MOST_UNFLUSHED) return;
        if (flushes === 0 && ++unflushed > MOST_UNFLUSHED) {
          stale.clear();
          places.clear();
          drafts.length = 0;
          return;
        }
        stale.add(device, page, pages);
        const { timeNs, cpu, pid, task, type, site } = now;
        if (places.size < MOST_PLACES)
          places.set(device * 2 ** 36 + (page % 2 ** 36), { timeNs, cpu, pid, task, type, site });
      },
      flushed(page, end) {
        flushes++;
        unflushed = 0;
        if (page === 0 && end >= 2 ** 36) {
          stale.clear();
          places.clear();
          return;
        }
        for (let device = 0; device < table.devices.length; device++) {
          stale.remove(device, page, end - page);
          if (end - page <= 64) for (let at = page; at < end; at++) places.delete(device * 2 ** 36 + (at % 2 ** 36));
        }
      },
      opened(row) {
        if (unflushed > MOST_UNFLUSHED) return;
        if (table.reached[row] !== TRANSLATED || (table.flags[row]! & FROM_BEFORE) !== 0) return;
        const device = table.device[row]!;
        let first = -1;
        if ((table.flags[row]! & APART) === 0) {
          if (reused(device, table.page[row]!, table.pages[row]!)) first = table.page[row]!;
        } else
          eachExtent(row, (page, pages) => {
            if (reused(device, page, pages) && first < 0) first = page;
          });
        if (first < 0) return;
        if (drafts.length >= MOST_DRAFTS) return;
        const place = places.get(device * 2 ** 36 + (first % 2 ** 36));
        drafts.push({
          device,
          iova: table.iova[row]!,
          length: table.reserved[row]!,
          timeNs: now.timeNs,
          message: `${deviceName(device)}: ${address(table.iova[row]!)} (${size(table.reserved[row]!)}) is mapped again${place ? ` ${time(now.timeNs - place.timeNs)} after it was unmapped` : ""}, and no invalidation came in between.`,
          evidence: [...(place ? [evidence("unmapped", place, table.iova[row]!)] : []), begun(row, "mapped again")],
        });
      },
      finish() {
        // Without any invalidation event they were not recorded.
        if (flushes > 0) for (const draft of drafts) report(draft);
      },
    };
  },
};
