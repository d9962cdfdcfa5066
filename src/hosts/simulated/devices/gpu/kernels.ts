/**
 * What a GPU can compute: fill, copy, add and reduce over pointers. Each is cut where pages of any of its pointers end.
 *
 * Idea: work is a list of moments; in each, one piece within single pages is read, changed, and written. A page that is absent stops the
 * work before the piece has done anything, so the piece can be done again.
 * Promises: a piece is done once or not at all; what was done before a stop stays done.
 */
import { PAGE_SIZE } from "../../../../base/index.ts";
import type { GpuWork } from "../../../../platform/index.ts";

/** Moves bytes within one page; throws {@link Stop} where it cannot. */
export interface PieceAccess {
  read(address: number, into: Uint8Array): void;
  write(address: number, from: Uint8Array): void;
  /** So that a later write of these bytes is not refused. */
  check(address: number): void;
}

/** A piece met a page that it cannot have. Not an error of the program: it goes no further than the GPU. */
export class Stop extends Error {
  readonly address: number;
  readonly write: boolean;
  readonly why: "absent" | "bus";

  constructor(address: number, write: boolean, why: "absent" | "bus") {
    super(why);
    this.address = address;
    this.write = write;
    this.why = why;
  }
}

/** Bytes until the nearest page end of `addresses`, at most `most`. */
const pieceOf = (most: number, ...addresses: number[]): number =>
  Math.min(most, ...addresses.map((address) => PAGE_SIZE - (address % PAGE_SIZE)));

/** A kernel under way: does one piece after the other. */
export interface Kernel {
  /** Bytes that remain. */
  readonly left: number;
  /** Does the next piece. */
  piece(access: PieceAccess): void;
}

/** Begins work. */
export function kernelOf(work: GpuWork): Kernel {
  let done = 0;
  let sum = 0;
  let isWritten = false;
  const reduces = work.do === "reduce";
  return {
    get left() {
      return work.length - done + (reduces && !isWritten ? 1 : 0);
    },
    piece(access) {
      const left = work.length - done;
      switch (work.do) {
        case "fill": {
          const bytes = new Uint8Array(pieceOf(left, work.to + done));
          for (let i = 0; i < bytes.length; i++) bytes[i] = (work.seed + done + i) % 251;
          access.write(work.to + done, bytes);
          done += bytes.length;
          return;
        }
        case "copy": {
          const bytes = new Uint8Array(pieceOf(left, work.from + done, work.to + done));
          access.read(work.from + done, bytes);
          access.write(work.to + done, bytes);
          done += bytes.length;
          return;
        }
        case "add": {
          const bytes = new Uint8Array(pieceOf(left, work.to + done));
          access.check(work.to + done);
          access.read(work.to + done, bytes);
          const view = new DataView(bytes.buffer);
          for (let i = 0; i + 4 <= bytes.length; i += 4)
            view.setUint32(i, (view.getUint32(i, true) + work.value) >>> 0, true);
          access.write(work.to + done, bytes);
          done += bytes.length;
          return;
        }
        case "reduce": {
          if (left > 0) {
            const bytes = new Uint8Array(pieceOf(left, work.from + done));
            access.read(work.from + done, bytes);
            const view = new DataView(bytes.buffer);
            for (let i = 0; i + 4 <= bytes.length; i += 4) sum = (sum + view.getUint32(i, true)) >>> 0;
            done += bytes.length;
            return;
          }
          const bytes = new Uint8Array(4);
          new DataView(bytes.buffer).setUint32(0, sum, true);
          access.write(work.to, bytes);
          isWritten = true;
        }
      }
    },
  };
}
