/**
 * A device that can move to another machine, as VFIO's core sees its driver: arcs between states, streams, a log of writes.
 *
 * Idea: the core knows which arcs lead where and does the checking; the driver takes one arc at a time and knows nothing of
 * ways. What is given out and taken in is opaque bytes. Everything happens at once, except that a stream may have nothing
 * *yet*: it says so, and is asked again.
 * Promises asked of a driver: an arc that throws has changed nothing, unless `isBroken` says otherwise afterwards.
 * Not for: what the states mean to a program that moves a machine; that is consumers/vfio/migration.
 * Specified by: behaviour of Linux 7.2 VFIO (migration and log operations of drivers).
 */
import type { MigrationState } from "../layouts/uapi/index.ts";

export type { MigrationState } from "../layouts/uapi/index.ts";

/** How much there is to read before the device stops. Bytes; estimates while the device runs. */
export interface PreCopyInfo {
  /** Of the bytes that the target needs first, those not read yet. The device should not be stopped before this is 0. */
  readonly initialBytes: number;
  /** What has changed since. May grow again. */
  readonly dirtyBytes: number;
  /** The device began anew: initial bytes count from here. */
  readonly beganAnew: boolean;
}

/** The state of a device, on its way out. */
export interface SaveStream {
  /**
   * Puts the next bytes into `into`, as many as are ready.
   *
   * @returns how many; 0: there is nothing more (before the device has stopped: for now)
   * @throws DmaError EAGAIN: nothing yet, ask again; ENOMSG: nothing more before the device changes or stops; ENODEV: the
   *   state could not be saved
   */
  read(into: Uint8Array): number;
  /**
   * Absent: the device gives out nothing before it stops.
   *
   * @param saysBeganAnew whoever asks knows `beganAnew`; if not, a device that began anew has only changed much
   * @throws DmaError ENODEV
   */
  preCopyInfo?(saysBeganAnew: boolean): PreCopyInfo;
  /** A read would not wait. Absent: it never does. */
  readonly isReady?: boolean;
  /** The session is over: what it holds is freed. A second time does nothing. */
  end(): void;
}

/** The state of a device, on its way in. */
export interface LoadStream {
  /**
   * Takes the next bytes, all of `from`.
   *
   * @returns how many
   * @throws DmaError ENOMEM: more than such a device can have; other errors: this is no state for the device
   */
  write(from: Uint8Array): number;
  /** @see SaveStream.end */
  end(): void;
}

/** What the driver of such a device does for VFIO's core. */
export interface MigratableDevice {
  /** Bits of MIGRATION_FLAGS. */
  readonly migrationFlags: number;
  /**
   * Takes one arc. Called with those of the state machine only, in their order.
   *
   * @returns the stream, where the arc opens one
   * @throws DmaError the state is `from` still, unless {@link isBroken}
   */
  takeArc(from: MigrationState, to: MigrationState): SaveStream | LoadStream | undefined;
  /** An arc failed half-way and could not be taken back: the state is `error` until a reset. */
  readonly isBroken?: boolean;
  /** Bytes that stopping and copying would move, about. @throws DmaError */
  stopCopyLength(): number;
  /** The device has been reset, and runs. Streams have ended before. */
  wasReset(): void;
}

/** Addresses that a device logs its writes to. Bytes, inclusive; anything of 64 bits. */
export interface LoggedRange {
  /** First byte. */
  readonly first: bigint;
  /** Last byte, itself included. */
  readonly last: bigint;
}

/** What a device can log at once. */
export interface LoggingLimits {
  /** Ranges that it can log in one session. */
  readonly maxRanges: number;
  /** Bytes of the finest page that it can log, a power of two. */
  readonly minPageBytes: bigint;
  /** Bytes of the coarsest page that it can log, a power of two. */
  readonly maxPageBytes: bigint;
}

/** A device that notes where it writes by DMA. */
export interface DmaLogger {
  /** Absent: none. What is asked is fitted to them before the device hears of it. */
  readonly loggingLimits?: LoggingLimits;
  /**
   * Starts the log.
   *
   * @param pageBytes the unit that is wished for
   * @returns the unit that it will be
   * @throws DmaError nothing is logged then
   */
  startLogging(ranges: readonly LoggedRange[], pageBytes: bigint): bigint;
  /** Ends the log. Cannot fail. */
  stopLogging(): void;
  /**
   * Calls `dirty` for what was written in [iova, + length) since the last time, and forgets it. Offsets are bytes from `iova`.
   *
   * @throws DmaError the log cannot be trusted any more: all of it may have been written
   */
  readDirty(iova: bigint, length: bigint, dirty: (offset: number, length: number) => void): void;
}
