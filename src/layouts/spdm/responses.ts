/**
 * SPDM responses, as values and as bytes.
 *
 * Promises: `decodeSpdmResponse(encodeSpdmResponse(x))` gives back `x`; bytes that are no response give undefined.
 * Specified by: DMTF DSP0274 1.2, chapter 10.
 */
import {
  DIGEST_BYTES,
  EXCHANGE_BYTES,
  joined,
  RANDOM_BYTES,
  read16,
  SIGNATURE_BYTES,
  SPDM_ERROR,
  SPDM_HEADER_BYTES,
  SPDM_RESPONSE,
  SPDM_VERSION,
  type SpdmErrorName,
  type SpdmRequestName,
  spdmHeader,
  word16,
} from "./messages.ts";
import { decodeVendorDefined, encodeVendorDefined, type VendorDefined } from "./vendor-defined.ts";

/** What a device answers: under the name of what was asked, or an error. */
export type SpdmResponse =
  | { readonly type: "getVersion"; readonly versions: readonly number[] }
  /** Of the certificate chains in its slots: bit n of `slots` is slot n. */
  | { readonly type: "getDigests"; readonly slots: number; readonly digests: readonly Uint8Array[] }
  | {
      readonly type: "getCertificate";
      readonly slot: number;
      readonly portion: Uint8Array;
      readonly remainder: number;
    }
  | {
      readonly type: "getMeasurements";
      readonly blocks: number;
      readonly record: Uint8Array;
      readonly nonce: Uint8Array;
      /** Only if it was asked for. */
      readonly signature?: Uint8Array;
    }
  | {
      readonly type: "keyExchange";
      readonly sessionId: number;
      readonly random: Uint8Array;
      readonly exchange: Uint8Array;
      readonly signature: Uint8Array;
      readonly verify: Uint8Array;
    }
  | { readonly type: "finish" | "endSession" }
  | ({ readonly type: "vendorDefined" } & VendorDefined)
  | { readonly type: "error"; readonly error: SpdmErrorName };

/** A response as it is sent. */
export function encodeSpdmResponse(response: SpdmResponse): Uint8Array {
  const code = SPDM_RESPONSE[response.type];
  switch (response.type) {
    case "getVersion":
      return joined(
        spdmHeader(code),
        [0, response.versions.length],
        response.versions.flatMap((version) => word16(version << 8)),
      );
    case "getDigests":
      return joined(spdmHeader(code, 0, response.slots), ...response.digests);
    case "getCertificate":
      return joined(
        spdmHeader(code, response.slot),
        word16(response.portion.length),
        word16(response.remainder),
        response.portion,
      );
    case "getMeasurements": {
      const { length } = response.record;
      return joined(
        spdmHeader(code, response.blocks),
        [response.blocks, ...word16(length), length >>> 16],
        response.record,
        response.nonce,
        word16(0), // no opaque data
        response.signature ?? [],
      );
    }
    case "keyExchange":
      return joined(
        spdmHeader(code),
        word16(response.sessionId),
        [0, 0],
        response.random,
        response.exchange,
        word16(0), // no opaque data
        response.signature,
        response.verify,
      );
    case "vendorDefined":
      return joined(spdmHeader(code), encodeVendorDefined(response));
    case "error":
      return joined(spdmHeader(code, SPDM_ERROR[response.error]));
    default:
      return joined(spdmHeader(code));
  }
}

/** What arrived; undefined if it is no response. Bytes behind the end are the mailbox's filling, and ignored. */
export function decodeSpdmResponse(
  bytes: Uint8Array,
  options: { readonly signed?: boolean } = {},
): SpdmResponse | undefined {
  if (bytes.length < SPDM_HEADER_BYTES || bytes[0] !== SPDM_VERSION) return undefined;
  const names = Object.keys(SPDM_RESPONSE) as (SpdmRequestName | "error")[];
  const type = names.find((name) => SPDM_RESPONSE[name] === bytes[1]);
  return type && payloadOf(type, bytes, options.signed ?? false);
}

function payloadOf(type: SpdmRequestName | "error", bytes: Uint8Array, signed: boolean): SpdmResponse | undefined {
  const at = SPDM_HEADER_BYTES;
  switch (type) {
    case "getVersion": {
      const count = bytes[at + 1] ?? 0;
      if (bytes.length < at + 2 + 2 * count) return undefined;
      return { type, versions: Array.from({ length: count }, (_, i) => read16(bytes, at + 2 + 2 * i) >>> 8) };
    }
    case "getDigests": {
      const slots = bytes[3]!;
      const count = [...slots.toString(2)].filter((digit) => digit === "1").length;
      if (bytes.length < at + count * DIGEST_BYTES) return undefined;
      const digest = (i: number): Uint8Array => bytes.slice(at + i * DIGEST_BYTES, at + (i + 1) * DIGEST_BYTES);
      return { type, slots, digests: Array.from({ length: count }, (_, i) => digest(i)) };
    }
    case "getCertificate": {
      const length = read16(bytes, at);
      if (bytes.length < at + 4 + length) return undefined;
      const portion = bytes.slice(at + 4, at + 4 + length);
      return { type, slot: bytes[2]! & 0xf, portion, remainder: read16(bytes, at + 2) };
    }
    case "getMeasurements":
      return measurementsOf(bytes, signed);
    case "keyExchange": {
      const parts = [RANDOM_BYTES, EXCHANGE_BYTES, 2, SIGNATURE_BYTES, DIGEST_BYTES];
      let end = at + 4;
      const [random, exchange, , signature, verify] = parts.map((length) => {
        end += length;
        return bytes.slice(end - length, end);
      }) as [Uint8Array, Uint8Array, Uint8Array, Uint8Array, Uint8Array];
      return bytes.length < end
        ? undefined
        : { type, sessionId: read16(bytes, at), random, exchange, signature, verify };
    }
    case "vendorDefined": {
      const message = decodeVendorDefined(bytes.subarray(at));
      return message && { type, ...message };
    }
    case "error": {
      const names = Object.keys(SPDM_ERROR) as SpdmErrorName[];
      return { type, error: names.find((name) => SPDM_ERROR[name] === bytes[2]) ?? "unspecified" };
    }
    default:
      return { type };
  }
}

function measurementsOf(bytes: Uint8Array, signed: boolean): SpdmResponse | undefined {
  const at = SPDM_HEADER_BYTES;
  const length = read16(bytes, at + 1) + (bytes[at + 3] ?? 0) * 65_536;
  const nonceAt = at + 4 + length;
  const signatureAt = nonceAt + RANDOM_BYTES + 2;
  if (bytes.length < signatureAt + (signed ? SIGNATURE_BYTES : 0)) return undefined;
  return {
    type: "getMeasurements",
    blocks: bytes[at]!,
    record: bytes.slice(at + 4, nonceAt),
    nonce: bytes.slice(nonceAt, nonceAt + RANDOM_BYTES),
    ...(signed && { signature: bytes.slice(signatureAt, signatureAt + SIGNATURE_BYTES) }),
  };
}
