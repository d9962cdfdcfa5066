/** What a confidential guest has once, for all of its devices. */
import type { PhysPage } from "../../../base/index.ts";
import type { DmaMachine } from "../../../dma/index.ts";
import type { Clock, MemoryEncryption, TranslationUnit } from "../../../platform/index.ts";

/** The guest's own machine, unit, time and chance. */
export interface TeeGuestOptions {
  /** The guest's own: memory as its CPU sees it, private pages, a bounce pool in shared memory, its book of pages. */
  readonly machine: DmaMachine & {
    /** Which pages are private: the guest's own book. */
    readonly encryption: MemoryEncryption;
  };
  /** Translates requests inside the trust, by tables that the guest writes. */
  readonly unit: TranslationUnit;
  /** Time of what the guest waits for. */
  readonly clock: Clock;
  /** Is there RAM at this page, and not memory of a device? */
  readonly isRam: (page: PhysPage) => boolean;
  /** 32 bytes that nobody can know before: for nonces. */
  readonly nonce: () => Uint8Array;
}
