/** What containers refuse. One function per error. */
import { DmaError, type Errno, hex } from "../../../base/index.ts";

/** Arguments that can never be right, or not now. */
export const badMap = (
  errno: "EINVAL" | "EOVERFLOW" | "EEXIST" | "ENOENT",
  iova: bigint,
  size: bigint,
  why: string,
): DmaError =>
  new DmaError("ERR_DMA_TYPE1_RANGE", errno, `${hex(size)} bytes at IOVA ${hex(iova)}: ${why}`, { iova, size });

/** All entries of the container are in use. */
export const noEntryLeft = (limit: number): DmaError =>
  new DmaError(
    "ERR_DMA_TYPE1_BUDGET",
    "ENOSPC",
    `all ${limit} entries of the container are in use: map larger pieces`,
    {
      limit,
    },
  );

/** The limit of locked memory would be passed. */
export const overMemlock = (pages: number, limitPages: number): DmaError =>
  new DmaError(
    "ERR_DMA_LOCKED_LIMIT",
    "ENOMEM",
    `${pages} locked pages pass the limit of ${limitPages}: raise RLIMIT_MEMLOCK`,
    { pages, limitPages },
  );

/** A call that does not fit the state of a container or group. */
export const badState = (errno: Errno, why: string): DmaError => new DmaError("ERR_DMA_VFIO_STATE", errno, why);

/** A structure that is malformed. */
export const badCall = (why: string): DmaError => new DmaError("ERR_DMA_VFIO_ARGUMENT", "EINVAL", why);

/** A request that the file does not know. */
export const unknownCall = (number: number): DmaError =>
  new DmaError("ERR_DMA_VFIO_REQUEST", "ENOTTY", `request ${hex(number)} is none of this file's`, { number });
