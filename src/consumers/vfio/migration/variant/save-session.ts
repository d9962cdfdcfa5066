/**
 * The state of a network function on its way out: images, chunk by chunk, as records of a stream.
 *
 * Idea: one chunk is being saved while the one before is read, and a third waits until one of them has been; so a device of any size
 * needs two buffers. Before the stop an image is taken when the reader has read all and something has changed; after it the last one.
 * An increment that the card refuses is no harm: the last image will be a whole one. Anything else that fails ends the session.
 * Promises: the reader gets every byte once and in order; what the session holds is free at its end.
 * Specified by: behaviour of Linux 7.2 VFIO for mlx5 (saving); docs/live-migration.md.
 */
import { assert } from "../../../../base/index.ts";
import { NIC_IMAGE, NIC_STATUS } from "../../../../layouts/nic/index.ts";
import type { Clock, PreCopyInfo, SaveStream, Timer } from "../../../../platform/index.ts";
import type { BufferPool, DataBuffer } from "../buffers/index.ts";
import { nothingNow, nothingYet } from "../errors.ts";
import { sessionFailed } from "./errors.ts";
import type { NicCommands } from "./nic-commands.ts";
import { encodeRecord, RECORD_HEADER_BYTES, RECORD_TAG } from "./records.ts";

/** Chunks that are saved or wait to be read, at the most. */
const CHUNKS = 2;

interface SaveSessionOptions {
  readonly commands: NicCommands;
  /** Number of the function. */
  readonly number: number;
  readonly pool: BufferPool;
  /** Bytes of a chunk, at the most. */
  readonly chunkBytes: number;
  readonly clock: Clock;
  /** What a chunk may take. */
  readonly timeoutMs: number;
}

/** Bytes in a buffer that wait for the reader. */
interface Piece {
  readonly buffer: DataBuffer;
  readonly isChunk: boolean;
  at: number;
}

export class SaveSession implements SaveStream {
  /** For the driver: a function that begins nothing is not asked for increments. */
  isSuspended = false;
  readonly #commands: NicCommands;
  readonly #number: number;
  readonly #pool: BufferPool;
  readonly #chunkBytes: number;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  readonly #unlisten: () => void;
  readonly #ready: Piece[] = [];
  /** The chunk that the card is saving, and the time it has. */
  #saving: DataBuffer | undefined;
  #deadline: Timer | undefined;
  /** Bytes of the image that no chunk was begun for. */
  #imageLeft = 0;
  /** Bytes of the stream: announced with each image, and read. */
  #announced = 0;
  #position = 0;
  /** End of the bytes that the target needs first. */
  #initialEnd = 0;
  #anew = 0;
  #isStopped = false;
  /** The last image is to be taken when the one before is saved. */
  #lastWaits = false;
  /** An increment was refused: the last image has to be a whole one. */
  #needsWhole = false;
  #hasFailed = false;
  #isOver = false;

  constructor({ commands, number, pool, chunkBytes, clock, timeoutMs }: SaveSessionOptions) {
    this.#commands = commands;
    this.#number = number;
    this.#pool = pool;
    this.#chunkBytes = chunkBytes;
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
    this.#unlisten = commands.onSaved(number, () => this.#saved());
  }

