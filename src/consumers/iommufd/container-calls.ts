/**
 * Calls of VFIO containers, answered by an iommufd: for programs that know only those.
 *
 * Idea: one space of the iommufd stands for the container. With type 1 large leaves are given up, so that areas may be cut
 * anywhere; with type 3 they stay, and a cut is refused.
 * Not for: virtual addresses that change, dirty bitmaps: the kernel has neither here.
 * Specified by: behaviour of Linux 7.2 (iommufd/vfio_compat); judged by test/golden/iommufd.
 */
import { REQUESTS } from "../../layouts/uapi/index.ts";
import type { UserProcess } from "../../platform/index.ts";
import { type Argument, ArgumentBytes } from "./caller.ts";
import { badArgument, unknownRequest } from "./errors.ts";
import type { Ioas } from "./ioas.ts";
import type { Iommufd } from "./iommufd.ts";
import { LAST_IOVA } from "./ranges.ts";

const EXTENSION = { type1: 1, type1v2: 3, coherent: 4, unmapAll: 9 } as const;
const READ_WRITE = 3;
const UNMAP_ALL = 2;
const INFO_BYTES = 24;
const LEAST_INFO_BYTES = 16;
/** Capabilities: how many maps are left, and which addresses can be used. */
const CAPABILITY = { available: 3, ranges: 1 } as const;
const AVAILABLE_BYTES = 12;
const RANGES_BYTES = 16;
const RANGE_BYTES = 16;
/** There is no limit; the field says so by its greatest value. */
const UNLIMITED = 2 ** 32 - 1;

/**
 * One call.
 *
 * @param argument a structure, its address, or the value itself where the call takes a number
 * @throws DmaError ENODEV without a space; EINVAL; ENOTTY for calls that are not known here
 */
export function containerCall(iommufd: Iommufd, number: number, argument: Argument, caller: UserProcess): number {
  switch (number) {
    case REQUESTS.VFIO_GET_API_VERSION:
      return 0;
    case REQUESTS.VFIO_CHECK_EXTENSION:
      return checkExtension(iommufd, Number(argument));
    case REQUESTS.VFIO_SET_IOMMU:
      setIommu(iommufd, Number(argument));
      return 0;
    case REQUESTS.VFIO_IOMMU_GET_INFO:
      getInfo(iommufd, new ArgumentBytes(argument, caller));
      return 0;
    case REQUESTS.VFIO_IOMMU_MAP_DMA:
      mapDma(iommufd, new ArgumentBytes(argument, caller));
      return 0;
    case REQUESTS.VFIO_IOMMU_UNMAP_DMA:
      unmapDma(iommufd, new ArgumentBytes(argument, caller));
      return 0;
    default:
      throw unknownRequest(number);
  }
}

function checkExtension(iommufd: Iommufd, extension: number): number {
  switch (extension) {
    case EXTENSION.type1:
    case EXTENSION.type1v2:
    case EXTENSION.unmapAll:
      return 1;
    case EXTENSION.coherent:
      return iommufd.needCompatIoas().tables.every((table) => table.forcesCoherency) ? 1 : 0;
    default:
      return 0;
  }
}

function setIommu(iommufd: Iommufd, type: number): void {
  if (type !== EXTENSION.type1 && type !== EXTENSION.type1v2) throw badArgument(`an IOMMU of type ${type}`);
  const ioas = iommufd.needCompatIoas();
  if (type === EXTENSION.type1) ioas.setLargePages(false);
}

/** Page sizes of all tables, as a container says them: whole pages of the CPU, and larger. */
function pageSizes(ioas: Ioas): bigint {
  let sizes = LAST_IOVA;
  for (const table of ioas.tables) sizes &= table.pageSizes;
  if ((sizes & 0xfffn) !== 0n) sizes = (sizes & ~0xfffn) | 0x1000n;
  const alignment = BigInt(ioas.alignment);
  return sizes > alignment ? sizes : alignment;
}

function getInfo(iommufd: Iommufd, at: ArgumentBytes): void {
  const argsz = new DataView(at.read(LEAST_INFO_BYTES).buffer).getUint32(0, true);
  if (argsz < LEAST_INFO_BYTES) throw badArgument(`a structure of ${argsz} bytes`);
  const ioas = iommufd.needCompatIoas();
  const ranges = ioas.usable;
  const second = INFO_BYTES + Math.ceil(AVAILABLE_BYTES / 8) * 8;
  const total = second + RANGES_BYTES + ranges.length * RANGE_BYTES;
  if (argsz >= INFO_BYTES + AVAILABLE_BYTES) {
    const bytes = words(CAPABILITY.available | (1 << 16), argsz >= second ? second : 0, UNLIMITED);
    at.write(bytes, INFO_BYTES);
  }
  ranges.forEach(({ first, last }, i) => {
    const offset = second + RANGES_BYTES + i * RANGE_BYTES;
    if (argsz < offset + RANGE_BYTES) return;
    const bytes = new Uint8Array(RANGE_BYTES);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(0, first, true);
    view.setBigUint64(8, last, true);
    at.write(bytes, offset);
  });
  if (argsz >= total) at.write(words(CAPABILITY.ranges | (1 << 16), 0, ranges.length, 0), second);
  const info = new Uint8Array(INFO_BYTES);
  const view = new DataView(info.buffer);
  view.setUint32(0, total, true);
  view.setUint32(4, 3, true); // page sizes and capabilities
  view.setBigUint64(8, pageSizes(ioas), true);
  view.setUint32(16, argsz >= total ? INFO_BYTES : 0, true);
  at.write(info.subarray(0, Math.min(argsz, INFO_BYTES)));
}

function words(...values: number[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, i) => {
    view.setUint32(i * 4, value >>> 0, true);
  });
  return bytes;
}

function mapDma(iommufd: Iommufd, at: ArgumentBytes): void {
  const bytes = at.read(32);
  const view = new DataView(bytes.buffer);
  const flags = view.getUint32(4, true);
  if (view.getUint32(0, true) < 32 || (flags & ~READ_WRITE) !== 0) throw badArgument(`flags ${flags}, or too short`);
  const ioas = iommufd.needCompatIoas();
  iommufd.mapAnyhow(ioas, at.process, view.getBigUint64(8, true), {
    iova: view.getBigUint64(16, true),
    length: view.getBigUint64(24, true),
    read: (flags & 1) !== 0,
    write: (flags & 2) !== 0,
  });
}

/** The size is written back also where the call fails half way: what was removed can be seen. */
function unmapDma(iommufd: Iommufd, at: ArgumentBytes): void {
  const bytes = at.read(24);
  const view = new DataView(bytes.buffer);
  const flags = view.getUint32(4, true);
  const [iova, size] = [view.getBigUint64(8, true), view.getBigUint64(16, true)];
  if (view.getUint32(0, true) < 24 || (flags & ~UNMAP_ALL) !== 0) throw badArgument(`flags ${flags}, or too short`);
  const ioas = iommufd.needCompatIoas();
  const isAll = flags === UNMAP_ALL;
  if (isAll && (iova !== 0n || size !== 0n)) throw badArgument("all is to be unmapped, and a range given");
  if (!isAll && !ioas.largePages) {
    ioas.cut((iova + size - 1n) & LAST_IOVA);
    if (iova !== 0n) ioas.cut(iova - 1n);
  }
  const done = { bytes: 0n };
  try {
    if (!isAll) ioas.checkRange(iova, size);
    ioas.unmapRange(isAll ? 0n : iova, isAll ? LAST_IOVA : iova + size - 1n, done);
  } finally {
    view.setBigUint64(16, done.bytes, true);
    at.write(bytes);
  }
}
