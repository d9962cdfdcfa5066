/**
 * Call chains in a text: from the line that begins one to the event that it belongs to.
 *
 * Idea: perf prints a chain right below its event; tracefs and trace-cmd print it as a line of its own kind, with a front that
 * names the CPU, after which other CPUs' events may have come. Frames are added as their lines come, and the chain is set
 * when anything else does.
 * Not for: what a frame looks like (frames.ts).
 */

import type { CallChain } from "../call-chain.ts";
import { AwaitingChain, ChainTable } from "../chains.ts";
import type { Columns } from "../columns.ts";
import { Frame } from "./frames.ts";

const TAB = 9;
const SPACE = 32;
const EQUALS = 61;
/** No chain is open. */
const NONE = -2;
/** The frames that come are dropped: of user space, or of an event that was not found. */
const DROPPED = -1;
const FRAME_BYTES = 8;
const LONGEST_RAW = 65536;

const decoder = new TextDecoder();

export class ChainLines {
  readonly list: readonly CallChain[];
  readonly awaiting: AwaitingChain = new AwaitingChain();
  readonly #chains = new ChainTable();
  readonly #frame = new Frame();
  /** The row whose chain is being read. */
  #row = NONE;
  /** Frames are lines of perf, behind their event, and not `=>` lines. */
  #isPerf = false;

  constructor() {
    this.list = this.#chains.list;
  }

  get isOpen(): boolean {
    return this.#row !== NONE;
  }

  /** The lines below may be the chain of the event in `row`, as perf prints it. */
  beginBelow(row: number): void {
    this.#row = row;
    this.#isPerf = true;
  }

  /** A chain of its own line begins. False: the event that it belongs to is not in the batch. */
  begin(cpu: number, buffer: number, columns: Columns): boolean {
    this.#isPerf = false;
    this.#row = this.awaiting.take(cpu, buffer, columns);
    return this.#row !== DROPPED;
  }

  /** A chain of user space begins, which is left out. */
  beginUser(): void {
    this.#isPerf = false;
    this.#row = DROPPED;
  }

  /** Whether the line in [start, newline) is a frame of the open chain; `isEvent` is asked where it could be an event as well. */
  frame(bytes: Uint8Array, start: number, newline: number, isEvent: () => boolean): boolean {
    const frame = this.#frame;
    if (!(this.#isPerf ? frame.readIndented(bytes, start, newline) : frame.readArrow(bytes, start, newline)))
      return false;
    if (this.#isPerf && bytes[start] !== TAB && isEvent()) return false;
    if (frame.isUser || frame.to === frame.from) return true;
    const { frames } = this.#chains;
    const id = frame.isAddress
      ? frames.intern(addressOf(bytes, frame))
      : frames.internBytes(bytes, frame.from, frame.to);
    this.#chains.add(id);
    return true;
  }

  /** The frames that `trace-cmd report -R` prints as bytes, lowest first: `size=2 caller=ARRAY[42, …]`. */
  raw(bytes: Uint8Array, payload: number, newline: number): void {
    const text = decoder.decode(bytes.subarray(payload, Math.min(newline, payload + LONGEST_RAW)));
    const items = /\bcaller=ARRAY\[([^\]]*)\]/.exec(text)?.[1]?.split(", ") ?? [];
    const size = Number(/\bsize=(\d{1,4})\b/.exec(text)?.[1] ?? items.length);
    for (let frame = 0; frame < size && (frame + 1) * FRAME_BYTES <= items.length; frame++) {
      const own = items.slice(frame * FRAME_BYTES, (frame + 1) * FRAME_BYTES);
      const address = own.reverse().join("");
      if (!/^[0-9a-f]{16}$/.test(address) || /^(?:0+|f+)$/.test(address)) return;
      this.#chains.add(this.#chains.frames.intern(`0x${address}`));
    }
  }

  /** The chain of one frame that perf prints behind a payload with `-F ip,sym`. */
  single(bytes: Uint8Array, from: number, to: number): number {
    this.#chains.add(this.#chains.frames.internBytes(bytes, from, to));
    return this.#chains.end();
  }

  /** Something else stands next: the chain, if one is open, is the event's now. */
  end(columns: Columns): void {
    if (this.#row === NONE) return;
    const chain = this.#chains.end();
    if (this.#row >= 0 && this.#row < columns.count && chain > 0) columns.chain[this.#row] = chain;
    this.#row = NONE;
  }
}

/** Whether a line can be a frame at all: no other begins with a letter. */
export const mayBeFrame = (first: number): boolean => first <= SPACE || first === EQUALS;

/** A frame without a name: its address, and the module it is in. */
function addressOf(bytes: Uint8Array, { from, to, moduleFrom, moduleTo }: Frame): string {
  const module = decoder.decode(bytes.subarray(moduleFrom, moduleTo));
  const address = decoder.decode(bytes.subarray(from, to));
  const where = module === "" || module.startsWith("kernel.") ? "" : ` [${module}]`;
  return `${address.startsWith("[") ? "" : "0x"}${address}${where}`;
}
