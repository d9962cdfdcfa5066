/**
 * A replay of one file of the kind dma-api: the rebuilt machine, what the script holds, and the differences so far. The
 * operations (`dma-api-mapping.ts`, `dma-api-memory.ts`, `dma-api-machine.ts`) all work on it.
 */
import type { Dma } from "../../src/dma/index.ts";
import { type Held, Objects } from "./dma-api-objects.ts";
import { StateJudge } from "./dma-api-state.ts";
import { Differences, type Header, type Line } from "./judge.ts";
import { KernelMachine } from "./kernel-machine.ts";
import { MisuseJudge } from "./misuse.ts";
import { number } from "./words.ts";

/** Makes one call and compares what it answers. `index` is that of the line. */
export type Operation = (line: Line, held: Held, index: number) => void;

export class Replay {
  readonly header: Header;
  readonly lines: readonly Line[];
  readonly machine: KernelMachine;
  readonly differences: Differences = new Differences();
  readonly objects: Objects = new Objects();
  readonly state: StateJudge;
  /** Set for the recordings of a kernel with DMA debugging. */
  readonly misuse: MisuseJudge | undefined;
  /** Told of every named rule by which a better answer was accepted. */
  rule: (name: string) => void = () => {};
  /** The device of the line. */
  dev = 0;
  /** The line's results are not compared: a named rule says why. */
  skipState = false;

  constructor(header: Header, lines: readonly Line[]) {
    this.header = header;
    this.lines = lines;
    if (lines.some(({ op }) => op === "dmaDebug")) this.misuse = new MisuseJudge();
    this.machine = new KernelMachine(header, lines, this.misuse?.debug);
    this.state = new StateJudge(this.machine, this.differences, this.misuse !== undefined);
  }

  /** The front door of the line's device. */
  get dma(): Dma {
    return this.machine.device(this.dev).dma;
  }

  /** What the line is about, and from now on its device. */
  turnTo(line: Line): Held {
    const held = this.objects.of(line);
    this.dev = line["dev"] !== undefined ? number(line["dev"]) : (held.dev ?? this.dev);
    return held;
  }

  same(what: string, expected: unknown, found: unknown): void {
    this.differences.same(what, expected, found);
  }
}
