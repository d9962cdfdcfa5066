/**
 * TDISP responses, as values and as bytes.
 *
 * Promises: `decodeResponse(encodeResponse(id, x))` gives back `x`; bytes that are no response give undefined.
 * Specified by: TDISP (PCI Express base specification 6.1, 11.3).
 */
import { viewOf } from "../nvme/index.ts";
import {
  bytesOf,
  errorName,
  NONCE_BYTES,
  readHeader,
  requestName,
  responseCode,
  startMessage,
  stateName,
  TDI_STATE,
  TDISP_ERROR,
  TDISP_ERROR_CODE,
  TDISP_HEADER_BYTES,
  TDISP_VERSION,
  type TdiState,
  type TdispErrorName,
  type TdispRequestName,
} from "./messages.ts";

/** What a device can do. */
interface DeviceCapabilities {
  readonly deviceCapabilities: number;
  /** One bit for each request code, that of code 0x80 + n in byte n / 8: 16 bytes. */
  readonly requests: Uint8Array;
  /** Bits of `LOCK_FLAG` that it knows. */
  readonly lockFlags: number;
  /** Bits of an address that it can send. */
  readonly addressBits: number;
  /** Requests that it takes before it has answered: for one interface, and for all. */
  readonly requestsThis: number;
  readonly requestsAll: number;
}

/** Answers that say no more than that it was done. */
type Plain = "startInterface" | "stopInterface" | "bindP2pStream" | "unbindP2pStream" | "setMmioAttribute";

/** What a device answers: under the name of what was asked, or an error. */
export type TdispResponse =
  | { readonly type: "getVersion"; readonly versions: readonly number[] }
  | ({ readonly type: "getCapabilities" } & DeviceCapabilities)
  | { readonly type: "lockInterface"; readonly nonce: Uint8Array }
  /** A portion of the report, and how many bytes follow it. */
  | { readonly type: "getInterfaceReport"; readonly portion: Uint8Array; readonly remainder: number }
  | { readonly type: "getInterfaceState"; readonly state: TdiState }
  | { readonly type: Plain }
  | { readonly type: "error"; readonly error: TdispErrorName; readonly data: number };

const AT = TDISP_HEADER_BYTES;
const CAPABILITIES_BYTES = 28;

/** A response as it is sent. */
export function encodeResponse(functionId: number, response: TdispResponse): Uint8Array {
  const start = (payload: number): DataView =>
    startMessage(response.type === "error" ? TDISP_ERROR_CODE : responseCode(response.type), functionId, payload);
  switch (response.type) {
    case "getVersion": {
      const bytes = bytesOf(start(1 + response.versions.length));
      bytes[AT] = response.versions.length;
      bytes.set(response.versions, AT + 1);
      return bytes;
    }
    case "getCapabilities": {
      const view = start(CAPABILITIES_BYTES);
      view.setUint32(AT, response.deviceCapabilities, true);
      bytesOf(view).set(response.requests, AT + 4);
      view.setUint16(AT + 20, response.lockFlags, true);
      view.setUint8(AT + 25, response.addressBits);
      view.setUint8(AT + 26, response.requestsThis);
      view.setUint8(AT + 27, response.requestsAll);
      return bytesOf(view);
    }
    case "lockInterface": {
      const bytes = bytesOf(start(NONCE_BYTES));
      bytes.set(response.nonce, AT);
      return bytes;
    }
    case "getInterfaceReport": {
      const view = start(4 + response.portion.length);
      view.setUint16(AT, response.portion.length, true);
      view.setUint16(AT + 2, response.remainder, true);
      bytesOf(view).set(response.portion, AT + 4);
      return bytesOf(view);
    }
    case "getInterfaceState": {
      const view = start(1);
      view.setUint8(AT, TDI_STATE[response.state]);
      return bytesOf(view);
    }
    case "error": {
      const view = start(8);
      view.setUint32(AT, TDISP_ERROR[response.error], true);
      view.setUint32(AT + 4, response.data, true);
      return bytesOf(view);
    }
    default:
      return bytesOf(start(0));
  }
}

/** What arrived: whom it is about, and what it says; undefined if it is no response. */
export function decodeResponse(
  bytes: Uint8Array,
): { readonly functionId: number; readonly response: TdispResponse } | undefined {
  const header = readHeader(bytes);
  if (!header || header.version !== TDISP_VERSION) return undefined;
  const { code, functionId } = header;
  const type = code === TDISP_ERROR_CODE ? "error" : requestName(code + 0x80);
  const response = type && payloadOf(type, bytes);
  return response && { functionId, response };
}

function payloadOf(type: TdispRequestName | "error", bytes: Uint8Array): TdispResponse | undefined {
  const view = viewOf(bytes);
  const length = bytes.length - AT;
  switch (type) {
    case "getVersion":
      return length >= 1 && length === 1 + bytes[AT]! ? { type, versions: [...bytes.subarray(AT + 1)] } : undefined;
    case "getCapabilities":
      if (length !== CAPABILITIES_BYTES) return undefined;
      return {
        type,
        deviceCapabilities: view.getUint32(AT, true),
        requests: bytes.slice(AT + 4, AT + 20),
        lockFlags: view.getUint16(AT + 20, true),
        addressBits: view.getUint8(AT + 25),
        requestsThis: view.getUint8(AT + 26),
        requestsAll: view.getUint8(AT + 27),
      };
    case "lockInterface":
      return length === NONCE_BYTES ? { type, nonce: bytes.slice(AT) } : undefined;
    case "getInterfaceReport":
      if (length < 4 || length !== 4 + view.getUint16(AT, true)) return undefined;
      return { type, portion: bytes.slice(AT + 4), remainder: view.getUint16(AT + 2, true) };
    case "getInterfaceState": {
      const state = length === 1 ? stateName(bytes[AT]!) : undefined;
      return state && { type, state };
    }
    case "error": {
      if (length < 8) return undefined;
      // A code that is not known says only that it was not done.
      const error = errorName(view.getUint32(AT, true)) ?? "unspecified";
      return { type, error, data: view.getUint32(AT + 4, true) };
    }
    default:
      return length === 0 ? { type } : undefined;
  }
}
