/** What a shared buffer refuses, and why: one function per error, which makes a catalogue. */
import { DmaError, type Errno, given, hex } from "../../base/index.ts";

/** Lengths, offsets and flags that no buffer has. */
export const badArgument = (what: string, value: unknown, needed: string): DmaError =>
  new DmaError("ERR_DMA_BUF_ARGUMENT", "EINVAL", `${what} of ${given(value)}: ${needed}`, { what, value });

/** Vectors that are none: empty, not whole pages, or longer together than addresses can say. */
export const badVectors = (why: string, details: object = {}): DmaError =>
  new DmaError("ERR_DMA_BUF_VECTORS", "EINVAL", `these physical vectors make no buffer: ${why}`, details);

/** A range that is not in the BAR. */
export const outsideBar = (errno: Errno, offset: string, length: string, barLength: number): DmaError =>
  new DmaError(
    "ERR_DMA_BUF_RANGE",
    errno,
    `${length} bytes at offset ${offset} of a BAR of ${hex(barLength)} bytes: give whole pages inside the BAR`,
    { offset, length, barLength },
  );

/** A region without memory that could be shared. */
export const noRegion = (region: number): DmaError =>
  new DmaError("ERR_DMA_BUF_REGION", "ENODEV", `region ${region} is no memory BAR of the device`, { region });

/** A BAR that processes cannot map, so that peers cannot either. */
export const noProvider = (region: number): DmaError =>
  new DmaError(
    "ERR_DMA_BUF_PROVIDER",
    "EINVAL",
    `BAR ${region} provides no peer memory: it is not a memory BAR of whole pages`,
    { region },
  );

/** The storage was taken away: by a reset, with the memory decode, or for good. */
export const revoked = (buffer: string, what: string): DmaError =>
  new DmaError(
    "ERR_DMA_BUF_REVOKED",
    "ENODEV",
    `cannot ${what} ${buffer}: its storage is revoked; a dynamic importer may try again when it is told that it moved`,
    { buffer },
  );

/** The device that owned the storage is closed. */
export const deviceGone = (device: string): DmaError =>
  new DmaError("ERR_DMA_BUF_DEVICE_GONE", "ENODEV", `${device} is closed: it exports nothing any more`, { device });

/** This exporter and this importer do not fit together. */
export const importerRefused = (buffer: string, importer: string, why: string): DmaError =>
  new DmaError("ERR_DMA_BUF_IMPORTER", "EOPNOTSUPP", `${importer} cannot attach to ${buffer}: ${why}`, {
    buffer,
    importer,
  });

/** Nothing that both sides know. */
export const noCommonType = (offered: readonly string[], accepted: readonly string[]): DmaError =>
  new DmaError(
    "ERR_DMA_BUF_TYPE",
    "EOPNOTSUPP",
    `no mapping type in common: offered are ${offered.join(", ") || "none"}, accepted ${accepted.join(", ") || "none"}`,
    { offered, accepted },
  );

/** A call that needs the reservation lock came without it. */
export const notLocked = (what: string): DmaError =>
  new DmaError("ERR_DMA_BUF_UNLOCKED", "EINVAL", `${what} needs the reservation lock of the buffer: take it first`, {
    what,
  });

/** A call that takes the reservation lock itself came with it. */
export const wouldDeadlock = (what: string): DmaError =>
  new DmaError(
    "ERR_DMA_BUF_DEADLOCK",
    "EBUSY",
    `${what} takes the reservation lock of the buffer, which is held: release it first`,
    { what },
  );

/** An attachment has one mapping at a time. */
export const mappedAlready = (importer: string): DmaError =>
  new DmaError("ERR_DMA_BUF_MAPPED", "EEXIST", `${importer} has mapped the buffer already: unmap first`, { importer });

/** Nothing there to unmap. */
export const notMapped = (importer: string): DmaError =>
  new DmaError("ERR_DMA_BUF_NOT_MAPPED", "EINVAL", `${importer} has not mapped the buffer`, { importer });

/** The direction is part of a mapping. */
export const otherDirection = (mapped: string, given: string): DmaError =>
  new DmaError("ERR_DMA_BUF_DIRECTION", "EINVAL", `mapped ${mapped}, and unmapped ${given}: name the same direction`, {
    mapped,
    given,
  });

/** No pin to end. */
export const notPinned = (importer: string): DmaError =>
  new DmaError("ERR_DMA_BUF_NOT_PINNED", "EINVAL", `${importer} has not pinned the buffer`, { importer });

/** Storage that is pinned cannot move. */
export const pinnedDown = (buffer: string, pins: number): DmaError =>
  new DmaError("ERR_DMA_BUF_PINNED", "EBUSY", `${buffer} is pinned ${pins} times: it cannot move`, { buffer, pins });

/** The attachment is over. */
export const detached = (importer: string): DmaError =>
  new DmaError("ERR_DMA_BUF_DETACHED", "EINVAL", `${importer} has detached from the buffer`, { importer });

/** The last holder has let the buffer go. */
export const bufferGone = (buffer: string): DmaError =>
  new DmaError("ERR_DMA_BUF_GONE", "EBADF", `${buffer} is released: nobody holds it any more`, { buffer });

/** A peer's memory that the device cannot reach. */
export const unreachable = (importer: string, owner: string): DmaError =>
  new DmaError("ERR_DMA_BUF_UNREACHABLE", "EINVAL", `${importer} has no way to the memory of ${owner}`, {
    importer,
    owner,
  });

/** A vector could not be mapped by itself. */
export const vectorNotMapped = (importer: string, phys: number, length: number, cause: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_BUF_MAP",
    "ENOMEM",
    `${importer} cannot map ${length} bytes at ${hex(phys)}: ${cause instanceof Error ? cause.message : String(cause)}`,
    { importer, phys, length, code: cause instanceof DmaError ? cause.code : undefined },
  );

/** No memory for a buffer of its own. */
export const noMemory = (lengthBytes: number): DmaError =>
  new DmaError("ERR_DMA_BUF_NO_MEMORY", "ENOMEM", `no memory for a buffer of ${lengthBytes} bytes`, { lengthBytes });

/** The storage is somewhere else by now: what was learned of it is void. */
export const staleGeneration = (had: number, now: number): DmaError =>
  new DmaError(
    "ERR_DMA_BUF_STALE",
    "EBUSY",
    `these physical addresses are of generation ${had}, and the buffer is at ${now}: ask for them again`,
    { had, now },
  );

/** A descriptor of something else. */
export const notMemoryFile = (kind: string): DmaError =>
  new DmaError("ERR_DMA_BUF_FILE", "EBADFD", `a ${kind} is no file of memory: give a memfd`, { kind });

/** Seals that the file has and must not have, or lacks. */
export const wrongSeals = (why: string): DmaError =>
  new DmaError("ERR_DMA_BUF_SEALS", "EINVAL", `the file's pages could change under the buffer: ${why}`, { why });

/** What an open descriptor does not allow. */
export const notPermitted = (what: string): DmaError =>
  new DmaError("ERR_DMA_BUF_ACCESS", "EACCES", `the descriptor was not opened for this: ${what}`, { what });

/** A call that this kind of buffer, or this machine, does not have. */
export const noSuchCall = (what: string, errno: "EINVAL" | "ENOTTY" | "EFAULT"): DmaError =>
  new DmaError("ERR_DMA_BUF_CALL", errno, `there is no ${what} here`, { what });
