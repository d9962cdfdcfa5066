/**
 * A device, as its driver sees it: registers, interrupts, configuration space, and memory for buffers.
 *
 * Idea: a driver holds one of these and a DMA front door, nothing else, so that the same driver runs on a simulated
 * device and on a real one. Promises: after `removed`, reads answer all ones and writes do nothing, as on a bus whose
 * device is gone; nothing throws.
 */
import type { PhysAddr } from "../base/index.ts";

/** A memory BAR's registers. Offsets are bytes, naturally aligned; little endian. */
export interface Registers {
  /** Bytes of the BAR. */
  readonly length: number;
  /** The register at `offset`; all ones when the device is gone. */
  read32(offset: number): number;
  /** Writes 32 bits at `offset`. Posted: it may take effect after the call returned; a read waits for it. */
  write32(offset: number, value: number): void;
}

/** Memory that the CPU and devices share. Where it lies is fixed until it is freed. */
export interface HostBuffer {
  /** What mapping calls take. On a host without physical addresses it is the process's own virtual address. */
  readonly phys: PhysAddr;
  /** Bytes, as they were asked for. */
  readonly length: number;
  /** The bytes themselves: a view, not a copy. */
  readonly bytes: Uint8Array;
  /** A second time does nothing. The view must not be used any more. */
  free(): void;
}

/** Memory that devices can be given. */
export interface HostMemory {
  /**
   * Zeroed memory, page aligned, physically contiguous as far as devices can tell.
   *
   * @throws DmaError ERR_DMA_LENGTH (EINVAL) unless it is a whole number from 1 on; for lack of memory (ENOMEM)
   */
  allocate(length: number): HostBuffer;
}

/**
 * A device as its driver sees it: registers, interrupts, configuration space. After `removed` reads answer all ones and
 * writes do nothing; nothing throws.
 */
export interface PciDevice {
  /** `ssss:bb:dd.f` */
  readonly name: string;
  /** What it puts on the bus as its own name: segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: number;
  /** Where its driver gets memory that the device can be pointed to. */
  readonly memory: HostMemory;
  /** The registers behind a memory BAR; undefined if the device has none there. */
  bar(index: number): Registers | undefined;
  /** `bytes` of configuration space at `offset` (naturally aligned), little endian; all ones when the device is gone. */
  readConfig(offset: number, bytes: 1 | 2 | 4): number;
  /** Writes the low `bytes` of `value` at `offset` (naturally aligned). Does nothing when the device is gone. */
  writeConfig(offset: number, bytes: 1 | 2 | 4, value: number): void;
  /** Without it the device cannot start a transfer of its own. */
  setBusMaster(on: boolean): void;
  /** Calls back once for each message of `vector`; the returned function stops that. Vectors count from 0. */
  onInterrupt(vector: number, callback: () => void): () => void;
  /** Interrupt vectors the device has; 0 if it must be polled. */
  readonly vectors: number;
  /** Function-level reset: when it resolves, no transfer of before is under way. */
  reset(): Promise<void>;
  /** It has gone and does not come back under this object. */
  readonly removed: boolean;
  /** Calls back once when the device has gone; the returned function stops that. */
  onRemoved(callback: () => void): () => void;
}
