/**
 * Registers behind a BAR: mapped into the process, or by calls where VFIO does not let them be mapped.
 *
 * Promises: once the device is gone or closed, reads answer all ones and writes do nothing, and no access touches the bus.
 */
import { assert } from "../../base/index.ts";
import type { Registers } from "../../platform/index.ts";
import type { Fd, Syscalls } from "./syscalls.ts";

const ALL_ONES = 0xffff_ffff;

/** Registers that can be taken away. */
export interface ClosableRegisters extends Registers {
  close(): void;
}

export class MappedRegisters implements ClosableRegisters {
  readonly length: number;
  readonly #sys: Syscalls;
  readonly #address: number;
  #words: Uint32Array | undefined;

  /** @throws DmaError ERR_DMA_SYSCALL */
  constructor(sys: Syscalls, device: Fd, region: { offset: number; size: number }, name: string) {
    this.length = region.size;
    this.#sys = sys;
    const purpose = `map ${region.size} bytes of registers of ${name}`;
    this.#address = sys.mmap(region.size, { fd: device, offset: region.offset }, purpose);
    this.#words = new Uint32Array(sys.view(this.#address, region.size));
  }

  /** Where they are in this process; undefined once closed. */
  get address(): number | undefined {
    return this.#words === undefined ? undefined : this.#address;
  }

  read32(offset: number): number {
    const words = this.#words;
    if (words === undefined) return ALL_ONES;
    assert(offset % 4 === 0 && offset < this.length, `a register at ${offset} of ${this.length} bytes`);
    return Atomics.load(words, offset / 4); // each read is one on the bus: none is left out or moved
  }

  write32(offset: number, value: number): void {
    const words = this.#words;
    if (words === undefined) return;
    assert(offset % 4 === 0 && offset < this.length, `a register at ${offset} of ${this.length} bytes`);
    words[offset / 4] = value; // not Atomics.store: that is an exchange, which reads the register too
  }

  close(): void {
    if (this.#words === undefined) return;
    this.#words = undefined; // the only view there is
    this.#sys.munmap(this.#address, this.length);
  }
}

export class CalledRegisters implements ClosableRegisters {
  readonly length: number;
  readonly #sys: Syscalls;
  readonly #device: Fd;
  readonly #offset: number;
  readonly #bytes = new Uint8Array(4);
  readonly #view = new DataView(this.#bytes.buffer);
  #open = true;

  constructor(sys: Syscalls, device: Fd, region: { offset: number; size: number }) {
    this.length = region.size;
    this.#sys = sys;
    this.#device = device;
    this.#offset = region.offset;
  }

  read32(offset: number): number {
    if (!this.#open) return ALL_ONES;
    try {
      this.#sys.pread(this.#device, this.#bytes, this.#offset + offset, `read the register at ${offset}`);
    } catch {
      return ALL_ONES;
    }
    return this.#view.getUint32(0, true);
  }

  write32(offset: number, value: number): void {
    if (!this.#open) return;
    this.#view.setUint32(0, value, true);
    try {
      this.#sys.pwrite(this.#device, this.#bytes, this.#offset + offset, `write the register at ${offset}`);
    } catch {
      // as on a bus without the device
    }
  }

  close(): void {
    this.#open = false;
  }
}
