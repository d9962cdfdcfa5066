/**
 * Driver of one virtual function of the network card, for VFIO: arcs become commands, sessions become streams, and the card's log of
 * writes becomes reports.
 *
 * Idea: a state says which parts of the function are at work, what it begins and what it answers; an arc suspends or resumes what
 * differs (what it begins goes first and comes back last), and opens or ends a session. The parts are put back if an arc fails.
 * Specified by: behaviour of Linux 7.2 VFIO for mlx5 (arcs, logging).
 */

import { MiB } from "../../../../base/index.ts";
import type { Dma } from "../../../../dma/index.ts";
import { NIC_IMAGE, NIC_MESSAGE_BYTES, NIC_PART } from "../../../../layouts/nic/index.ts";
import type {
  Clock,
  DmaLogger,
  LoadStream,
  LoggedRange,
  LoggingLimits,
  MigratableDevice,
  MigrationState,
  PageAllocator,
  PhysicalMemory,
  SaveStream,
} from "../../../../platform/index.ts";
import { type BufferCounters, type BufferHost, BufferPool, type DataBuffer } from "../buffers/index.ts";
import { isRunning, isSaving } from "../states.ts";
import { logLost, logState } from "./errors.ts";
import { LoadSession } from "./load-session.ts";
import type { NicCommands } from "./nic-commands.ts";
import { RECORD_HEADER_BYTES } from "./records.ts";
import { SaveSession } from "./save-session.ts";

/** Which function, by what it is reached, and where its buffers come from. */
export interface NicDriverOptions extends Pick<BufferHost, "form" | "keepsAddresses" | "blockPages" | "coherence"> {
  /** The command mailbox of the card that the function belongs to. */
  readonly commands: NicCommands;
  /** Number of the function on its card. */
  readonly number: number;
  /** Maps buffers for the card's own function: the virtual one is its guest's. */
  readonly dma: Dma;
  /** Where the driver reads and writes its buffers. */
  readonly memory: PhysicalMemory;
  /** Where the pages of its buffers come from. */
  readonly pages: PageAllocator;
  /** Time of what the card is waited for. */
  readonly clock: Clock;
  /** Bytes of a chunk, at the most. Default 8 MiB. */
  readonly chunkBytes?: number;
  /** What a chunk may take until the session has failed. Default 5000. */
  readonly chunkTimeoutMs?: number;
}

/** Bytes of the buffer that a log's messages come in, at least. */
const LOG_BUFFER_BYTES: number = Math.max(2 * MiB, 4 * NIC_MESSAGE_BYTES);

/** A log that runs. */
interface RunningLog {
  readonly buffer: DataBuffer;
  readonly unitBytes: number;
  /** Messages that came: each goes to the next place in the buffer. */
  messages: number;
  isLost: boolean;
}

/** VFIO's driver of one function: arcs, streams and the log. */
export class NicDriver implements MigratableDevice, DmaLogger {
  readonly migrationFlags: number;
  readonly loggingLimits: LoggingLimits;
  readonly #commands: NicCommands;
  readonly #number: number;
  readonly #pool: BufferPool;
  readonly #chunkBytes: number;
  readonly #clock: Clock;
  readonly #timeoutMs: number;
  #saving: SaveSession | undefined;
  #loading: LoadSession | undefined;
  #log: RunningLog | undefined;
  #isBroken = false;

  /** Drives one function by the card's commands; the card itself must be there already. */
  constructor(options: NicDriverOptions) {
    const { commands } = options;
    this.#commands = commands;
    this.#number = options.number;
    this.#chunkBytes = options.chunkBytes ?? 8 * MiB;
    this.#clock = options.clock;
    this.#timeoutMs = options.chunkTimeoutMs ?? 5000;
    this.#pool = new BufferPool({ ...options, keys: commands });
    this.migrationFlags = commands.migrationFlags;
    this.loggingLimits = commands.loggingLimits;
  }

  get isBroken(): boolean {
    return this.#isBroken;
  }

  /** What buffers did and cost. */
  get bufferCounters(): BufferCounters {
    return this.#pool.counters;
  }

  /** What the source announced that stopping and copying would move, bytes; undefined if nothing is being loaded. */
  get announcedBytes(): number | undefined {
    return this.#loading?.stopCopyBytes;
  }

