/**
 * What a container says of itself: page sizes and capabilities, in the form of the kernel's interface.
 *
 * Specified by: include/uapi/linux/vfio.h of Linux 7.2; judged by test/golden/type1.
 */
import type { ArgumentBytes } from "../../iommufd/index.ts";
import type { Type1Container } from "./container.ts";
import { badCall } from "./errors.ts";

/** Fields of an unmap. */
export interface UnmapFields {
  readonly argsz: number;
  readonly flags: number;
  readonly iova: bigint;
  readonly size: bigint;
}

/** Fields of a request for dirty pages, after its header. */
export interface DirtyFields {
  readonly iova: bigint;
  readonly size: bigint;
  readonly pageBytes: bigint;
  /** Of the bitmap. */
  readonly bytes: bigint;
  readonly data: bigint;
}

const INFO_BYTES = 24;
const LEAST_INFO_BYTES = 16;
const CAPABILITY = { ranges: 1, migration: 2, available: 3 } as const;
const MOST_BITMAP_BYTES = 2n ** 28n;

/** Capabilities all or none: what is too short for them is told how much is needed. @throws DmaError EINVAL, EFAULT */
export function writeInfo(type1: Type1Container, at: ArgumentBytes): void {
  const argsz = new DataView(at.read(LEAST_INFO_BYTES).buffer).getUint32(0, true);
  if (argsz < LEAST_INFO_BYTES) throw badCall(`a structure of ${argsz} bytes`);
  const chain = capabilities(type1);
  const total = INFO_BYTES + chain.length;
  const fits = argsz >= total;
  if (fits) at.write(chain, INFO_BYTES);
  const info = new Uint8Array(INFO_BYTES);
  const view = new DataView(info.buffer);
  view.setUint32(0, fits ? argsz : total, true);
  view.setUint32(4, 3, true); // page sizes and capabilities
  view.setBigUint64(8, type1.pageSizes, true);
  view.setUint32(16, fits ? INFO_BYTES : 0, true);
  at.write(info.subarray(0, Math.min(argsz, INFO_BYTES)));
}

/** Migration, entries left, and, with a domain, usable ranges. */
function capabilities(type1: Type1Container): Uint8Array {
  const ranges = type1.tables.length > 0 ? type1.usable : undefined;
  const bytes = new Uint8Array(32 + 16 + (ranges ? 16 + ranges.length * 16 : 0));
  const view = new DataView(bytes.buffer);
  const header = (offset: number, id: number, next: number): void => {
    view.setUint16(offset, id, true);
    view.setUint16(offset + 2, 1, true);
    view.setUint32(offset + 4, next === 0 ? 0 : INFO_BYTES + next, true);
  };
  header(0, CAPABILITY.migration, 32);
  view.setBigUint64(16, type1.pageBytes, true);
  view.setBigUint64(24, MOST_BITMAP_BYTES, true);
  header(32, CAPABILITY.available, ranges ? 48 : 0);
  view.setUint32(40, type1.entriesLeft, true);
  if (ranges) {
    header(48, CAPABILITY.ranges, 0);
    view.setUint32(56, ranges.length, true);
    ranges.forEach(({ first, last }, i) => {
      view.setBigUint64(64 + i * 16, first, true);
      view.setBigUint64(72 + i * 16, last, true);
    });
  }
  return bytes;
}
