/**
 * A vector link: many pieces of physical memory at consecutive addresses of a range, in one call, all or nothing.
 *
 * Idea: single pages that are apart in memory, nearly all there are, go in one tight loop over their frames; from the first
 * piece on that is anything else, physically adjacent pieces are joined and go as runs.
 * Promises: the same entries and errors as one link each. Not for: devices that need care, or whose calls are announced.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { checkLinkAddress } from "../checks.ts";
import { badDirection, linkMisplaced, linkUnaligned, sharedForbidden } from "../errors.ts";
import type { Links } from "./links.ts";
import { FRAMES, RUNS } from "./page-runs.ts";
import { permissions } from "../path/permissions.ts";
import type { TranslatedPath } from "../path/translated.ts";
import type { Direction, DmaAttributes, PhysVec } from "../vectors.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;

/** @param simplePages pages of the range that may go by their frames alone */
export function linkVecs(
  path: TranslatedPath,
  links: Links,
  simplePages: number,
  offset: number,
  vecs: readonly PhysVec[],
  direction: Direction,
  attributes?: DmaAttributes,
): void {
  const index = Math.floor(offset / PAGE);
  let done = 0;
  if (attributes === undefined && index >= 0 && index * PAGE === offset && index + vecs.length <= simplePages) {
    const count = FRAMES.collect(vecs);
    done = links.linkPages(index, FRAMES.frames, count, permissions(direction));
    if (done === vecs.length) return;
  }
  try {
    linkRuns(path, links, offset, done, vecs, direction, attributes);
  } catch (error) {
    if (done > 0) links.clear(links.pageAt(offset), done);
    throw error;
  }
}

/** Links `vecs` from number `from` on, before which all are single pages. */
function linkRuns(
  path: TranslatedPath,
  links: Links,
  offset: number,
  from: number,
  vecs: readonly PhysVec[],
  direction: Direction,
  attributes?: DmaAttributes,
): void {
  const { device, granule } = path;
  const runs = RUNS;
  runs.clear();
  const start = offset + from * PAGE;
  let at = start;
  for (let i = from; i < vecs.length; i++) {
    const { phys, length } = vecs[i]!;
    if (device.checked) links.check("link", at, length);
    checkLinkAddress(phys);
    const inside = path.inside(phys);
    if (at > 0 && inside !== 0) throw linkUnaligned(at, phys, granule);
    if (path.inside(links.address + at) !== inside) throw linkMisplaced(at, phys, links.address + at);
    runs.add((phys - inside) / PAGE, path.pages(inside + length));
    at += length;
  }
  if (runs.count === 0) return;
  const prot = permissions(direction, attributes);
  if (prot === 0) throw badDirection(direction);
  if (attributes?.shared && !device.linuxCompatible) throw sharedForbidden(device.name);
  links.flush();
  links.linkRuns(links.pageAt(start), runs.physPages, runs.pages, runs.count, prot);
}