  stopCopyLength(): number {
    const [low, high] = this.#commands.run("QUERY_IMAGE", this.#number, NIC_IMAGE.FULL) as [number, number];
    const bytes = low + high * 2 ** 32;
    return bytes + Math.ceil(bytes / this.#chunkBytes) * RECORD_HEADER_BYTES;
  }

  takeArc(from: MigrationState, to: MigrationState): SaveStream | LoadStream | undefined {
    let parts = partsOf(from);
    try {
      if (from === "resuming") this.#loading!.finish();
      for (const [command, part] of changesOf(parts, partsOf(to))) {
        this.#commands.run(command, this.#number, part);
        parts ^= part;
      }
      const stream = this.#session(from, to);
      if (this.#saving) this.#saving.isSuspended = !isRunning(to);
      return stream;
    } catch (error) {
      this.#putBack(parts, partsOf(from));
      throw error;
    }
  }

  wasReset(): void {
    this.#saving = undefined;
    this.#loading = undefined;
    this.#isBroken = false;
  }

  startLogging(ranges: readonly LoggedRange[], pageBytes: bigint): bigint {
    if (this.#log) throw logState(true);
    const lgUnit = pageBytes.toString(2).length - 1; // a power of two, the next one below
    const buffer = this.#pool.take(LOG_BUFFER_BYTES, "from-device");
    try {
      this.#commands.writeMailbox(ranges.flatMap(({ first, last }) => [first, last]));
      this.#commands.run("CREATE_LOG", this.#number, ranges.length, lgUnit);
    } catch (error) {
      this.#pool.giveBack(buffer);
      this.#pool.free();
      throw error;
    }
    this.#log = { buffer, unitBytes: 2 ** lgUnit, messages: 0, isLost: false };
    return 1n << BigInt(lgUnit);
  }

  stopLogging(): void {
    if (!this.#log) return;
    this.#commands.runAnyway("DESTROY_LOG", this.#number);
    this.#pool.giveBack(this.#log.buffer);
    this.#log = undefined;
    this.#pool.free();
  }

  readDirty(iova: bigint, length: bigint, dirty: (offset: number, length: number) => void): void {
    const log = this.#log;
    if (!log) throw logState(false);
    if (log.isLost) throw logLost();
    const split = (value: bigint): [number, number] => [Number(value & 0xffff_ffffn), Number(value >> 32n)];
    const start = Number(iova);
    let addresses: number[];
    let hasMore = false;
    try {
      this.#commands.run("REPORT_LOG", this.#number, ...split(iova), ...split(length));
    } catch {
      log.isLost = true;
      throw logLost();
    }
    do {
      try {
        [addresses, hasMore] = this.#nextMessage(log);
      } catch {
        log.isLost = true;
        throw logLost();
      }
      for (const address of addresses) dirty(address - start, log.unitBytes);
    } while (hasMore);
  }

  /** The function is given back: sessions have ended before. A second time does nothing. */
  detach(): void {
    this.#saving?.end();
    this.#loading?.end();
    this.stopLogging();
    this.#pool.free();
  }

  #nextMessage(log: RunningLog): [addresses: number[], hasMore: boolean] {
    const { buffer } = log;
    const place = log.messages++ % (LOG_BUFFER_BYTES / NIC_MESSAGE_BYTES);
    const [count, more] = this.#commands.run("NEXT_MESSAGE", this.#number, buffer.key, place) as [number, number];
    const bytes = new Uint8Array(count * 8);
    buffer.forCpu();
    buffer.read(place * NIC_MESSAGE_BYTES, bytes);
    const view = new DataView(bytes.buffer);
    const addresses = Array.from({ length: count }, (_, i) => Number(view.getBigUint64(i * 8, true)));
    return [addresses, more === 1];
  }

  #session(from: MigrationState, to: MigrationState): SaveStream | LoadStream | undefined {
    if (to === "resuming") {
      this.#loading = new LoadSession({ commands: this.#commands, number: this.#number, pool: this.#pool });
      return this.#loading;
    }
    if (from === "resuming") this.#loading = undefined;
    if (!isSaving(to)) {
      this.#saving = undefined; // whoever leaves the states that give out data ends the stream
      return undefined;
    }
    if (isSaving(from)) {
      if (to === "stop-copy") this.#saving!.stop();
      return undefined;
    }
    const session = new SaveSession({
      commands: this.#commands,
      number: this.#number,
      pool: this.#pool,
      chunkBytes: this.#chunkBytes,
      clock: this.#clock,
      timeoutMs: this.#timeoutMs,
    });
    try {
      if (to === "stop-copy") session.beginStopped();
      else session.beginPreCopy();
    } catch (error) {
      session.end();
      throw error;
    }
    this.#saving = session;
    return session;
  }

  /** After a failed arc: the parts that were at work are again, or the function is broken. */
  #putBack(now: number, before: number): void {
    try {
      for (const [command, part] of changesOf(now, before)) this.#commands.run(command, this.#number, part);
    } catch {
      this.#isBroken = true;
    }
  }
}

/** Parts that are at work in a state: bits of NIC_PART. */
function partsOf(state: MigrationState): number {
  if (isRunning(state)) return NIC_PART.INITIATOR | NIC_PART.RESPONDER;
  return state === "running-p2p" || state === "pre-copy-p2p" ? NIC_PART.RESPONDER : 0;
}

/** What leads from one set of parts to another: the initiator is suspended first and resumed last. */
function changesOf(from: number, to: number): ["SUSPEND" | "RESUME", number][] {
  const { INITIATOR, RESPONDER } = NIC_PART;
  const suspended = [INITIATOR, RESPONDER].filter((part) => (from & part) !== 0 && (to & part) === 0);
  const resumed = [RESPONDER, INITIATOR].filter((part) => (from & part) === 0 && (to & part) !== 0);
  return [
    ...suspended.map((part): ["SUSPEND", number] => ["SUSPEND", part]),
    ...resumed.map((part): ["RESUME", number] => ["RESUME", part]),
  ];
}
