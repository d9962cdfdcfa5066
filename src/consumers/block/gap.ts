/**
 * The gap mask: how badly aligned are the places where two vectors of a request meet?
 *
 * Idea: at each junction, OR where the first vector ends with where the second begins (offsets in their pages). The lowest
 * set bit of all junctions says for which granules the request has no gaps: with an IOMMU whose pages are at most that, all
 * of it fits into one range of addresses without holes. First start and last end are no junctions and may lie anywhere.
 * Kept as one small number: 0 for no junction, else the lowest set bit plus one; the smallest non-zero of two parts is that of
 * both. Conservative, never wrong: two vectors that are physically adjacent, but meet inside a page, count.
 * Specified by: behaviour of Linux 7.2 block layer.
 */
import { PAGE_SIZE } from "../../base/index.ts";

/** No junction, or none that matters. */
export const NO_GAP = 0;

/**
 * What one junction adds to the OR of all: the vector (`phys`, `length`) is followed by one at `nextPhys`. Only the low 32 bits
 * of anything matter, and those are what bit operations look at.
 */
export const junctionBits = (phys: number, length: number, nextPhys: number): number =>
  (nextPhys & IN_PAGE) | ((phys & IN_PAGE) + length);

/** The OR of junctions as it is kept. */
export const gapOf = (bits: number): number => (bits === 0 ? NO_GAP : 32 - Math.clz32(bits & -bits));

/** The bits at which two neighbouring vectors fail to join. */
export const junctionGap = (phys: number, length: number, nextPhys: number): number =>
  gapOf(junctionBits(phys, length, nextPhys));

const IN_PAGE = PAGE_SIZE - 1;

/** Of two parts of a request. */
export const combineGaps = (a: number, b: number): number => (a === NO_GAP ? b : b === NO_GAP ? a : a < b ? a : b);

/** All bits from the lowest gap bit up: `mask & (granule - 1)` not zero means that granule has gaps. */
export const gapMask = (gap: number): number => (gap === NO_GAP ? 0 : -1 << (gap - 1));
