/**
 * How long tests that can be as long as one likes are: seeds, mutations, orders. `DMALINK_EFFORT=10 npm test` runs ten times
 * as many of each; `npm run test:long` runs those tests alone, with other seeds each time.
 */
const EFFORT = Number(process.env.DMALINK_EFFORT ?? 1);
if (!(EFFORT > 0)) throw new Error(`DMALINK_EFFORT is a factor above 0, not ${process.env.DMALINK_EFFORT}`);

/** `usual` cases by default, in proportion to the effort otherwise; never none. */
export const many = (usual: number): number => Math.max(1, Math.round(usual * EFFORT));

/** One in `every` of a list, the same each time, and all of it in a long run: cases that differ little from one another. */
export const some = <T>(list: readonly T[], every: number): readonly T[] =>
  LONG ? list : list.filter((_, i) => i % every === 0);

/** This is a long run: what takes seconds and finds what shorter tests find too is run in these alone. */
export const LONG: boolean = EFFORT > 1;

/**
 * Seeds of random orders: `usual` of them by default, 10^4 in the long run as it is called by hand (its effort is 10). `DMALINK_ORDER=7` runs
 * the order of seed 7 alone.
 */
export function orderSeeds(usual: number): readonly number[] {
  const one = process.env.DMALINK_ORDER;
  if (one !== undefined) return [Number(one)];
  return Array.from({ length: LONG ? Math.round(1000 * EFFORT) : many(usual) }, (_, i) => i + 1);
}
