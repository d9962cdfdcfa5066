/**
 * SPDM messages: codes, and the header that all of them begin with.
 *
 * Of SPDM stands here what a security manager needs to know a device, measure it, and talk to it in a session: no negotiation
 * of algorithms (sizes are those of the 256-bit ones), no mutual authentication, no chunks.
 * Specified by: DMTF DSP0274 1.2 (SPDM); numbers as in DMTF's public definitions (libspdm, BSD).
 */

/** Version 1.2. */
export const SPDM_VERSION = 0x12;

/** Bytes of a digest, a nonce, a signature, and of what each side gives to a key exchange. */
export const DIGEST_BYTES = 32;
export const RANDOM_BYTES = 32;
export const SIGNATURE_BYTES = 32;
export const EXCHANGE_BYTES = 32;

/** Request codes. */
export const SPDM_REQUEST = {
  getDigests: 0x81,
  getCertificate: 0x82,
  getVersion: 0x84,
  getMeasurements: 0xe0,
  keyExchange: 0xe4,
  finish: 0xe5,
  endSession: 0xec,
  vendorDefined: 0xfe,
} as const;

/** What is asked, by name. */
export type SpdmRequestName = keyof typeof SPDM_REQUEST;

/** Response codes; those of an error and of other vendors' messages stand by themselves. */
export const SPDM_RESPONSE: Readonly<Record<SpdmRequestName | "error", number>> = {
  getDigests: 0x01,
  getCertificate: 0x02,
  getVersion: 0x04,
  getMeasurements: 0x60,
  keyExchange: 0x64,
  finish: 0x65,
  endSession: 0x6c,
  vendorDefined: 0x7e,
  error: 0x7f,
};

/** Why not. */
export const SPDM_ERROR = {
  invalidRequest: 0x01,
  busy: 0x03,
  unexpectedRequest: 0x04,
  unspecified: 0x05,
  decrypt: 0x06,
  unsupportedRequest: 0x07,
  sessionLimitExceeded: 0x0a,
  sessionRequired: 0x0b,
} as const;

/** Why not, by name. */
export type SpdmErrorName = keyof typeof SPDM_ERROR;

/** Version, code, and two parameters whose meaning depends on the code. */
export const SPDM_HEADER_BYTES = 4;

/** A header. */
export const spdmHeader = (code: number, param1 = 0, param2 = 0): number[] => [SPDM_VERSION, code, param1, param2];

/** One byte string from several. */
export function joined(...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

/** A number as two bytes, little endian. */
export const word16 = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff];

/** The two bytes at `at` as a number; 0 beyond the end. */
export const read16 = (bytes: Uint8Array, at: number): number => (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
