/** What the DMA layer refuses, and why. One function per error. */
import { DmaError, given, hex } from "../base/index.ts";

/** A length that no mapping can have. */
export const badLength = (length: number): DmaError =>
  new DmaError("ERR_DMA_LENGTH", "EINVAL", `a length of ${given(length)} bytes: a whole number from 1 on is needed`, {
    length,
  });

/** An address that memory cannot have. */
export const badAddress = (phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_ADDRESS",
    "EINVAL",
    `a physical address of ${given(phys)}: ${typeof phys === "number" ? "" : "a number, and no other type, "}a whole number ` +
      "from 0 to 2^53 - 1 is needed",
    { phys },
  );

/** A direction that is none. */
export const badDirection = (direction: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_DIRECTION",
    "EINVAL",
    `a direction of ${given(direction)}: "to-device", "from-device" or "bidirectional" is needed`,
    { direction },
  );

/** No gap in the device's address space. */
export const noAddressSpace = (length: number, limit: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_EXHAUSTED",
    "ENOMEM",
    `no room for ${length} bytes below ${hex(limit)} in the device's address space; unmap something or widen its mask`,
    { length, limit },
  );

/** A part that the range does not have, for a link or another call. */
export const outsideRange = (what: string, offset: number, length: number, reserved: number): DmaError => {
  const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  return new DmaError(
    "ERR_DMA_LINK_RANGE",
    "EINVAL",
    `cannot ${what} ${given(length)} bytes at offset ${given(offset)}: ` +
      (whole ? `the range has ${reserved} bytes` : "both must be whole numbers"),
    { offset, length, reserved },
  );
};

/** A place in a granule that is none. */
export const badPhysOffset = (physOffset: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_OFFSET",
    "EINVAL",
    `a physOffset of ${given(physOffset)}: the address of the memory, or its place in its granule, is needed, a whole ` +
      "number from 0 to 2^53 - 1",
    { physOffset },
  );

/** Options that are none: nothing of the device would be as its owner thinks. */
export const badOptions = (options: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_OPTIONS",
    "EINVAL",
    isSpace(options)
      ? "a domain in place of the options of a Dma: { domain } is needed, or the device would not be translated"
      : `${given(options)} in place of the options of a Dma: an object such as { domain } is needed`,
    {},
  );

const isSpace = (value: unknown): boolean => typeof value === "object" && value !== null && "reserve" in value;

/** A domain that is none. */
export const badDomain = (domain: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_OPTIONS",
    "EINVAL",
    `${given(domain)} as domain: an address space such as an DmaDomain is needed, or no domain for a device that is not ` +
      "translated",
    {},
  );

/** A property of the device that is no number it can have. */
export const badLimit = (name: string, value: unknown): DmaError =>
  new DmaError("ERR_DMA_LIMIT", "EINVAL", `a ${name} of ${given(value)}: a whole number from 0 to 2^64 is needed`, {
    name,
    value,
  });

/** An inner piece that does not start on a page. */
export const linkUnaligned = (offset: number, phys: number, granule: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINK_ALIGNMENT",
    "EIO",
    `cannot link ${hex(phys)} at offset ${offset}: only the first piece may start inside a granule of ${granule} bytes`,
    { offset, phys, granule },
  );

/** A piece whose place in its page differs from its address's. */
export const linkMisplaced = (offset: number, phys: number, address: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINK_ALIGNMENT",
    "ENXIO",
    `cannot link ${hex(phys)} at offset ${offset} (address ${hex(address)}): both must lie at the same place in a page; ` +
      "reserve with this physOffset, and end inner pieces on a page",
    { offset, phys, address },
  );

/** Use after release. */
export const rangeReleased = (what: string): DmaError =>
  new DmaError("ERR_DMA_RELEASED", "EINVAL", `cannot ${what}: this IOVA range was given back`, {});

/** Unlink of what is not linked. */
export const unlinkHole = (offset: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_UNLINK_HOLE",
    "EINVAL",
    `cannot unlink ${length} bytes at offset ${offset}: not all of it is linked`,
    { offset, length },
  );

/** A device that does not look into the CPU's caches, and a caller who insists that it does. */
export const notCoherent = (device: string): DmaError =>
  new DmaError(
    "ERR_DMA_NOT_COHERENT",
    "EOPNOTSUPP",
    `${device} does not look into the CPU's caches, and the mapping requires it; map without requireCoherent and sync`,
    { device },
  );

