/**
 * Records of an SPDM session in the mailbox: who it is from, how long, then what only the two ends can read and make.
 *
 * The mailbox delivers in order, so a record carries no sequence number: both ends count.
 * Specified by: DMTF DSP0277 1.1; PCI Express base specification 6.1, 6.31.4.
 */
import { viewOf } from "../nvme/index.ts";
import { joined, read16, word16 } from "./messages.ts";

/** Bytes of the tag at a record's end. */
export const RECORD_TAG_BYTES = 16;

/** A record: sealed by one end of a session for the other. */
interface SecuredRecord {
  readonly sessionId: number;
  /** The length of the message and the message, sealed; the tag follows them. */
  readonly sealed: Uint8Array;
  readonly tag: Uint8Array;
}

/** What the tag protects besides the sealed bytes: session id and length. */
export const recordHeader = (sessionId: number, sealedBytes: number): Uint8Array => {
  const bytes = new Uint8Array(6);
  const view = viewOf(bytes);
  view.setUint32(0, sessionId, true);
  view.setUint16(4, sealedBytes + RECORD_TAG_BYTES, true);
  return bytes;
};

/** A record as it is sent. */
export const encodeRecord = ({ sessionId, sealed, tag }: SecuredRecord): Uint8Array =>
  joined(recordHeader(sessionId, sealed.length), sealed, tag);

/** A record that arrived; undefined if it is none. Bytes behind its end are the mailbox's filling. */
export function decodeRecord(bytes: Uint8Array): SecuredRecord | undefined {
  const length = read16(bytes, 4);
  if (bytes.length < 6 + length || length < RECORD_TAG_BYTES) return undefined;
  const tagAt = 6 + length - RECORD_TAG_BYTES;
  return {
    sessionId: viewOf(bytes).getUint32(0, true),
    sealed: bytes.slice(6, tagAt),
    tag: bytes.slice(tagAt, 6 + length),
  };
}

/** What is sealed: the message behind its own length. */
export const withLength = (message: Uint8Array): Uint8Array => joined(word16(message.length), message);

/** The message in what was sealed; undefined if it is not so long as it says. */
export const withoutLength = (bytes: Uint8Array): Uint8Array | undefined => {
  const length = read16(bytes, 0);
  return bytes.length < 2 + length ? undefined : bytes.slice(2, 2 + length);
};
