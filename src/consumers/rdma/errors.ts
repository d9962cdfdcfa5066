/** What RDMA refuses: one function per error, which makes a catalogue. */
import { DmaError, hex } from "../../base/index.ts";

/** Access bits that no region can have, or not together. */
export const badAccess = (access: number, why: string): DmaError =>
  new DmaError("ERR_DMA_RDMA_ACCESS", "EINVAL", `access ${hex(access)}: ${why}`, { access });

/** Access bits that this device does not have. */
export const accessUnsupported = (access: number, why: string): DmaError =>
  new DmaError("ERR_DMA_RDMA_UNSUPPORTED", "EOPNOTSUPP", `access ${hex(access)}: ${why}`, { access });

/** Memory that was pinned for reading only cannot become writable. */
export const memoryReadOnly = (access: number, errno: "EACCES" | "EPERM" = "EACCES"): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_READ_ONLY",
    errno,
    `access ${hex(access)} writes, and the memory was registered for reading: register it anew`,
    { access },
  );

/** A range of memory that is none. */
export const badRegion = (address: number, length: number, why: string): DmaError =>
  new DmaError("ERR_DMA_RDMA_RANGE", "EINVAL", `${length} bytes at ${hex(address)}: ${why}`, { address, length });

/** A range on demand that goes past the end of all addresses. */
export const rangeWraps = (address: number, length: number): DmaError =>
  new DmaError("ERR_DMA_RDMA_RANGE", "EOVERFLOW", `${length} bytes at ${hex(address)} go past the last address`, {
    address,
    length,
  });

/** No page of memory may be locked at all. */
export const lockingForbidden = (): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_LOCKING",
    "EPERM",
    "the process may lock no memory (RLIMIT_MEMLOCK is 0, and it has no CAP_IPC_LOCK): raise the limit, or register on demand",
  );

/** More pages than the process may have pinned. */
export const tooMuchPinned = (pages: number, pinned: number, limit: number): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_PINNED",
    "ENOMEM",
    `${pages} pages more than the ${pinned} that are pinned exceed the limit of ${limit} (RLIMIT_MEMLOCK): raise it, or register on demand`,
    { pages, pinned, limit },
  );

/** The device would have to be given copies, and nobody would copy. */
export const copiesNeeded = (device: string, why: string): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_BOUNCE",
    "EOPNOTSUPP",
    `${device} cannot use memory of a program: ${why}; the program and the device use it at the same time, and copies would differ`,
    { device },
  );

/** The mapping of pinned memory failed: as verbs answer, whatever the reason. */
export const mappingFailed = (device: string, cause: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_MAP",
    "EIO",
    `the pages cannot be mapped for ${device}: ${cause instanceof Error ? cause.message : String(cause)}`,
    { device, cause },
  );

/** No size of block fits the region's address, its length and where its memory lies. */
export const noPageSize = (virt: number | bigint, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_PAGE_SIZE",
    "EINVAL",
    `no page size of the device fits ${length} bytes at ${hex(Number(virt))}: the address and the memory must agree modulo the smallest one`,
    { virt, length },
  );

/** An access of the device outside of the region. */
export const outsideRegion = (offset: number, length: number, regionBytes: number): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_OUTSIDE",
    "EFAULT",
    `${length} bytes at offset ${offset} are outside of the region's ${regionBytes}`,
    { offset, length, regionBytes },
  );

/** A page of the process is smaller than the region's. */
export const pageTooSmall = (index: number, order: number): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_SMALL_PAGE",
    "EINVAL",
    `page ${index} of the region is one of order ${order}: the region was registered for huge pages`,
    { index, order },
  );

/** The region changed again and again while it was looked at. */
export const regionBusy = (rounds: number): DmaError =>
  new DmaError("ERR_DMA_RDMA_BUSY", "EBUSY", `the range changed in each of ${rounds} rounds: come again later`, {
    rounds,
  });

/** A buffer of another driver was taken back. */
export const bufferRevoked = (): DmaError =>
  new DmaError("ERR_DMA_RDMA_REVOKED", "EINVAL", "the buffer was revoked: deregister the region, and register another");

/** A buffer that its owner is moving just now. */
export const bufferMoving = (): DmaError =>
  new DmaError("ERR_DMA_RDMA_MOVING", "EBUSY", "the buffer is being moved: come again when its owner has done");

/** A driver that was removed. */
export const driverGone = (device: string): DmaError =>
  new DmaError("ERR_DMA_RDMA_GONE", "EIO", `the driver of ${device} was removed: nothing of it can be exported`, {
    device,
  });

/** A call on something that was given back. */
export const gone = (what: string): DmaError =>
  new DmaError("ERR_DMA_RELEASED", "EINVAL", `the ${what} was given back: nothing can be done with it any more`);

/** A key, domain or other name that names nothing. */
export const unknownName = (what: string, name: number): DmaError =>
  new DmaError("ERR_DMA_RDMA_NAME", "ENOENT", `there is no ${what} ${hex(name)}`, { name });

/** A parameter that the call does not take. */
export const badArgument = (what: string): DmaError => new DmaError("ERR_DMA_RDMA_ARGUMENT", "EINVAL", what);

/** A call that this device, or this kind of region, does not have. */
export const callUnsupported = (what: string): DmaError => new DmaError("ERR_DMA_RDMA_UNSUPPORTED", "EOPNOTSUPP", what);

/** What is used together must be of one protection domain. */
export const otherDomain = (key: number, errno: "EPERM" | "EBUSY"): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_DOMAIN",
    errno,
    errno === "EPERM"
      ? `the region ${hex(key)} is of another protection domain`
      : `the region ${hex(key)} is still in the domain: deregister it first`,
    { key },
  );

/** All indexes of keys are in use. */
export const noKeyLeft = (): DmaError =>
  new DmaError("ERR_DMA_RDMA_KEYS", "ENOMEM", "no key is left: deregister something");

/** A queue that has no room for another request. */
export const queueFull = (what: string, slots: number): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_QUEUE_FULL",
    "ENOMEM",
    `the ${what} has no free slot of its ${slots}: take completions first`,
    { slots },
  );

/** A request, or a change of state, that the state of a queue pair does not allow. */
export const badState = (what: string, state: string): DmaError =>
  new DmaError("ERR_DMA_RDMA_STATE", "EINVAL", `a queue pair that is ${state} takes no ${what}`, { state });

/** Memory of another device that this one has no way to. */
export const peerMemoryOutOfReach = (device: string, phys: number): DmaError =>
  new DmaError("ERR_DMA_RDMA_PEER", "EREMOTEIO", `${device} has no way to the peer memory at ${hex(phys)}`, {
    device,
    phys,
  });

/** Transfers have taken all regions of a pool. */
export const poolEmpty = (needed: number, available: number): DmaError =>
  new DmaError(
    "ERR_DMA_RDMA_POOL",
    "EAGAIN",
    `${needed} regions are needed and ${available} are free: come again when a transfer is done`,
    { needed, available },
  );
