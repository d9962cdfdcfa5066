/**
 * A network card with virtual functions that can move: the card's own function, which takes commands.
 *
 * Idea: everything is done when the command register has been written, but for saving a chunk, which takes the time its bytes
 * take and ends with an interrupt. It reaches memory by keys, lists of addresses that its driver gave it, and only by DMA: so a
 * page that is not mapped is a fault, and a buffer given back too early is one too.
 * Promises: no exception for anything a driver may do; a failed command has changed nothing that it does not say.
 */

import type { DmaAddr } from "../../../../../base/index.ts";
import {
  NIC_COMMAND,
  NIC_IDENTITY,
  NIC_MAILBOX_BYTES,
  NIC_MAX_FUNCTIONS,
  NIC_MESSAGE_BYTES,
  NIC_REGISTER,
  NIC_SAVE_STRIDE,
  NIC_STATUS,
} from "../../../../../layouts/nic/index.ts";
import { MIGRATION_FLAGS } from "../../../../../layouts/uapi/index.ts";
import { type BarModel, type DeviceModel, type DevicePort, registerTarget } from "../../../device.ts";
import { notPlugged } from "../../../errors.ts";
import { NicFunction } from "./function.ts";
import { FunctionImages } from "./images.ts";
import { KeyTable } from "./keys.ts";
import { WriteLog } from "./write-log.ts";

/** What a card has: functions, their memory, its limits and its speed. */
export interface NetworkCardOptions {
  /** Virtual functions. Default 1; at most 64. */
  readonly functions?: number;
  /** Pages of memory of each, 2 or more. Default 16. */
  readonly memoryPages?: number;
  /** Bits of MIGRATION_FLAGS. Default: all. */
  readonly migrationFlags?: number;
  /** Ranges that a log can have. Default 8. */
  readonly maxLogRanges?: number;
  /** Bytes of a log's smallest and largest unit: powers of two. Default 4096, 1 GiB. */
  readonly minLogUnit?: number;
  /** Bytes of a log's largest unit: a power of two. Default 1 GiB. */
  readonly maxLogUnit?: number;
  /** Pages that a key can have. Default 2^20. */
  readonly maxKeyPages?: number;
  /** Bytes that are saved in a millisecond. Default 2^20. */
  readonly saveBytesPerMs?: number;
}

type Command = (a: number, b: number, c: number, d: number, e: number) => number;

/** The card's own function: it takes the commands of the machine's owner. */
export class NetworkCard implements DeviceModel {
  readonly vendorId = 0x1234;
  readonly deviceId = 0x0002;
  /** An Ethernet controller. */
  readonly classCode = 0x02_0000;
  readonly vectors: number;
  readonly bars: readonly BarModel[];
  /** To be plugged in beside it, in order. */
  readonly functions: readonly NicFunction[];
  /** The next so many commands of a kind fail with a status, whatever they ask: for tests. By command. */
  readonly failing: Map<
    number,
    {
      /** What the command says it came to. */
      status: number;
      /** How many are still to fail. */
      count: number;
    }
  > = new Map();
  readonly #options: Required<NetworkCardOptions>;
  readonly #keys = new KeyTable();
  readonly #images: readonly FunctionImages[];
  readonly #arguments = new Uint32Array(8);
  readonly #results = new Uint32Array(8);
  readonly #saves: { status: number; bytes: number; left: number }[];
  readonly #commands: ReadonlyMap<number, Command>;
  #mailbox = 0;
  #status = 0;
  #port: DevicePort | undefined;

