/**
 * The commands of the network card, as calls: arguments into registers, the command, its status and results out of them.
 *
 * One of these serves all functions of a card. It has the mailbox, which is memory that the card reads, and makes the keys by which
 * the card knows buffers. After {@link NicCommands.close}, or when the card is gone, every command fails with ENOTCONN.
 */
import type { DmaAddr } from "../../../../base/index.ts";
import type { CoherentMemory, Dma } from "../../../../dma/index.ts";
import {
  NIC_COMMAND,
  NIC_IDENTITY,
  NIC_MAILBOX_ADDRESSES,
  NIC_MAILBOX_BYTES,
  NIC_REGISTER,
  NIC_SAVE_STRIDE,
  NIC_STATUS,
} from "../../../../layouts/nic/index.ts";
import type { LoggingLimits, PciDevice, Registers } from "../../../../platform/index.ts";
import { type DeviceKeys, deviceGone } from "../buffers/index.ts";
import { commandFailed, noCard } from "./errors.ts";

type CommandName = keyof typeof NIC_COMMAND;

/** How a chunk was saved. */
interface SavedChunk {
  readonly status: number;
  readonly bytes: number;
  /** Bytes of the image that are still to come. */
  readonly left: number;
}

/** The card's commands, its mailbox and its keys. */
export class NicCommands implements DeviceKeys {
  readonly #device: PciDevice;
  readonly #registers: Registers;
  readonly #mailbox: CoherentMemory;
  #isClosed = false;

  /** @throws DmaError ERR_DMA_NIC_ABSENT (ENODEV); of allocating the mailbox */
  constructor(device: PciDevice, dma: Dma) {
    this.#device = device;
    const registers = device.bar(0);
    const identity = registers?.read32(NIC_REGISTER.IDENTITY) ?? -1;
    if (!registers || identity !== NIC_IDENTITY) throw noCard(identity);
    this.#registers = registers;
    this.#mailbox = dma.allocCoherent(NIC_MAILBOX_BYTES);
    device.setBusMaster(true);
    const { address } = this.#mailbox;
    registers.write32(NIC_REGISTER.MAILBOX_LOW, address % 2 ** 32);
    registers.write32(NIC_REGISTER.MAILBOX_HIGH, Math.floor(address / 2 ** 32));
  }

  get isPresent(): boolean {
    return !this.#isClosed && !this.#device.removed;
  }

  /** Bits of MIGRATION_FLAGS. */
  get migrationFlags(): number {
    return this.#registers.read32(NIC_REGISTER.FLAGS);
  }

  /** What one log of the card can hold. */
  get loggingLimits(): LoggingLimits {
    const word = this.#registers.read32(NIC_REGISTER.LOG_LIMITS);
    return {
      maxRanges: word & 0xffff,
      minPageBytes: 1n << BigInt((word >>> 16) & 0xff),
      maxPageBytes: 1n << BigInt(word >>> 24),
    };
  }

  /** Bytes that a key can have. */
  get maxKeyBytes(): number {
    return this.#registers.read32(NIC_REGISTER.MAX_KEY_PAGES) * 4096;
  }

  /**
   * Runs a command.
   *
   * @returns its results
   * @throws DmaError ERR_DMA_NIC_COMMAND; ERR_DMA_DEVICE_GONE (ENOTCONN)
   */
  run(name: CommandName, ...given: number[]): number[] {
    if (!this.isPresent) throw deviceGone();
    const registers = this.#registers;
    given.forEach((value, i) => {
      registers.write32(NIC_REGISTER.ARGUMENT + i * 4, value);
    });
    registers.write32(NIC_REGISTER.COMMAND, NIC_COMMAND[name]);
    const status = registers.read32(NIC_REGISTER.STATUS);
    if (status !== NIC_STATUS.OK) throw this.isPresent ? commandFailed(NIC_COMMAND[name], status) : deviceGone();
    return Array.from({ length: 4 }, (_, i) => registers.read32(NIC_REGISTER.RESULT + i * 4));
  }

  /** The same for what must not fail: whatever the card says, its driver goes on. */
  runAnyway(name: CommandName, ...given: number[]): void {
    try {
      this.run(name, ...given);
    } catch {
      // The card is gone, or knows nothing of what is to end: either way it has ended.
    }
  }

  /** Puts numbers of 64 bits into the mailbox, little endian. Valid for as many as fit. */
  writeMailbox(numbers: readonly bigint[]): void {
    const bytes = new Uint8Array(numbers.length * 8);
    const view = new DataView(bytes.buffer);
    numbers.forEach((number, i) => {
      view.setBigUint64(i * 8, number, true);
    });
    this.#mailbox.write(0, bytes);
  }

  createKey(pages: number, addressAt: (index: number) => DmaAddr): number {
    const key = this.run("CREATE_KEY", pages)[0]!;
    try {
      const bytes = new Uint8Array(NIC_MAILBOX_BYTES);
      const view = new DataView(bytes.buffer);
      for (let first = 0; first < pages; first += NIC_MAILBOX_ADDRESSES) {
        const count = Math.min(NIC_MAILBOX_ADDRESSES, pages - first);
        for (let i = 0; i < count; i++) view.setBigUint64(i * 8, BigInt(addressAt(first + i)));
        this.#mailbox.write(0, bytes.subarray(0, count * 8));
        this.run("FILL_KEY", key, first, count);
      }
    } catch (error) {
      this.runAnyway("DESTROY_KEY", key);
      throw error;
    }
    return key;
  }

  /** Asked twice if need be: as long as a key lives the card may touch its pages. */
  destroyKey(key: number): void {
    try {
      this.run("DESTROY_KEY", key);
    } catch {
      this.runAnyway("DESTROY_KEY", key);
    }
  }

  /** How the last chunk of a function was saved. */
  savedChunk(number: number): SavedChunk {
    const at = (register: number): number => this.#registers.read32(register + number * NIC_SAVE_STRIDE);
    return {
      status: at(NIC_REGISTER.SAVE_STATUS),
      bytes: at(NIC_REGISTER.SAVE_BYTES),
      left: at(NIC_REGISTER.SAVE_LEFT),
    };
  }

  /** Calls back when a chunk of function `number` has been saved; the returned function stops that. */
  onSaved(number: number, callback: () => void): () => void {
    return this.#device.onInterrupt(number, callback);
  }

  /** The card is given back. A second time does nothing. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#mailbox.free();
  }
}
