/**
 * By how much a log's clock differs from a trace's, found from lines that are in both.
 *
 * Idea: every line of the log that the trace has too is a vote for one difference; a line that is there several times votes for several, of
 * which only the true one gets the votes of all the others. The difference with the most votes wins, if it has clearly more than any other.
 * Promises: memory is bounded; the answer says how many lines it rests on; where there is none, none is given.
 * Knows: the two clocks of one kernel may run apart by microseconds, and a line reaches the trace a little after it got its stamp.
 */

/** Different lines that are remembered, and times of each. */
const MOST_TEXTS = 1 << 16;
const MOST_TIMES = 16;
const MOST_VOTES = 1 << 16;
/** Votes that lie this close are for one difference. */
const LEAST_BUCKET_NS = 1e6;

/** A difference between two clocks. */
export interface ClockOffset {
  /** Nanoseconds to add to the log's times. */
  readonly offsetNs: number;
  /** How sure: the votes lie within this, and the log's times are as coarse. */
  readonly toleranceNs: number;
  /** Lines that are in both. */
  readonly lines: number;
}

/** The lines of a log, by what they say. */
export class LogIndex {
  readonly #times = new Map<string, number[]>();

  add(text: string, timeNs: number): void {
    const times = this.#times.get(text);
    if (times) {
      if (times.length < MOST_TIMES) times.push(timeNs);
    } else if (this.#times.size < MOST_TEXTS) this.#times.set(text, [timeNs]);
  }

  timesOf(text: string): readonly number[] {
    return this.#times.get(text) ?? [];
  }
}

export class OffsetVotes {
  readonly #index: LogIndex;
  readonly #bucketNs: number;
  readonly #resolutionNs: number;
  readonly #buckets = new Map<number, number[]>();
  #votes = 0;
  #lines = 0;

  /** `resolutionNs`: how fine the log's times are. */
  constructor(index: LogIndex, resolutionNs: number) {
    this.#index = index;
    this.#resolutionNs = resolutionNs;
    this.#bucketNs = Math.max(LEAST_BUCKET_NS, 2 * resolutionNs);
  }

  /** The trace has this line at `timeNs`. */
  heard(text: string, timeNs: number): void {
    const times = this.#index.timesOf(text);
    if (times.length === 0 || this.#votes >= MOST_VOTES) return;
    this.#lines++;
    for (const time of times) {
      const difference = timeNs - time;
      const bucket = Math.round(difference / this.#bucketNs);
      const votes = this.#buckets.get(bucket);
      if (votes) votes.push(difference);
      else this.#buckets.set(bucket, [difference]);
      this.#votes++;
    }
  }

  /** `undefined`: no line is in both, or several differences explain them as well. */
  result(): ClockOffset | undefined {
    let best: number | undefined;
    let most = 0;
    for (const [bucket] of this.#buckets) {
      const votes = this.#around(bucket);
      if (votes > most) [best, most] = [bucket, votes];
    }
    if (best === undefined) return undefined;
    let rival = 0;
    for (const bucket of this.#buckets.keys())
      if (Math.abs(bucket - best) > 2) rival = Math.max(rival, this.#around(bucket));
    // A few lines that come again and again could be shifted by one: then the second best is nearly as good.
    if (rival >= most) return undefined;
    const votes = [best - 1, best, best + 1].flatMap((bucket) => this.#buckets.get(bucket) ?? []).sort((a, b) => a - b);
    // A line gets its stamp first, and reaches the trace later, now and then much later: the least difference is the truest.
    const offsetNs = votes[Math.floor(votes.length / 4)]!;
    const spread = votes.at(-1)! - votes[0]!;
    return { offsetNs, toleranceNs: Math.max(spread, this.#resolutionNs), lines: Math.min(most, this.#lines) };
  }

  #around(bucket: number): number {
    return [bucket - 1, bucket, bucket + 1].reduce((sum, at) => sum + (this.#buckets.get(at)?.length ?? 0), 0);
  }
}
