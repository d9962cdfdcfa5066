/** Opens IOVA ranges: plain ones, or such that a watcher sees every call of. */
import { PAGE_SIZE } from "../../base/index.ts";
import type { DevicePath } from "../device-path.ts";
import { IovaRange } from "./iova-range.ts";

/**
 * Reserves address space for `length` bytes of which the first lies `inside` its granule; undefined if there is no room, or
 * the device is not translated.
 *
 * @param capacity bytes that the range can grow to, if more than `length`
 * @param reused a range that was given back, for its object
 */
export function reserveRange(
  { device, granules, watch }: DevicePath,
  length: number,
  inside = 0,
  capacity = 0,
  reused?: IovaRange,
): IovaRange | undefined {
  if (granules === undefined) return undefined;
  const pages = granules.pages(Math.max(length, capacity) + inside);
  const page = granules.reserve(pages);
  if (device.observer !== undefined)
    device.announceTwoStep({
      name: "dma_iova_try_alloc",
      device: device.name,
      address: page === 0 ? 0 : page * PAGE_SIZE + inside,
      reserved: length,
      ok: page !== 0,
    });
  if (page === 0) return undefined;
  const watched = watch?.range(granules, page, pages, inside, length);
  if (watched !== undefined) return watched;
  if (reused?.reuse(granules, page, pages, inside, length)) return reused;
  return new IovaRange(granules, page, pages, inside, length);
}
