/**
 * The stamp of a line of text, in every form that the tools print.
 *
 * Specified by: `SECONDS.FRACTION:` (microseconds or nanoseconds) and `COUNT:` of tracefs, trace-cmd report and perf script;
 * `12us : `, `12us+: ` of the latency format; `0.012ms (+0.001ms): ` and `12 (+1): ` of its verbose form.
 */
const SPACE = 32;
const OPEN_PAREN = 40;
const CLOSE_PAREN = 41;
const DOT = 46;
const ZERO = 48;
const COLON = 58;
const SMALL_M = 109;
const SMALL_S = 115;
const SMALL_U = 117;
const NANO_STEP = [1e9, 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 100, 10, 1];
/** Seconds that fit into 63 bits of nanoseconds. */
const LAST_SECOND = 9_000_000_000;
/** A count of more digits is read exactly, and slowly. */
const EXACT_DIGITS = 15;
const MOST_DIGITS = 19;
/** Digits behind the point: every tool prints microseconds or nanoseconds. */
const FEWEST_DIGITS = 6;
const LONGEST_PAUSE = 32;

const decoder = new TextDecoder();

export class Stamp {
  seconds = 0;
  nanoseconds = 0;
  /** A count, or a time whose unit is not printed: not nanoseconds. */
  isCount = false;

  /** Reads the stamp at `at`: the offset behind its colon, or -1. */
  read(bytes: Uint8Array, from: number): number {
    let at = from;
    let whole = 0;
    for (; ; at++) {
      const digit = bytes[at]! - ZERO;
      if (!(digit >= 0 && digit <= 9)) break;
      whole = whole * 10 + digit;
    }
    const digits = at - from;
    if (digits === 0 || digits > MOST_DIGITS) return -1;
    const next = bytes[at];
    if (next === DOT) {
      const point = ++at;
      let fraction = 0;
      for (; ; at++) {
        const digit = bytes[at]! - ZERO;
        if (!(digit >= 0 && digit <= 9)) break;
        fraction = fraction * 10 + digit;
      }
      if (bytes[at] === SMALL_M) return this.#milliseconds(bytes, at, whole, fraction, at - point);
      if (at - point < FEWEST_DIGITS || at - point > 9 || whole > LAST_SECOND) return -1;
      this.seconds = whole;
      this.nanoseconds = fraction * NANO_STEP[at - point]!;
      this.isCount = false;
    } else if (next === COLON || (next === SPACE && bytes[at + 1] === OPEN_PAREN)) {
      if (next === SPACE) {
        // `12 (+1): ` of the verbose form, by a clock that counts
        const end = this.#pause(bytes, at + 1);
        if (end < 0 || digits > EXACT_DIGITS) return -1;
        at = end;
      }
      this.isCount = true;
      if (digits > EXACT_DIGITS) {
        const exact = BigInt(decoder.decode(bytes.subarray(from, at)));
        this.seconds = Number(exact / 1_000_000_000n);
        this.nanoseconds = Number(exact % 1_000_000_000n);
        if (this.seconds > LAST_SECOND) return -1;
      } else {
        this.seconds = Math.floor(whole / 1e9);
        this.nanoseconds = whole % 1e9;
      }
    } else if (next === SMALL_U && bytes[at + 1] === SMALL_S) {
      at += 2;
      if (bytes[at] !== COLON && bytes[at] !== SPACE) at++; // how long until the next: + ! # * @ $
      while (bytes[at] === SPACE) at++;
      this.seconds = Math.floor(whole / 1e6);
      this.nanoseconds = (whole % 1e6) * 1000;
      this.isCount = false;
    } else return -1;
    return bytes[at] === COLON ? at + 1 : -1;
  }

  /** `12.345ms (+0.001ms): ` from its unit on. */
  #milliseconds(bytes: Uint8Array, from: number, whole: number, fraction: number, digits: number): number {
    if (bytes[from + 1] !== SMALL_S || digits !== 3) return -1;
    const at = this.#pause(bytes, from + 2);
    if (at < 0) return -1;
    this.seconds = Math.floor(whole / 1000);
    this.nanoseconds = (whole % 1000) * 1e6 + fraction * 1000;
    this.isCount = false;
    return at + 1;
  }

  /** Steps over how long it was until the next event, `(+0.001ms)`: the offset of the colon behind, or -1. */
  #pause(bytes: Uint8Array, from: number): number {
    let at = from;
    while (at < from + LONGEST_PAUSE && bytes[at] !== COLON && bytes[at]! >= SPACE) at++;
    return bytes[at] === COLON && bytes[at - 1] === CLOSE_PAREN ? at : -1;
  }
}
