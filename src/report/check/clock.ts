/** Times as the trace itself prints them. */

/** Seconds on the trace's own clock, for people. */
export const secondsOf = (timeNs: number, timeBase: bigint): number =>
  Number((timeBase + BigInt(Math.round(timeNs))) / 1000n) / 1e6;

/** Nanoseconds on the trace's own clock, for programs; null where there is no time. Exact below 2^53, which is 104 days of uptime. */
export const clockNs = (timeNs: number | undefined, timeBase: bigint): number | null =>
  timeNs === undefined ? null : Number(timeBase + BigInt(Math.round(timeNs)));
