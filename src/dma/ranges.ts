/** Opens IOVA ranges: plain ones, or under checked mode such that tell it of every call. */
import { type Iova, type IovaPage, PAGE_SIZE } from "../base/index.ts";
import { DebuggedRange } from "./debug/index.ts";
import { IovaRange } from "./iova-range.ts";
import type { TranslatedPath } from "./translated.ts";

/** A range over pages that are reserved already. Linux's debugging knows nothing of ranges. */
function openRange(path: TranslatedPath, page: IovaPage, pages: number, address: Iova, length: number): IovaRange {
  const { watch, linuxCompatible } = path.device;
  if (watch === undefined || linuxCompatible) return new IovaRange(path, page, pages, address, length);
  return new DebuggedRange(path, page, pages, address, length, watch);
}

/**
 * Reserves address space for `length` bytes of which the first lies `inside` its granule; undefined if there is no room.
 *
 * @param capacity bytes that the range can grow to, if more than `length`
 */
export function reserveRange(path: TranslatedPath, length: number, inside = 0, capacity = 0): IovaRange | undefined {
  const { device } = path;
  const pages = path.pages(Math.max(length, capacity) + inside);
  const page = path.reserve(pages);
  const address = (page * PAGE_SIZE + inside) as Iova;
  if (device.observer !== undefined)
    device.announceTwoStep({
      name: "dma_iova_try_alloc",
      device: device.name,
      address: page === 0 ? 0 : address,
      reserved: length,
      ok: page !== 0,
    });
  return page === 0 ? undefined : openRange(path, page, pages, address, length);
}
