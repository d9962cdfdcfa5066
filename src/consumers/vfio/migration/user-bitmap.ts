/**
 * A bitmap in the memory of whoever asked: bits are set there and never cleared.
 *
 * Idea: memory is touched only where a bit is to be set, so that a bitmap that nothing has to be written to need not exist.
 * Bit n is bit n % 8 of byte n / 8: the same as in words of 64 bits, little endian. Any address will do.
 */
import { badUserMemory } from "./errors.ts";

/** The memory of a caller, as a system call copies it. `UserMemory` of a process is one. */
export interface CallerMemory {
  /** Fills `into` from `address`; bytes done, fewer than asked where memory cannot be read. */
  read(address: number, into: Uint8Array): number;
  /** Puts `from` at `address`; bytes done, fewer than asked where memory cannot be written. */
  write(address: number, from: Uint8Array): number;
}

/** Bytes of a caller's memory. @throws DmaError ERR_DMA_USER_FAULT (EFAULT) unless all can be read */
export function readCaller(memory: CallerMemory, address: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const isReachable = address <= BigInt(Number.MAX_SAFE_INTEGER);
  if (!isReachable || memory.read(Number(address), bytes) < length) throw badUserMemory(address, length);
  return bytes;
}

/** Writes to a caller's memory. @throws DmaError ERR_DMA_USER_FAULT (EFAULT) unless all can be written */
export function writeCaller(memory: CallerMemory, address: bigint, bytes: Uint8Array): void {
  const isReachable = address <= BigInt(Number.MAX_SAFE_INTEGER);
  if (!isReachable || memory.write(Number(address), bytes) < bytes.length) throw badUserMemory(address, bytes.length);
}

/**
 * Sets bits [first, last] of the bitmap at `address`.
 *
 * @throws DmaError ERR_DMA_USER_FAULT (EFAULT)
 */
export function setUserBits(memory: CallerMemory, address: bigint, first: number, last: number): void {
  const start = Math.floor(first / 8);
  const at = address + BigInt(start);
  const bytes = readCaller(memory, at, Math.floor(last / 8) - start + 1);
  const end = bytes.length - 1;
  const head = 0xff << (first % 8);
  const tail = 0xff >> (7 - (last % 8));
  if (end === 0) bytes[0]! |= head & tail;
  else {
    bytes[0]! |= head;
    bytes.fill(0xff, 1, end);
    bytes[end]! |= tail;
  }
  writeCaller(memory, at, bytes);
}
