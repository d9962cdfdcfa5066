/**
 * The bytes of a load that is replayed as NVMe commands: what host memory holds, what the disk holds, and whether they agree.
 *
 * Idea: the disk keeps nothing. A block belongs to a request, and so to an address in host memory; which bytes belong there
 * is known (byte-pattern.ts). For a write they are put into memory before the transfer, and what the disk receives is
 * checked; for a read the disk sends them, and memory is checked after the transfer. A command moves at once when the
 * controller takes it, so none meets the bytes of another, even where requests share memory, and only as much memory is
 * held as one command has.
 */
import type { PhysAddr, Random } from "../base/index.ts";
import type { BlockStore, SimulatedMemory } from "../hosts/simulated/index.ts";
import { BytePattern, eachDifference } from "./byte-pattern.ts";
import type { Loads } from "./plan.ts";

/** Where the bytes of request `id` begin on the disk: `id` times this. Longer requests are not replayed. */
export const DISK_BYTES_EACH: number = 2 ** 28;
/** Memory is forgotten when there are more pages of it than this. */
const KEPT_PAGES = 16_384;
const PAGE = 4096;

export type NvmeDirection = "read" | "write";

/** A byte that came out wrong, or (`found` undefined) a command for what is no part of its request. */
export interface NvmeMismatch {
  /** Whether the command read or wrote the disk. */
  readonly command: NvmeDirection;
  /** Request, in the order of the replay. */
  readonly request: number;
  /** Where the byte belongs in memory. */
  readonly phys: number;
  /** What belongs there, 0 to 255. */
  readonly expected: number;
  /** What was there; undefined: a command for what is no part of its request. */
  readonly found: number | undefined;
}

/** Bytes of the disk. */
interface Part {
  readonly offset: number;
  readonly length: number;
}

export class NvmeBytes implements BlockStore {
  verifiedBytes = 0;
  mismatches = 0;
  first: NvmeMismatch | undefined;
  readonly #memory: SimulatedMemory;
  readonly #loads: Loads;
  readonly #pattern: BytePattern;
  /** A read that has moved and was not looked at. */
  #unchecked: Part | undefined;
  /** Where the last walk ended: commands of one request follow one another. */
  #request = -1;
  #vec = 0;
  /** Bytes of the request before that vector. */
  #before = 0;
  readonly #found = new Uint8Array(PAGE);

  constructor(memory: SimulatedMemory, loads: Loads, random: Random) {
    this.#memory = memory;
    this.#loads = loads;
    this.#pattern = new BytePattern(random);
  }

  /** The controller has taken a command for [offset, + length) of the disk, and moves its data next. */
  taken(command: NvmeDirection, offset: number, length: number): void {
    this.check();
    if (command === "write") this.#eachPiece(command, offset, length, (phys, bytes) => this.#memory.write(phys, bytes));
  }

  /** Looks at what the last command has read into memory, if that is not done. */
  check(): void {
    const part = this.#unchecked;
    if (!part) return;
    this.#unchecked = undefined;
    this.#eachPiece("read", part.offset, part.length, (phys, expected) => {
      const found = this.#found.subarray(0, expected.length);
      this.#memory.read(phys, found);
      this.#compare("read", part.offset, phys, expected, found);
    });
    this.#forget("read", part);
  }

  /** The disk is read: what belongs into memory there. */
  read(offset: number, into: Uint8Array): void {
    this.#eachPiece("read", offset, into.length, (_phys, bytes, at) => into.set(bytes, at));
    this.#unchecked = { offset, length: into.length };
  }

  /** The disk is written: with what lies in memory, if all is right. */
  write(offset: number, from: Uint8Array): void {
    this.#eachPiece("write", offset, from.length, (phys, expected, at) => {
      this.#compare("write", offset, phys, expected, from.subarray(at, at + expected.length));
    });
    this.#forget("write", { offset, length: from.length });
  }

  discard(): void {}

  flush(): void {}

  #forget(command: NvmeDirection, { offset, length }: Part): void {
    if (this.#memory.touchedPages <= KEPT_PAGES) return;
    this.#eachPiece(command, offset, length, (phys, bytes) => this.#memory.forget(phys, bytes.length));
  }

  /** Walks [offset, + length) of the disk, in pieces that lie in one page of host memory. */
  #eachPiece(
    command: NvmeDirection,
    offset: number,
    length: number,
    visit: (phys: PhysAddr, expected: Uint8Array, at: number) => void,
  ): void {
    const request = Math.floor(offset / DISK_BYTES_EACH);
    const start = offset % DISK_BYTES_EACH;
    const load = request < this.#loads.length ? this.#loads.at(request) : undefined;
    if (!load || start + length > load.length) {
      this.#report({ command, request, phys: -1, expected: 0, found: undefined });
      return;
    }
    if (request !== this.#request || start < this.#before) {
      this.#request = request;
      this.#vec = 0;
      this.#before = 0;
    }
    const pattern = command === "read" ? request * 2 + 1 : request * 2;
    for (let at = 0; at < length; ) {
      const vec = load.vecs[this.#vec]!;
      const inside = start + at - this.#before;
      if (inside >= vec.length) {
        this.#before += vec.length;
        this.#vec++;
        continue;
      }
      const phys = (vec.phys + inside) as PhysAddr;
      const piece = Math.min(vec.length - inside, length - at, PAGE - (phys % PAGE));
      visit(phys, this.#pattern.at(pattern, phys, piece), at);
      at += piece;
    }
  }

  #compare(command: NvmeDirection, offset: number, phys: number, expected: Uint8Array, found: Uint8Array): void {
    this.verifiedBytes += expected.length;
    eachDifference(expected, found, (at) => {
      const request = Math.floor(offset / DISK_BYTES_EACH);
      this.#report({ command, request, phys: phys + at, expected: expected[at]!, found: found[at]! });
    });
  }

  #report(mismatch: NvmeMismatch): void {
    this.mismatches++;
    this.first ??= mismatch;
  }
}
