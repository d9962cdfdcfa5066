/** What iommufd refuses. One function per error; numbers are what the kernel answers. */
import { DmaError, type Errno, hex } from "../../base/index.ts";

/** An id that names nothing, or a thing of another kind. */
export const noObject = (id: number, wanted: string, errno: "ENOENT" | "EINVAL" = "ENOENT"): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_OBJECT", errno, `no ${wanted} has the id ${id} here`, { id, wanted });

/** Something else still needs the object. */
export const objectBusy = (id: number, users: number): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_BUSY", "EBUSY", `object ${id} has ${users} users: end those first`, { id, users });

/** Flags or reserved words that this version does not know. */
export const notSupported = (what: string): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_UNSUPPORTED", "EOPNOTSUPP", `${what} is not supported`);

/** An argument that can never be right. */
export const badArgument = (why: string, details: object = {}): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_ARGUMENT", "EINVAL", why, details);

/** A range that leaves the 64 bits of addresses. */
export const wraps = (start: bigint, length: bigint): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_RANGE",
    "EOVERFLOW",
    `${hex(length)} bytes from ${hex(start)} on leave the address space`,
    {
      start,
      length,
    },
  );

/** Addresses that are not free, or not allowed. */
export const iovaRefused = (
  errno: "EEXIST" | "EINVAL" | "EADDRINUSE" | "ENOSPC" | "EOVERFLOW",
  iova: bigint,
  length: bigint,
  why: string,
): DmaError =>
  new DmaError("ERR_DMA_IOVA_RANGE", errno, `${hex(length)} bytes at IOVA ${hex(iova)}: ${why}`, { iova, length });

/** An address at which nothing is mapped, or of which an area is mapped only in part. */
export const notMapped = (iova: bigint, length: bigint, why: string): DmaError =>
  new DmaError("ERR_DMA_NOT_MAPPED", "ENOENT", `${hex(length)} bytes at IOVA ${hex(iova)}: ${why}`, { iova, length });

/** More permission than the memory was mapped with. */
export const noPermission = (why: string): DmaError => new DmaError("ERR_DMA_IOMMUFD_PERMISSION", "EPERM", why);

/** An area that is being made, or that a hardware queue keeps. */
export const areaBusy = (iova: bigint, why: string): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_BUSY", "EBUSY", `the area at IOVA ${hex(iova)} ${why}`, { iova });

/** An in-kernel user keeps its pages although it was told that they go. */
export const accessStubborn = (iova: bigint, rounds: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOMMUFD_STUBBORN",
    "EDEADLK",
    `pages at IOVA ${hex(iova)} are still held after ${rounds} requests to let go: unmap again when they are released`,
    { iova, rounds },
  );

/** The limit of locked memory would be passed. */
export const overLimit = (pages: number, charged: number, limitPages: number): DmaError =>
  new DmaError(
    "ERR_DMA_LOCKED_LIMIT",
    "ENOMEM",
    `${pages} pages more than the ${charged} that are charged pass the limit of ${limitPages}: raise RLIMIT_MEMLOCK`,
    { pages, charged, limitPages },
  );

/** Memory that cannot be reached: the process is gone, or nothing is mapped there. */
export const unreachable = (address: bigint | number, length: number | bigint): DmaError =>
  new DmaError("ERR_DMA_USER_FAULT", "EFAULT", `${length} bytes at ${hex(address)} of the process cannot be reached`, {
    address,
    length,
  });

/** A file that is not open, or none that can be mapped. */
export const badFile = (errno: "EBADF" | "EINVAL" | "EOPNOTSUPP" | "ENODEV" | "EPERM", why: string): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_FILE", errno, why);

/** A device, table or PASID that does not go together. */
export const badAttach = (errno: "EINVAL" | "EBUSY" | "ENOENT" | "EPERM", why: string): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_ATTACH", errno, why);

/** More ranges than the caller has room for. */
export const tooManyRanges = (count: number, room: number): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_ROOM", "EMSGSIZE", `${count} ranges, and room for ${room}`, { count, room });

/** A structure longer than this version knows, whose tail says something. */
export const tailNotZero = (bytes: number, known: number): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_ARGUMENT", "E2BIG", `${bytes} bytes given, ${known} known, and the rest is not zero`, {
    bytes,
    known,
  });

/** No such request. */
export const unknownRequest = (number: number): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_REQUEST", "ENOTTY", `request ${hex(number)} is none of this file's`, { number });

/** A compatible call, and no space for it. */
export const noCompatSpace = (): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_COMPAT", "ENODEV", "no address space for compatible calls: set one, or attach a group");

/** A privilege that the caller lacks. */
export const notPrivileged = (what: string): DmaError => new DmaError("ERR_DMA_IOMMUFD_PERMISSION", "EPERM", what);

/** Something of which there can be only one. */
export const alreadyThere = (what: string): DmaError => new DmaError("ERR_DMA_IOMMUFD_OBJECT", "EEXIST", what);

/** What a driver of an IOMMU refuses for reasons of its own. */
export const driverRefused = (errno: Errno, why: string): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_DRIVER", errno, why);

/** A read or write of a queue that is not in whole records. */
export const notWholeRecords = (bytes: number, record: number): DmaError =>
  new DmaError("ERR_DMA_IOMMUFD_QUEUE", "ESPIPE", `${bytes} bytes are no whole records of ${record}`, {
    bytes,
    record,
  });
