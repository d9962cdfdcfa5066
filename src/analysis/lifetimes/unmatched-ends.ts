/**
 * Ends that no live mapping fits: the strongest reason that the events prove, and what was live before the recording.
 *
 * Idea: an end that fits nothing is a fault, or is of a mapping from before the recording. What ended lately, what lies there, what
 * the IOMMU found and what is known of the start decide; where none of them says anything it is unknown, and no fault.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import type { Ledger } from "./ledger.ts";
import type { PendingUnmap } from "./pending-unmap.ts";
import type { Unmatched } from "./watcher.ts";

/** Spaces of the history beside the devices' addresses: states of ranges, and lists by physical address. */
export const STATE_SPACE = 0x1_0000;
export const LIST_SPACE = 0x2_0000;

export class UnmatchedEnds {
  readonly #ledger: Ledger;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** Why `device` has nothing at `iova`. `last`: the `iommu:unmap` right before on the CPU. */
  why(device: number, iova: number, last: PendingUnmap | undefined): Unmatched {
    const ledger = this.#ledger;
    const inside = ledger.containing(device, iova);
    if (inside >= 0) return { why: "inside", row: inside };
    const other = ledger.table.firstOf(device, iova); // of another kind, or it would have been found
    if (other >= 0) return { why: "inside", row: other };
    const earlier = this.earlier(device, iova);
    if (earlier) return earlier;
    if (last && last.page === ledger.firstPage(iova) && last.pages === 0) return { why: "nothing-there" };
    const { startListed, startPages, startDevices } = ledger;
    const page = Math.floor(iova / PAGE_SIZE);
    if (startPages.overlaps(device, page, 1)) {
      startPages.remove(device, page, 1);
      return { why: "at-start" };
    }
    if (ledger.evicted > 0) return { why: "unknown-start" };
    return { why: startListed || startDevices.has(device) ? "not-at-start" : "unknown-start" };
  }

  /** The end at `address` of `space` that is remembered, unless its next beginning may have been lost. */
  earlier(space: number, address: number): Unmatched | undefined {
    const { history } = this.#ledger;
    const index = history.find(space, address);
    if (index < 0) return undefined;
    const end = history.endOf(index);
    if (this.#ledger.isDoubtful(end.timeNs)) return undefined;
    return { why: "again", earlier: { length: history.lengthOf(index), start: history.startOf(index), end } };
  }

  /** Pages that the device's page tables held when the recording began. */
  seedPages(device: number, page: number, pages: number): void {
    this.#ledger.startDevices.add(device);
    this.#ledger.startPages.add(device, page, pages);
  }
}
