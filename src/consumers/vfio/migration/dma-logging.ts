/**
 * A device's log of its own writes, by range: what is checked before the device hears of it, and how a report becomes bits.
 *
 * Idea: the core looks at shape only (alignment, overlap, the end of the address space) and fits what is asked to what the
 * device can: fewer ranges, another page size. Whether a log runs at all is the device's to say.
 * Promises: a refused start leaves the log as it was; a report only ever *sets* bits, of the range that was asked for.
 * Not for: what a failed report means. It means that everything may be dirty (dirty-sources.ts).
 * Specified by: behaviour of Linux 7.2 VFIO (DMA logging features); judged by test/golden/vfio-mig.
 */
import type { DmaLogger, LoggedRange } from "../../../platform/index.ts";
import { badLogRange } from "./errors.ts";
import { mergeRanges } from "./range-merge.ts";

/** Ranges that one start may name. */
export const MOST_LOGGED_RANGES = 256;
/** Bytes. The smallest unit of a report. */
const SMALLEST_UNIT = 4096n;
const LAST = 2n ** 64n - 1n;

/** A range as callers give it: any two numbers of 64 bits. Bytes. */
export interface RangeToLog {
  /** First address. */
  readonly iova: bigint;
  /** How many. */
  readonly length: bigint;
}

/** VFIO's side of a device's log of writes. */
export class DmaLogging {
  readonly #logger: DmaLogger;

  /** Nothing is logged at first. */
  constructor(logger: DmaLogger) {
    this.#logger = logger;
  }

  /**
   * Starts the log.
   *
   * @param pageBytes the unit wished for. Any number goes whose low bits are free in all ranges, as in Linux: no power of two
   *   is asked for, and ranges of no length pass.
   * @param count how many ranges; `rangeAt` is asked for one at a time, and may throw
   * @returns the unit that the device uses
   * @throws DmaError ERR_DMA_LOG_RANGE (EINVAL: none, unaligned, overlapping; E2BIG: more than 256; EOVERFLOW: to the end of
   *   64 bits); what the device says. Nothing is started then
   */
  start(pageBytes: bigint, count: number, rangeAt: (index: number) => RangeToLog): bigint {
    if (count === 0) throw badLogRange("EINVAL", "no range to log");
    if (count > MOST_LOGGED_RANGES)
      throw badLogRange("E2BIG", `${count} ranges to log: ${MOST_LOGGED_RANGES} are the most`, { count });
    const ranges: LoggedRange[] = [];
    for (let i = 0; i < count; i++) {
      const { iova, length } = rangeAt(i);
      const lowBits = BigInt.asUintN(64, pageBytes - 1n);
      if (((iova | length) & lowBits) !== 0n)
        throw badLogRange("EINVAL", `range ${i} is not in units of ${pageBytes} bytes`, { iova, length, pageBytes });
      if (iova + length > LAST) throw badLogRange("EOVERFLOW", `range ${i} reaches 2^64`, { iova, length });
      const range = { first: iova, last: BigInt.asUintN(64, iova + length - 1n) };
      if (ranges.some(({ first, last }) => first <= range.last && last >= range.first))
        throw badLogRange("EINVAL", `range ${i} overlaps another`, { iova, length });
      insertByStart(ranges, range);
    }
    const limits = this.#logger.loggingLimits;
    if (limits === undefined) return this.#logger.startLogging(ranges, pageBytes);
    const { maxRanges, minPageBytes, maxPageBytes } = limits;
    const fitted = pageBytes < minPageBytes ? minPageBytes : pageBytes > maxPageBytes ? maxPageBytes : pageBytes;
    return this.#logger.startLogging(mergeRanges(ranges, maxRanges), fitted);
  }

  /** Ends the log. Cannot fail; a second time does nothing. */
  stop(): void {
    this.#logger.stopLogging();
  }

  /**
   * Calls `mark` with the first and last bit of each piece that the device wrote in [iova, + length), bit 0 for the first
   * `pageBytes` from `iova` on, and makes the device forget it.
   *
   * @throws DmaError ERR_DMA_LOG_RANGE (EINVAL: the unit is no power of two from 4096 on; EOVERFLOW); what the device or
   *   `mark` says, and then part of the log is gone: everything may be dirty
   */
  report(iova: bigint, length: bigint, pageBytes: bigint, mark: (firstBit: number, lastBit: number) => void): void {
    if (pageBytes < SMALLEST_UNIT || (pageBytes & (pageBytes - 1n)) !== 0n)
      throw badLogRange("EINVAL", `a report in units of ${pageBytes} bytes: a power of two from 4096 on is needed`);
    if (iova + length > LAST) throw badLogRange("EOVERFLOW", "the report reaches 2^64", { iova, length });
    const unit = Number(pageBytes);
    const end = Number(length);
    this.#logger.readDirty(iova, length, (offset, bytes) => {
      const start = Math.max(offset, 0);
      const stop = Math.min(offset + bytes, end);
      if (start < stop) mark(Math.floor(start / unit), Math.floor((stop - 1) / unit));
    });
  }
}

/** After those that start at the same address. */
function insertByStart(ranges: LoggedRange[], range: LoggedRange): void {
  let at = ranges.length;
  while (at > 0 && ranges[at - 1]!.first > range.first) at--;
  ranges.splice(at, 0, range);
}
