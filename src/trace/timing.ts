/**
 * What the stamps of a trace are: times, or a count that only orders; and how far apart two stamps can be told.
 *
 * Idea: the kernel can record by a dozen clocks. Some do not count nanoseconds (`counter`, `uptime`, `x86-tsc`), and some
 * machines have none that steps finer than a timer tick; a text file says nothing of it but how its stamps look. A count must never be printed as a
 * duration, and a duration below the step means nothing.
 * Specified by: the trace clocks of Linux 5.4 to 7.2; the time options of trace-cmd report and perf script.
 */

/** What the stamps are, as far as was seen; complete when the events were read. */
export interface Timing {
  /** `none`: the file gives no stamps, and every `timeNs` is 0. `count`: stamps order the events and are no nanoseconds. */
  readonly kind: "time" | "count" | "none";
  /** Of times: nanoseconds between two stamps that can be told apart (1000: printed in microseconds). 0: not known. */
  readonly stepNs: number;
  /** What a reader of the numbers must know, in one sentence; `undefined`: they are plain times. */
  readonly note: string | undefined;
}

/** Clocks whose stamps are not nanoseconds. */
const COUNTING = new Set(["counter", "uptime", "x86-tsc", "ppc-tb"]);
/** From here on a step is looked for in all stamps: most mappings live shorter. */
const COARSE_NS = 1_000_000;
/** A tick of the kernel at 1000, 250 and 100 Hz. */
const TICKS_NS = new Set([1_000_000, 4_000_000, 10_000_000]);
/** So many stamps on ticks are no chance. */
const ENOUGH = 64;
/** Stamps that are looked at for the step, as long as it is a fine one. */
const LOOKED_AT = 4096;

/** The stamps of a trace count from here, so that none is negative and all are exact in a double: 52 days on each side. */
const LEAD = 1n << 52n;
export const timeBaseFor = (first: bigint): bigint => (first < LEAD ? 0n : first - LEAD);
/** Nanoseconds since the time base up to which a stamp is exact; a later one is damage. */
export const LAST_NS: number = Number.MAX_SAFE_INTEGER;
/** Absolute nanoseconds fit into a signed number of 64 bits. */
export const LAST_STAMP: bigint = (1n << 63n) - 1n - (1n << 53n);

export class TimingOf {
  kind: Timing["kind"] = "time";
  /** Set by what the reader knows: overrides what is worked out. */
  note: string | undefined;
  #stepNs = 0;
  #seen = 0;

  constructor(clock?: string | undefined, isConverted = false) {
    if (clock !== undefined && COUNTING.has(clock) && !isConverted) {
      this.kind = "count";
      this.note = `stamps are those of the trace clock ${clock}: they order the events and are no times`;
    }
  }

  /** Whether more stamps are wanted. */
  get isLooking(): boolean {
    return this.#seen < LOOKED_AT || this.#stepNs >= COARSE_NS;
  }

  see(timeNs: number): void {
    this.#seen++;
    let [a, b] = [timeNs, this.#stepNs];
    while (b !== 0) [a, b] = [b, a % b];
    this.#stepNs = a;
  }

  get value(): Timing {
    const stepNs = this.kind === "time" ? this.#stepNs : 0;
    const note =
      TICKS_NS.has(stepNs) && this.#seen >= ENOUGH
        ? `the clock steps by ${stepNs / 1e6} ms: what is shorter cannot be told`
        : undefined;
    return { kind: this.kind, stepNs, note: this.note ?? note };
  }
}
