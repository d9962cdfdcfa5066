/**
 * What a memory region may be used for: the access bits of verbs.
 *
 * Bits from `OPTIONAL_FIRST` on are wishes: whoever does not know one ignores it. All others must be known.
 * Specified by: Linux 7.2 include/uapi/rdma/ib_user_ioctl_verbs.h (the numbers are the user interface's).
 */

/** Access bits of a memory region. */
export const ACCESS = {
  /** The device may write it for its own side: receives, the answers of reads and atomics. */
  localWrite: 0x1,
  /** The peer may write it. */
  remoteWrite: 0x2,
  /** The peer may read it. */
  remoteRead: 0x4,
  /** The peer may fetch-and-add, and compare-and-swap, in it. */
  remoteAtomic: 0x8,
  /** Memory windows may be bound to it. */
  windowBind: 0x10,
  /** The peer counts from 0, and not from the region's address. */
  zeroBased: 0x20,
  /** Nothing is pinned: pages are brought when the device needs them. */
  onDemand: 0x40,
  /** On demand, in pages of 2 MiB. */
  hugetlb: 0x80,
  /** The peer may ask that what it wrote is visible to everybody. */
  flushGlobal: 0x100,
  /** The peer may ask that what it wrote survives loss of power. */
  flushPersistent: 0x200,
  /** Writes to it may overtake each other. */
  relaxedOrdering: 0x10_0000,
} as const;

/** The first bit that may be ignored. */
const OPTIONAL_FIRST = 0x10_0000;
/** The bit behind the last that may be ignored. */
const OPTIONAL_END = 0x4000_0000;

/** Bits that a device may ignore. */
export const OPTIONAL_MASK: number = OPTIONAL_END - OPTIONAL_FIRST;
/** All that verbs know, wishes included. */
export const KNOWN_ACCESS: number = Object.values(ACCESS).reduce((all, bit) => all | bit, OPTIONAL_MASK);

/** Whatever writes the memory, from this side or from the other. */
const WRITING: number = ACCESS.localWrite | ACCESS.remoteWrite | ACCESS.remoteAtomic | ACCESS.windowBind;

/** Memory that is used so has to be writable. */
export const isWritableAccess = (access: number): boolean => (access & WRITING) !== 0;
