/**
 * Where a simulated disk keeps its bytes: in memory, or in a file that somebody else opened.
 *
 * Promises: what was never written, or was discarded, reads as zero. Not for: timing, which is the disk's.
 */

export interface BlockStore {
  /** Fills `into` from byte `offset` on. */
  read(offset: number, into: Uint8Array): void;
  /** Puts `from` at byte `offset`. Safe only after `flush`. */
  write(offset: number, from: Uint8Array): void;
  /** The bytes are not needed any more and read as zero. */
  discard(offset: number, length: number): void;
  /** What was written is safe now. */
  flush(): void;
}

const CHUNK = 4096;

/** Sparse: only chunks that were written take room. */
export class MemoryStore implements BlockStore {
  readonly #chunks = new Map<number, Uint8Array>();

  /** Chunks of 4 KiB that hold bytes. */
  get chunks(): number {
    return this.#chunks.size;
  }

  read(offset: number, into: Uint8Array): void {
    for (let at = 0; at < into.length; ) {
      const inside = (offset + at) % CHUNK;
      const length = Math.min(CHUNK - inside, into.length - at);
      const chunk = this.#chunks.get(Math.floor((offset + at) / CHUNK));
      if (chunk) into.set(chunk.subarray(inside, inside + length), at);
      else into.fill(0, at, at + length);
      at += length;
    }
  }

  write(offset: number, from: Uint8Array): void {
    for (let at = 0; at < from.length; ) {
      const inside = (offset + at) % CHUNK;
      const length = Math.min(CHUNK - inside, from.length - at);
      const index = Math.floor((offset + at) / CHUNK);
      let chunk = this.#chunks.get(index);
      if (!chunk) {
        chunk = new Uint8Array(CHUNK);
        this.#chunks.set(index, chunk);
      }
      chunk.set(from.subarray(at, at + length), inside);
      at += length;
    }
  }

  /** Cost: one step per chunk that there is, at most: a disk of terabytes is discarded as quickly as it was filled. */
  discard(offset: number, length: number): void {
    if (length / CHUNK > this.#chunks.size) {
      this.#discardFew(offset, offset + length);
      return;
    }
    for (let at = 0; at < length; ) {
      const inside = (offset + at) % CHUNK;
      const piece = Math.min(CHUNK - inside, length - at);
      const index = Math.floor((offset + at) / CHUNK);
      if (piece === CHUNK) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, inside, inside + piece);
      at += piece;
    }
  }

  #discardFew(start: number, end: number): void {
    for (const [index, chunk] of this.#chunks) {
      const [from, to] = [Math.max(start - index * CHUNK, 0), Math.min(end - index * CHUNK, CHUNK)];
      if (from === 0 && to === CHUNK) this.#chunks.delete(index);
      else if (from < to) chunk.fill(0, from, to);
    }
  }

  flush(): void {}
}

/** A file that is open for reading and writing at any place; Node's `fs` gives one in three lines. */
export interface RandomAccessFile {
  /** Bytes read, fewer than asked at the end of the file. */
  readAt(offset: number, into: Uint8Array): number;
  /** Writes all of `from` at byte `offset`, past the end too: the file grows. */
  writeAt(offset: number, from: Uint8Array): void;
  /** Returns when what was written will outlive a crash of the machine (fsync). */
  sync(): void;
}

/** A disk image. It may be shorter than the disk: what is missing reads as zero. */
export class FileStore implements BlockStore {
  readonly #file: RandomAccessFile;

  /** Takes the file over as it is; the caller closes it. */
  constructor(file: RandomAccessFile) {
    this.#file = file;
  }

  read(offset: number, into: Uint8Array): void {
    into.fill(0, this.#file.readAt(offset, into));
  }

  write(offset: number, from: Uint8Array): void {
    this.#file.writeAt(offset, from);
  }

  discard(offset: number, length: number): void {
    const zeroes = new Uint8Array(Math.min(length, 65_536));
    for (let at = 0; at < length; at += zeroes.length)
      this.#file.writeAt(offset + at, zeroes.subarray(0, Math.min(zeroes.length, length - at)));
  }

  flush(): void {
    this.#file.sync();
  }
}
