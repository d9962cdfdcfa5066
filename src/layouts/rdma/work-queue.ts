/**
 * Work requests and completions in memory, as this project's adapter has them.
 *
 * Every adapter has formats of its own; these are the simplest that say all that verbs say. A work request takes one slot of 576 bytes, with up
 * to 33 pieces; a completion 32 bytes, of which one bit changes with each round of the ring, so that both sides know which are new.
 * Big endian. Specified by: this file.
 */

/** Bytes of a slot of a queue of work requests. */
export const WORK_BYTES = 576;
/** Bytes of a slot of a completion queue. */
export const COMPLETION_BYTES = 32;
/** Pieces that fit into one work request. */
const MOST_PIECES = 33;

/** The key that stands for all addresses of the device itself, for requests of the kernel: never for a peer. */
export const LOCAL_DMA_KEY = 0xff;

/** What a work request does. */
export const WORK = {
  send: 0,
  write: 1,
  read: 2,
  compareSwap: 3,
  fetchAdd: 4,
  receive: 5,
  /** `remoteKey` is the window, `compare` its new key, `immediate` its rights; the piece is the part of the region. */
  bindWindow: 6,
  /** `remoteKey` is what shall name nothing any more. */
  invalidate: 7,
} as const;

/** What a completion may say of how it went. */
export const STATUS = {
  success: 0,
  /** A piece does not hold what came, or a message is too long. */
  localLength: 1,
  /** A piece's key does not allow it. */
  localProtection: 2,
  /** The device was refused its own memory: the IOMMU did not let it through. */
  localAccess: 3,
  /** The queue pair went into the error state before this was worked on. */
  flushed: 4,
  remoteInvalidRequest: 5,
  remoteAccess: 6,
  remoteOperation: 7,
  retriesExceeded: 8,
  notReadyRetriesExceeded: 9,
  /** A window could not be bound so, or is not bound. */
  windowBind: 10,
} as const;

/** A piece of memory of a work request. */
export interface WorkPiece {
  /** Where it begins, as the region of `key` counts, bytes. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** Local key of the region that it is in. */
  readonly key: number;
}

/** A work request, as it lies in its slot. */
export interface WorkEntry {
  readonly work: number;
  /** A completion is wanted also if all goes well. */
  readonly signaled: boolean;
  readonly immediate: number | undefined;
  /** The program's name for it: below 2^53. */
  readonly id: number;
  readonly remoteAddress: bigint;
  readonly remoteKey: number;
  readonly compare: bigint;
  readonly swapOrAdd: bigint;
  readonly pieces: readonly WorkPiece[];
}

/** A completion, as it lies in its slot. */
export interface CompletionEntry {
  readonly id: number;
  readonly work: number;
  readonly status: number;
  /** Bytes that came, of a receive, read or atomic operation. */
  readonly lengthBytes: number;
  readonly immediate: number | undefined;
  readonly queuePair: number;
  /** 1 in the first round of the ring, 0 in the second, and so on. */
  readonly phase: number;
}

const SIGNALED = 1;
const HAS_IMMEDIATE = 2;

const setNumber = (view: DataView, at: number, value: number): void => {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value % 2 ** 32);
};
const getNumber = (view: DataView, at: number): number => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);

/** The bytes of one slot. */
export function writeWork(entry: WorkEntry): Uint8Array {
  const bytes = new Uint8Array(WORK_BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint8(0, entry.work);
  view.setUint8(1, (entry.signaled ? SIGNALED : 0) | (entry.immediate === undefined ? 0 : HAS_IMMEDIATE));
  view.setUint16(2, entry.pieces.length);
  view.setUint32(4, entry.immediate ?? 0);
  setNumber(view, 8, entry.id);
  view.setBigUint64(16, entry.remoteAddress);
  view.setUint32(24, entry.remoteKey);
  view.setBigUint64(32, entry.compare);
  view.setBigUint64(40, entry.swapOrAdd);
  entry.pieces.forEach(({ address, length, key }, i) => {
    setNumber(view, 48 + 16 * i, address);
    view.setUint32(56 + 16 * i, length);
    view.setUint32(60 + 16 * i, key);
  });
  return bytes;
}

/** What a slot says. Pieces beyond those that fit are left out. */
export function readWork(bytes: Uint8Array): WorkEntry {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const flags = view.getUint8(1);
  const count = Math.min(view.getUint16(2), MOST_PIECES);
  return {
    work: view.getUint8(0),
    signaled: (flags & SIGNALED) !== 0,
    immediate: (flags & HAS_IMMEDIATE) === 0 ? undefined : view.getUint32(4),
    id: getNumber(view, 8),
    remoteAddress: view.getBigUint64(16),
    remoteKey: view.getUint32(24),
    compare: view.getBigUint64(32),
    swapOrAdd: view.getBigUint64(40),
    pieces: Array.from({ length: count }, (_, i) => ({
      address: getNumber(view, 48 + 16 * i),
      length: view.getUint32(56 + 16 * i),
      key: view.getUint32(60 + 16 * i),
    })),
  };
}

/** The bytes of one completion. */
export function writeCompletion(entry: CompletionEntry): Uint8Array {
  const bytes = new Uint8Array(COMPLETION_BYTES);
  const view = new DataView(bytes.buffer);
  setNumber(view, 0, entry.id);
  view.setUint32(8, entry.lengthBytes);
  view.setUint32(12, entry.immediate ?? 0);
  view.setUint32(16, entry.queuePair);
  view.setUint8(20, entry.work);
  view.setUint8(21, entry.status);
  view.setUint8(22, entry.immediate === undefined ? 0 : HAS_IMMEDIATE);
  view.setUint8(31, entry.phase);
  return bytes;
}

/** What a completion says. */
export function readCompletion(bytes: Uint8Array): CompletionEntry {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return {
    id: getNumber(view, 0),
    lengthBytes: view.getUint32(8),
    immediate: (view.getUint8(22) & HAS_IMMEDIATE) === 0 ? undefined : view.getUint32(12),
    queuePair: view.getUint32(16),
    work: view.getUint8(20),
    status: view.getUint8(21),
    phase: view.getUint8(31),
  };
}
