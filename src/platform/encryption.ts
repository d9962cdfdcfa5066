/**
 * Private and shared pages of a confidential guest.
 *
 * A private page can be read only inside the guest's trust boundary; a device outside sees only shared pages. Converting
 * a page loses its contents.
 */
import type { PhysAddr, PhysPage } from "../base/index.ts";

/** Private and shared pages of a confidential guest: which is which, and converting them. */
export interface MemoryEncryption {
  isPrivate(page: PhysPage): boolean;
  /** A device can reach [phys, + length) from now on; and cannot any more. For those who refuse to convert such memory. */
  mapped?(phys: PhysAddr, length: number): void;
  unmapped?(phys: PhysAddr, length: number): void;
  /** False if the machine could not convert: the pages must not be used again then. */
  convert(page: PhysPage, pages: number, to: "shared" | "private"): boolean;
}
