/**
 * The global command register of a VT-d unit: what is switched on, and what happens once.
 *
 * Promises: a command has taken effect when its call returns, unless the unit does not follow: then `onSilence` is called.
 * Specified by: VT-d specification, 11.4.4.
 */

import { GLOBAL } from "../../layouts/vtd/index.ts";
import type { VtdRegisters } from "../../platform/index.ts";

const isSet = (bits: number, bit: number): boolean => Math.floor(bits / bit) % 2 === 1; // bit 31 is no int32

export class GlobalCommands {
  readonly #registers: VtdRegisters;
  readonly #pollLimit: number;
  readonly #onSilence: () => void;
  /** What is switched on. */
  #bits = 0;

  constructor(registers: VtdRegisters, pollLimit: number, onSilence: () => void) {
    this.#registers = registers;
    this.#pollLimit = pollLimit;
    this.#onSilence = onSilence;
  }

  /** The invalidation queue, or translation, is on from now on, or off. */
  switch(bit: typeof GLOBAL.queuedInvalidation | typeof GLOBAL.translation, on: boolean): void {
    if (isSet(this.#bits, bit) !== on) this.#bits += on ? bit : -bit;
    this.#registers.writeGlobalCommand(this.#bits);
    this.#await(bit, on);
  }

  /** The root table address register counts from now on. */
  setRootTable(value: bigint): void {
    this.#registers.writeRootTableAddress(value);
    this.#registers.writeGlobalCommand(this.#bits + GLOBAL.setRootTable);
    this.#await(GLOBAL.setRootTable, true);
  }

  /** Entries that were written before can be seen by the unit. */
  flushWriteBuffer(): void {
    this.#registers.writeGlobalCommand(this.#bits + GLOBAL.writeBufferFlush);
    this.#await(GLOBAL.writeBufferFlush, false);
  }

  #await(bit: number, on: boolean): void {
    for (let turn = 0; turn < this.#pollLimit; turn++) {
      if (isSet(this.#registers.readGlobalStatus(), bit) === on) return;
      this.#registers.relax();
    }
    this.#onSilence();
  }
}
