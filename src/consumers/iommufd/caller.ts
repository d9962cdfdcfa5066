/**
 * Structures as a caller passes them: versions of any size in, as much as it has room for out.
 *
 * Idea: what an older caller leaves out is zero; what a newer one adds must be zero. Pointers lead into the caller's memory.
 * Specified by: behaviour of Linux 7.2 (copy_struct_from_user).
 */
import type { CStruct } from "../../layouts/uapi/index.ts";
import { UserAddr, type UserProcess } from "../../platform/index.ts";
import { badArgument, tailNotZero, unreachable } from "./errors.ts";
import type { VendorData } from "./hardware.ts";

/** A structure of the caller: its bytes themselves, or where they lie in its memory. */
export type Argument = Uint8Array | bigint;

const END_OF_USER = 2n ** 47n;

/** Bytes of a caller's memory. @throws DmaError ERR_DMA_USER_FAULT (EFAULT) unless all can be read */
export function readUser(process: UserProcess, address: bigint, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  if (length === 0) return bytes;
  if (address + BigInt(length) > END_OF_USER || process.memory.read(UserAddr(Number(address)), bytes) < length)
    throw unreachable(address, length);
  return bytes;
}

/** Writes to a caller's memory. @throws DmaError ERR_DMA_USER_FAULT (EFAULT) unless all can be written */
export function writeUser(process: UserProcess, address: bigint, bytes: Uint8Array): void {
  if (bytes.length === 0) return;
  const isLow = address + BigInt(bytes.length) <= END_OF_USER;
  if (!isLow || process.memory.write(UserAddr(Number(address)), bytes) < bytes.length)
    throw unreachable(address, bytes.length);
}

/** Where a structure lies: read from and written back to. */
export class ArgumentBytes {
  readonly process: UserProcess;
  readonly #argument: Argument;

  constructor(argument: Argument, process: UserProcess) {
    this.#argument = argument;
    this.process = process;
  }

  /** `length` bytes from the start of it. @throws DmaError EFAULT */
  read(length: number, offset = 0): Uint8Array {
    const argument = this.#argument;
    if (typeof argument === "bigint") return readUser(this.process, argument + BigInt(offset), length);
    if (offset + length > argument.length) throw unreachable(0, length);
    return argument.slice(offset, offset + length);
  }

  /** @throws DmaError EFAULT */
  write(bytes: Uint8Array, offset = 0): void {
    const argument = this.#argument;
    if (typeof argument === "bigint") writeUser(this.process, argument + BigInt(offset), bytes);
    else argument.set(bytes.subarray(0, argument.length - offset), offset);
  }
}

/** A structure of a call, after it was copied in. */
export class CallStruct {
  readonly process: UserProcess;
  readonly bytes: Uint8Array;
  readonly #at: ArgumentBytes;
  readonly #layout: CStruct;
  readonly #userBytes: number;
  readonly #view: DataView;

  /** @throws DmaError EFAULT; E2BIG if what is more than this version knows is not zero */
  constructor(at: ArgumentBytes, layout: CStruct, userBytes: number) {
    this.process = at.process;
    this.#at = at;
    this.#layout = layout;
    this.#userBytes = userBytes;
    for (let from = layout.bytes; from < userBytes; from += 4096)
      if (at.read(Math.min(4096, userBytes - from), from).some((byte) => byte !== 0))
        throw tailNotZero(userBytes, layout.bytes);
    this.bytes = new Uint8Array(layout.bytes);
    this.bytes.set(at.read(Math.min(userBytes, layout.bytes)));
    this.#view = new DataView(this.bytes.buffer);
  }

  /** A field of up to 32 bits, unsigned. */
  get(name: string): number {
    const { offset, bytes } = this.#layout.fields[name]!;
    if (bytes === 4) return this.#view.getUint32(offset, true);
    return bytes === 2 ? this.#view.getUint16(offset, true) : this.#view.getUint8(offset);
  }

  /** A field of 32 bits, signed. */
  getSigned(name: string): number {
    return this.get(name) | 0;
  }

  /** A field of 64 bits. */
  get64(name: string): bigint {
    return this.#view.getBigUint64(this.#layout.fields[name]!.offset, true);
  }

  set(name: string, value: number | bigint): void {
    const { offset, bytes } = this.#layout.fields[name]!;
    if (bytes === 8) this.#view.setBigUint64(offset, BigInt(value), true);
    else if (bytes === 4) this.#view.setUint32(offset, Number(value), true);
    else if (bytes === 2) this.#view.setUint16(offset, Number(value), true);
    else this.#view.setUint8(offset, Number(value));
  }

  /** Writes it back, as much as the caller has room for. @throws DmaError EFAULT */
  respond(): void {
    this.#at.write(this.bytes.subarray(0, Math.min(this.#userBytes, this.bytes.length)));
  }

  /** Writes one field back, and nothing else. @throws DmaError EFAULT */
  respondField(name: string): void {
    const { offset, bytes } = this.#layout.fields[name]!;
    this.#at.write(this.bytes.subarray(offset, offset + bytes), offset);
  }
}

/** Words of a vendor in the caller's memory. */
export const vendorData = (process: UserProcess, type: number, length: number, address: bigint): VendorData => ({
  type,
  length,
  read(least, most) {
    if (length < least || length > most)
      throw badArgument(`${length} bytes of data of type ${type}: ${least} to ${most} are needed`);
    const bytes = new Uint8Array(most);
    bytes.set(readUser(process, address, length));
    return bytes;
  },
  answer: (bytes) => writeUser(process, address, bytes.subarray(0, length)),
});

/** Sets bits of a bitmap in the caller's memory; those that are set stay. @throws DmaError EFAULT */
export function setUserBits(process: UserProcess, bitmap: bigint, first: bigint, count: bigint): void {
  const last = first + count - 1n;
  for (let byte = first / 8n; byte <= last / 8n; ) {
    const length = Number(last / 8n - byte + 1n);
    const bytes = readUser(process, bitmap + byte, Math.min(length, 4096));
    for (let i = 0; i < bytes.length; i++) {
      const at = byte + BigInt(i);
      let mask = 0xff;
      if (at === first / 8n) mask &= 0xff << Number(first % 8n);
      if (at === last / 8n) mask &= 0xff >> (7 - Number(last % 8n));
      bytes[i]! |= mask;
    }
    writeUser(process, bitmap + byte, bytes);
    byte += BigInt(bytes.length);
  }
}
