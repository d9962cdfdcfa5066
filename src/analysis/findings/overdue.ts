/**
 * Which mappings should have ended: what is live at the end of a trace, held against its own kind.
 *
 * Idea: a recording that stops under load leaves mappings that are in flight, and those are no leaks. Mappings of one device,
 * kind and direction are a group; one that is live at the end is overdue if others that began after it have ended, and it
 * is much older than the group's longest life, or far more passed it than ever passed another, or the group was being
 * torn down. If nothing that began after it has ended, it may be the load that just began: then only a very long time counts.
 * Not for: direct mappings, which need no unmap; direct coherent memory must be freed like any other.
 */
import {
  COHERENT,
  DIRECT,
  FROM_BEFORE,
  type LifetimeTable,
  PAGES_GONE,
  REPORTED,
  TWO_STEP,
} from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Confidence } from "./finding.ts";
import { count, time } from "./words.ts";

/** Ends that a group needs before it says anything. */
const LEAST_ENDS = 8;
/** In a group of less, mappings of one size are held against each other; so many ends of that size, and so many that passed. */
const SMALL = 64;
const LEAST_EQUAL_ENDS = 4;
const LEAST_PASSED = 2;
/** How many of the longest lives a mapping of such a group must be old; coherent memory that is passed at all was not to be kept. */
const EQUAL_LIVES = 4;
const EQUAL_COHERENT_LIVES = 1.5;
/** With nothing behind it, a mapping is overdue after so many of the longest lives, and so many nanoseconds. */
const ALONE_LIVES = 20;
const ALONE_NS = 100_000_000;

/** Ends of one length in a small group. */
interface Equals {
  ended: number;
  longestNs: number;
  /** When those that ended began, ascending enough: the last few count. */
  readonly begunNs: number[];
}

class Group {
  begun = 0;
  ended = 0;
  live = 0;
  peak = 0;
  longestNs = 0;
  /** The most that began during one life. */
  mostOvertaken = 0;
  /** Ends since the last beginning, and the times of the first and the last of them. */
  endsInRow = 0;
  endsFromNs = 0;
  endsToNs = 0;
  /** Lives by the power of two of their nanoseconds. */
  readonly lives = new Float64Array(64);
  /** At the end: which of the group are live, ascending. */
  left: number[] | undefined;
  /** While the group is small: its ends by length. */
  readonly bySize = new Map<number, Equals>();

  /** Of those that began after number `ordinal`, how many have ended. */
  endedAfter(ordinal: number): number {
    const left = this.left!;
    let [low, high] = [0, left.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (left[middle]! > ordinal) high = middle;
      else low = middle + 1;
    }
    return this.begun - ordinal - 1 - (left.length - low);
  }

  /** Nanoseconds that half of the lives stay below. */
  get medianNs(): number {
    let left = this.ended / 2;
    for (let power = 0; power < 64; power++) {
      left -= this.lives[power]!;
      if (left <= 0) return 2 ** (power + 1);
    }
    return this.longestNs;
  }
}

/** The power of two that `life` nanoseconds reach: 0 to 63. */
const powerOf = (life: number): number =>
  life < 1 ? 0 : life < 2 ** 31 ? 31 - Math.clz32(life) : Math.min(63, Math.floor(Math.log2(life)));

export class Overdue implements Watcher {
  readonly #table: LifetimeTable;
  readonly #groups: (Group | undefined)[] = [];
  /** Which of its group a row is, in the order of beginning. */
  #ordinal = new Float64Array(1024);

  constructor(table: LifetimeTable) {
    this.#table = table;
  }

