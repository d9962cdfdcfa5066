/**
 * Binary records of a kernel stack, as call chains.
 *
 * Idea: the format says where the frames begin; how many there are, the record says, and its length bounds it (the format's
 * own array of eight is only what old tools show). An address becomes the name of its function once.
 * Specified by: ftrace's `kernel_stack`: `int size`, `unsigned long caller[]`.
 */
import { type ChainTable, MOST_FRAMES } from "./chains.ts";
import type { EventFormat } from "./event-format.ts";
import { addressText, type Symbols } from "./symbols.ts";

const TWO_32 = 0x1_0000_0000;
const ALL_ONES = 0xffff_ffff;

export class StackRecords {
  readonly id: number;
  readonly #size: number;
  readonly #callers: number;
  readonly #longSize: number;
  readonly #little: boolean;
  readonly #chains: ChainTable;
  /** Index of a frame by its address, whose upper bits are the same for all. */
  readonly #frames = new Map<number, number>();
  /** The names, once they were read. */
  symbols: Symbols | undefined;

  private constructor(
    id: number,
    size: number,
    callers: number,
    longSize: number,
    little: boolean,
    chains: ChainTable,
  ) {
    this.id = id;
    this.#size = size;
    this.#callers = callers;
    this.#longSize = longSize;
    this.#little = little;
    this.#chains = chains;
  }

  /** For the formats of one file; `undefined` where no format is that of a kernel stack. */
  static of(
    formats: readonly EventFormat[],
    longSize: number,
    little: boolean,
    chains: ChainTable,
  ): StackRecords | undefined {
    const format = formats.find(({ system, name }) => system === "ftrace" && name === "kernel_stack");
    const size = format?.fields.find(({ name }) => name === "size");
    const callers = format?.fields.find(({ name }) => name === "caller");
    if (!format || size?.size !== 4 || size.offset % 4 !== 0 || !callers || callers.offset % 4 !== 0) return undefined;
    return new StackRecords(format.id, size.offset, callers.offset, longSize, little, chains);
  }

  /** The chain in the record at bytes [start, end); `start` is a multiple of 4. 0: it holds no frame. */
  read(words: Uint32Array, start: number, end: number): number {
    const room = Math.floor((end - start - this.#callers) / this.#longSize);
    const count = Math.min(words[(start + this.#size) >>> 2]!, room, MOST_FRAMES);
    for (let frame = 0; frame < count; frame++) {
      const at = (start + this.#callers + frame * this.#longSize) >>> 2;
      let low = words[at]!;
      let high = 0;
      if (this.#longSize === 8) {
        high = words[at + 1]!;
        if (!this.#little) [low, high] = [high, low];
      }
      if (low === ALL_ONES || (low === 0 && high === 0)) break; // the end of an old kernel's array
      this.#chains.add(this.frameAt(low, high));
    }
    return this.#chains.end();
  }

  /** Index of the frame at an address. */
  frameAt(low: number, high: number): number {
    const address = (high & 0xf_ffff) * TWO_32 + low;
    let frame = this.#frames.get(address);
    if (frame === undefined) {
      frame = this.#chains.frames.intern(this.symbols?.nameAt(low, high) ?? addressText(low, high));
      this.#frames.set(address, frame);
    }
    return frame;
  }
}
