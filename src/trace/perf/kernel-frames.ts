/**
 * Frames of the kernel in the call chains of perf.
 *
 * Idea: a perf.data holds addresses and where each module lies, as a rule no names: a frame is then its address with the
 * module in brackets. Contexts in the chain say where user space begins; that part is left out.
 * Specified by: PERF_RECORD_MMAP of the kernel (process -1), `enum perf_callchain_context`.
 */
import type { ChainTable } from "../chains.ts";
import { addressText, type Symbols } from "../symbols.ts";

const TWO_32 = 0x1_0000_0000;
const ALL_ONES = 0xffff_ffff;
/** Values from here on are no addresses but contexts. */
const FIRST_CONTEXT = 0xffff_f001;
const KERNEL = -128 >>> 0;
const USER = -512 >>> 0;
const MOST_MODULES = 65536;

interface Module {
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

export class KernelFrames {
  symbols: Symbols | undefined;
  readonly #chains: ChainTable;
  readonly #modules: Module[] = [];
  readonly #frames = new Map<number, number>();

  constructor(chains: ChainTable) {
    this.#chains = chains;
  }

  /** A part of the kernel lies at an address, given as two words. */
  mapped(low: number, high: number, length: number, path: string): void {
    const name = /([^/]+)\.ko(?:\.\w+)?$/.exec(path)?.[1] ?? /^\[(?!kernel|guest)([\w-]+)\]$/.exec(path)?.[1];
    if (name === undefined || this.#modules.length >= MOST_MODULES) return;
    const start = keyOf(low, high);
    this.#modules.push({ name: name.replaceAll("-", "_"), start, end: start + length });
  }

  /** The chain of `length` addresses at `words` [at, …). */
  chainAt(words: Uint32Array, at: number, length: number, little: boolean): number {
    let isKernel = true;
    for (let i = 0; i < length; i++) {
      const low = words[little ? at + i * 2 : at + i * 2 + 1]!;
      const high = words[little ? at + i * 2 + 1 : at + i * 2]!;
      if (high === ALL_ONES && low >= FIRST_CONTEXT) {
        if (low === KERNEL) isKernel = true;
        else if (low === USER) isKernel = false;
      } else if (isKernel) this.#chains.add(this.#frameAt(low, high));
    }
    return this.#chains.end();
  }

  #frameAt(low: number, high: number): number {
    const key = keyOf(low, high);
    let frame = this.#frames.get(key);
    if (frame === undefined) {
      const module = this.#modules.findLast(({ start, end }) => key >= start && key < end);
      const address = this.symbols?.nameAt(low, high) ?? addressText(low, high);
      frame = this.#chains.frames.intern(module && address.startsWith("0x") ? `${address} [${module.name}]` : address);
      this.#frames.set(key, frame);
    }
    return frame;
  }
}

/** The lower 52 bits of an address, which a double holds exactly. */
const keyOf = (low: number, high: number): number => (high & 0xf_ffff) * TWO_32 + low;
