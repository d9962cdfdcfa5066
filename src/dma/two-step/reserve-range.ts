/** Opens IOVA ranges: plain ones, or under checked mode such that tell it of every call. */
import { type IovaPage, PAGE_SIZE } from "../../base/index.ts";
import { DebuggedRange } from "../../dma-debug/index.ts";
import { IovaRange } from "./iova-range.ts";
import type { TranslatedPath } from "../path/translated.ts";

/** A range over pages that are reserved already. Linux's debugging knows nothing of ranges. */
function openRange(
  path: TranslatedPath,
  page: IovaPage,
  pages: number,
  inside: number,
  length: number,
  again: IovaRange | undefined,
): IovaRange {
  const { watch, linuxCompatible } = path.device;
  if (watch === undefined || linuxCompatible) {
    if (again?.reopen(path, page, pages, inside, length)) return again;
    return new IovaRange(path, page, pages, inside, length);
  }
  return new DebuggedRange(path, page, pages, inside, length, watch);
}

/**
 * Reserves address space for `length` bytes of which the first lies `inside` its granule; undefined if there is no room.
 *
 * @param capacity bytes that the range can grow to, if more than `length`
 * @param again a range that was given back, for its object
 */
export function reserveRange(
  path: TranslatedPath,
  length: number,
  inside = 0,
  capacity = 0,
  again?: IovaRange,
): IovaRange | undefined {
  const { device } = path;
  const pages = path.pages(Math.max(length, capacity) + inside);
  const page = path.reserve(pages);
  if (device.observer !== undefined)
    device.announceTwoStep({
      name: "dma_iova_try_alloc",
      device: device.name,
      address: page === 0 ? 0 : page * PAGE_SIZE + inside,
      reserved: length,
      ok: page !== 0,
    });
  return page === 0 ? undefined : openRange(path, page, pages, inside, length, again);
}