  /** Makes its functions too: plug {@link functions} in beside it. */
  constructor(options: NetworkCardOptions = {}) {
    this.#options = {
      functions: 1,
      memoryPages: 16,
      migrationFlags: MIGRATION_FLAGS.STOP_COPY | MIGRATION_FLAGS.P2P | MIGRATION_FLAGS.PRE_COPY,
      maxLogRanges: 8,
      minLogUnit: 4096,
      maxLogUnit: 2 ** 30,
      maxKeyPages: 2 ** 20,
      saveBytesPerMs: 2 ** 20,
      ...options,
    };
    const count = Math.min(this.#options.functions, NIC_MAX_FUNCTIONS);
    this.vectors = count;
    this.functions = Array.from({ length: count }, () => new NicFunction(Math.max(this.#options.memoryPages, 2)));
    this.#images = this.functions.map((each) => new FunctionImages(each));
    this.#saves = this.functions.map(() => ({ status: 0, bytes: 0, left: 0 }));
    this.#commands = this.#commandTable();
    const target = registerTarget({
      read32: (offset) => this.#read(offset),
      write32: (offset, value) => this.#write(offset, value),
    });
    this.bars = [{ index: 0, length: 4096, target }];
  }

  /** Keys that its driver has not destroyed. */
  get keys(): number {
    return this.#keys.size;
  }

  plugged(port: DevicePort): void {
    this.#port = port;
  }

  reset(): void {
    for (const images of this.#images) images.endSave();
  }

  #read(offset: number): number {
    const { maxLogRanges, minLogUnit, maxLogUnit, maxKeyPages, migrationFlags } = this.#options;
    switch (offset) {
      case NIC_REGISTER.IDENTITY:
        return NIC_IDENTITY;
      case NIC_REGISTER.FLAGS:
        return migrationFlags;
      case NIC_REGISTER.LOG_LIMITS:
        return maxLogRanges | (Math.log2(minLogUnit) << 16) | (Math.log2(maxLogUnit) << 24);
      case NIC_REGISTER.MAX_KEY_PAGES:
        return maxKeyPages;
      case NIC_REGISTER.STATUS:
        return this.#status;
    }
    if (offset >= NIC_REGISTER.RESULT && offset < NIC_REGISTER.RESULT + 32)
      return this.#results[(offset - NIC_REGISTER.RESULT) / 4]!;
    const save = this.#saves[Math.floor((offset - NIC_REGISTER.SAVE_STATUS) / NIC_SAVE_STRIDE)];
    if (offset < NIC_REGISTER.SAVE_STATUS || !save) return 0;
    return [save.status, save.bytes, save.left][((offset - NIC_REGISTER.SAVE_STATUS) % NIC_SAVE_STRIDE) / 4] ?? 0;
  }

  #write(offset: number, value: number): void {
    if (offset === NIC_REGISTER.MAILBOX_LOW) this.#mailbox = Math.floor(this.#mailbox / 2 ** 32) * 2 ** 32 + value;
    else if (offset === NIC_REGISTER.MAILBOX_HIGH)
      this.#mailbox = (this.#mailbox % 2 ** 32) + (value & 0xf_ffff) * 2 ** 32;
    else if (offset === NIC_REGISTER.COMMAND) this.#run(value);
    else if (offset >= NIC_REGISTER.ARGUMENT && offset < NIC_REGISTER.ARGUMENT + 32)
      this.#arguments[(offset - NIC_REGISTER.ARGUMENT) / 4] = value;
  }

  #run(code: number): void {
    this.#results.fill(0);
    const failure = this.failing.get(code);
    if (failure && failure.count > 0) {
      failure.count--;
      this.#status = failure.status;
      return;
    }
    const [a, b, c, d, e] = this.#arguments as unknown as [number, number, number, number, number];
    this.#status = this.#commands.get(code)?.(a, b, c, d, e) ?? NIC_STATUS.BAD_COMMAND;
  }

  #answer(...words: number[]): number {
    this.#results.set(words);
    return NIC_STATUS.OK;
  }

