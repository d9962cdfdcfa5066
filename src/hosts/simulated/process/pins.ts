/**
 * Pins: pages that stay where they are because a device uses them.
 *
 * Idea: a pin for writing needs a page that the process may write; one for reading needs a page that nobody else can change behind
 * the process's back, so a page that is shared only until somebody writes is copied first. Long-term pins also leave
 * memory that must stay free to move: pages of files stay, zero pages and pages of devices are replaced.
 * Specified by: behaviour of Linux 7.2 (pin_user_pages, gup_must_unshare).
 */
import type { PhysPage } from "../../../base/index.ts";
import { type PinOptions, type Steps, WAITING } from "../../../platform/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { moveToSystem } from "./device-memory.ts";
import { userFault, userMemory } from "./errors.ts";
import { faultIn, type Wanted } from "./fault.ts";
import { ENTRY, kindOf, WRITABLE } from "./page-table.ts";
import { AREA, type Area, type Folio } from "./structures.ts";

/** Tries that one page may take before it counts as out of reach: more than any chain of faults. */
const TRIES = 64;

/**
 * Pins up to `count` pages from `page` on. How many were.
 *
 * @throws DmaError ERR_DMA_USER_FAULT (EFAULT), ERR_DMA_USER_MEMORY (ENOMEM) if not even the first can be
 */
export function* pinSteps(
  space: AddressSpace,
  page: number,
  count: number,
  into: Float64Array,
  at: number,
  options: PinOptions,
): Steps<number> {
  yield* space.beginRead();
  let done = 0;
  try {
    space.hasPinned = true;
    while (done < count) {
      const area = space.areas.at(page + done);
      const why = whyNot(area, options);
      if (why !== undefined) throw userFault(page + done, why);
      const last = Math.min(count, area!.end - page);
      while (done < last) {
        into[at + done] = yield* pinPage(space, area!, page + done, options);
        done++;
      }
    }
  } catch (error) {
    if (done === 0) throw error;
  } finally {
    space.endRead();
  }
  return done;
}

function whyNot(area: Area | undefined, { write }: PinOptions): string | undefined {
  if (!area) return "nothing is mapped there";
  if (area.has(AREA.io)) return "it maps registers, which cannot be pinned";
  return area.has(write ? AREA.write : AREA.read) ? undefined : `the area may not be ${write ? "written" : "read"}`;
}

function* pinPage(space: AddressSpace, area: Area, page: number, options: PinOptions): Steps<PhysPage> {
  for (let tries = 0; tries < TRIES; tries++) {
    const wanted = whatIsMissing(space, area, page, options);
    if (wanted === undefined) {
      const frame = space.table.frame(page);
      const folio = space.frames.folio(frame)!;
      if (folio.region?.kind === "peer") {
        if (!options.peers) throw userFault(page, "it is peer memory, which was not asked for");
        folio.pins++;
        return frame;
      }
      if (!options.longTerm || !folio.region) {
        if (folio.kind !== "zero") folio.pins++;
        return frame;
      }
      if (!(yield* moveToSystem(space.frames, folio)))
        throw userFault(page, "its page cannot leave the device's memory");
      continue;
    }
    const outcome = yield* faultIn(space, area, page, wanted);
    if (outcome === "out-of-memory") throw userMemory(1);
    if (outcome !== "done") throw userFault(page, `touching it ends in ${outcome}`);
    if (kindOf(space.table.state(page)) === ENTRY.migrating) yield WAITING;
  }
  throw userFault(page, "it did not come to rest");
}

/** The fault that has to come before the page can be pinned; undefined: none. */
function whatIsMissing(space: AddressSpace, area: Area, page: number, options: PinOptions): Wanted | undefined {
  const state = space.table.state(page);
  if (kindOf(state) !== ENTRY.present) return options.write ? "write" : "read";
  if ((state & WRITABLE) !== 0) return undefined;
  if (options.write) return "write";
  const frame = space.table.frame(page);
  const folio = space.frames.folio(frame)!;
  return mustUnshare(folio, frame, area, options.longTerm ?? false) ? "unshare" : undefined;
}

function mustUnshare(folio: Folio, frame: PhysPage, area: Area, longTerm: boolean): boolean {
  if (folio.anonVma === undefined) return longTerm && area.isPrivate;
  return !folio.isExclusive(folio.isLarge && folio.mapCountOf(frame) > 0 ? frame : folio.frame);
}
