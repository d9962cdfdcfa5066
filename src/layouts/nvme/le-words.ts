/**
 * 64-bit fields in little-endian memory, as numbers: the addresses and block numbers of this library are safe integers.
 *
 * Promises: what was put is got back; the low word is written first, as controllers want their address registers.
 */

const WORD = 0x1_0000_0000;

/** Stores a whole number of 0 to 2^53 as 64 bits. */
export function put64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / WORD), true);
}

/** Loads 64 bits; numbers of 2^53 and above lose their low bits, which makes them wrong but never small. */
export const get64 = (view: DataView, at: number): number =>
  view.getUint32(at + 4, true) * WORD + view.getUint32(at, true);

/** The upper half of a 64-bit register. */
export const high32 = (value: number): number => Math.floor(value / WORD);
export const join64 = (low: number, high: number): number => (high >>> 0) * WORD + (low >>> 0);

/** A view of the same bytes, for the fields of a structure. */
export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
