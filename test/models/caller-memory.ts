/** Memory of a caller of system calls, for judges and tests: pieces at addresses, each readable, writable, or neither. */
import type { CallerMemory } from "../../src/consumers/vfio/index.ts";

interface Piece {
  readonly start: number;
  readonly bytes: Uint8Array;
  isWritable: boolean;
}

export class PlainCallerMemory implements CallerMemory {
  readonly #pieces: Piece[] = [];
  #next = 0x10_0000;

  /** A new piece of `length` bytes, a hole before and after it, and where it is. */
  add(length: number, fill = 0): { readonly address: number; readonly bytes: Uint8Array } {
    const piece = { start: this.#next, bytes: new Uint8Array(length).fill(fill), isWritable: true };
    this.#pieces.push(piece);
    this.#next = Math.ceil((this.#next + length) / 4096) * 4096 + 4096;
    return { address: piece.start, bytes: piece.bytes };
  }

  /** From now on the piece at `address` can be read only. */
  protect(address: number): void {
    for (const piece of this.#pieces) if (piece.start === address) piece.isWritable = false;
  }

  read(address: number, into: Uint8Array): number {
    const [bytes] = this.#at(address);
    if (!bytes) return 0;
    const part = bytes.subarray(0, into.length);
    into.set(part);
    return part.length;
  }

  write(address: number, from: Uint8Array): number {
    const [bytes, isWritable] = this.#at(address);
    if (!bytes || !isWritable) return 0;
    const part = from.subarray(0, bytes.length);
    bytes.set(part);
    return part.length;
  }

  #at(address: number): [Uint8Array | undefined, boolean] {
    for (const { start, bytes, isWritable } of this.#pieces)
      if (address >= start && address < start + bytes.length) return [bytes.subarray(address - start), isWritable];
    return [undefined, false];
  }
}