  #commandTable(): Map<number, Command> {
    return new Map([...this.#keyCommands(), ...this.#imageCommands(), ...this.#logCommands()]);
  }

  /** A command whose first argument is the number of a function. */
  #of(
    run: (target: NicFunction, images: FunctionImages, b: number, c: number, d: number, e: number) => number,
  ): Command {
    return (a, b, c, d, e) => {
      const target = this.functions[a];
      return target ? run(target, this.#images[a]!, b, c, d, e) : NIC_STATUS.BAD_ARGUMENT;
    };
  }

  #keyCommands(): [number, Command][] {
    const { OK, BAD_ARGUMENT } = NIC_STATUS;
    const { maxKeyPages } = this.#options;
    return [
      [
        NIC_COMMAND.CREATE_KEY,
        (pages) => (pages < 1 || pages > maxKeyPages ? BAD_ARGUMENT : this.#answer(this.#keys.create(pages))),
      ],
      [NIC_COMMAND.FILL_KEY, (key, first, count) => this.#fillKey(key, first, count)],
      [NIC_COMMAND.DESTROY_KEY, (key) => (this.#keys.destroy(key) ? OK : BAD_ARGUMENT)],
    ];
  }

  #imageCommands(): [number, Command][] {
    const { OK, BAD_ARGUMENT, BAD_STATE, TRANSFER } = NIC_STATUS;
    return [
      [
        NIC_COMMAND.SUSPEND,
        this.#of((target, _images, part) => {
          target.suspended |= part & 3;
          return OK;
        }),
      ],
      [
        NIC_COMMAND.RESUME,
        this.#of((target, _images, part) => {
          target.suspended &= ~part;
          return OK;
        }),
      ],
      [
        NIC_COMMAND.QUERY_IMAGE,
        this.#of((target, images, kind) => this.#answer(...split(images.nextLength(kind)), target.anew)),
      ],
      [
        NIC_COMMAND.BEGIN_IMAGE,
        this.#of((_target, images, kind) => {
          const length = images.begin(kind);
          return length < 0 ? BAD_STATE : this.#answer(...split(length));
        }),
      ],
      [NIC_COMMAND.SAVE_CHUNK, (number, key, capacity) => this.#saveChunk(number, key, capacity)],
      [
        NIC_COMMAND.END_SAVE,
        this.#of((_target, images) => {
          images.endSave();
          return OK;
        }),
      ],
      [
        NIC_COMMAND.BEGIN_LOAD,
        this.#of((_target, images) => {
          images.beginLoad();
          return OK;
        }),
      ],
      [
        NIC_COMMAND.LOAD_CHUNK,
        this.#of((_target, images, key, length) => {
          if (length > this.#keys.capacity(key)) return BAD_ARGUMENT;
          const bytes = new Uint8Array(length);
          return this.#keys.move(key, 0, bytes, "read", this.#plugged) ? images.load(bytes) : TRANSFER;
        }),
      ],
      [NIC_COMMAND.END_LOAD, this.#of((_target, images) => images.endLoad())],
      [
        NIC_COMMAND.RESET,
        this.#of((target, images) => {
          images.endSave();
          target.reset();
          target.log = undefined;
          return OK;
        }),
      ],
    ];
  }

  #logCommands(): [number, Command][] {
    const { OK, BAD_ARGUMENT, BAD_STATE, TRANSFER } = NIC_STATUS;
    const { maxLogRanges, minLogUnit, maxLogUnit } = this.#options;
    return [
      [
        NIC_COMMAND.CREATE_LOG,
        this.#of((target, _images, count, lgUnit) => {
          if (target.log) return BAD_STATE;
          const unit = 2 ** lgUnit;
          if (count < 1 || count > maxLogRanges || unit < minLogUnit || unit > maxLogUnit) return BAD_ARGUMENT;
          const words = this.#readMailbox(count * 2, true);
          if (!words) return TRANSFER;
          const ranges = Array.from({ length: count }, (_, i) => ({ first: words[i * 2]!, last: words[i * 2 + 1]! }));
          target.log = new WriteLog(ranges, unit);
          return OK;
        }),
      ],
      [
        NIC_COMMAND.DESTROY_LOG,
        this.#of((target) => {
          target.log = undefined;
          return OK;
        }),
      ],
      [
        NIC_COMMAND.REPORT_LOG,
        this.#of((target, _images, low, high, lengthLow, lengthHigh) => {
          if (!target.log) return BAD_STATE;
          if (target.log.isLost) return NIC_STATUS.LOG_LOST;
          target.log.begin(low + high * 2 ** 32, lengthLow + lengthHigh * 2 ** 32);
          return OK;
        }),
      ],
      [NIC_COMMAND.NEXT_MESSAGE, this.#of((target, _images, key, number) => this.#nextMessage(target, key, number))],
    ];
  }

  #fillKey(key: number, first: number, count: number): number {
    if (count > NIC_MAILBOX_BYTES / 8) return NIC_STATUS.BAD_ARGUMENT;
    const addresses = this.#readMailbox(count, false);
    if (!addresses) return NIC_STATUS.TRANSFER;
    return this.#keys.fill(key, first, addresses) ? NIC_STATUS.OK : NIC_STATUS.BAD_ARGUMENT;
  }

  /**
   * Saves the next chunk of an image: after the time that its bytes take they are in memory, and the driver gets an
   * interrupt.
   */
  #saveChunk(number: number, key: number, capacity: number): number {
    const images = this.#images[number];
    if (!images || capacity < 1 || capacity > this.#keys.capacity(key)) return NIC_STATUS.BAD_ARGUMENT;
    const bytes = images.nextChunk(capacity);
    if (!bytes) return NIC_STATUS.BAD_STATE;
    const ms = bytes.length / this.#options.saveBytesPerMs;
    images.timer = this.#plugged.clock.after(ms, () => {
      images.timer = undefined;
      const isWritten =
        this.#keys.capacity(key) >= bytes.length && this.#keys.move(key, 0, bytes, "write", this.#plugged);
      this.#saves[number] = {
        status: isWritten ? NIC_STATUS.OK : NIC_STATUS.TRANSFER,
        bytes: bytes.length,
        left: images.left,
      };
      this.#plugged.interrupt(number);
    });
    return NIC_STATUS.OK;
  }

  #nextMessage({ log }: NicFunction, key: number, number: number): number {
    if (!log) return NIC_STATUS.BAD_STATE;
    if (log.isLost) return NIC_STATUS.LOG_LOST;
    const addresses = log.next(NIC_MESSAGE_BYTES / 8);
    const bytes = new Uint8Array(addresses.length * 8);
    const view = new DataView(bytes.buffer);
    addresses.forEach((address, i) => {
      view.setBigUint64(i * 8, BigInt(address), true);
    });
    const offset = number * NIC_MESSAGE_BYTES;
    if (offset + bytes.length > this.#keys.capacity(key)) return NIC_STATUS.BAD_ARGUMENT;
    if (!this.#keys.move(key, offset, bytes, "write", this.#plugged)) {
      log.isLost = true;
      return NIC_STATUS.TRANSFER;
    }
    log.forget(addresses.length);
    return this.#answer(addresses.length, log.hasMore ? 1 : 0);
  }

  /** Numbers of 64 bits in the mailbox; undefined if it cannot be read. */
  #readMailbox(count: number, isLittle: boolean): number[] | undefined {
    const bytes = new Uint8Array(count * 8);
    if (!this.#plugged.read(this.#mailbox as DmaAddr, bytes)) return undefined;
    const view = new DataView(bytes.buffer);
    return Array.from({ length: count }, (_, i) => Number(view.getBigUint64(i * 8, isLittle)));
  }

  get #plugged(): DevicePort {
    if (!this.#port) throw notPlugged();
    return this.#port;
  }
}

/** A number as two words, the low one first. */
const split = (value: number): [number, number] => [value % 2 ** 32, Math.floor(value / 2 ** 32)];
