/**
 * The source of a move: the machine's memory and devices are sent while it runs, then it stops, and the rest is sent.
 *
 * Idea: rounds. Each sends the pages that were written since they were sent, and what devices have; when little is left, or rounds
 * are up, everything stops in the right order and what is left is sent. The target says that it has everything; only then the
 * source says go, and never runs again by itself.
 * Promises: until it has said go, whatever fails, the machine here runs on, unchanged. Between go and the target's answer a
 * failure leaves both sides stopped and everything here intact: the outcome is `in-doubt`, and the caller, who can find out
 * whether the target runs, decides ({@link MoveSource.stay}).
 * Not for: choosing when to move, or how fast the link may be filled.
 * Specified by: docs/live-migration.md.
 */
import { DmaError } from "../../../../base/index.ts";
import { MIGRATION_FLAGS } from "../../../../layouts/uapi/index.ts";
import type { DataFile } from "../data-file.ts";
import { DirtyBitmap, DirtyTracker } from "../dirty/index.ts";
import { deviceSilent } from "./errors.ts";
import { FRAME, FRAME_MOST_BYTES } from "./frames.ts";
import { type ByteLink, FrameLink } from "./link.ts";
import { helloOf, type MovableDevice, type MovableMachine } from "./movable-machine.ts";
import { checksumOf, sendPages } from "./ram-frames.ts";
import { runAll, stopAll } from "./stop-order.ts";

/** When to stop, what to check, and how to wait. */
export interface MoveOptions {
  /** Rounds before the stop, at the most. Default 30. */
  readonly maxRounds?: number;
  /** So many bytes of memory and devices may be left when everything stops. Default 4 MiB. */
  readonly stopBelowBytes?: number;
  /** The target compares all memory with what was here when it stopped. Default true. */
  readonly checksMemory?: boolean;
  /** Lets time pass while a device has nothing to give yet. */
  readonly pause: () => Promise<void>;
  /** How often in a row, until the device is given up. Default 100000. */
  readonly maxPauses?: number;
}

/** What was sent, and when. */
export interface MoveCounts {
  /** Times that dirty pages were collected and sent. */
  rounds: number;
  /** Pages sent with their content; one that is sent in two rounds counts twice. */
  pages: number;
  /** Pages of zeros, sent as their number alone. */
  zeroPages: number;
  /** Bytes of devices' states. */
  deviceBytes: number;
  /** Pages, of either kind, sent after the stop. */
  pagesAfterStop: number;
  /** Bytes of devices' states sent after the stop. */
  deviceBytesAfterStop: number;
  /** All that went out, frames and all. */
  bytes: number;
  /** Of those, after the stop. */
  bytesAfterStop: number;
  /** Rounds in which nobody could say what was written, and everything was sent. */
  untrustedRounds: number;
}

/** How a move ended. */
export type MoveOutcome =
  | {
      /** The machine runs on the other side; what is here is stopped, and may be thrown away. */
      readonly outcome: "moved";
    }
  | {
      /** It runs here as before. `broken`: devices that could not be brought to run, and need a reset. */
      readonly outcome: "stayed";
      /** What went wrong. */
      readonly error: unknown;
      /** Names of devices that could not be brought to run, and need a reset. */
      readonly broken: readonly string[];
    }
  | {
      /** It was told to go, and nobody knows whether it runs there. Here it is stopped, with all it had. */
      readonly outcome: "in-doubt";
      /** What went wrong. */
      readonly error: unknown;
    };

/** Bytes that are read from a device at once. */
const PIECE_BYTES: number = FRAME_MOST_BYTES;

/** One move of one machine, on the side that it leaves. */
export class MoveSource {
  /** What was sent so far. */
  readonly counts: MoveCounts = {
    rounds: 0,
    pages: 0,
    zeroPages: 0,
    deviceBytes: 0,
    pagesAfterStop: 0,
    deviceBytesAfterStop: 0,
    bytes: 0,
    bytesAfterStop: 0,
    untrustedRounds: 0,
  };
  /** Who wrote to memory meanwhile. */
  readonly tracker: DirtyTracker;
  readonly #machine: MovableMachine;
  readonly #link: FrameLink;
  readonly #options: MoveOptions;
  readonly #bitmap: DirtyBitmap;
  readonly #files = new Map<MovableDevice, DataFile>();
  readonly #piece = new Uint8Array(PIECE_BYTES);
  #hasStopped = false;

  /** Does nothing before {@link run}; good for one move. */
  constructor(machine: MovableMachine, link: ByteLink, options: MoveOptions) {
    this.#machine = machine;
    this.#link = new FrameLink(link);
    this.#options = options;
    this.tracker = new DirtyTracker(machine.dirty, machine.ram.layout);
    this.#bitmap = new DirtyBitmap(machine.ram.layout.pageCount);
  }

