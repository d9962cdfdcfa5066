/**
 * TDISP requests, as values and as bytes.
 *
 * Promises: `decodeRequest(encodeRequest(id, x))` gives back `x`; whatever else arrives is an error that a device can answer
 * with, or nothing where not even a header is there.
 * Specified by: TDISP (PCI Express base specification 6.1, 11.3).
 */
import { get64, put64, viewOf } from "../nvme/index.ts";
import {
  bytesOf,
  NONCE_BYTES,
  readHeader,
  requestName,
  startMessage,
  TDISP_HEADER_BYTES,
  TDISP_REQUEST,
  TDISP_VERSION,
  type TdispErrorName,
  type TdispRequestName,
} from "./messages.ts";
import { getRange, type MmioRange, putRange, RANGE_BYTES } from "./report.ts";

/** Bits of LOCK's flags. */
export const LOCK_FLAG = {
  noFirmwareUpdate: 0x01,
  /** The cache line is of 128 bytes, and not of 64. */
  cacheLineSize: 0x02,
  lockMsix: 0x04,
  /** Streams between devices may be bound. */
  bindP2p: 0x08,
  /** Requests to peers go up to the root, too. */
  allRequestRedirect: 0x10,
} as const;

/** What LOCK fixes. */
export interface LockParameters {
  /** Bits of {@link LOCK_FLAG}. */
  readonly flags: number;
  /** The IDE stream that the interface's requests go on. */
  readonly defaultStream: number;
  /** Added to the addresses of the report, so that it does not tell where the host put the device. Bytes. */
  readonly mmioReportingOffset: number;
  /** Bits of an address that say which bound stream to a peer is meant. */
  readonly p2pAddressMask: number;
}

/** What a security manager asks of a device. */
export type TdispRequest =
  | { readonly type: "getVersion" }
  | { readonly type: "getCapabilities"; readonly managerCapabilities: number }
  | ({ readonly type: "lockInterface" } & LockParameters)
  /** A portion of the report: reports can be longer than a message. */
  | { readonly type: "getInterfaceReport"; readonly offset: number; readonly length: number }
  | { readonly type: "getInterfaceState" }
  | { readonly type: "startInterface"; readonly nonce: Uint8Array }
  | { readonly type: "stopInterface" }
  | { readonly type: "bindP2pStream"; readonly stream: number }
  | { readonly type: "unbindP2pStream"; readonly stream: number }
  | { readonly type: "setMmioAttribute"; readonly range: MmioRange };

/** Payload behind the header, bytes. */
const PAYLOAD: Readonly<Record<TdispRequestName, number>> = {
  getVersion: 0,
  getCapabilities: 4,
  lockInterface: 20,
  getInterfaceReport: 4,
  getInterfaceState: 0,
  startInterface: NONCE_BYTES,
  stopInterface: 0,
  bindP2pStream: 1,
  unbindP2pStream: 1,
  setMmioAttribute: RANGE_BYTES,
};

const AT = TDISP_HEADER_BYTES;

/** A request as it is sent. */
export function encodeRequest(functionId: number, request: TdispRequest): Uint8Array {
  const view = startMessage(TDISP_REQUEST[request.type], functionId, PAYLOAD[request.type]);
  switch (request.type) {
    case "getCapabilities":
      view.setUint32(AT, request.managerCapabilities, true);
      break;
    case "lockInterface":
      view.setUint16(AT, request.flags, true);
      view.setUint8(AT + 2, request.defaultStream);
      put64(view, AT + 4, request.mmioReportingOffset);
      put64(view, AT + 12, request.p2pAddressMask);
      break;
    case "getInterfaceReport":
      view.setUint16(AT, request.offset, true);
      view.setUint16(AT + 2, request.length, true);
      break;
    case "startInterface":
      bytesOf(view).set(request.nonce, AT);
      break;
    case "bindP2pStream":
    case "unbindP2pStream":
      view.setUint8(AT, request.stream);
      break;
    case "setMmioAttribute":
      putRange(view, AT, request.range);
      break;
    default: // the others are a header
  }
  return bytesOf(view);
}

/** A request that arrived: what it asks, or the error to answer with. */
type ReceivedRequest =
  | { readonly functionId: number; readonly request: TdispRequest }
  | { readonly functionId: number; readonly error: TdispErrorName };

/** What arrived; undefined if it is shorter than a header, which nobody can answer. */
export function decodeRequest(bytes: Uint8Array): ReceivedRequest | undefined {
  const header = readHeader(bytes);
  if (!header) return undefined;
  const { functionId, version, code } = header;
  if (version !== TDISP_VERSION) return { functionId, error: "versionMismatch" };
  const type = requestName(code);
  if (!type) return { functionId, error: "unsupportedRequest" };
  if (bytes.length !== AT + PAYLOAD[type]) return { functionId, error: "invalidRequest" };
  return { functionId, request: payloadOf(type, bytes) };
}

function payloadOf(type: TdispRequestName, bytes: Uint8Array): TdispRequest {
  const view = viewOf(bytes);
  switch (type) {
    case "getCapabilities":
      return { type, managerCapabilities: view.getUint32(AT, true) };
    case "lockInterface":
      return {
        type,
        flags: view.getUint16(AT, true),
        defaultStream: view.getUint8(AT + 2),
        mmioReportingOffset: get64(view, AT + 4),
        p2pAddressMask: get64(view, AT + 12),
      };
    case "getInterfaceReport":
      return { type, offset: view.getUint16(AT, true), length: view.getUint16(AT + 2, true) };
    case "startInterface":
      return { type, nonce: bytes.slice(AT) };
    case "bindP2pStream":
    case "unbindP2pStream":
      return { type, stream: view.getUint8(AT) };
    case "setMmioAttribute":
      return { type, range: getRange(view, AT) };
    default:
      return { type };
  }
}
