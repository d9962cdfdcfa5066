/**
 * A vector link: many pieces of physical memory at consecutive addresses of a range, in one call, all or nothing.
 *
 * Idea: single pages that are apart in memory, nearly all there are, go in one tight loop over their frames; from the first
 * piece on that is anything else, physically adjacent pieces are joined and go as runs. Pieces come as objects or as columns.
 * Promises: the same entries and errors as one link each. Not for: devices that need care, or whose calls are announced.
 */
import { PAGE_SIZE } from "../../base/index.ts";
import { checkLinkAddress, checkPiece, checkPieces, piecesOf } from "../checks.ts";
import { badDirection, linkMisplaced, linkUnaligned, sharedForbidden } from "../errors.ts";
import type { Granules } from "../path/granules.ts";
import { permissions } from "../path/permissions.ts";
import type { Terms } from "../terms.ts";
import type { PhysColumns, PhysVec } from "../vectors.ts";
import type { Links } from "./links.ts";
import { FRAMES, RUNS } from "./page-runs.ts";

/** A constant of this file's own folds into the code: see PAGE_SIZE. */
const PAGE = PAGE_SIZE;

/** @param simplePages pages of the range that may go by their frames alone */
export function linkVecs(
  granules: Granules,
  links: Links,
  simplePages: number,
  offset: number,
  pieces: readonly PhysVec[] | PhysColumns,
  terms: Terms,
): void {
  const { direction, attributes } = terms;
  const pieceCount = checkPieces(pieces);
  const index = Math.floor(offset / PAGE);
  let done = 0;
  if (attributes === undefined && index >= 0 && index * PAGE === offset && index + pieceCount <= simplePages) {
    const count = FRAMES.collect(pieces, pieceCount);
    done = links.linkPages(index, FRAMES.frames, count, permissions(direction));
    if (done === pieceCount) return;
  }
  try {
    linkRuns(granules, links, offset, done, piecesOf(pieces), terms);
  } catch (error) {
    if (done > 0) links.clear(links.pageAt(offset), done);
    throw error;
  }
}

/** Links `vecs` from number `from` on, before which all are single pages. */
function linkRuns(
  granules: Granules,
  links: Links,
  offset: number,
  from: number,
  vecs: readonly PhysVec[],
  { direction, attributes }: Terms,
): void {
  const { device, granule } = granules;
  const runs = RUNS;
  runs.clear();
  const start = offset + from * PAGE;
  let at = start;
  for (let i = from; i < vecs.length; i++) {
    checkPiece(vecs[i]);
    const { phys, length } = vecs[i]!;
    if (device.refusesMisuse) links.check("link", at, length);
    checkLinkAddress(phys);
    const inside = granules.inside(phys);
    if (at > 0 && inside !== 0) throw linkUnaligned(at, phys, granule);
    if (granules.inside(links.address + at) !== inside) throw linkMisplaced(at, phys, links.address + at);
    runs.add((phys - inside) / PAGE, granules.pages(inside + length));
    at += length;
  }
  if (runs.count === 0) return;
  const prot = permissions(direction, attributes);
  if (prot === 0) throw badDirection(direction);
  if (attributes?.shared && !device.linuxCompatible) throw sharedForbidden(device.name);
  links.flush();
  links.linkRuns(links.pageAt(start), runs.physPages, runs.pages, runs.count, prot);
}
