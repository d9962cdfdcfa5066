/** What the block layer refuses when a request is built. One function per error. */
import { DmaError, hex } from "../../base/index.ts";

/** A vector that no memory can be. */
export const badVector = (phys: number, length: number): DmaError =>
  new DmaError(
    "ERR_DMA_BLOCK_VECTOR",
    "EINVAL",
    `a vector of ${length} bytes at ${phys}: both must be whole numbers, and the length at least 1`,
    { phys, length },
  );

/** Memory of a peer and anything else in one bio. */
export const mixedProviders = (phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_BLOCK_MIXED",
    "EINVAL",
    `${hex(phys)} does not belong to the same provider as the bio's other memory: build one bio per provider`,
    { phys },
  );

/** Memory of a peer on a queue that cannot take it. */
export const peerRefused = (phys: number): DmaError =>
  new DmaError(
    "ERR_DMA_BLOCK_PEER",
    "EREMOTEIO",
    `${hex(phys)} is memory of another device, and this queue takes none: copy it to RAM first`,
    { phys },
  );

/** A place or length that is not in whole blocks. */
export const unalignedRequest = (bytes: number, blockBytes: number): DmaError =>
  new DmaError(
    "ERR_DMA_BLOCK_ALIGNMENT",
    "EINVAL",
    `${bytes} bytes are not a whole number of blocks of ${blockBytes} bytes, at least one`,
    { bytes, blockBytes },
  );

/** Data that cannot be split so that each part is within the limits. */
export const unsplittable = (bytes: number, blockBytes: number, segments: number): DmaError =>
  new DmaError(
    "ERR_DMA_BLOCK_SPLIT",
    "EINVAL",
    `the first block of ${blockBytes} bytes needs more than the queue's ${segments} vectors, or has a gap that the device ` +
      `cannot take (${bytes} bytes fit): give it larger or better aligned vectors`,
    { bytes, blockBytes, segments },
  );

/** Metadata that does not fit the data. */
export const integrityLength = (given: number, needed: number): DmaError =>
  new DmaError(
    "ERR_DMA_BLOCK_INTEGRITY",
    "EINVAL",
    `${given} bytes of metadata for data that has ${needed} bytes of it`,
    { given, needed },
  );

/** Metadata in more vectors than the queue takes. */
export const integritySegments = (given: number, most: number): DmaError =>
  new DmaError(
    "ERR_DMA_BLOCK_INTEGRITY",
    "EINVAL",
    `metadata in ${given} vectors: this queue takes ${most}; put it into fewer`,
    { given, most },
  );
