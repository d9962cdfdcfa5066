/**
 * Gives a page to one device alone. Apart from exclusive.ts, which takes it back, because this needs page faults, and page
 * faults need that.
 */
import type { PhysPage } from "../../../base/index.ts";
import { type MemoryOwner, type Steps, WAITING } from "../../../platform/index.ts";
import { ANNOUNCED } from "./anonymous.ts";
import { refused, userFault, userMemory } from "./errors.ts";
import { faultIn } from "./fault.ts";
import { splitHugeEntry } from "./huge.ts";
import { ENTRY, kindOf, WRITABLE } from "./page-table.ts";
import { AREA, type Space } from "./structures.ts";

/**
 * Gives `page` to a device alone. The areas are held still.
 *
 * @returns its frame
 * @throws DmaError ERR_DMA_USER_FAULT (EFAULT), ERR_DMA_USER_CALL (EOPNOTSUPP), ERR_DMA_USER_MEMORY (ENOMEM)
 */
export function* giveAway(space: Space, page: number, owner: MemoryOwner | undefined): Steps<PhysPage> {
  for (;;) {
    const area = space.areas.at(page);
    if (area?.has(AREA.hugetlb)) throw notOwn();
    if (!area?.has(AREA.write) || area.has(AREA.io)) throw userFault(page, "the process may not write there");
    const { table, notifiers } = space;
    const huge = table.huge(page);
    if (huge && kindOf(huge.state) === ENTRY.present) splitHugeEntry(space, page);
    if (!isWritable(space, page)) {
      const outcome = yield* faultIn(space, area, page, "write");
      if (outcome === "out-of-memory") throw userMemory(1);
      if (outcome !== "done") throw userFault(page, `touching it ends in ${outcome}`);
      if (kindOf(table.state(page)) === ENTRY.migrating) yield WAITING;
      continue;
    }
    const frame = table.frame(page);
    const folio = space.frames.folio(frame)!;
    if (folio.kind !== "anonymous") throw notOwn();
    while (folio.locked) yield WAITING;
    notifiers.begin("exclusive", page, page + 1, owner);
    yield ANNOUNCED;
    const isStill = isWritable(space, page) && !table.huge(page) && table.frame(page) === frame;
    if (isStill) table.set(page, ENTRY.exclusive, frame);
    notifiers.end();
    if (isStill) return frame;
  }
}

const notOwn = (): Error =>
  refused(
    "exclusive access",
    "EOPNOTSUPP",
    "only a process's own pages can be given away, not those of files or hugetlb",
  );

const isWritable = (space: Space, page: number): boolean => {
  const state = space.table.state(page);
  return kindOf(state) === ENTRY.present && (state & WRITABLE) !== 0;
};
