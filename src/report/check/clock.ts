/** Times as the trace itself prints them. */

/** Seconds on the trace's own clock. */
export const secondsOf = (timeNs: number, timeBase: bigint): number =>
  Number((timeBase + BigInt(Math.round(timeNs))) / 1000n) / 1e6;
