/** A guest's memory as frames, on its way out and in; and its checksum. */
import { crc32, PAGE_SIZE } from "../../../../base/index.ts";
import type { DirtyBitmap } from "../dirty/index.ts";
import { outOfPlace } from "./errors.ts";
import { FRAME, FRAME_MOST_BYTES, type Frame } from "./frames.ts";
import type { FrameLink } from "./link.ts";
import type { GuestRam } from "./movable-machine.ts";

/** Pages of a frame, at the most. */
const FRAME_PAGES: number = FRAME_MOST_BYTES / PAGE_SIZE;

/** Pages that were sent, with their content and as zeros. */
interface SentPages {
  pages: number;
  zeroPages: number;
}

/**
 * Sends the pages that `bitmap` has, whose bits are cleared one run at a time, each before its pages are read. `sent` is added to.
 *
 * @throws DmaError (rejects) as sending does
 */
export async function sendPages(ram: GuestRam, bitmap: DirtyBitmap, link: FrameLink, sent: SentPages): Promise<void> {
  const buffer = new Uint8Array(FRAME_MOST_BYTES);
  for (let from = 0; ; ) {
    const run = bitmap.takeRun(from, FRAME_PAGES);
    if (!run) return;
    const { first, count } = run;
    from = first + count;
    const bytes = buffer.subarray(0, count * PAGE_SIZE);
    ram.read(first, bytes);
    for (let at = 0; at < count; ) {
      const isZero = isZeroPage(bytes, at);
      let end = at + 1;
      while (end < count && isZeroPage(bytes, end) === isZero) end++;
      if (isZero) {
        const payload = new Uint8Array(4);
        new DataView(payload.buffer).setUint32(0, end - at, true);
        await link.send(FRAME.ZEROS, first + at, payload);
        sent.zeroPages += end - at;
      } else {
        await link.send(FRAME.PAGES, first + at, bytes.subarray(at * PAGE_SIZE, end * PAGE_SIZE));
        sent.pages += end - at;
      }
      at = end;
    }
  }
}

/**
 * Puts the pages of a frame where they belong.
 *
 * @throws DmaError ERR_DMA_MOVE_PROTOCOL (EBADMSG) for pages that the guest does not have
 */
export function takePages(ram: GuestRam, { type, place, payload }: Frame): void {
  const isZeros = type === FRAME.ZEROS;
  const count = isZeros ? zerosOf(payload) : payload.length / PAGE_SIZE;
  if (!Number.isInteger(count) || count < 1 || place + count > ram.layout.pageCount)
    throw outOfPlace(`${count} pages at ${place} of ${ram.layout.pageCount}`);
  if (!isZeros) {
    ram.write(place, payload);
    return;
  }
  const zeros = new Uint8Array(Math.min(count, FRAME_PAGES) * PAGE_SIZE);
  for (let at = 0; at < count; at += FRAME_PAGES)
    ram.write(place + at, zeros.subarray(0, Math.min(FRAME_PAGES, count - at) * PAGE_SIZE));
}

/** The checksum of all memory, page after page. Cost: reads it all. */
export function checksumOf(ram: GuestRam): number {
  const buffer = new Uint8Array(FRAME_MOST_BYTES);
  let checksum = 0;
  for (let first = 0; first < ram.layout.pageCount; first += FRAME_PAGES) {
    const bytes = buffer.subarray(0, Math.min(FRAME_PAGES, ram.layout.pageCount - first) * PAGE_SIZE);
    ram.read(first, bytes);
    checksum = crc32(bytes, checksum);
  }
  return checksum;
}

const zerosOf = (payload: Uint8Array): number =>
  payload.length === 4 ? new DataView(payload.buffer, payload.byteOffset).getUint32(0, true) : 0;

function isZeroPage(bytes: Uint8Array, page: number): boolean {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset + page * PAGE_SIZE, PAGE_SIZE / 4);
  return words.every((word) => word === 0);
}
