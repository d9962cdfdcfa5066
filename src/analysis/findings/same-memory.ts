/** Memory of one cache line that is mapped twice at once, and a device writes it. */
import { ChainedIndex, hashOf } from "../lifetimes/chained-index.ts";
import { FIRST_ROWS, widened } from "../lifetimes/columns.ts";
import { DIRECT, FROM_BEFORE, ONE_SHOT, REPORTED } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Evidence } from "./finding.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { address, plural } from "./words.ts";

/** Bytes of a cache line; larger ones than this are rare, and lines are only ever counted too few. */
const LINE = 64;
const TO_DEVICE = 1;
const NONE = -1;

/** Pairs of one device. */
interface Pairs {
  bytes: number;
  lines: number;
  readonly phys: number;
  readonly evidence: readonly Evidence[];
  readonly timeNs: number;
  readonly sameBytes: boolean;
}

/** The live mapping that holds the first or last byte of a cache line: two entries a row, its first line and its last. */
class LineHolders {
  #line = new Float64Array(FIRST_ROWS * 2).fill(NONE);
  readonly #index = new ChainedIndex();

  constructor() {
    this.#index.grow(this.#line.length, () => 0);
  }

  /** The row that holds `line`; -1: none, and `row` holds it from now on, as its first line or its last. */
  holderOr(row: number, isLast: boolean, line: number): number {
    const hash = hashOf(line);
    for (let entry = this.#index.first(hash); entry >= 0; entry = this.#index.next(entry))
      if (this.#line[entry] === line) return entry >> 1;
    const own = row * 2 + (isLast ? 1 : 0);
    if (own >= this.#line.length) this.#grow(own);
    this.#line[own] = line;
    this.#index.add(own, hash);
    return NONE;
  }

  /** `row` is gone. */
  release(row: number): void {
    for (let entry = row * 2; entry <= row * 2 + 1 && entry < this.#line.length; entry++) {
      const line = this.#line[entry]!;
      if (line < 0) continue;
      this.#index.remove(entry, hashOf(line));
      this.#line[entry] = NONE;
    }
  }

  #grow(entry: number): void {
    const before = this.#line.length;
    let entries = before;
    while (entries <= entry) entries *= 2;
    this.#line = widened(this.#line, entries).fill(NONE, before);
    this.#index.grow(entries, (one) => hashOf(this.#line[one]!));
  }
}

class SameMemory implements Watcher {
  readonly #scene: RuleContext;
  readonly #holders = new LineHolders();
  readonly #pairs = new Map<number, Pairs>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  opened(row: number): void {
    if (!this.#isKept(row)) return;
    const { table } = this.#scene;
    const phys = table.phys[row]!;
    const first = Math.floor(phys / LINE);
    const last = Math.floor((phys + table.length[row]! - 1) / LINE);
    if (!this.#meets(row, false, first) && last !== first) this.#meets(row, true, last);
  }

  /** Whether `line` of `row` is that of another live mapping, and a device may write one of the two. */
  #meets(row: number, isLast: boolean, line: number): boolean {
    const other = this.#holders.holderOr(row, isLast, line);
    if (other < 0 || other === row) return false;
    const { direction } = this.#scene.table;
    if (direction[row] === TO_DEVICE && direction[other] === TO_DEVICE) return false;
    this.#found(row, other);
    return true;
  }

  closed(row: number): void {
    this.#holders.release(row);
  }

  dropped(row: number): void {
    this.#holders.release(row);
  }

  #isKept(row: number): boolean {
    const { table } = this.#scene;
    if (table.kind[row] !== ONE_SHOT || table.phys[row]! < 0 || table.length[row] === 0) return false;
    // The end of a direct mapping may be unseen: nobody needs to unmap it.
    return table.reached[row] !== DIRECT && (table.flags[row]! & (FROM_BEFORE | REPORTED)) === 0;
  }

  #found(row: number, other: number): void {
    const { table, begun, isDoubtful } = this.#scene;
    if (isDoubtful(table.startNs[other]!)) return;
    const device = table.device[row]!;
    const from = Math.max(table.phys[row]!, table.phys[other]!);
    const to = Math.min(table.phys[row]! + table.length[row]!, table.phys[other]! + table.length[other]!);
    const known = this.#pairs.get(device);
    if (known) {
      if (to > from) known.bytes++;
      else known.lines++;
      return;
    }
    this.#pairs.set(device, {
      bytes: to > from ? 1 : 0,
      lines: to > from ? 0 : 1,
      phys: from,
      sameBytes: to > from,
      evidence: [begun(other, "mapped first"), begun(row, "mapped as well")],
      timeNs: table.startNs[row]!,
    });
  }

  finish(): void {
    for (const [device, { bytes, lines, phys, sameBytes, evidence, timeNs }] of this.#pairs) {
      const said = [
        ...(bytes > 0 ? [`${plural(bytes, "mapping")} of memory that was mapped already`] : []),
        ...(lines > 0 ? [`${plural(lines, "mapping")} that begin or end in a cache line of another one`] : []),
      ];
      this.#scene.report({
        confidence: "possible",
        device,
        timeNs,
        message: `${this.#scene.deviceName(device)}: ${said.join(", and ")}, while the device may write one of the two; the first at ${address(phys)} (${sameBytes ? "the same bytes" : `one line of ${LINE} bytes`}).`,
        evidence,
        selfEvident: true,
      });
    }
  }
}

export const sameMemory: Rule = {
  name: "same-memory",
  severity: "advice",
  summary: "one cache line, or the same memory, is mapped twice at once, and the device may write it",
  advice:
    "Harmless where caches see what devices write (x86, most servers). Elsewhere give each buffer cache lines of its own (kmalloc, __dma_from_device_group_begin, dma_get_cache_alignment): the CPU may write an old line over what the device wrote.",
  watch: (scene) => new SameMemory(scene),
};
