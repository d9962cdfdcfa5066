/**
 * A page list in memory that the device reads: one entry for each block of a region.
 *
 * Idea: the list lies in coherent memory; the driver writes entries, and the device reads them when it needs them and may remember them.
 * So taking a block away is two things: writing zero, and having the device forget (`RdmaAdapter.forgetBlocks`).
 * Promises: 8 bytes for each block, and nothing else that grows with the region.
 */
import { type DmaAddr, PAGE_SIZE } from "../../base/index.ts";
import type { CoherentMemory, Dma } from "../../dma/index.ts";
import { KLM_BYTES, type Klm, MTT_BYTES, readMtt, writeKlm, writeMtt } from "../../layouts/rdma/index.ts";
import type { DmaRun } from "./page-size.ts";

/** Entries of blocks, or of keys, in coherent memory. */
export class PageList implements Disposable {
  readonly entries: number;
  readonly #memory: CoherentMemory;
  readonly #entryBytes: number;
  readonly #word: Uint8Array;
  readonly #view: DataView;
  /** The entries themselves, where the machine shows them in one piece. */
  readonly #entries: DataView | undefined;

  /** @throws DmaError as {@link Dma.allocCoherent} */
  constructor(dma: Dma, entries: number, holds: "blocks" | "keys" = "blocks") {
    this.entries = entries;
    this.#entryBytes = holds === "blocks" ? MTT_BYTES : KLM_BYTES;
    this.#memory = dma.allocCoherent(Math.ceil((entries * this.#entryBytes) / PAGE_SIZE) * PAGE_SIZE);
    this.#word = new Uint8Array(this.#entryBytes);
    this.#view = new DataView(this.#word.buffer);
    const bytes = viewOf(this.#memory);
    this.#entries = bytes && new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Where it lies for the device. */
  get address(): DmaAddr {
    return this.#memory.address;
  }

  /** Bytes that it takes. */
  get lengthBytes(): number {
    return this.entries * this.#entryBytes;
  }

  set(index: number, address: number, flags: number): void {
    if (this.#entries) {
      writeMtt(this.#entries, index, address, flags);
      return;
    }
    writeMtt(this.#view, 0, address, flags);
    this.#memory.write(index * MTT_BYTES, this.#word);
  }

  get(index: number): { readonly address: number; readonly flags: number } {
    this.#memory.read(index * MTT_BYTES, this.#word);
    return readMtt(this.#view, 0);
  }

  setKey(index: number, klm: Klm): void {
    writeKlm(this.#view, 0, klm);
    this.#memory.write(index * KLM_BYTES, this.#word);
  }

  /** Entries [first, end) are of blocks that are not there. */
  clear(first: number, end: number): void {
    const entries = this.#entries;
    if (entries) {
      const bytes = this.#entryBytes;
      for (let at = first * bytes; at < end * bytes; at += 4) entries.setUint32(at, 0);
      return;
    }
    this.#memory.write(first * this.#entryBytes, new Uint8Array((end - first) * this.#entryBytes));
  }

  free(): void {
    this.#memory.free();
  }

  [Symbol.dispose](): void {
    this.free();
  }
}

function viewOf(memory: CoherentMemory): Uint8Array | undefined {
  if (!memory.contiguous) return undefined;
  try {
    return memory.bytes;
  } catch {
    return undefined; // the machine has no such view: entries are written through it
  }
}

/** A region's memory and how it is cut into blocks. */
export interface BlockedRuns {
  /** Where it lies for the device, in order. */
  readonly runs: readonly DmaRun[];
  /** Bytes of the first run before the region. */
  readonly firstOffset: number;
  /** Where the region begins, as its users count. */
  readonly virt: number;
  /** Bytes of the region. */
  readonly length: number;
  /** Bytes of a block. */
  readonly blockBytes: number;
}

/**
 * Calls `visit` for each block of a region with the address that it has for the device. Every run begins and ends where a block does,
 * but for the first beginning and the last end ({@link bestPageSize} saw to that).
 */
export function eachBlock(blocked: BlockedRuns, visit: (index: number, address: number) => void): void {
  const { runs, firstOffset, virt, length, blockBytes } = blocked;
  const inside = virt % blockBytes;
  const count = Math.ceil((inside + length) / blockBytes);
  let run = 0;
  let runStart = -firstOffset; // where the run begins, from the region's first byte on
  for (let index = 0; index < count; index++) {
    const offset = index === 0 ? 0 : index * blockBytes - inside;
    while (offset >= runStart + runs[run]!.length) runStart += runs[run++]!.length;
    const address = runs[run]!.address + offset - runStart;
    visit(index, index === 0 ? address - inside : address);
  }
}
