/**
 * The data pointer of a command: PRPs and SGL descriptors.
 *
 * A PRP is the address of a 4 KiB controller page, or of a part of one from the given offset to its end; a command has two,
 * and the second may point to a list of more. An SGL descriptor is an address and a length of any size.
 * Specified by: NVM Express base specification 2.0, 4.1.1 (physical region page) and 4.1.2 (scatter gather list).
 */
import { put64 } from "./le-words.ts";

/** The controller's page, whatever the CPU's is. */
export const CONTROLLER_PAGE = 4096;
export const PRP_BYTES = 8;
export const PRPS_PER_PAGE: number = CONTROLLER_PAGE / PRP_BYTES;

export const SGL_BYTES = 16;

/** Offsets in an SGL descriptor; the identifier is type << 4 | subtype. */
export const SGL = { address: 0, length: 8, identifier: 15 } as const;

export const SGL_TYPE = {
  dataBlock: 0x00,
  bitBucket: 0x10,
  segment: 0x20,
  lastSegment: 0x30,
  keyed: 0x40,
  transport: 0x50,
} as const;

/** Writes a descriptor of 16 bytes at `at`. */
export function putSgl(view: DataView, at: number, address: number, length: number, identifier: number): void {
  put64(view, at, address);
  view.setUint32(at + SGL.length, length, true);
  view.setUint32(at + 12, identifier << 24, true);
}
