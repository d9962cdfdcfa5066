/**
 * SPDM requests, as values and as bytes.
 *
 * Promises: `decodeSpdmRequest(encodeSpdmRequest(x))` gives back `x`; what is no request of those known here is an error to answer
 * with.
 * Specified by: DMTF DSP0274 1.2, chapter 10.
 */
import {
  DIGEST_BYTES,
  EXCHANGE_BYTES,
  joined,
  RANDOM_BYTES,
  read16,
  SPDM_HEADER_BYTES,
  SPDM_REQUEST,
  SPDM_VERSION,
  type SpdmErrorName,
  type SpdmRequestName,
  spdmHeader,
  word16,
} from "./messages.ts";
import { decodeVendorDefined, encodeVendorDefined, type VendorDefined } from "./vendor-defined.ts";

/** All measurements, in one answer. */
export const ALL_MEASUREMENTS = 0xff;

/** What a security manager asks of a device. */
export type SpdmRequest =
  | { readonly type: "getVersion" }
  | { readonly type: "getDigests" }
  /** A portion of the certificate chain in a slot. */
  | { readonly type: "getCertificate"; readonly slot: number; readonly offset: number; readonly length: number }
  /** Which: 0 how many there are, {@link ALL_MEASUREMENTS}, else one by its index. Signed over the nonce, if there is one. */
  | { readonly type: "getMeasurements"; readonly which: number; readonly slot: number; readonly nonce?: Uint8Array }
  | {
      readonly type: "keyExchange";
      readonly slot: number;
      readonly sessionId: number;
      readonly random: Uint8Array;
      readonly exchange: Uint8Array;
    }
  | { readonly type: "finish"; readonly verify: Uint8Array }
  | { readonly type: "endSession" }
  | ({ readonly type: "vendorDefined" } & VendorDefined);

/** Bit of the first parameter: the measurements are to be signed. */
const SIGNED = 1;

/** A request as it is sent. */
export function encodeSpdmRequest(request: SpdmRequest): Uint8Array {
  const code = SPDM_REQUEST[request.type];
  switch (request.type) {
    case "getCertificate":
      return joined(spdmHeader(code, request.slot), word16(request.offset), word16(request.length));
    case "getMeasurements": {
      const { nonce, which, slot } = request;
      return nonce ? joined(spdmHeader(code, SIGNED, which), nonce, [slot]) : joined(spdmHeader(code, 0, which));
    }
    case "keyExchange":
      return joined(
        spdmHeader(code, 0, request.slot),
        word16(request.sessionId),
        [0, 0],
        request.random,
        request.exchange,
        word16(0), // no opaque data
      );
    case "finish":
      return joined(spdmHeader(code), request.verify);
    case "vendorDefined":
      return joined(spdmHeader(code), encodeVendorDefined(request));
    default:
      return joined(spdmHeader(code));
  }
}

/** What arrived: a request, or the error to answer with. */
type ReceivedSpdm = { readonly request: SpdmRequest } | { readonly error: SpdmErrorName };

/** What arrived; bytes behind the end are the mailbox's filling, and ignored. */
export function decodeSpdmRequest(bytes: Uint8Array): ReceivedSpdm {
  if (bytes.length < SPDM_HEADER_BYTES || bytes[0] !== SPDM_VERSION) return { error: "invalidRequest" };
  const type = (Object.keys(SPDM_REQUEST) as SpdmRequestName[]).find((name) => SPDM_REQUEST[name] === bytes[1]);
  if (!type) return { error: "unsupportedRequest" };
  const request = payloadOf(type, bytes);
  return request ? { request } : { error: "invalidRequest" };
}

function payloadOf(type: SpdmRequestName, bytes: Uint8Array): SpdmRequest | undefined {
  const at = SPDM_HEADER_BYTES;
  switch (type) {
    case "getCertificate":
      return bytes.length < at + 4
        ? undefined
        : { type, slot: bytes[2]! & 0xf, offset: read16(bytes, at), length: read16(bytes, at + 2) };
    case "getMeasurements": {
      const which = bytes[3]!;
      if ((bytes[2]! & SIGNED) === 0) return { type, which, slot: 0 };
      if (bytes.length < at + RANDOM_BYTES + 1) return undefined;
      return { type, which, slot: bytes[at + RANDOM_BYTES]! & 0xf, nonce: bytes.slice(at, at + RANDOM_BYTES) };
    }
    case "keyExchange": {
      const exchangeAt = at + 4 + RANDOM_BYTES;
      if (bytes.length < exchangeAt + EXCHANGE_BYTES + 2) return undefined;
      return {
        type,
        slot: bytes[3]!,
        sessionId: read16(bytes, at),
        random: bytes.slice(at + 4, exchangeAt),
        exchange: bytes.slice(exchangeAt, exchangeAt + EXCHANGE_BYTES),
      };
    }
    case "finish":
      return bytes.length < at + DIGEST_BYTES ? undefined : { type, verify: bytes.slice(at, at + DIGEST_BYTES) };
    case "vendorDefined": {
      const message = decodeVendorDefined(bytes.subarray(at));
      return message && { type, ...message };
    }
    default:
      return { type };
  }
}