  opened(row: number): void {
    const group = this.#groupOf(row);
    if (row >= this.#ordinal.length) {
      const wider = new Float64Array(Math.max(row + 1, this.#ordinal.length * 2));
      wider.set(this.#ordinal);
      this.#ordinal = wider;
    }
    this.#ordinal[row] = group.begun++;
    group.live++;
    group.endsInRow = 0;
    if (group.live > group.peak) group.peak = group.live;
  }

  closed(row: number): void {
    const table = this.#table;
    if ((table.flags[row]! & FROM_BEFORE) !== 0) return;
    const group = this.#groupOf(row);
    const life = table.endNs[row]! - table.startNs[row]!;
    if (life > group.longestNs) group.longestNs = life;
    const overtaken = group.begun - this.#ordinal[row]! - 1;
    if (overtaken > group.mostOvertaken) group.mostOvertaken = overtaken;
    group.lives[powerOf(life)]!++;
    group.ended++;
    group.live--;
    if (group.begun < SMALL) this.#endEqual(group, table.length[row]!, table.startNs[row]!, life);
    if (group.endsInRow++ === 0) group.endsFromNs = table.endNs[row]!;
    group.endsToNs = table.endNs[row]!;
  }

  #endEqual(group: Group, length: number, startNs: number, life: number): void {
    const equals = group.bySize.get(length) ?? { ended: 0, longestNs: 0, begunNs: [] };
    group.bySize.set(length, equals);
    equals.ended++;
    equals.longestNs = Math.max(equals.longestNs, life);
    equals.begunNs.push(startNs);
  }

  dropped(row: number): void {
    if ((this.#table.flags[row]! & FROM_BEFORE) === 0) this.#groupOf(row).live--;
  }

  /** What half of the mappings of the kind of `row` that ended lived at most, nanoseconds; `undefined`: too few ended. */
  typicalNs(row: number): number | undefined {
    const group = this.#groupOf(row);
    return group.ended < LEAST_EQUAL_ENDS ? undefined : Math.min(group.medianNs, group.longestNs);
  }

  /** Only at the end of the trace: what is live then. */
  judge(row: number, lastNs: number): { confidence: Confidence; why: string } | undefined {
    const table = this.#table;
    if (table.reached[row] === DIRECT && table.kind[row] !== COHERENT) return undefined;
    if ((table.flags[row]! & (PAGES_GONE | REPORTED | FROM_BEFORE)) !== 0) return undefined;
    const group = this.#groupOf(row);
    const age = lastNs - table.startNs[row]!;
    if (group.begun < SMALL) {
      const equal = this.#judgeEqual(group, row, age);
      if (equal) return equal;
    }
    if (group.ended < LEAST_ENDS || group.ended < group.begun / 2) return undefined;
    if (!group.left) this.#findLeft();
    const passedBy = group.endedAfter(this.#ordinal[row]!);
    const older = age > 2 * group.longestNs && passedBy >= LEAST_ENDS;
    const passed = passedBy > 2 * group.mostOvertaken + 8;
    const why =
      `the ${count(group.ended)} others of its kind that ended lived ${time(group.longestNs)} at most` +
      (passedBy > 0 ? `, and ${count(passedBy)} of them began after it` : "");
    if (older || passed) return { confidence: older && passed ? "certain" : "likely", why };
    const few = group.live <= Math.max(1, group.peak / 8);
    if (age > Math.max(ALONE_NS, ALONE_LIVES * group.longestNs)) return { confidence: "likely", why };
    if (passedBy === 0) return undefined;
    if (few && age > group.longestNs) return { confidence: "likely", why };
    // Torn down, and then silent for longer than that took.
    const torn = group.endsInRow >= Math.max(LEAST_ENDS, group.peak / 2);
    const silent = lastNs - group.endsToNs > group.endsToNs - group.endsFromNs;
    if (few && torn && silent && age > 4 * group.medianNs)
      return {
        confidence: "possible",
        why: `the last ${count(group.endsInRow)} events of its kind were unmaps, down from ${count(group.peak)} live at once to ${count(group.live)}`,
      };
    return undefined;
  }

  /** In a group that is too small for a verdict, mappings of one length are. */
  #judgeEqual(group: Group, row: number, age: number): { confidence: Confidence; why: string } | undefined {
    const table = this.#table;
    const equals = group.bySize.get(table.length[row]!);
    if (!equals || equals.ended < LEAST_EQUAL_ENDS || equals.ended < group.live) return undefined;
    const passed = equals.begunNs.filter((startNs) => startNs > table.startNs[row]!).length;
    const lives = table.kind[row] === COHERENT ? EQUAL_COHERENT_LIVES : EQUAL_LIVES;
    if (passed < LEAST_PASSED || age <= lives * equals.longestNs) return undefined;
    const why = `the ${count(equals.ended)} others of its kind and size lived ${time(equals.longestNs)} at most, and ${count(passed)} of them began after it`;
    return { confidence: "likely", why };
  }

  #findLeft(): void {
    const table = this.#table;
    const live: number[] = [];
    for (let row = 0; row < table.used; row++)
      if (table.isLive(row) && (table.flags[row]! & FROM_BEFORE) === 0) live.push(row);
    live.sort((a, b) => this.#ordinal[a]! - this.#ordinal[b]!);
    for (const group of this.#groups) if (group) group.left = [];
    for (const row of live) this.#groupOf(row).left!.push(this.#ordinal[row]!);
  }

  #groupOf(row: number): Group {
    const { kind, device, direction } = this.#table;
    const way = kind[row] === COHERENT ? 0 : direction[row]! & 3;
    const key = device[row]! * 32 + kind[row]! * 4 + (kind[row] === TWO_STEP ? 0 : way);
    const known = this.#groups[key];
    if (known) return known;
    const group = new Group();
    this.#groups[key] = group;
    return group;
  }
}
