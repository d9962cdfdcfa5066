/**
 * What devices wrote, by address: read from a table, over the areas of its space.
 *
 * Promises: bits are reported in order, and cut to the range. With `clear` they are clean afterwards.
 * Specified by: behaviour of Linux 7.2 (iommu_read_and_clear_dirty, iova_bitmap); judged by test/golden/iommufd.
 */
import { badArgument, notSupported, wraps } from "./errors.ts";
import type { PagingHwpt } from "./hwpt.ts";
import { LAST_IOVA } from "./ranges.ts";

/** Which part of a space, in pages of which size. */
export interface DirtyRequest {
  /** First address, bytes. */
  readonly iova: bigint;
  /** How many bytes. */
  readonly length: bigint;
  /** Bytes that one bit stands for. */
  readonly pageBytes: bigint;
  /** What is reported is clean afterwards. */
  readonly clear: boolean;
}

/** Starts or ends tracking. What was written before does not count. @throws DmaError EOPNOTSUPP */
export function setDirtyTracking(hwpt: PagingHwpt, on: boolean): void {
  const { table, ioas } = hwpt;
  if (!table.tracksDirty) throw notSupported("dirty tracking in this table");
  if (on)
    for (const area of ioas.areas) {
      if (area.isClosed || !area.storage) continue;
      table.readDirty(area.unitOf(area.firstIndex, table), area.unitsIn(table), true, () => {});
    }
  table.setDirtyTracking(on);
}

/**
 * Calls `report` for each run of pages that devices wrote to: the first, and how many, counted from `iova`.
 *
 * @throws DmaError EOPNOTSUPP, EINVAL, EOVERFLOW; with the rule `dirtyHolesAreRefused` EINVAL before anything is read
 */
export function readDirty(
  hwpt: PagingHwpt,
  request: DirtyRequest,
  report: (page: bigint, pages: bigint) => void,
): void {
  const { ioas, table } = hwpt;
  const { iova, length, pageBytes, clear } = request;
  if (!table.tracksDirty) throw notSupported("dirty tracking in this table");
  const last = iova + ((length - 1n) & LAST_IOVA);
  if (last > LAST_IOVA) throw wraps(iova, length);
  const alignment = BigInt(ioas.alignment);
  if (iova % alignment !== 0n || (last + 1n) % alignment !== 0n)
    throw badArgument(`the range is not aligned to ${alignment}`);
  // The kernel's mask test, which some sizes pass that are no powers of two.
  if (pageBytes === 0n || (iova & (pageBytes - 1n)) !== 0n || ((last + 1n) & (pageBytes - 1n)) !== 0n)
    throw badArgument(`the range is not of whole pages of ${pageBytes}`);
  const unit = pageBytes & -pageBytes;
  if (ioas.rules.dirtyPageSizeIsChecked && unit !== pageBytes)
    throw badArgument(`a page of ${pageBytes} bytes is no power of two`);
  const bits = (last - iova) / unit;
  const unitBytes = BigInt(table.unitBytes);
  const isWhole = !ioas.rules.dirtyHolesAreRefused || hasNoHole(hwpt, iova, last);
  if (!isWhole) throw badArgument("part of the range is not mapped");
  for (let at = iova; at <= last; ) {
    const area = ioas.areas.from(at);
    if (!area || area.first > at) return; // as Linux: nothing is said of what lies behind a hole
    const end = area.last < last ? area.last : last;
    if (area.storage) {
      const units = Number((end - at + 1n) / unitBytes);
      table.readDirty(Number(at / unitBytes), units, clear, (from, count) => {
        const first = (BigInt(from) * unitBytes - iova) / unit;
        let to = (BigInt(from + count) * unitBytes - 1n - iova) / unit;
        if (to > bits) to = bits;
        report(first, to - first + 1n);
      });
    }
    at = end + 1n;
  }
}

function hasNoHole({ ioas }: PagingHwpt, iova: bigint, last: bigint): boolean {
  for (let at = iova; at <= last; ) {
    const area = ioas.areas.from(at);
    if (!area || area.first > at) return false;
    at = area.last + 1n;
  }
  return true;
}
