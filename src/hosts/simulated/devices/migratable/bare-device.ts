/**
 * A device with nothing in it but the states of migration and a log of writes: for programs that drive those, and for judges.
 *
 * It takes every arc at once, and its image is empty. What it "wrote" is what its owner says; what it can log at once is its
 * owner's to say too. It keeps what it was told: arcs, ranges to log, reports.
 */
import { MIGRATION_FLAGS, type MigrationState } from "../../../../layouts/uapi/index.ts";
import type {
  DmaLogger,
  LoadStream,
  LoggedRange,
  LoggingLimits,
  MigratableDevice,
  PreCopyInfo,
  SaveStream,
} from "../../../../platform/index.ts";
import { imageTooLong, logBroken } from "./errors.ts";

/** What a bare device can do, and says of itself. */
export interface BareDeviceOptions {
  /** Bits of MIGRATION_FLAGS. All unless said. */
  readonly migrationFlags?: number;
  /** What it says that stopping and copying would move, bytes. 0 unless said. */
  readonly stopCopyBytes?: number;
  /** What it can log at once. */
  readonly loggingLimits?: LoggingLimits;
}

const ALL_FLAGS = MIGRATION_FLAGS.STOP_COPY | MIGRATION_FLAGS.P2P | MIGRATION_FLAGS.PRE_COPY;
const SAVING: ReadonlySet<MigrationState> = new Set(["stop-copy", "pre-copy", "pre-copy-p2p"]);

/** States and a log of writes, and nothing behind them. */
export class BareDevice implements MigratableDevice, DmaLogger {
  readonly migrationFlags: number;
  loggingLimits: LoggingLimits;
  /** What is logged now, as it was asked to; undefined: nothing. */
  logged:
    | {
        /** As they were asked for. */
        readonly ranges: readonly LoggedRange[];
        /** Bytes of a page of the log. */
        readonly pageBytes: bigint;
      }
    | undefined;
  /** Every report that it was asked for. */
  readonly reports: {
    /** First address asked about. */
    readonly iova: bigint;
    /** Bytes asked about. */
    readonly length: bigint;
  }[] = [];
  /** From now on its log cannot be read. */
  isLogBroken = false;
  readonly #stopCopyBytes: number;
  #written: LoggedRange[] = [];

  /** A device that runs, and logs nothing. */
  constructor(options: BareDeviceOptions = {}) {
    this.migrationFlags = options.migrationFlags ?? ALL_FLAGS;
    this.#stopCopyBytes = options.stopCopyBytes ?? 0;
    this.loggingLimits = options.loggingLimits ?? { maxRanges: 256, minPageBytes: 4096n, maxPageBytes: 2n ** 21n };
  }

  stopCopyLength(): number {
    return this.#stopCopyBytes;
  }

  takeArc(from: MigrationState, to: MigrationState): SaveStream | LoadStream | undefined {
    if (to === "resuming") return new EmptyLoad();
    return SAVING.has(to) && !SAVING.has(from) ? new EmptySave() : undefined;
  }

  wasReset(): void {}

  startLogging(ranges: readonly LoggedRange[], pageBytes: bigint): bigint {
    this.logged = { ranges, pageBytes };
    return pageBytes;
  }

  stopLogging(): void {
    this.logged = undefined;
  }

  /** It wrote to [iova, + length), whether that is logged or not. */
  wrote(iova: bigint, length: bigint): void {
    if (length > 0n) this.#written.push({ first: iova, last: iova + length - 1n });
  }

  /** It wrote nothing. */
  forget(): void {
    this.#written = [];
  }

  readDirty(iova: bigint, length: bigint, dirty: (offset: number, length: number) => void): void {
    this.reports.push({ iova, length });
    if (this.isLogBroken) throw logBroken();
    const last = iova + length - 1n;
    const kept: LoggedRange[] = [];
    for (const range of this.#written) {
      const from = range.first > iova ? range.first : iova;
      const to = range.last < last ? range.last : last;
      if (from > to) {
        kept.push(range);
        continue;
      }
      dirty(Number(from - iova), Number(to - from + 1n));
      if (range.first < from) kept.push({ first: range.first, last: from - 1n });
      if (range.last > to) kept.push({ first: to + 1n, last: range.last });
    }
    this.#written = kept;
  }
}

class EmptySave implements SaveStream {
  read(): number {
    return 0;
  }

  preCopyInfo(): PreCopyInfo {
    return { initialBytes: 0, dirtyBytes: 0, beganAnew: false };
  }

  end(): void {}
}

class EmptyLoad implements LoadStream {
  write(from: Uint8Array): number {
    if (from.length > 0) throw imageTooLong(0, from.length);
    return 0;
  }

  end(): void {}
}
