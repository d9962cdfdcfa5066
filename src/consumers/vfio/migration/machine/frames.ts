/**
 * Frames: how a machine on the move is cut into pieces that can be checked, for any stream of bytes.
 *
 * Idea: a header of 28 bytes with a number that counts and a checksum of its own, so that a damaged length is found out before
 * anybody waits for so many bytes; then the payload and its checksum. Numbers are little endian.
 * Promises: what is damaged, missing, doubled or out of order is found out at the frame; nothing of a frame is used before
 * all of it is known to be good. Not for: secrecy, or protection from an attacker on the way: send the stream through a
 * tunnel (ssh, TLS).
 */
import { crc32 } from "../../../../base/index.ts";
import { badFrame } from "./errors.ts";

/** What frames are. The first six go to the target, the others also or only back. */
export const FRAME = {
  /** What moves: JSON. */
  HELLO: 1,
  /** Pages; `place` is the number of the first. */
  PAGES: 2,
  /** Pages of zeros; `place` is the number of the first, and the payload how many (4 bytes). */
  ZEROS: 3,
  /** The next bytes of a device's state; `place` is its number. */
  DEVICE: 4,
  /** All of a device's state has been sent. */
  DEVICE_END: 5,
  /** The processors' state. */
  PROCESSORS: 6,
  /** All has been sent; the payload is the checksum of memory (4 bytes), if there is one. */
  END: 7,
  /** The target can be what was said. */
  WELCOME: 8,
  /** The target has everything, and it is good. */
  READY: 9,
  /** Why a side gives up: text. */
  REFUSED: 10,
  /** It is the target's now: the source will not run again. */
  GO: 11,
  /** The target runs. */
  RUNNING: 12,
} as const;

/** One frame, checked or to be sent. */
export interface Frame {
  /** What it holds, or asks. */
  readonly type: number;
  /** Number of a page or device, by the type. */
  readonly place: number;
  /** What follows the header. */
  readonly payload: Uint8Array;
}

/** Bytes before the payload. */
export const FRAME_HEADER_BYTES = 28;
/** Bytes of a payload, at the most. */
export const FRAME_MOST_BYTES = 1_048_576;
const MAGIC = 0x764d4c44;
const CHECKSUM_BYTES = 4;
const AT = { magic: 0, type: 4, sequence: 8, length: 12, place: 16, checksum: 24 } as const;

/** Makes the frames of one direction. */
export class FrameWriter {
  #sequence = 0;

  /** Valid for payloads up to {@link FRAME_MOST_BYTES}. */
  encode({ type, place, payload }: Frame): Uint8Array {
    const bytes = new Uint8Array(FRAME_HEADER_BYTES + payload.length + CHECKSUM_BYTES);
    const view = new DataView(bytes.buffer);
    view.setUint32(AT.magic, MAGIC, true);
    view.setUint32(AT.type, type, true);
    view.setUint32(AT.sequence, this.#sequence++, true);
    view.setUint32(AT.length, payload.length, true);
    view.setBigUint64(AT.place, BigInt(place), true);
    view.setUint32(AT.checksum, crc32(bytes.subarray(0, AT.checksum)), true);
    bytes.set(payload, FRAME_HEADER_BYTES);
    view.setUint32(FRAME_HEADER_BYTES + payload.length, crc32(payload), true);
    return bytes;
  }
}

/** Takes the frames of one direction apart, however the bytes come. */
export class FrameReader {
  #sequence = 0;
  /** Bytes of whole frames before what waits. */
  #offset = 0;
  #waiting: Uint8Array = new Uint8Array(0);

  /**
   * Adds bytes and gives the frames that are whole now.
   *
   * @throws DmaError ERR_DMA_MOVE_FRAME (EBADMSG); nothing more can be read then
   */
  push(bytes: Uint8Array): Frame[] {
    const all = new Uint8Array(this.#waiting.length + bytes.length);
    all.set(this.#waiting);
    all.set(bytes, this.#waiting.length);
    const frames: Frame[] = [];
    let at = 0;
    for (;;) {
      const length = this.#lengthAt(all, at);
      if (length === undefined || all.length - at < length) break;
      frames.push(this.#decode(all.subarray(at, at + length)));
      at += length;
      this.#offset += length;
    }
    this.#waiting = all.slice(at);
    return frames;
  }

  /** The stream ends here. Is that between two frames? */
  get isBetweenFrames(): boolean {
    return this.#waiting.length === 0;
  }

  /** Bytes of the frame at `at`, from its header; undefined if that has not come. */
  #lengthAt(all: Uint8Array, at: number): number | undefined {
    if (all.length - at < FRAME_HEADER_BYTES) return undefined;
    const view = new DataView(all.buffer, at, FRAME_HEADER_BYTES);
    if (view.getUint32(AT.magic, true) !== MAGIC) throw badFrame("no frame begins there", this.#offset);
    if (view.getUint32(AT.checksum, true) !== crc32(all.subarray(at, at + AT.checksum)))
      throw badFrame("the checksum of its header is wrong", this.#offset);
    const sequence = view.getUint32(AT.sequence, true);
    if (sequence !== this.#sequence)
      throw badFrame(`frame ${sequence} came where ${this.#sequence} should be`, this.#offset);
    const length = view.getUint32(AT.length, true);
    if (length > FRAME_MOST_BYTES) throw badFrame(`a payload of ${length} bytes`, this.#offset);
    return FRAME_HEADER_BYTES + length + CHECKSUM_BYTES;
  }

  #decode(bytes: Uint8Array): Frame {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const payload = bytes.slice(FRAME_HEADER_BYTES, bytes.length - CHECKSUM_BYTES);
    if (view.getUint32(bytes.length - CHECKSUM_BYTES, true) !== crc32(payload))
      throw badFrame("the checksum of its payload is wrong", this.#offset);
    this.#sequence = (this.#sequence + 1) >>> 0;
    return { type: view.getUint32(AT.type, true), place: Number(view.getBigUint64(AT.place, true)), payload };
  }
}
