/**
 * Reclaim: pages leave memory when it is short, oldest first, and their contents go to swap.
 *
 * Idea: an anonymous page has all its entries replaced by the number of its slot, watchers hearing first, then it is written out and
 * freed; a file's page is cut out of its mappings, and the file knows the slot. A huge page is cut first, and its pages go one by one.
 * Promises: a page that is pinned, held, or a device's own stays; what a device wrote before its watcher returned is in swap. A page
 * that cannot go stays mapped as it was.
 * Not for: choosing well: the order is that in which pages came, since nothing here tells which are used.
 * Specified by: behaviour of Linux 7.2 (shrink_folio_list, try_to_unmap, add_to_swap); what pages advised `free` hold is kept, too.
 */
import { PAGE_SIZE, PhysPage } from "../../../base/index.ts";
import type { Steps } from "../../../platform/index.ts";
import { splitFolio, unmapForGood, unmapToSwap } from "./moving.ts";
import type { Folio, FrameSource } from "./structures.ts";
import type { SwapSpace } from "./swap.ts";

/** The work has stopped with a page unmapped and not yet written out. */
const SWAPPING_OUT = "a page is written to swap";

/** Pages that can leave, oldest first. */
interface Oldest extends FrameSource {
  /** All pages that reclaim may look at. */
  readonly oldest: ReadonlySet<Folio>;
  /** It could not go: it is looked at last from now on. */
  rotate(folio: Folio): void;
}

/**
 * Frees up to `wanted` pages; the last huge page may give some more.
 *
 * @returns pages freed: fewer when swap is full, or when nothing else can go
 */
export function* reclaimSteps(frames: Oldest, wanted: number): Steps<number> {
  let freed = 0;
  let looks = frames.oldest.size;
  for (const folio of frames.oldest) {
    if (freed >= wanted || looks-- === 0) break;
    const now = yield* evict(frames, folio);
    if (now === 0) frames.rotate(folio);
    freed += now;
  }
  return freed;
}

/** Sends one folio out, if it can go. Pages freed. */
export function* evict(frames: FrameSource, folio: Folio): Steps<number> {
  const { swap } = frames;
  if (!swap || !canGo(folio)) return 0;
  if (!folio.isLarge)
    return folio.kind === "file" ? evictFilePage(frames, swap, folio) : yield* evictPage(frames, swap, folio);
  if (swap.inUse === swap.pages) return 0;
  frames.hold(folio);
  const parts = splitFolio(frames, folio);
  if (!parts) {
    frames.letGo(folio);
    return 0;
  }
  let freed = 0;
  for (const part of parts)
    if (part.kind === "free")
      freed++; // nothing but zeros
    else freed += yield* evict(frames, part);
  return freed;
}

/** Mapped (or in a file), and nobody but its entries and the swap cache has it. */
function canGo(folio: Folio): boolean {
  if (folio.locked || folio.pins > 0 || folio.region || folio.isInWork) return false;
  return folio.kind === "anonymous" ? folio.mapCount > 0 : folio.kind === "file" && folio.object?.toSwap !== undefined;
}

function* evictPage(frames: FrameSource, swap: SwapSpace<Folio>, folio: Folio): Steps<number> {
  const known = folio.swapSlot;
  const slot = known ?? swap.take();
  if (slot === undefined) return 0;
  if (known !== undefined) swap.share(slot);
  else {
    frames.hold(folio);
    swap.cache(slot, folio);
  }
  folio.locked = true;
  unmapToSwap(folio, slot, swap);
  yield SWAPPING_OUT;
  if (known === undefined) swap.store(slot, contentsOf(frames, folio));
  folio.locked = false;
  swap.uncache(slot);
  swap.drop(slot);
  return 1;
}

/** All at once: whoever looks into a file does not wait. */
function evictFilePage(frames: FrameSource, swap: SwapSpace<Folio>, folio: Folio): number {
  const slot = swap.take();
  if (slot === undefined) return 0;
  frames.hold(folio);
  unmapForGood(folio);
  swap.store(slot, contentsOf(frames, folio));
  folio.object!.toSwap!(folio, slot);
  frames.letGo(folio);
  return 1;
}

function contentsOf(frames: FrameSource, folio: Folio): Uint8Array {
  const bytes = new Uint8Array(PAGE_SIZE);
  frames.memory.read(PhysPage.start(folio.frame), bytes);
  return bytes;
}
