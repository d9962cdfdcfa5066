/**
 * The data file: what a program holds of a session, to read a device's state from or to write it to.
 *
 * Idea: the file outlives its session; once that is over every read and write says so. It is an open file like any other
 * (a descriptor can name it), and a stream: it has no positions.
 * Specified by: behaviour of Linux 7.2 VFIO (data files of migration); docs/live-migration.md.
 */
import type { LoadStream, MigrationState, PreCopyInfo, SaveStream } from "../../../platform/index.ts";
import { noPreCopy, notPreCopyFile, notSeekable, sessionOver, wrongDirection } from "./errors.ts";

/** What a data file asks of the device that it belongs to. */
export interface SessionOwner {
  readonly state: MigrationState;
  /** Pre-copy information says when the device began anew. */
  readonly saysBeganAnew: boolean;
}

/** One end of a session's stream, as a program holds it. */
export class DataFile {
  /** Marks it among open files. */
  readonly kind = "vfio-migration";
  readonly #stream: SaveStream | LoadStream;
  readonly #owner: SessionOwner;
  #isOver = false;
  #holders = 1;

  /** Made by `DeviceMigration.setState`. */
  constructor(stream: SaveStream | LoadStream, owner: SessionOwner) {
    this.#stream = stream;
    this.#owner = owner;
  }

  /** `save`: to read from. `load`: to write to. */
  get direction(): "save" | "load" {
    return "read" in this.#stream ? "save" : "load";
  }

  /** The session has ended; what is asked of the file fails. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** A read or write would not have to wait. */
  get isReady(): boolean {
    return this.#isOver || !("read" in this.#stream) || (this.#stream.isReady ?? true);
  }

  /**
   * Takes the next bytes of the device's state.
   *
   * @returns how many; 0 at the end. Some devices also say 0 when there is nothing more for now
   * @throws DmaError EBADF for a file to write; ENODEV when the session is over; ENOMSG when there is no more for now; EAGAIN
   */
  read(into: Uint8Array): number {
    const stream = this.#stream;
    if (!("read" in stream)) throw wrongDirection("read");
    if (this.#isOver) throw sessionOver();
    return stream.read(into);
  }

  /**
   * Gives the device the next bytes of its state.
   *
   * @returns how many: all
   * @throws DmaError EBADF for a file to read; ENODEV when the session is over; what the device says of the bytes
   */
  write(from: Uint8Array): number {
    const stream = this.#stream;
    if (!("write" in stream)) throw wrongDirection("write");
    if (this.#isOver) throw sessionOver();
    return stream.write(from);
  }

  /** Reads and writes at a place, and moves to one, are refused. @throws DmaError ERR_DMA_MIGRATION_SEEK (ESPIPE) */
  seek(): never {
    throw notSeekable();
  }

  /** {@link preCopyInfo} is known here, in the right state. */
  get hasPreCopyInfo(): boolean {
    return "read" in this.#stream && this.#stream.preCopyInfo !== undefined;
  }

  /**
   * How much there is to read before the device stops. Asking may start a save.
   *
   * @throws DmaError ENOTTY if the file has no such thing; EINVAL unless the device is in a pre-copy state; ENODEV
   */
  preCopyInfo(): PreCopyInfo {
    const stream = this.#stream;
    if (!("read" in stream) || stream.preCopyInfo === undefined) throw notPreCopyFile();
    const { state } = this.#owner;
    if (state !== "pre-copy" && state !== "pre-copy-p2p") throw noPreCopy(state);
    if (this.#isOver) throw sessionOver();
    return stream.preCopyInfo(this.#owner.saysBeganAnew);
  }

  /** One more holds it: a descriptor. */
  acquire(): void {
    this.#holders++;
  }

  /** One fewer holds it. The device's state does not change by that, and the session goes on. */
  release(): void {
    this.#holders--;
  }

  /** Who holds it. */
  get holders(): number {
    return this.#holders;
  }

  /** For `DeviceMigration`: the session is over. */
  end(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#stream.end();
  }
}
