/**
 * A card with one or two serial ports that can move to another machine: the same device, and the same image, as Linux's sample
 * driver mtty.
 *
 * The image is a header of 24 bytes, which is there before the device stops, and 36 bytes for each port, which come after. It
 * does no DMA: its log of writes is always empty. Its habits: what there is to read before the stop ends with 0 and not with
 * ENOMSG; a write in which the header turns out wrong fails but counts.
 * Specified by: behaviour of Linux 7.2 sample driver mtty; judged by test/golden/vfio-mig.
 */
import { MIGRATION_FLAGS, type MigrationState } from "../../../../layouts/uapi/index.ts";
import type {
  DmaLogger,
  LoadStream,
  LoggedRange,
  MigratableDevice,
  PreCopyInfo,
  SaveStream,
} from "../../../../platform/index.ts";
import { imageTooLong, imageTooShort, streamOver, wrongImage } from "./errors.ts";
import { UART_STATE_BYTES, Uart } from "./uart.ts";

/** Bytes before the ports: magic of 8, major and minor version, ports, flags, of 4 each. */
const HEADER_BYTES = 24;
const MAGIC = 0x7e9d09898c3e2c4en;
const MAJOR_VERSION = 1;

/** How many ports, and how a wrong image is met. */
export interface SerialCardOptions {
  /** 1 or 2. 2 unless said. */
  readonly ports?: 1 | 2;
  /**
   * A session in which the header turned out wrong cannot end well. Linux's driver forgets it (false), and would take in the
   * ports behind the header of any other device.
   */
  readonly remembersBadHeader?: boolean;
}

/** A card with serial ports behind its BARs, one image for all of them. */
export class SerialCard implements MigratableDevice, DmaLogger {
  readonly migrationFlags: number = MIGRATION_FLAGS.STOP_COPY | MIGRATION_FLAGS.P2P | MIGRATION_FLAGS.PRE_COPY;
  /** One behind each BAR. */
  readonly ports: readonly Uart[];
  readonly #remembersBadHeader: boolean;
  #saving: CardSave | undefined;
  #loading: CardLoad | undefined;

  /** A card to plug into a machine, its ports as after a reset. */
  constructor(options: SerialCardOptions = {}) {
    this.ports = Array.from({ length: options.ports ?? 2 }, () => new Uart());
    this.#remembersBadHeader = options.remembersBadHeader ?? false;
  }

  /** Bytes of an image. */
  get imageBytes(): number {
    return HEADER_BYTES + this.ports.length * UART_STATE_BYTES;
  }

  stopCopyLength(): number {
    return this.imageBytes;
  }

  takeArc(from: MigrationState, to: MigrationState): SaveStream | LoadStream | undefined {
    if (from === "resuming") {
      this.#takeIn(this.#loading!);
      this.#loading = undefined;
    } else if (to === "resuming") {
      this.#loading = new CardLoad(this.#header());
      return this.#loading;
    } else if (to === "stop-copy" || ((to === "pre-copy" || to === "pre-copy-p2p") && !this.#saving)) {
      const isNew = this.#saving === undefined;
      this.#saving ??= new CardSave(this.#header(), this.imageBytes);
      if (to === "stop-copy") for (const { state } of this.ports) this.#saving.add(state);
      if (isNew) return this.#saving;
    } else if (to === "stop" || to === "running" || to === "running-p2p") this.#saving = undefined;
    return undefined;
  }

  /** What the ports hold stays, as in Linux's driver. */
  wasReset(): void {
    this.#saving = undefined;
    this.#loading = undefined;
  }

  /** Any number will do: there is nothing to log. */
  startLogging(_ranges: readonly LoggedRange[], pageBytes: bigint): bigint {
    return pageBytes;
  }

  stopLogging(): void {}

  readDirty(): void {}

  #header(): Uint8Array {
    const header = new Uint8Array(HEADER_BYTES);
    const view = new DataView(header.buffer);
    view.setBigUint64(0, MAGIC, true);
    view.setUint32(8, MAJOR_VERSION, true);
    view.setUint32(16, this.ports.length, true);
    return header;
  }

  #takeIn({ bytes, filled, isHeaderWrong }: CardLoad): void {
    if (filled < this.imageBytes) throw imageTooShort(this.imageBytes, filled);
    if (isHeaderWrong && this.#remembersBadHeader) throw wrongImage("EINVAL", "its header was wrong");
    this.ports.forEach(({ state }, i) => {
      const at = HEADER_BYTES + i * UART_STATE_BYTES;
      state.set(bytes.subarray(at, at + UART_STATE_BYTES));
    });
  }
}

class CardSave implements SaveStream {
  readonly #bytes: Uint8Array;
  #filled: number;
  #position = 0;
  #isOver = false;

  constructor(header: Uint8Array, imageBytes: number) {
    this.#bytes = new Uint8Array(imageBytes);
    this.#bytes.set(header);
    this.#filled = header.length;
  }

  add(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#filled);
    this.#filled += bytes.length;
  }

  read(into: Uint8Array): number {
    if (this.#isOver) throw streamOver();
    const length = Math.min(into.length, this.#filled - this.#position);
    into.set(this.#bytes.subarray(this.#position, this.#position + length));
    this.#position += length;
    return length;
  }

  preCopyInfo(): PreCopyInfo {
    if (this.#isOver) throw streamOver();
    return { initialBytes: this.#filled - this.#position, dirtyBytes: 0, beganAnew: false };
  }

  end(): void {
    this.#isOver = true;
  }
}

class CardLoad implements LoadStream {
  readonly bytes: Uint8Array;
  filled = 0;
  isHeaderWrong = false;
  readonly #header: Uint8Array;
  #isOver = false;

  constructor(header: Uint8Array) {
    this.#header = header;
    const ports = new DataView(header.buffer).getUint32(16, true);
    this.bytes = new Uint8Array(HEADER_BYTES + ports * UART_STATE_BYTES);
  }

  write(from: Uint8Array): number {
    if (this.#isOver) throw streamOver();
    const before = this.filled;
    if (before + from.length > this.bytes.length) throw imageTooLong(this.bytes.length, before + from.length);
    this.bytes.set(from, before);
    this.filled += from.length;
    if (before < HEADER_BYTES && this.filled >= HEADER_BYTES) {
      this.isHeaderWrong = this.#header.some((byte, i) => byte !== this.bytes[i]);
      if (this.isHeaderWrong) throw wrongImage("EFAULT", "its header differs");
    }
    return from.length;
  }

  end(): void {
    this.#isOver = true;
  }
}