  /**
   * Begins before the stop: how much stopping would move, and then everything.
   *
   * @throws DmaError of the card, or of buffers; the session has to be ended then
   */
  beginPreCopy(): void {
    const [low, high, anew] = this.#commands.run("QUERY_IMAGE", this.#number, NIC_IMAGE.FULL) as [
      number,
      number,
      number,
    ];
    this.#anew = anew;
    const estimate = new Uint8Array(8);
    new DataView(estimate.buffer).setBigUint64(0, BigInt(low) + (BigInt(high) << 32n), true);
    const header = { bytes: estimate.length, isOptional: true, tag: RECORD_TAG.STOP_COPY_SIZE };
    this.#announced = RECORD_HEADER_BYTES + estimate.length;
    this.#queue([encodeRecord(header), estimate]);
    this.#beginImage(NIC_IMAGE.FULL);
    this.#initialEnd = this.#announced;
  }

  /** Begins after the stop. @throws as {@link beginPreCopy} */
  beginStopped(): void {
    this.#isStopped = true;
    this.#beginImage(NIC_IMAGE.FULL);
  }

  /** The device has stopped: what changed since the last image comes, and then the end. @throws as {@link beginPreCopy} */
  stop(): void {
    if (this.#saving || this.#imageLeft > 0) this.#lastWaits = true;
    else this.#beginLast();
    this.#isStopped = true;
  }

  get isReady(): boolean {
    return this.#ready.length > 0 || this.#saving === undefined;
  }

  read(into: Uint8Array): number {
    let done = 0;
    while (done < into.length && this.#ready.length > 0) {
      const piece = this.#ready[0]!;
      const length = Math.min(into.length - done, piece.buffer.filledBytes - piece.at);
      piece.buffer.read(piece.at, into.subarray(done, done + length));
      piece.at += length;
      done += length;
      if (piece.at === piece.buffer.filledBytes) {
        this.#ready.shift();
        this.#pool.giveBack(piece.buffer);
        if (piece.isChunk) this.#goOn();
      }
    }
    this.#position += done;
    assert(this.#position <= this.#announced, "more of the stream was read than there is");
    if (done > 0 || into.length === 0) return done;
    if (this.#hasFailed || this.#isOver) throw sessionFailed();
    if (this.#saving) throw nothingYet();
    if (!this.#isStopped) throw nothingNow();
    return 0;
  }

  /** @see SaveStream.preCopyInfo Takes an image when there is nothing left to read and something has changed. */
  preCopyInfo(saysBeganAnew: boolean): PreCopyInfo {
    if (this.#hasFailed || this.#isOver) throw sessionFailed();
    const [low, high, anew] = this.isSuspended
      ? [0, 0, this.#anew]
      : (this.#commands.run("QUERY_IMAGE", this.#number, NIC_IMAGE.INCREMENT) as [number, number, number]);
    const change = low + high * 2 ** 32;
    const unread = this.#announced - this.#position;
    const beganAnew = saysBeganAnew && anew !== this.#anew;
    const isInitial = this.#position < this.#initialEnd;
    const headers = this.#takeIncrement(change > 0 && (beganAnew || unread === 0), change);
    if (beganAnew) {
      this.#anew = anew;
      const initialBytes = unread + change + headers;
      this.#initialEnd = this.#position + initialBytes;
      return { initialBytes, dirtyBytes: 0, beganAnew };
    }
    if (isInitial) return { initialBytes: this.#initialEnd - this.#position, dirtyBytes: 0, beganAnew };
    return { initialBytes: 0, dirtyBytes: unread + change + headers, beganAnew };
  }

  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#unlisten();
    this.#deadline?.cancel();
    this.#commands.runAnyway("END_SAVE", this.#number);
    if (this.#saving) this.#pool.giveBack(this.#saving);
    this.#saving = undefined;
    for (const { buffer } of this.#ready.splice(0)) this.#pool.giveBack(buffer);
    this.#pool.free();
  }

  /** Bytes of headers that an increment adds; 0 if none is taken. */
  #takeIncrement(isWanted: boolean, change: number): number {
    if (!isWanted || this.#saving || this.#imageLeft > 0 || this.#needsWhole) return 0;
    try {
      this.#beginImage(NIC_IMAGE.INCREMENT);
      return this.#chunksOf(change) * RECORD_HEADER_BYTES;
    } catch {
      this.#needsWhole = true;
      return 0;
    }
  }

  #beginLast(): void {
    this.#lastWaits = false;
    if (!this.#needsWhole)
      try {
        this.#beginImage(NIC_IMAGE.INCREMENT);
        return;
      } catch {
        this.#needsWhole = true;
      }
    this.#beginImage(NIC_IMAGE.FULL);
  }

  #beginImage(kind: number): void {
    const [low, high] = this.#commands.run("BEGIN_IMAGE", this.#number, kind) as [number, number];
    this.#imageLeft = low + high * 2 ** 32;
    this.#announced += this.#imageLeft + this.#chunksOf(this.#imageLeft) * RECORD_HEADER_BYTES;
    this.#saveChunk();
  }

  #chunksOf(bytes: number): number {
    return Math.ceil(bytes / this.#chunkBytes);
  }

  /** Has the card save the next chunk, if there is one and a place for it. */
  #saveChunk(): void {
    const waiting = this.#ready.filter(({ isChunk }) => isChunk).length;
    if (this.#saving || this.#imageLeft === 0 || waiting >= CHUNKS) return;
    const bytes = Math.min(this.#chunkBytes, this.#imageLeft);
    const buffer = this.#pool.take(bytes, "from-device");
    try {
      this.#commands.run("SAVE_CHUNK", this.#number, buffer.key, bytes);
    } catch (error) {
      this.#pool.giveBack(buffer);
      throw error;
    }
    this.#saving = buffer;
    this.#imageLeft -= bytes;
    this.#deadline = this.#clock.after(this.#timeoutMs, () => this.#giveUp());
  }

  /** The card has saved a chunk. */
  #saved(): void {
    const buffer = this.#saving;
    if (!buffer) return;
    this.#saving = undefined;
    this.#deadline?.cancel();
    const { status, bytes } = this.#commands.savedChunk(this.#number);
    if (status !== NIC_STATUS.OK) {
      this.#pool.giveBack(buffer);
      this.#fail();
      return;
    }
    buffer.filledBytes = bytes;
    buffer.forCpu();
    try {
      this.#queue([encodeRecord({ bytes, isOptional: false, tag: RECORD_TAG.IMAGE })]);
    } catch {
      this.#pool.giveBack(buffer);
      this.#fail();
      return;
    }
    this.#ready.push({ buffer, isChunk: true, at: 0 });
    this.#goOn();
  }

  /** The card took too long: it is told to stop, and then the buffer is the driver's again. */
  #giveUp(): void {
    this.#commands.runAnyway("END_SAVE", this.#number);
    if (this.#saving) this.#pool.giveBack(this.#saving);
    this.#saving = undefined;
    this.#fail();
  }

  /** The next chunk, or the last image, where one waits. What fails here fails the session: nobody is there to be told. */
  #goOn(): void {
    if (this.#hasFailed || this.#isOver) return;
    try {
      this.#saveChunk();
      if (this.#lastWaits && !this.#saving && this.#imageLeft === 0) this.#beginLast();
    } catch {
      this.#fail();
    }
  }

  #fail(): void {
    this.#hasFailed = true;
    this.#imageLeft = 0;
    this.#lastWaits = false;
  }

  /** Bytes that no device touches. */
  #queue(parts: readonly Uint8Array[]): void {
    for (const part of parts) {
      const buffer = this.#pool.take(part.length, "none");
      buffer.write(0, part);
      buffer.filledBytes = part.length;
      this.#ready.push({ buffer, isChunk: false, at: 0 });
    }
  }
}
