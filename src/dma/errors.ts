/** What the DMA layer refuses, and why. One function per error. */
import { DmaError, hex, PAGE_SIZE } from "../base/index.ts";

/** A length that no mapping can have. */
export const badLength = (length: number): DmaError =>
  new DmaError("ERR_DMA_LENGTH", "EINVAL", `a length of ${length} bytes: a whole number from 1 on is needed`, {
    length,
  });

/** An address that memory cannot have. */
export const badAddress = (phys: number): DmaError =>
  new DmaError("ERR_DMA_ADDRESS", "EINVAL", `a physical address of ${phys}: a whole number from 0 to 2^53 is needed`, {
    phys,
  });

/** A direction that is none. */
export const badDirection = (direction: unknown): DmaError =>
  new DmaError(
    "ERR_DMA_DIRECTION",
    "EINVAL",
    `a direction of ${JSON.stringify(direction)}: "to-device", "from-device" or "bidirectional" is needed`,
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

/** A link that would leave its range. */
export const linkPastEnd = (offset: number, length: number, reserved: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINK_RANGE",
    "EINVAL",
    `cannot link ${length} bytes at offset ${offset}: the range has ${reserved} bytes`,
    { offset, length, reserved },
  );

/** An inner piece that does not start on a page. */
export const linkUnaligned = (offset: number, phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_LINK_ALIGNMENT",
    "EIO",
    `cannot link ${hex(phys)} at offset ${offset}: only the first piece may start inside a page of ${PAGE_SIZE} bytes`,
    { offset, phys },
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