/** A two-step range that has bounced already, and a caller who insists on no bounce. */
export const rangeHasBounced = (device: string): DmaError =>
  new DmaError(
    "ERR_DMA_NOT_COHERENT",
    "EOPNOTSUPP",
    `this range of ${device} holds bounced pieces already: a link that requires coherence cannot join them`,
    { device },
  );

/** A bounce would be needed, and the mapping forbids it. */
export const bounceForbidden = (device: string, phys: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_FORBIDDEN",
    "EPERM",
    `${device} may reach ${length} bytes at ${hex(phys)} only through a bounce buffer, which the mapping's mmio or ` +
      "requireCoherent forbids; align the buffer to whole pages, or map without the attribute",
    { device, phys, length },
  );

/** A bounce is needed on a machine without bounce buffers. */
export const noBouncePool = (device: string, phys: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_NONE",
    "ENOMEM",
    `${device} may reach ${length} bytes at ${hex(phys)} only through a bounce buffer, and this machine has no pool of them`,
    { device, phys, length },
  );

/** No room in the bounce pool. */
export const bounceFull = (phys: number, length: number, used: number, slots: number): DmaError =>
  new DmaError(
    "ERR_DMA_BOUNCE_FULL",
    "ENOMEM",
    `no bounce buffer for ${length} bytes at ${hex(phys)}: ${used} of ${slots} slots of 2 KiB are in use, and one buffer ` +
      "is 256 KiB at most; unmap something, map less at once, or enlarge the pool",
    { phys, length, used, slots },
  );

/** Memory beyond what the device can address, and nothing to bring it nearer. */
export const notReachable = (device: string, phys: number, length: number, reach: number): DmaError =>
  new DmaError(
    "ERR_DMA_REACH",
    "EIO",
    `${device} cannot reach ${length} bytes at ${hex(phys)}: it addresses up to ${hex(reach)}; ` +
      "give the machine a bounce pool, or memory below that",
    { device, phys, length, reach },
  );

/** The caller says the memory is shared already, where that has no meaning. */
export const sharedForbidden = (device: string): DmaError =>
  new DmaError(
    "ERR_DMA_SHARED",
    "EOPNOTSUPP",
    `the attribute shared is for devices that are forced to bounce; ${device} is not`,
    { device },
  );

/** Private memory of a confidential guest, and a device outside its trust. */
export const privateMemory = (device: string, phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_PRIVATE",
    "EPERM",
    `${hex(phys)} is private memory, and ${device} is outside the guest's trust; share it first, or map it in one shot, ` +
      "which bounces",
    { device, phys },
  );

/** One linear mapping over private and shared memory. */
export const mixedMemory = (device: string, phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_PRIVATE",
    "ENXIO",
    `${hex(phys)} is not like the memory before it, one private and one shared: they need a mapping each`,
    { device, phys },
  );

/** Links of one range, some of private memory and some of shared. */
export const mixedSharing = (device: string, linkedShared: boolean): DmaError =>
  new DmaError(
    "ERR_DMA_SHARING",
    "EINVAL",
    `${device} has ${linkedShared ? "shared" : "private"} memory linked in this range, and a range is of one kind: take a ` +
      "range for each",
    { device, linkedShared, rule: 7 },
  );

/** Conversion of memory that a device can reach. */
export const convertMapped = (phys: number, mappings: number): DmaError =>
  new DmaError(
    "ERR_DMA_CONVERT",
    "EBUSY",
    `cannot convert ${hex(phys)}: ${mappings} mapping${mappings === 1 ? "" : "s"} of it live; unmap, convert, map again`,
    { phys, mappings, rule: 13 },
  );

/** The device wants more low bits kept than a granule has. */
export const minAlignTooWide = (minAlignMask: number, granule: number): DmaError =>
  new DmaError(
    "ERR_DMA_ALIGN",
    "EINVAL",
    `a minAlignMask of ${hex(minAlignMask)} asks for more than a granule of ${granule} bytes can keep`,
    { minAlignMask, granule },
  );

/** A peer whose memory this device cannot reach. */
export const peerUnreachable = (device: string, phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_PEER",
    "EREMOTEIO",
    `${device} cannot reach the peer memory at ${hex(phys)}: no bridge turns the request around, and the root complex is ` +
      "not known to; copy through RAM",
    { device, phys },
  );

/** A list without entries, or a mapping of nothing. */
export const emptyList = (): DmaError =>
  new DmaError("ERR_DMA_LENGTH", "EINVAL", "an empty list: at least one entry is needed", {});

/** What is no list of pieces of memory. */
export const badList = (vecs: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_LENGTH",
    "EINVAL",
    `${given(vecs)} in place of a list: an array of { phys, length } is needed`,
    {},
  );

