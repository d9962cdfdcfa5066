/**
 * The links from anonymous pages to the areas that may map them: made at the first write, copied with an area, handed on to a child.
 *
 * Idea: a page knows the {@link AnonVma} of the process that made it; a child's area hangs on all of its parent's and has one of
 * its own for what it makes itself. So the search for all mappings of a page goes down from where it was made, never sideways.
 * Specified by: behaviour of Linux 7.2 (anon_vma_prepare, _clone, _fork, unlink_anon_vmas).
 */
import { ACCESS_BITS, AnonVma, type Area, type AreaIndex } from "./structures.ts";

function link(area: Area, anonVma: AnonVma): void {
  const made = { area, anonVma };
  area.links.unshift(made);
  anonVma.insert(made);
}

/** The area has somewhere for its own pages to go, from a neighbour if that fits, so that the two may become one later. */
export function prepareAnonVma(area: Area, areas: AreaIndex): AnonVma {
  if (area.anonVma) return area.anonVma;
  const next = areas.next(area);
  const previous = areas.previous(area);
  const shared = (next && reusable(next, area, next)) ?? (previous && reusable(previous, previous, area));
  const anonVma = shared ?? new AnonVma();
  if (!shared) anonVma.children++; // its own child, as a root
  area.anonVma = anonVma;
  link(area, anonVma);
  anonVma.activeAreas++;
  return anonVma;
}

function reusable(old: Area, low: Area, high: Area): AnonVma | undefined {
  const fit =
    low.end === high.start &&
    low.object === high.object &&
    ((low.flags ^ high.flags) & ~ACCESS_BITS) === 0 &&
    high.offset === low.offset + low.pages;
  return fit && old.links.length === 1 ? old.anonVma : undefined;
}

/** `to` may map all that `from` may: a part, a copy, or what it grows into. Sets `to.anonVma` too. */
export function cloneAnonLinks(to: Area, from: Area): void {
  to.anonVma = from.anonVma;
  if (!from.anonVma) return;
  for (const { anonVma } of [...from.links]) link(to, anonVma);
  from.anonVma.activeAreas++;
}

/** The area of a child: on all of its parent's, and with one of its own, or one that is left over. */
export function forkAnonLinks(child: Area, parent: Area): void {
  if (!parent.anonVma) return;
  for (const { anonVma } of [...parent.links]) {
    link(child, anonVma);
    if (child.anonVma === undefined && anonVma.activeAreas === 0 && anonVma.children <= 1) {
      child.anonVma = anonVma;
      anonVma.activeAreas++;
    }
  }
  if (child.anonVma) return;
  const own = new AnonVma(parent.anonVma);
  own.activeAreas = 1;
  parent.anonVma.children++;
  child.anonVma = own;
  link(child, own);
}

/** The area maps nothing any more. */
export function unlinkAnonVmas(area: Area): void {
  if (!area.anonVma) return;
  for (const made of area.links) {
    made.anonVma.remove(made);
    if (made.anonVma.links.length === 0) (made.anonVma.parent ?? made.anonVma).children--;
  }
  area.links.length = 0;
  area.anonVma.activeAreas--;
  area.anonVma = undefined;
}

/** Before and after the borders of an area change: it is then the youngest in each list. */
export function unhang(area: Area): void {
  for (const made of area.links) made.anonVma.remove(made);
}

/** @see unhang */
export function hangAgain(area: Area): void {
  for (const made of area.links) made.anonVma.insert(made);
}
