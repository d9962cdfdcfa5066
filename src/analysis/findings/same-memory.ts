/** Memory of one cache line that is mapped twice at once, and a device writes it. */
import { DIRECT, FROM_BEFORE, ONE_SHOT, REPORTED } from "../lifetimes/table.ts";
import type { Watcher } from "../lifetimes/watcher.ts";
import type { Evidence } from "./finding.ts";
import type { Rule, RuleContext } from "./rule.ts";
import { address, plural } from "./words.ts";

/** Bytes of a cache line; larger ones than this are rare, and lines are only ever counted too few. */
const LINE = 64;
/** Mappings that are kept at once: larger ones are looked at by their first and last line only. */
const MOST_LINES = 1 << 16;
const TO_DEVICE = 1;

/** Pairs of one device. */
interface Pairs {
  bytes: number;
  lines: number;
  readonly phys: number;
  readonly evidence: readonly Evidence[];
  readonly timeNs: number;
  readonly sameBytes: boolean;
}

class SameMemory implements Watcher {
  readonly #scene: RuleContext;
  /** The mapping that holds each line's first or last byte, by the line's number. */
  readonly #lines = new Map<number, number>();
  readonly #ids = new Map<number, number>();
  readonly #pairs = new Map<number, Pairs>();

  constructor(scene: RuleContext) {
    this.#scene = scene;
  }

  opened(row: number): void {
    const { table } = this.#scene;
    if (!this.#isKept(row)) return;
    const phys = table.phys[row]!;
    const end = phys + table.length[row]!;
    for (const line of edgesOf(phys, end)) {
      const other = this.#lines.get(line);
      if (other === undefined) {
        if (this.#lines.size < MOST_LINES) this.#lines.set(line, row);
        continue;
      }
      if (!table.isLive(other) || this.#ids.get(other) !== table.id[other]) {
        this.#lines.set(line, row);
        continue;
      }
      if (table.direction[row] !== TO_DEVICE || table.direction[other] !== TO_DEVICE) {
        this.#found(row, other);
        break;
      }
    }
    this.#ids.set(row, table.id[row]!);
  }

  closed(row: number): void {
    if (!this.#ids.delete(row)) return;
    const { table } = this.#scene;
    const phys = table.phys[row]!;
    for (const line of edgesOf(phys, phys + table.length[row]!))
      if (this.#lines.get(line) === row) this.#lines.delete(line);
  }

  dropped(row: number): void {
    this.closed(row);
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

/** The lines that a mapping of [phys, end) shares with its neighbours, or with one of the same memory. */
function edgesOf(phys: number, end: number): readonly number[] {
  const [first, last] = [Math.floor(phys / LINE), Math.floor((end - 1) / LINE)];
  return first === last ? [first] : [first, last];
}

export const sameMemory: Rule = {
  name: "same-memory",
  severity: "advice",
  summary: "one cache line, or the same memory, is mapped twice at once, and the device may write it",
  advice:
    "Harmless where caches see what devices write (x86, most servers). Elsewhere give each buffer cache lines of its own (kmalloc, __dma_from_device_group_begin, dma_get_cache_alignment): the CPU may write an old line over what the device wrote.",
  watch: (scene) => new SameMemory(scene),
};