/** Columns that do not fit together. */
export const badColumns = (columns: object): DmaError =>
  new DmaError(
    "ERR_DMA_LENGTH",
    "EINVAL",
    `${given(columns)} as columns of pieces: { phys: Float64Array, length: Float64Array as long or a number, count? } is needed, with a count of at most as many`,
    {},
  );

/** What is no piece of memory. */
export const badPiece = (piece: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_LENGTH",
    "EINVAL",
    `${given(piece)} in place of a piece of memory: { phys, length } is needed`,
    {},
  );

/** What is no reservation that can be asked for. */
export const badReservation = (asked: unknown): DmaError =>
  new DmaError("ERR_DMA_LENGTH", "EINVAL", `${given(asked)} in place of what is reserved: { length } is needed`, {});

/** A mask the device cannot work with. */
export const maskTooNarrow = (device: string, mask: number, needed: number): DmaError =>
  new DmaError(
    "ERR_DMA_MASK",
    "EIO",
    `a mask of ${hex(mask)} is too narrow for ${device}: without an IOMMU it must reach ${hex(needed)}`,
    { device, mask, needed },
  );

/** A segment boundary that is none. */
export const badBoundary = (mask: number): DmaError =>
  new DmaError(
    "ERR_DMA_LIMIT",
    "EINVAL",
    `a segment boundary mask of ${Number.isSafeInteger(mask) ? hex(mask) : given(mask)}: a power of two less one is needed`,
    {
      mask,
    },
  );

/** No memory for a buffer. */
export const noMemory = (length: number, mask: number): DmaError =>
  new DmaError("ERR_DMA_NO_MEMORY", "ENOMEM", `no memory for ${length} bytes below ${hex(mask)}`, { length, mask });

/** A machine without what the call needs. */
export const machineLacks = (what: string, call: string): DmaError =>
  new DmaError("ERR_DMA_MACHINE", "EOPNOTSUPP", `${call} needs machine.${what}, and this machine has none`, { what });

/** A linear mapping of pieces that do not join. */
export const edgesDoNotJoin = (index: number, phys: number, granule: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINEAR",
    "ENXIO",
    `piece ${index} at ${hex(phys)} does not join the one before it: behind an IOMMU inner edges lie on multiples of ` +
      `${granule} bytes, without one the pieces are adjacent; allow a bounce, or use mapVecs`,
    { index, phys, granule },
  );

/** A linear mapping longer than the device takes. */
export const linearTooLong = (length: number, limit: number): DmaError =>
  new DmaError("ERR_DMA_LINEAR", "EINVAL", `${length} bytes in one piece: the device takes ${limit} at most`, {
    length,
    limit,
  });

/** A batch in the wrong state. */
export const batchState = (call: string, state: string): DmaError =>
  new DmaError("ERR_DMA_BATCH", "EINVAL", `cannot ${call}: this batch is ${state}`, { call, state });

/** Release of something else than what is mapped. */
export const destroyMismatch = (asked: number, linked: number): DmaError =>
  new DmaError(
    "ERR_DMA_DESTROY",
    "EINVAL",
    `cannot destroy with ${asked} bytes mapped: ${linked} bytes from the start are; nothing was changed`,
    { asked, linked },
  );

/** Unlinked with another direction or other attributes than linked. */
export const unlinkDiffers = (what: string): DmaError =>
  new DmaError("ERR_DMA_UNLINK_DIFFERS", "EINVAL", `cannot unlink: ${what} is not the one it was linked with`, {
    what,
  });

/** A part that a mapping does not have. */
export const badOffset = (offset: number, length: number, mapped: number): DmaError =>
  new DmaError("ERR_DMA_OFFSET", "EINVAL", `${length} bytes at offset ${offset}: the mapping has ${mapped} bytes`, {
    offset,
    length,
    mapped,
  });

/** Use of a mapping that was given back. */
export const released = (what: string): DmaError =>
  new DmaError("ERR_DMA_RELEASED", "EINVAL", `cannot ${what}: this mapping was given back`, {});

/** An attribute that has no meaning for memory in pieces. */
export const onlySinglePages = (): DmaError =>
  new DmaError("ERR_DMA_ATTRIBUTES", "EINVAL", "memory in pieces takes no attribute but allocSinglePages", {});

/** Memory beyond what the page table can point to. */
export const physTooWide = (phys: number, bits: number): DmaError =>
  new DmaError("ERR_DMA_MAP", "ERANGE", `cannot map ${hex(phys)}: the page table holds ${bits} bits of address`, {
    phys,
    bits,
  });
