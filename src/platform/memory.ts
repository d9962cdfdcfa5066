/** Memory by physical address, as the devices of a machine see it. */
import type { PhysAddr } from "../base/index.ts";

/** Memory as the CPU reads and writes it, by physical address. Bytes. */
export interface PhysicalMemory {
  /** Fills `into` with the bytes at `address`. Memory that was never written reads as zero. */
  read(address: PhysAddr, into: Uint8Array): void;
  /** Puts `from` at `address`. */
  write(address: PhysAddr, from: Uint8Array): void;
  /** The bytes themselves as a view, where the machine has them in one piece. */
  view?(address: PhysAddr, length: number): Uint8Array | undefined;
}
