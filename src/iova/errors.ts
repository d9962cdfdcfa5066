/**
 * What can be refused here: one function per error, which makes a catalogue.
 *
 * Exhaustion is not among them: an allocation that finds nothing answers 0, and the caller says what that means.
 */
import { DmaError, given, hex } from "../base/index.ts";

export const badGranule = (granule: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_GRANULE",
    "EINVAL",
    `a granule of ${given(granule)} bytes: it must be a power of two from 4096 to 65536`,
    { granule },
  );

export const badStart = (firstGranule: number, lastPfn: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_START",
    "EINVAL",
    `first usable page ${given(firstGranule)}: it must be a whole number from 1 to ${hex(lastPfn)} (page 0 means "no address")`,
    { firstGranule, lastPfn },
  );

export const badSize = (granules: number, lastPfn: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_SIZE",
    "EINVAL",
    `a range of ${given(granules)} granules: ask for a whole number from 1 to ${hex(lastPfn)}, the size of the address space`,
    { granules, lastPfn },
  );

export const badLimit = (limitPfn: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_LIMIT",
    "EINVAL",
    `a limit of page ${given(limitPfn)}: give the last page that may be touched, a whole number from 0 on`,
    { limitPfn },
  );

export const badCpus = (cpus: unknown, most: number): DmaError =>
  new DmaError("ERR_DMA_IOVA_CPUS", "EINVAL", `${given(cpus)} CPUs: give a whole number from 1 to ${most}`, { cpus });

export const badLargestCached = (granules: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_CACHED",
    "EINVAL",
    `ranges up to ${granules} granules cannot be cached: a power of two from 32 to 32768 is needed`,
    { granules },
  );

export const badAlignCap = (alignCap: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_ALIGN_CAP",
    "EINVAL",
    `an alignment cap of ${alignCap} granules: it must be a power of two from 1 to 2^52`,
    { alignCap },
  );

export const badReservation = (lo: number, hi: number, lastPfn: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_RESERVATION",
    "EINVAL",
    `cannot reserve pages ${hex(lo)} to ${hex(hi)}: give whole numbers, first not above last, last at most ${hex(lastPfn)}`,
    { lo, hi, lastPfn },
  );

export const notAllocated = (pfn: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_NOT_ALLOCATED",
    "EINVAL",
    `no range in use starts at page ${hex(pfn)}: it was never allocated here, or it was freed before; nothing was changed`,
    { pfn },
  );

export const freedTooLong = (pfn: number, granules: number, allocated: number): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_FREE_SIZE",
    "EINVAL",
    `${granules} granules given back at page ${hex(pfn)}, where ${allocated} were allocated: give back at least 1 and at most those; nothing was changed`,
    { pfn, granules, allocated },
  );

export const incompatibleJoin = (
  has: { granule: number; firstGranule: number },
  asked: { granule: number; firstGranule: number },
): DmaError =>
  new DmaError(
    "ERR_DMA_IOVA_GEOMETRY",
    "EFAULT",
    `the domain has a granule of ${has.granule} bytes and starts at page ${hex(has.firstGranule)}; the device asks for ${asked.granule} bytes from page ${hex(asked.firstGranule)}: give it a domain of its own`,
    { has, asked },
  );
