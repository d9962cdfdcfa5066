/**
 * A VT-d unit that has always just finished: it writes the status word of the wait at the end of a submission, and does
 * nothing else. In legacy mode. For what the stack's own part costs.
 */
import { fold, HASH } from "../../bench/bench.ts";
import { QUEUE_SLOTS } from "../../src/iommu/vtd/invalidation-queue.ts";
import type { Arena } from "../../src/pagetable/index.ts";
import type { VtdRegisters } from "../../src/platform/index.ts";

export class PromptVtdUnit implements VtdRegisters {
  readonly capability: bigint = 0xd2008c222f0606n;
  readonly extendedCapability: bigint = 0xf00f46n;
  /** Of the last descriptor of every submission. */
  hash: number = HASH;
  readonly #memory: Arena;
  #ring = 0;
  #status = 0;

  constructor(memory: Arena) {
    this.#memory = memory;
  }

  writeGlobalCommand(bits: number): void {
    this.#status = bits;
  }
  readGlobalStatus(): number {
    return this.#status;
  }
  writeRootTableAddress(): void {}
  writeQueueAddress(value: bigint): void {
    this.#ring = (Number(value >> 12n) - this.#memory.basePage) * 1024;
  }
  writeQueueTail(offset: number): void {
    const { words } = this.#memory;
    const wait = this.#ring + ((offset / 16 + QUEUE_SLOTS - 1) % QUEUE_SLOTS) * 4;
    const last = this.#ring + ((offset / 16 + QUEUE_SLOTS - 2) % QUEUE_SLOTS) * 4;
    this.hash = fold(this.hash, words[last + 2]!);
    const page = (words[wait + 3]! >>> 0) * 2 ** 20 + (words[wait + 2]! >>> 12) - this.#memory.basePage;
    words[page * 1024 + ((words[wait + 2]! & 0xfff) >>> 2)] = words[wait + 1]!;
  }
  readQueueHead(): number {
    return 0;
  }
  readQueueError(): bigint {
    return 0n;
  }
  readFaultStatus(): number {
    return 0;
  }
  clearFaultStatus(): void {}
  readFaultRecord(): number {
    return 0;
  }
  clearFaultRecord(): void {}
  writePageRequestAddress(): void {}
  readPageRequestHead(): number {
    return 0;
  }
  writePageRequestHead(): void {}
  readPageRequestTail(): number {
    return 0;
  }
  readPageRequestStatus(): number {
    return 0;
  }
  clearPageRequestStatus(): void {}
  relax(): void {}
}
