/**
 * The state of a network function on its way in: records are taken apart, and each piece of the image given to the card.
 *
 * Idea: four states, whatever the cuts between writes: a header, then an image's piece, a record of which the driver wants to know
 * something, or one to skip. A buffer that is too small is replaced by a larger one.
 * Promises: the first thing that is wrong fails the write that brought it and everything after; the function changes only at the end,
 * when all has come ({@link LoadSession.finish}).
 * Specified by: behaviour of Linux 7.2 VFIO for mlx5 (loading).
 */
import type { LoadStream } from "../../../../platform/index.ts";
import type { BufferPool, DataBuffer } from "../buffers/index.ts";
import { badRecord, recordTooLong, sessionFailed, streamCut, unknownRecord } from "./errors.ts";
import type { NicCommands } from "./nic-commands.ts";
import { decodeRecord, RECORD_HEADER_BYTES, RECORD_TAG } from "./records.ts";

/** Bytes of the record that says how much stopping would move. */
const ESTIMATE_BYTES = 8;

interface LoadSessionOptions {
  readonly commands: NicCommands;
  /** Number of the function. */
  readonly number: number;
  readonly pool: BufferPool;
}

export class LoadSession implements LoadStream {
  /** What the source announced that stopping and copying would move, bytes; undefined if it did not. */
  stopCopyBytes: number | undefined;
  readonly #commands: NicCommands;
  readonly #number: number;
  readonly #pool: BufferPool;
  #expects: "header" | "image" | "estimate" | "skipped" = "header";
  /** Bytes of what is expected that have not come. */
  #left = RECORD_HEADER_BYTES;
  readonly #small = new Uint8Array(RECORD_HEADER_BYTES);
  #image: DataBuffer | undefined;
  #hasFailed = false;
  #isOver = false;

  /** @throws DmaError of the card */
  constructor({ commands, number, pool }: LoadSessionOptions) {
    this.#commands = commands;
    this.#number = number;
    this.#pool = pool;
    commands.run("BEGIN_LOAD", number);
  }

  write(from: Uint8Array): number {
    if (this.#hasFailed || this.#isOver) throw sessionFailed();
    try {
      for (let at = 0; at < from.length; ) {
        const length = Math.min(from.length - at, this.#left);
        this.#take(from.subarray(at, at + length));
        at += length;
        this.#left -= length;
        if (this.#left === 0) this.#complete();
      }
    } catch (error) {
      this.#hasFailed = true;
      throw error;
    }
    return from.length;
  }

  /**
   * All has been written: the function becomes what came.
   *
   * @throws DmaError ERR_DMA_MIGRATION_CUT (EINVAL) in the middle of a record; ERR_DMA_MIGRATION_FAILED; of the card, which knows
   *   whether images are missing
   */
  finish(): void {
    if (this.#hasFailed || this.#isOver) throw sessionFailed();
    if (this.#expects !== "header" || this.#left !== RECORD_HEADER_BYTES) throw streamCut("inside a record");
    this.#commands.run("END_LOAD", this.#number);
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    if (this.#image) this.#pool.giveBack(this.#image);
    this.#image = undefined;
    this.#pool.free();
  }

  #take(bytes: Uint8Array): void {
    const image = this.#image;
    if (this.#expects === "image" && image) {
      image.write(image.filledBytes, bytes);
      image.filledBytes += bytes.length;
    } else if (this.#expects !== "skipped") {
      const length = this.#expects === "header" ? RECORD_HEADER_BYTES : ESTIMATE_BYTES;
      this.#small.set(bytes, length - this.#left);
    }
  }

  #complete(): void {
    if (this.#expects === "header") {
      this.#announce();
      return;
    }
    if (this.#expects === "estimate")
      this.stopCopyBytes = Number(new DataView(this.#small.buffer).getBigUint64(0, true));
    else if (this.#expects === "image") {
      const image = this.#image!;
      image.forDevice();
      this.#commands.run("LOAD_CHUNK", this.#number, image.key, image.filledBytes);
    }
    this.#expects = "header";
    this.#left = RECORD_HEADER_BYTES;
  }

  /** A header has come: what follows it? */
  #announce(): void {
    const { bytes, isOptional, tag } = decodeRecord(this.#small);
    if (bytes === 0) throw badRecord("a record of no bytes");
    if (tag === RECORD_TAG.IMAGE) {
      const most = this.#commands.maxKeyBytes;
      if (bytes > most) throw recordTooLong(bytes, most);
      this.#image = this.#buffer(bytes);
      this.#expects = "image";
    } else if (tag === RECORD_TAG.STOP_COPY_SIZE && bytes === ESTIMATE_BYTES) this.#expects = "estimate";
    else if (isOptional) this.#expects = "skipped";
    else throw unknownRecord(tag);
    this.#left = bytes;
  }

  #buffer(bytes: number): DataBuffer {
    const before = this.#image;
    if (before && before.capacityBytes >= bytes) {
      before.filledBytes = 0;
      return before;
    }
    this.#image = undefined;
    if (before) this.#pool.giveBack(before);
    return this.#pool.take(bytes, "to-device");
  }
}
