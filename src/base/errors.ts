/**
 * Errors: the three kinds, never mixed.
 *
 * The caller broke a rule, or the machine refused: a {@link DmaError}, with a stable `code`, an `errno` and the numbers. A
 * promise inside this library was broken: {@link assert}, and stop. The *device* did something wrong: no exception at all,
 * a fault event in a queue. Each folder keeps its errors in one `errors.ts`, one function per error.
 */

/** The error numbers this library answers with; values and meanings are Linux's. */
export const ERRNO = {
  /** The caller lacks the privilege, or the state of the thing forbids it. */
  EPERM: 1,
  /** What was named by an id, an address or a path is not there. */
  ENOENT: 2,
  /** A system call was interrupted by a signal, and may be made again. */
  EINTR: 4,
  /** The device or the unit failed, or said something that makes no sense. */
  EIO: 5,
  /** There is no such device, or not the part of it that is needed. */
  ENXIO: 6,
  /** A list or a structure is longer than it may be. */
  E2BIG: 7,
  /** The number is no open descriptor, or not one opened for this. */
  EBADF: 9,
  /** Not now: something is under way; asking again may succeed. */
  EAGAIN: 11,
  /** No memory, no address space, or the limit of pinned memory is reached. */
  ENOMEM: 12,
  /** The permission of the memory or the file does not allow it. */
  EACCES: 13,
  /** An address of the process that it may not access in this way, or that is not there. */
  EFAULT: 14,
  /** Somebody else has it, or it is still in use. */
  EBUSY: 16,
  /** What was to be made is there already. */
  EEXIST: 17,
  /** The device has gone, or is of no kind that can do this. */
  ENODEV: 19,
  /** An argument is outside what the call takes; the message says which, and what it may be. */
  EINVAL: 22,
  /** The whole system has as many open files as it may have. */
  ENFILE: 23,
  /** The process has as many open descriptors as it may have. */
  EMFILE: 24,
  /** The file does not know this request. */
  ENOTTY: 25,
  /** A table, a queue or a space of ids is full. */
  ENOSPC: 28,
  /** A stream has no positions, and is read and written in whole records only. */
  ESPIPE: 29,
  /** A value or an address is wider than the format can hold. */
  ERANGE: 34,
  /** It would wait for ever for somebody who does not let go. */
  EDEADLK: 35,
  /** The kernel has no such system call. */
  ENOSYS: 38,
  /** Nothing to read at present; in the stop-and-copy of a device more will not come by waiting. */
  ENOMSG: 42,
  /** What was received is damaged, or not what the protocol has next. */
  EBADMSG: 74,
  /** An address plus a length does not fit its type, or counts overflow. */
  EOVERFLOW: 75,
  /** The descriptor is open, but in no state, or of no kind, that fits. */
  EBADFD: 77,
  /** The answer is longer than the room that was given for it. */
  EMSGSIZE: 90,
  /** This format, unit, host or device cannot do it. */
  EOPNOTSUPP: 95,
  /** The address is mapped or reserved already. */
  EADDRINUSE: 98,
  /** The other side is not there any more. */
  ENOTCONN: 107,
  /** It did not answer in time. */
  ETIMEDOUT: 110,
  /** A device behind the one that was asked failed. */
  EREMOTEIO: 121,
  /** It was given up before it was done, by the caller or by the other side. */
  ECANCELED: 125,
} as const;

/** An error number of Linux, by name; {@link ERRNO} has its value. */
export type Errno = keyof typeof ERRNO;
/** What went wrong, for programs: stable, beginning with `ERR_DMA_`. */
export type ErrorCode = `ERR_DMA_${string}`;

/** What the caller asked for could not be done. `message` says what was asked, what is true, and what to do. */
export class DmaError extends Error {
  /** As `Error` has it: tells these errors from others without `instanceof`, across copies of the library too. */
  override readonly name = "DmaError";
  /** Which error it is: `ERR_DMA_` and a stable name, one for each thing that can go wrong. */
  readonly code: ErrorCode;
  /** What Linux would answer, by name; {@link ERRNO} has the number. */
  readonly errno: Errno;
  /** The numbers of the message, for programs. */
  readonly details: Readonly<Record<string, unknown>>;

  /** Each folder's errors.ts has a function for each of its errors: call that one. */
  constructor(code: ErrorCode, errno: Errno, message: string, details: object = {}) {
    super(message);
    this.code = code;
    this.errno = errno;
    this.details = details as Readonly<Record<string, unknown>>;
  }
}

/** What was given where something else is needed, as messages show it: which kind of thing, where it is no number. */
export function given(value: unknown): string {
  if (typeof value === "number" || value === undefined || value === null) return String(value);
  if (typeof value === "bigint") return `${value}n, a bigint`;
  if (typeof value === "string") return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value);
  if (typeof value === "object")
    return Array.isArray(value) ? "an array" : `an object (${value.constructor?.name ?? "plain"})`;
  return `a ${typeof value}`;
}

/** Stops at a broken promise of this library itself. Never used for what a caller or a file may do wrong. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${message}`);
}
