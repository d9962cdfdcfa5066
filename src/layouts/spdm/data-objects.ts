/**
 * Data objects: what travels through the mailbox (DOE) of a device's function 0.
 *
 * An object is a header of two dwords (vendor 15:0, type 23:16; length in dwords 17:0, the header's included) and whole dwords of
 * payload: what is shorter is filled up with zeros, and the message inside says its own length.
 * Promises: bytes that are no object give undefined.
 * Specified by: PCI Express base specification 6.1, 6.30; numbers as in DMTF's public definitions (libspdm, BSD).
 */
import { viewOf } from "../nvme/index.ts";

/** Vendor id of the PCI-SIG. */
export const PCI_SIG = 0x0001;

/** Types of the PCI-SIG's objects. */
export const OBJECT_TYPE = {
  discovery: 0,
  /** Authentication messages: SPDM in the clear. */
  spdm: 1,
  /** Messages of an SPDM session. */
  securedSpdm: 2,
} as const;

/** An object. */
interface DataObject {
  readonly vendor: number;
  readonly type: number;
  /** Whole dwords. */
  readonly payload: Uint8Array;
}

const HEADER_BYTES = 8;
/** A length of 0 means this many dwords. */
const MAX_DWORDS = 0x4_0000;

/** An object as it is sent; its payload filled up to whole dwords. Of at most 1 MiB, its header included. */
export function encodeObject({ vendor, type, payload }: DataObject): Uint8Array {
  const dwords = Math.ceil(payload.length / 4) + HEADER_BYTES / 4;
  const bytes = new Uint8Array(dwords * 4);
  const view = viewOf(bytes);
  view.setUint16(0, vendor, true);
  view.setUint8(2, type);
  view.setUint32(4, dwords === MAX_DWORDS ? 0 : dwords, true);
  bytes.set(payload, HEADER_BYTES);
  return bytes;
}

/** An object that arrived; undefined if it is none, or not as long as it says. */
export function decodeObject(bytes: Uint8Array): DataObject | undefined {
  if (bytes.length < HEADER_BYTES) return undefined;
  const view = viewOf(bytes);
  const said = view.getUint32(4, true) & (MAX_DWORDS - 1);
  if ((said === 0 ? MAX_DWORDS : said) * 4 !== bytes.length) return undefined;
  return { vendor: view.getUint16(0, true), type: bytes[2]!, payload: bytes.slice(HEADER_BYTES) };
}

/** Discovery: what object number `index` of a mailbox is. */
export const encodeDiscovery = (index: number): Uint8Array => Uint8Array.of(index, 0, 0, 0);
/** The answer, and the index to ask next; 0 after the last one. */
export const encodeDiscovered = (vendor: number, type: number, next: number): Uint8Array =>
  Uint8Array.of(vendor & 0xff, vendor >>> 8, type, next);
/** What an answer says; undefined if it is none. */
export const decodeDiscovered = (
  payload: Uint8Array,
): { readonly vendor: number; readonly type: number; readonly next: number } | undefined =>
  payload.length === 4
    ? { vendor: viewOf(payload).getUint16(0, true), type: payload[2]!, next: payload[3]! }
    : undefined;
