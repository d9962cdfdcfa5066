/**
 * The images of one function, on their way out and in.
 *
 * Idea: an image is taken at one moment and given out in chunks. On the way in, images are put together from chunks however
 * these are cut; each is checked as soon as it is whole, and the function changes only at the end, when the last one has
 * come.
 */

import { PAGE_SIZE } from "../../../../../base/index.ts";
import { NIC_IMAGE, NIC_PART, NIC_STATUS } from "../../../../../layouts/nic/index.ts";
import type { Timer } from "../../../../../platform/index.ts";
import type { NicFunction } from "./function.ts";
import { decodeImage, encodeImage, imageLength, lengthOfImage } from "./image.ts";

/** What a row of images amounts to so far. */
interface Incoming {
  bytes: Uint8Array;
  /** Number of the image that must come next. */
  sequence: number;
  registers: Uint32Array | undefined;
  readonly memory: Uint8Array;
  isComplete: boolean;
}

export class FunctionImages {
  /** Of the chunk that is being saved. */
  timer: Timer | undefined;
  readonly #function: NicFunction;
  #sequence = -1;
  #picture: Uint8Array | undefined;
  #given = 0;
  #incoming: Incoming | undefined;

  constructor(target: NicFunction) {
    this.#function = target;
  }

  /** Bytes that the next image would have; 0 for an increment in which nothing changed, or that cannot be. */
  nextLength(kind: number): number {
    const { memoryPages, changed, isTouched } = this.#function;
    if (kind === NIC_IMAGE.FULL) return imageLength(memoryPages);
    return this.#sequence >= 0 && (isTouched || changed.size > 0) ? imageLength(changed.size) : 0;
  }

  /** Takes an image. Its bytes; -1 if the one before has not been given out, or there is none to add to. */
  begin(kind: number): number {
    const isFull = kind === NIC_IMAGE.FULL;
    if (this.#picture || this.timer || (!isFull && this.#sequence < 0)) return -1;
    this.#sequence = isFull ? 0 : this.#sequence + 1;
    const { memoryPages, suspended } = this.#function;
    this.#picture = encodeImage({
      isFull,
      isLast: suspended === (NIC_PART.INITIATOR | NIC_PART.RESPONDER),
      sequence: this.#sequence,
      registers: this.#function.registers(),
      memoryPages,
      pages: this.#function.takePages(isFull),
    });
    this.#given = 0;
    return this.#picture.length;
  }

  /** The next bytes of the image, at most `most`; undefined if there is none, or a chunk is under way. */
  nextChunk(most: number): Uint8Array | undefined {
    if (!this.#picture || this.timer) return undefined;
    const chunk = this.#picture.subarray(this.#given, this.#given + most);
    this.#given += chunk.length;
    if (this.left === 0) this.#picture = undefined;
    return chunk;
  }

  /** Bytes of the image that have not been given out. */
  get left(): number {
    return this.#picture ? this.#picture.length - this.#given : 0;
  }

  /** Drops the image and the chunk under way; the next image is a whole one. */
  endSave(): void {
    this.timer?.cancel();
    this.timer = undefined;
    this.#picture = undefined;
    this.#sequence = -1;
  }

  beginLoad(): void {
    this.#incoming = {
      bytes: new Uint8Array(0),
      sequence: 0,
      registers: undefined,
      memory: new Uint8Array(this.#function.memoryPages * PAGE_SIZE),
      isComplete: false,
    };
  }

  /** Takes the next bytes of a row of images. One of NIC_STATUS. */
  load(chunk: Uint8Array): number {
    const incoming = this.#incoming;
    if (!incoming) return NIC_STATUS.BAD_STATE;
    const bytes = new Uint8Array(incoming.bytes.length + chunk.length);
    bytes.set(incoming.bytes);
    bytes.set(chunk, incoming.bytes.length);
    incoming.bytes = bytes;
    for (;;) {
      const length = lengthOfImage(incoming.bytes, this.#function.memoryPages);
      if (length === undefined) return NIC_STATUS.BAD_IMAGE;
      if (length === 0 || incoming.bytes.length < length) return NIC_STATUS.OK;
      if (!this.#take(incoming, incoming.bytes.subarray(0, length))) return NIC_STATUS.BAD_IMAGE;
      incoming.bytes = incoming.bytes.slice(length);
    }
  }

  /** The function becomes what came, if all has come. One of NIC_STATUS. */
  endLoad(): number {
    const incoming = this.#incoming;
    if (!incoming) return NIC_STATUS.BAD_STATE;
    if (!incoming.isComplete || incoming.bytes.length > 0) return NIC_STATUS.BAD_IMAGE;
    this.#function.become(incoming.registers!, incoming.memory);
    this.#incoming = undefined;
    return NIC_STATUS.OK;
  }

  #take(incoming: Incoming, bytes: Uint8Array): boolean {
    const image = decodeImage(bytes);
    // A full image may stand in for an increment, and begins the row anew.
    const isNext = image && (image.isFull || (image.sequence === incoming.sequence && incoming.sequence > 0));
    if (!image || !isNext || incoming.isComplete) return false;
    incoming.sequence = image.sequence + 1;
    incoming.registers = image.registers;
    incoming.isComplete = image.isLast;
    for (const { index, bytes: page } of image.pages) incoming.memory.set(page, index * PAGE_SIZE);
    return true;
  }
}
