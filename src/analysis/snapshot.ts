/**
 * Snapshot: table pages read out of a machine's memory, seen by physical page as the hardware saw them.
 *
 * The format, all little-endian: `DMASNAP1`, u32 page size (4096), u32 count, then per page its u64 physical address and
 * its 4096 bytes, addresses ascending.
 * Promises: the bytes are checked as a whole before anything is read from them; damage is an error with its offset.
 * Not for: compressed files (the caller unpacks them); what the pages mean (tables.ts).
 */
import { PAGE_SIZE, type PhysPage } from "../base/index.ts";
import type { TableMemory } from "../platform/index.ts";
import { notASnapshot, snapshotDamaged } from "./errors.ts";

/** What a reader of tables needs: entries by physical page and index, and whether the page is there at all. */
export interface TableSource extends Pick<TableMemory, "low" | "high"> {
  /** Is the contents of `page` known? */
  has(page: PhysPage): boolean;
}

const MAGIC = "DMASNAP1";
const HEAD_BYTES = 16;
const RECORD_BYTES = 8 + PAGE_SIZE;

/** Memory of a stopped machine, as much as page tables need. */
export class Snapshot implements TableSource {
  /** Physical page -> offset of its bytes; ascending. */
  readonly #offsets: ReadonlyMap<PhysPage, number>;
  readonly #view: DataView;

  private constructor(view: DataView, offsets: ReadonlyMap<PhysPage, number>) {
    this.#view = view;
    this.#offsets = offsets;
  }

  /**
   * A snapshot over `bytes`, which are not copied. Cost: one step per page.
   * @throws DmaError ERR_DMA_SNAPSHOT_FORMAT (EINVAL): something else; ERR_DMA_SNAPSHOT_DAMAGED (EINVAL): cut or damaged,
   * with the offset
   */
  static parse(bytes: Uint8Array): Snapshot {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const head = bytes.subarray(0, MAGIC.length);
    const partial = MAGIC.startsWith(String.fromCharCode(...head));
    if (!partial || bytes.length === 0) throw notASnapshot(describeBytes(head));
    if (bytes.length < HEAD_BYTES)
      throw snapshotDamaged(bytes.length, `the header has ${HEAD_BYTES} bytes, the file ends at ${bytes.length}`);
    const pageSize = view.getUint32(8, true);
    if (pageSize !== PAGE_SIZE) throw snapshotDamaged(8, `pages of ${pageSize} bytes; ${PAGE_SIZE} are read`);
    const count = view.getUint32(12, true);
    const size = HEAD_BYTES + count * RECORD_BYTES;
    if (size !== bytes.length)
      throw snapshotDamaged(
        Math.min(size, bytes.length),
        `${count} pages end at offset ${size}, the file ends at ${bytes.length}`,
      );
    const offsets = new Map<PhysPage, number>();
    let previous = -1;
    for (let at = HEAD_BYTES; at < size; at += RECORD_BYTES) {
      const low = view.getUint32(at, true);
      const high = view.getUint32(at + 4, true);
      if (low % PAGE_SIZE !== 0 || high >= 2 ** 20)
        throw snapshotDamaged(at, `a page at ${addressText(high, low)}, which is no page of a 52-bit memory`);
      const page = high * 2 ** 20 + low / PAGE_SIZE;
      if (page <= previous)
        throw snapshotDamaged(at, `a page at ${addressText(high, low)} after one at or above it: they must ascend`);
      offsets.set(page as PhysPage, at + 8);
      previous = page;
    }
    return new Snapshot(view, offsets);
  }

  /** Pages in it. */
  get pageCount(): number {
    return this.#offsets.size;
  }

  has(page: PhysPage): boolean {
    return this.#offsets.has(page);
  }

  /** The halves of the 64-bit word `index` (0 to 511) of a page, as signed numbers; 0 where there is no such page. */
  low(page: PhysPage, index: number): number {
    const offset = this.#offsets.get(page);
    return offset === undefined ? 0 : this.#view.getInt32(offset + index * 8, true);
  }

  high(page: PhysPage, index: number): number {
    const offset = this.#offsets.get(page);
    return offset === undefined ? 0 : this.#view.getInt32(offset + index * 8 + 4, true);
  }
}

/** `count` 64-bit words of a page, from word `index` on. */
export function wordsAt(source: TableSource, page: PhysPage, index: number, count: number): bigint[] {
  return Array.from({ length: count }, (_, i) => wordOf(source.low(page, index + i), source.high(page, index + i)));
}

/** Two halves as one 64-bit word. */
export const wordOf = (low: number, high: number): bigint => (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0);

const addressText = (high: number, low: number): string => `0x${wordOf(low, high).toString(16)}`;

function describeBytes(head: Uint8Array): string {
  if (head.length === 0) return "an empty file";
  return [...head].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
}
