/**
 * One end of a secure session: seals its records, and opens the other end's only in the order in which they were sealed.
 *
 * Idea: both ends count their records. A record that was changed, repeated, left out or made by somebody else does not open, and
 * then nothing happened: the count stays.
 * Not for: cryptography of anybody (digest.ts).
 * Specified by: DMTF DSP0277 in what it promises; the cipher is a keystream of keyed digests.
 */
import {
  decodeRecord,
  encodeRecord,
  RECORD_TAG_BYTES,
  recordHeader,
  withLength,
  withoutLength,
} from "../../../layouts/spdm/index.ts";
import { keyed, sameBytes, textBytes } from "./digest.ts";

/** What both ends derive their keys from. */
export interface SessionSecret {
  readonly id: number;
  /** What they agreed on. */
  readonly shared: Uint8Array;
  /** The digest of everything that was said before. */
  readonly transcript: Uint8Array;
}

const keyFor = ({ shared, transcript }: SessionSecret, who: string): Uint8Array =>
  keyed(shared, textBytes(who), transcript);

/** Proof that one end has the same keys and heard the same words. */
export const verifyData = (secret: SessionSecret, who: "requester" | "responder"): Uint8Array =>
  keyed(keyFor(secret, `${who} finished`), secret.transcript);

const counted = (count: number): number[] => [count & 0xff, (count >>> 8) & 0xff, (count >>> 16) & 0xff, count >>> 24];

/** One end of a session. */
export class SessionEnd {
  readonly id: number;
  readonly #sendKey: Uint8Array;
  readonly #receiveKey: Uint8Array;
  #sent = 0;
  #received = 0;

  constructor(secret: SessionSecret, who: "requester" | "responder") {
    this.id = secret.id;
    this.#sendKey = keyFor(secret, who);
    this.#receiveKey = keyFor(secret, who === "requester" ? "responder" : "requester");
  }

  /** The next record that says `message`. */
  seal(message: Uint8Array): Uint8Array {
    const count = counted(this.#sent++);
    const sealed = withLength(message);
    applyStream(this.#sendKey, count, sealed);
    return encodeRecord({ sessionId: this.id, sealed, tag: tagOf(this.#sendKey, count, this.id, sealed) });
  }

  /** What the other end's next record says; undefined if this is not it. */
  open(record: Uint8Array): Uint8Array | undefined {
    const parts = decodeRecord(record);
    if (parts?.sessionId !== this.id) return undefined;
    const count = counted(this.#received);
    const { sealed, tag } = parts;
    if (!sameBytes(tag, tagOf(this.#receiveKey, count, this.id, sealed))) return undefined;
    this.#received++;
    applyStream(this.#receiveKey, count, sealed);
    return withoutLength(sealed);
  }
}

const tagOf = (key: Uint8Array, count: readonly number[], id: number, sealed: Uint8Array): Uint8Array =>
  keyed(key, textBytes("tag"), count, recordHeader(id, sealed.length), sealed).slice(0, RECORD_TAG_BYTES);

/** Turns plain bytes into sealed ones, and back. In place. */
function applyStream(key: Uint8Array, count: readonly number[], bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += 32) {
    const stream = keyed(key, textBytes("stream"), count, counted(at));
    for (let i = at; i < Math.min(at + 32, bytes.length); i++) bytes[i]! ^= stream[i - at]!;
  }
}
