/** Physical memory too simple to be wrong: a byte per address. */
import type { PhysAddr } from "../../src/base/index.ts";
import type { PhysicalMemory } from "../../src/platform/index.ts";

export class ByteMemory implements PhysicalMemory {
  readonly #bytes = new Map<number, number>();

  read(address: PhysAddr, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) into[i] = this.#bytes.get(address + i) ?? 0;
  }

  write(address: PhysAddr, from: Uint8Array): void {
    for (let i = 0; i < from.length; i++) this.#bytes.set(address + i, from[i]!);
  }
}
