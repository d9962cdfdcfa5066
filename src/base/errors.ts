/**
 * Errors: the three kinds, never mixed.
 *
 * The caller broke a rule, or the machine refused: a {@link DmaError}, with a stable `code`, an `errno` and the numbers. A
 * promise inside this library was broken: {@link assert}, and stop. The *device* did something wrong: no exception at all,
 * a fault event in a queue. Each folder keeps its errors in one `errors.ts`, one function per error.
 */

/** The error numbers this library answers with; values and meanings are Linux's. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  ENOSPC: 28,
  ESPIPE: 29,
  ERANGE: 34,
  EDEADLK: 35,
  ENOSYS: 38,
  ENOMSG: 42,
  EBADMSG: 74,
  EOVERFLOW: 75,
  EBADFD: 77,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EADDRINUSE: 98,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  EREMOTEIO: 121,
  ECANCELED: 125,
} as const;

/** An error number of Linux, by name; {@link ERRNO} has its value. */
export type Errno = keyof typeof ERRNO;
/** What went wrong, for programs: stable, beginning with `ERR_DMA_`. */
export type ErrorCode = `ERR_DMA_${string}`;

/** What the caller asked for could not be done. `message` says what was asked, what is true, and what to do. */
export class DmaError extends Error {
  override readonly name = "DmaError";
  readonly code: ErrorCode;
  readonly errno: Errno;
  /** The numbers of the message, for programs. */
  readonly details: Readonly<Record<string, unknown>>;

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
