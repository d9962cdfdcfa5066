/** What a program says when it registers memory, or changes what it has registered. Specified by: ibv_reg_mr(3), ibv_rereg_mr(3). */
import type { UserProcess } from "../../platform/index.ts";
import type { BufferLife } from "./buffer-memory.ts";
import type { ProtectionDomain } from "./region.ts";
import type { SharedBuffer } from "./shared-buffer.ts";

/** Memory of a process to register. */
export interface RegionRequest {
  /** Whose memory. */
  readonly process: UserProcess;
  /** First byte, in the process. */
  readonly address: number;
  /** How many bytes. */
  readonly length: number;
  /** Where it begins, as its users count: `address` unless said. Both must agree in their low 12 bits. */
  readonly virt?: number;
  /** {@link ACCESS} bits: those say, too, whether it is pinned or on demand. */
  readonly access: number;
  /**
   * Pages that the device cannot reach may be copied for it. Beyond Linux, pinned memory only: whoever asks says with
   * `PinnedMemory.toDevice` and `fromDevice` when, and the two sides must not use it at once.
   */
  readonly mayBounce?: boolean;
}

/** A part of another driver's buffer to register. */
export interface BufferRequest {
  /** Which buffer. */
  readonly buffer: SharedBuffer;
  /** How long its mapping lives. */
  readonly life: BufferLife;
  /** First byte of the buffer. */
  readonly offset: number;
  /** How many bytes. */
  readonly length: number;
  /** `offset` unless said. */
  readonly virt?: number;
  /** {@link ACCESS} bits. */
  readonly access: number;
}

/** What of a region is to be changed. What is not named stays. */
export interface RegionChange {
  /** The protection domain that may use it. */
  readonly domain?: ProtectionDomain;
  /** {@link ACCESS} bits. */
  readonly access?: number;
  /** Other memory under the same key. */
  readonly translation?: Omit<RegionRequest, "access" | "mayBounce">;
}