  /** Moves the machine. Resolves always. */
  async run(): Promise<MoveOutcome> {
    try {
      await this.#copy();
    } catch (error) {
      await this.#link.refuse(error);
      return this.#stayed(error);
    }
    try {
      await this.#link.send(FRAME.GO);
      await this.#link.expect(FRAME.RUNNING);
    } catch (error) {
      // A target that refuses now says by it that it does not run.
      if (error instanceof DmaError && error.code === "ERR_DMA_MOVE_REFUSED") return this.#stayed(error);
      this.#link.close();
      return { outcome: "in-doubt", error };
    }
    this.tracker.stop();
    for (const device of this.#machine.devices) endSession(device);
    this.#count();
    this.#link.close();
    return { outcome: "moved" };
  }

  /**
   * After `in-doubt`, for who knows that the other side does not run: the machine runs on here. Names of devices that need a reset.
   */
  stay(): readonly string[] {
    this.tracker.stop();
    const broken = this.#runDevices();
    if (this.#hasStopped) this.#machine.processors.resume();
    this.#hasStopped = false;
    return broken;
  }

  async #copy(): Promise<void> {
    const { devices, processors, ram } = this.#machine;
    await this.#link.send(FRAME.HELLO, 0, new TextEncoder().encode(JSON.stringify(helloOf(this.#machine))));
    await this.#link.expect(FRAME.WELCOME);
    this.tracker.start();
    this.#bitmap.setAll();
    for (const device of devices)
      if ((device.migration.flags & MIGRATION_FLAGS.PRE_COPY) !== 0)
        this.#open(device, device.migration.setState("pre-copy"));
    await this.#copyWhileRunning();

    processors.stop();
    this.#hasStopped = true;
    this.#count();
    const before = this.#link.bytesSent;
    const opened = stopAll(devices);
    for (const device of devices) this.#open(device, opened.get(device));
    this.#collect();
    await this.#sendRam();
    for (const device of devices) await this.#drain(device);
    await this.#link.send(FRAME.PROCESSORS, 0, processors.save());
    await this.#link.send(FRAME.END, 0, this.#options.checksMemory === false ? undefined : bytesOf(checksumOf(ram)));
    await this.#link.expect(FRAME.READY);
    this.#count();
    this.counts.bytesAfterStop = this.#link.bytesSent - before;
  }

  /** Rounds, until little is left. */
  async #copyWhileRunning(): Promise<void> {
    const { maxRounds = 30, stopBelowBytes = 4 * 2 ** 20 } = this.#options;
    for (;;) {
      this.counts.rounds++;
      await this.#sendRam();
      for (const [device, file] of this.#files) await this.#sendWaiting(device, file);
      this.#collect();
      let left = this.#bitmap.count * 4096;
      let initial = 0;
      for (const file of this.#files.values()) {
        const { initialBytes, dirtyBytes } = file.preCopyInfo();
        initial += initialBytes;
        left += dirtyBytes;
      }
      if ((initial === 0 && left < stopBelowBytes) || this.counts.rounds >= maxRounds) return;
    }
  }

  #open(device: MovableDevice, file: DataFile | undefined): void {
    if (file) this.#files.set(device, file);
  }

  #collect(): void {
    if (!this.tracker.collect(this.#bitmap)) this.counts.untrustedRounds++;
  }

  async #sendRam(): Promise<void> {
    const { counts } = this;
    const before = counts.pages + counts.zeroPages;
    await sendPages(this.#machine.ram, this.#bitmap, this.#link, counts);
    if (this.#hasStopped) counts.pagesAfterStop += counts.pages + counts.zeroPages - before;
  }

  /** What a running device has to give now. */
  async #sendWaiting(device: MovableDevice, file: DataFile): Promise<void> {
    while ((await this.#sendPiece(device, file)) > 0);
  }

  /** All that a stopped device has to give. */
  async #drain(device: MovableDevice): Promise<void> {
    const file = this.#files.get(device)!;
    while ((await this.#sendPiece(device, file)) > 0);
    await this.#link.send(FRAME.DEVICE_END, this.#machine.devices.indexOf(device));
  }

  /** Bytes sent; 0: there is no more, for now or for good. */
  async #sendPiece(device: MovableDevice, file: DataFile): Promise<number> {
    for (let pauses = this.#options.maxPauses ?? 100_000; pauses > 0; pauses--) {
      try {
        const length = file.read(this.#piece);
        if (length === 0) return 0;
        const place = this.#machine.devices.indexOf(device);
        await this.#link.send(FRAME.DEVICE, place, this.#piece.subarray(0, length));
        this.counts.deviceBytes += length;
        if (this.#hasStopped) this.counts.deviceBytesAfterStop += length;
        return length;
      } catch (error) {
        const errno = error instanceof DmaError ? error.errno : undefined;
        if (errno === "ENOMSG" && !this.#hasStopped) return 0;
        if (errno !== "EAGAIN") throw error;
        await this.#options.pause();
      }
    }
    throw deviceSilent(device.name);
  }

  #stayed(error: unknown): MoveOutcome {
    this.#count();
    this.#link.close();
    return { outcome: "stayed", error, broken: this.stay() };
  }

  /** In the right order; if one cannot, the others do. Names of those that cannot. */
  #runDevices(): readonly string[] {
    const { devices } = this.#machine;
    try {
      runAll(devices);
      return [];
    } catch {
      return devices.filter(({ migration }) => !canRun(migration)).map(({ name }) => name);
    }
  }

  #count(): void {
    this.counts.bytes = this.#link.bytesSent;
  }
}

/** What is left here of a device that has moved. */
function endSession(device: MovableDevice): void {
  try {
    device.migration.setState("stop");
  } catch {
    device.reset();
  }
}

function canRun(migration: MovableDevice["migration"]): boolean {
  try {
    migration.setState("running");
    return true;
  } catch {
    return false;
  }
}

const bytesOf = (checksum: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, checksum, true);
  return bytes;
};
