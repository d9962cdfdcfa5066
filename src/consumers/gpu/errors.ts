/** What a GPU's driver refuses: one function per error, which makes a catalogue. */
import { DmaError, type Errno, hex } from "../../base/index.ts";

export const deviceCopies = (device: string): DmaError =>
  new DmaError(
    "ERR_DMA_GPU_DEVICE",
    "EOPNOTSUPP",
    `${device} cannot share memory with a process: mappings of it may need copies or syncs, and both sides use the pages at once; set its mask to reach all memory`,
    { device },
  );

export const badWindow = (what: string, value: number): DmaError =>
  new DmaError("ERR_DMA_GPU_RANGE", "EINVAL", `${what} ${hex(value)}: it does not fit`, { what, value });

/** The GPU touched an address that its context does not serve. */
export const outsideWindow = (address: number, start: number, end: number): DmaError =>
  new DmaError(
    "ERR_DMA_GPU_OUTSIDE",
    "EINVAL",
    `${hex(address)} is outside of the addresses that the GPU shares, [${hex(start)}, ${hex(end)})`,
    { address, start, end },
  );

export const processGone = (): DmaError =>
  new DmaError("ERR_DMA_USER_GONE", "EFAULT", "the process whose memory the GPU uses has ended");

export const noArea = (address: number): DmaError =>
  new DmaError("ERR_DMA_GPU_AREA", "ENOENT", `the process has nothing mapped at ${hex(address)}`, { address });

export const areaReadOnly = (address: number): DmaError =>
  new DmaError("ERR_DMA_GPU_READ_ONLY", "EPERM", `the GPU writes to ${hex(address)}, which the process may only read`, {
    address,
  });

export const areaOfDevice = (address: number): DmaError =>
  new DmaError("ERR_DMA_GPU_IO", "EIO", `at ${hex(address)} are registers of a device, not memory`, { address });

export const noChunk = (address: number): DmaError =>
  new DmaError("ERR_DMA_GPU_CHUNK", "EINVAL", `no chunk around ${hex(address)} fits its area, notifier and window`, {
    address,
  });

/** The object lost a part of its area: it never comes back, a new one must be made. */
export const partGone = (address: number): DmaError =>
  new DmaError("ERR_DMA_GPU_UNMAPPED", "EFAULT", `the process unmapped memory of the range at ${hex(address)}`, {
    address,
  });

export const mixedPlaces = (address: number, why: string): DmaError =>
  new DmaError(
    "ERR_DMA_GPU_MIXED",
    "EOPNOTSUPP",
    `the range at ${hex(address)} lies in places that cannot be mixed: ${why}`,
    {
      address,
      why,
    },
  );

export const peerPage = (address: number): DmaError =>
  new DmaError(
    "ERR_DMA_GPU_PEER",
    "EOPNOTSUPP",
    `at ${hex(address)} is memory of another device: allow peers, or map RAM`,
    {
      address,
    },
  );

export const unreachablePlace = (address: number): DmaError =>
  new DmaError("ERR_DMA_GPU_PLACE", "EFAULT", `the page at ${hex(address)} is in memory that this GPU has no way to`, {
    address,
  });

export const stillChanging = (address: number, rounds: number): DmaError =>
  new DmaError(
    "ERR_DMA_GPU_BUSY",
    "EBUSY",
    `memory at ${hex(address)} changed in each of ${rounds} rounds: come again`,
    {
      address,
      rounds,
    },
  );

export const released = (what: string): DmaError =>
  new DmaError("ERR_DMA_RELEASED", "EINVAL", `the ${what} is gone: make a new one`, { what });

/** A migration that cannot be made; nothing has moved. */
export const cannotMigrate = (errno: Errno, start: number, why: string): DmaError =>
  new DmaError("ERR_DMA_GPU_MIGRATE", errno, `memory at ${hex(start)} does not move to the GPU: ${why}`, {
    start,
    why,
  });

export const memoryFull = (pages: number): DmaError =>
  new DmaError(
    "ERR_DMA_GPU_MEMORY",
    "ENOMEM",
    `no ${pages} pages are free in the GPU's memory, and none can be evicted`,
    {
      pages,
    },
  );

export const memoryHeld = (pages: number, attempts: number): DmaError =>
  new DmaError(
    "ERR_DMA_GPU_HELD",
    "EBUSY",
    `${pages} pages of an allocation stay in the GPU after ${attempts} attempts`,
    {
      pages,
      attempts,
    },
  );

export const unbound = (name: string): DmaError =>
  new DmaError("ERR_DMA_GPU_UNBOUND", "ENODEV", `${name} takes no pages any more: its driver is leaving`, { name });

/** The IOMMU refused the GPU's copy engine. */
export const copyRefused = (name: string): DmaError =>
  new DmaError("ERR_DMA_GPU_COPY", "EIO", `${name} could not copy: an address was refused on the bus`, { name });

/** A broken promise of our own: the process changed a page and the GPU's driver was not told. */
export const missedChange = (address: number, mapped: number, found: number): Error =>
  new Error(
    `broken invariant: the GPU has page ${hex(mapped)} at ${hex(address)}, but the process has ${hex(found)}: nobody was told of the change`,
  );
