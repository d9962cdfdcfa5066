/**
 * TDISP messages: codes, states, errors, and the header that all of them begin with.
 *
 * Idea: a message is a value (requests.ts, responses.ts); this file has the numbers that both share. A response's code is its
 * request's less 0x80, so the two lists are one.
 * Specified by: TDISP (PCI Express base specification 6.1, chapter 11); numbers as in DMTF's public definitions (libspdm, BSD).
 */
import { viewOf } from "../nvme/index.ts";

/** Version 1.0, the only one. */
export const TDISP_VERSION = 0x10;

/** Version 0, type 1, reserved 3:2, function id 7:4, reserved 15:8. */
export const TDISP_HEADER_BYTES = 16;

/** Request codes. */
export const TDISP_REQUEST = {
  getVersion: 0x81,
  getCapabilities: 0x82,
  lockInterface: 0x83,
  getInterfaceReport: 0x84,
  getInterfaceState: 0x85,
  startInterface: 0x86,
  stopInterface: 0x87,
  bindP2pStream: 0x88,
  unbindP2pStream: 0x89,
  setMmioAttribute: 0x8a,
} as const;

/** What is asked, by name. */
export type TdispRequestName = keyof typeof TDISP_REQUEST;

/** The code of the answer to a request. */
export const responseCode = (request: TdispRequestName): number => TDISP_REQUEST[request] - 0x80;

/** The code of an answer that says why not. */
export const TDISP_ERROR_CODE = 0x7f;

/** Why not. */
export const TDISP_ERROR = {
  invalidRequest: 0x001,
  busy: 0x003,
  invalidInterfaceState: 0x004,
  unspecified: 0x005,
  unsupportedRequest: 0x007,
  versionMismatch: 0x041,
  invalidInterface: 0x101,
  invalidNonce: 0x102,
  insufficientEntropy: 0x103,
  invalidDeviceConfiguration: 0x104,
} as const;

/** Why not, by name. */
export type TdispErrorName = keyof typeof TDISP_ERROR;

/** The states of a device interface (TDI). */
export const TDI_STATE = { configUnlocked: 0, configLocked: 1, run: 2, error: 3 } as const;

/** A state of a device interface, by name. */
export type TdiState = keyof typeof TDI_STATE;

/** Bytes of the nonce that LOCK gives and START takes. */
export const NONCE_BYTES = 32;

const nameIn = <Name extends string>(table: Readonly<Record<Name, number>>, code: number): Name | undefined =>
  (Object.keys(table) as Name[]).find((name) => table[name] === code);

/** The name of a request code; undefined for one that is none. */
export const requestName = (code: number): TdispRequestName | undefined => nameIn(TDISP_REQUEST, code);

/** The name of an error code; undefined for one that is not known. */
export const errorName = (code: number): TdispErrorName | undefined => nameIn(TDISP_ERROR, code);

/** The name of a state; undefined for a number that is none. */
export const stateName = (code: number): TdiState | undefined => nameIn(TDI_STATE, code);

/** What a message begins with. */
interface TdispHeader {
  readonly version: number;
  readonly code: number;
  readonly functionId: number;
}

/** A message with `payloadBytes` zeros behind its header. */
export function startMessage(code: number, functionId: number, payloadBytes: number): DataView {
  const view = viewOf(new Uint8Array(TDISP_HEADER_BYTES + payloadBytes));
  view.setUint8(0, TDISP_VERSION);
  view.setUint8(1, code);
  view.setUint32(4, functionId, true);
  return view;
}

/** The header of a message; undefined if there is not so much of it. */
export function readHeader(bytes: Uint8Array): TdispHeader | undefined {
  if (bytes.length < TDISP_HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  return { version: view.getUint8(0), code: view.getUint8(1), functionId: view.getUint32(4, true) };
}

/** The bytes of a view, as a message is sent. */
export const bytesOf = (view: DataView): Uint8Array => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
