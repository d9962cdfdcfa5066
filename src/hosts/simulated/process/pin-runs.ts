/**
 * Pins told as runs: a huge page that can be pinned as it is takes one step, everything else goes page by page (pins.ts).
 *
 * Promises: the same pages, pins and errors as page by page.
 */
import type { PageRuns, PinOptions, Steps } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { ENTRY, HUGE_PAGES, kindOf, WRITABLE } from "./page-table.ts";
import { pinSteps } from "./pins.ts";
import { AREA } from "./structures.ts";

/** Pins up to `count` pages from `page` on. How many were. @throws DmaError as {@link pinSteps} */
export function* pinRunSteps(
  space: AddressSpace,
  page: number,
  count: number,
  into: PageRuns,
  options: PinOptions,
): Steps<number> {
  let done = 0;
  let singles: Float64Array | undefined;
  while (done < count) {
    const at = page + done;
    const left = Math.min(count - done, HUGE_PAGES - (at % HUGE_PAGES));
    const whole = yield* pinHuge(space, at, left, into, options);
    if (whole > 0) {
      done += whole;
      continue;
    }
    singles ??= new Float64Array(HUGE_PAGES);
    let pinned: number;
    try {
      pinned = yield* pinSteps(space, at, left, singles, 0, options);
    } catch (error) {
      if (done === 0) throw error;
      return done;
    }
    for (let i = 0; i < pinned; i++) into.add(singles[i]!, 1);
    done += pinned;
    if (pinned < left) return done;
  }
  return done;
}

/** Pins `count` pages of one huge page that is the process's own and needs no fault; 0: it is not that simple. */
function* pinHuge(
  space: AddressSpace,
  page: number,
  count: number,
  into: PageRuns,
  { write }: PinOptions,
): Steps<number> {
  yield* space.beginRead();
  try {
    const entry = space.table.huge(page);
    const area = space.areas.at(page);
    if (!entry || !area || area.end < page + count || area.has(AREA.io)) return 0;
    if (kindOf(entry.state) !== ENTRY.present || (entry.state & WRITABLE) === 0) return 0;
    if (!area.has(write ? AREA.write : AREA.read)) return 0;
    const frame = space.table.frame(page);
    const folio = space.frames.folio(frame);
    if (!folio || folio.region || folio.kind === "zero") return 0;
    space.hasPinned = true;
    folio.pins += count;
    into.add(frame, count);
    return count;
  } finally {
    space.endRead();
  }
}
