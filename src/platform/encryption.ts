/**
 * Private and shared pages of a confidential guest.
 *
 * A private page can be read only inside the guest's trust boundary; a device outside sees only shared pages. Converting
 * a page loses its contents.
 */
import type { PhysAddr, PhysPage } from "../base/index.ts";

/** Private and shared pages of a confidential guest: which is which, and converting them. */
export interface MemoryEncryption {
  /**
   * The bit of an address that says "this is shared memory": in what a device inside the trust sends, and in what its page
   * tables point to. Bytes, a power of two above all memory. Undefined where addresses do not say it.
   */
  readonly sharedBit?: number | undefined;
  /** Is `page` private to the guest, so that devices outside its trust cannot reach it? */
  isPrivate(page: PhysPage): boolean;
  /** A device can reach [phys, + length) from now on; and cannot any more. For those who refuse to convert such memory. */
  mapped?(phys: PhysAddr, length: number): void;
  /** One `mapped` of the same range is over. Must not throw. */
  unmapped?(phys: PhysAddr, length: number): void;
  /** False if the machine could not convert: the pages must not be used again then. */
  convert(page: PhysPage, pages: number, to: "shared" | "private"): boolean;
}
