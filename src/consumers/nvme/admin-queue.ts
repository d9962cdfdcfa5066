/**
 * Admin commands: what the driver asks of the controller itself.
 *
 * Idea: few and rare, so each is a promise of its own; who finds the queue full waits for a slot.
 * Promises: every promise settles: when the controller answers, or when it was stopped.
 * Specified by: NVM Express base specification 2.0, chapter 5.
 */
import {
  ADMIN,
  COMMAND,
  FEATURE,
  IDENTIFY_BYTES,
  NVME_STATUS,
  put64,
  putCommand,
  QUEUE,
  STATUS_MASK,
} from "../../layouts/nvme/index.ts";
import type { CommandSlot } from "./command-slot.ts";
import type { SharedMemory } from "./descriptor-pool.ts";
import { commandFailed, requestFailed } from "./errors.ts";
import type { QueuePair } from "./queue-pair.ts";

export const ADMIN_ENTRIES = 32;
/** The deadline of a command that may take as long as it likes. */
const FOREVER: number = Number.MAX_SAFE_INTEGER;
/** Of the log pages that events name, as much as is the same for all. */
const LOG_BYTES = 512;
const ALL_NAMESPACES = 0xffff_ffff;

interface Answer {
  readonly status: number;
  readonly result: number;
}

interface AdminHost {
  /** Memory that CPU and device share. */
  share(length: number): SharedMemory;
  /** When a command that is sent now has run out of time. */
  deadline(): number;
  /** A command was sent that must be looked after. */
  watch(): void;
}

export class AdminQueue {
  readonly queue: QueuePair;
  readonly #host: AdminHost;
  readonly #waiting: (() => void)[] = [];

  constructor(queue: QueuePair, host: AdminHost) {
    this.queue = queue;
    this.#host = host;
  }

  /** Commands are in flight that must not take forever. */
  get busy(): boolean {
    return this.queue.slots.some((slot) => slot.inFlight && slot.deadlineMs !== FOREVER);
  }

  /**
   * Sends a command, and answers with dword 0 of its completion.
   *
   * @throws DmaError (rejects) ERR_DMA_NVME_STATUS (EIO), ERR_DMA_NVME_REQUEST (ETIMEDOUT) if the controller was stopped meanwhile
   */
  async command(opcode: number, namespace: number, fill: (command: DataView) => void): Promise<number> {
    const { status, result } = await this.#send(opcode, namespace, fill, this.#host.deadline());
    const code = status & STATUS_MASK;
    const name = `admin command 0x${opcode.toString(16)}`;
    if (code === NVME_STATUS.hostAborted) throw requestFailed(name, "timeout");
    if (code !== NVME_STATUS.success) throw commandFailed(name, status);
    return result;
  }

  /** 4096 bytes about the controller or a namespace. @throws as {@link command} */
  identify(what: number, namespace: number): Promise<Uint8Array> {
    return this.#withMemory(ADMIN.identify, namespace, (view) => view.setUint32(COMMAND.cdw10, what, true));
  }

  /** How many I/O queues the controller grants of `wanted`. @throws as {@link command} */
  async numberOfQueues(wanted: number): Promise<number> {
    const granted = await this.command(ADMIN.setFeatures, 0, (view) => {
      view.setUint32(COMMAND.cdw10, FEATURE.numberOfQueues, true);
      view.setUint32(COMMAND.cdw11, (wanted - 1) | ((wanted - 1) << 16), true);
    });
    return Math.min(wanted, (granted & 0xffff) + 1, (granted >>> 16) + 1);
  }

  /** Creates both rings of `queue`; without a vector its completions raise no interrupts. @throws as {@link command} */
  async createQueue(queue: QueuePair, vector: number | undefined): Promise<void> {
    const sizes = queue.id | ((queue.size - 1) << 16);
    const interrupts = vector === undefined ? 0 : QUEUE.interrupts | (vector << 16);
    await this.command(ADMIN.createCompletionQueue, 0, (view) => {
      put64(view, COMMAND.dataPointer, queue.completions.address);
      view.setUint32(COMMAND.cdw10, sizes, true);
      view.setUint32(COMMAND.cdw11, QUEUE.contiguous | interrupts, true);
    });
    await this.command(ADMIN.createSubmissionQueue, 0, (view) => {
      put64(view, COMMAND.dataPointer, queue.ring.address);
      view.setUint32(COMMAND.cdw10, sizes, true);
      view.setUint32(COMMAND.cdw11, QUEUE.contiguous | (queue.id << 16), true);
    });
    queue.live = true;
  }

  /** Deletes the queues, all submission queues first. @throws as {@link command} */
  async deleteQueues(queues: readonly QueuePair[]): Promise<void> {
    for (const opcode of [ADMIN.deleteSubmissionQueue, ADMIN.deleteCompletionQueue])
      for (const { id } of queues) await this.command(opcode, 0, (view) => view.setUint32(COMMAND.cdw10, id, true));
  }

  /** Asks for a command to be given up. It ends as ever, maybe sooner. @throws as {@link command} */
  abort(slot: CommandSlot): Promise<number> {
    const cdw10 = slot.queue.id | (slot.id << 16);
    return this.command(ADMIN.abort, 0, (view) => view.setUint32(COMMAND.cdw10, cdw10, true));
  }

  /** Waits for an event of the controller, however long; undefined if it cannot be waited for any more. */
  async event(): Promise<number | undefined> {
    const { status, result } = await this.#send(ADMIN.asyncEvent, 0, () => {}, FOREVER);
    return (status & STATUS_MASK) === NVME_STATUS.success ? result : undefined;
  }

  /** Reads a log page, which lets the next event of its kind come. @throws as {@link command} */
  readLog(page: number): Promise<Uint8Array> {
    return this.#withMemory(ADMIN.getLogPage, ALL_NAMESPACES, (view) =>
      view.setUint32(COMMAND.cdw10, page | ((LOG_BYTES / 4 - 1) << 16), true),
    );
  }

  async #withMemory(opcode: number, namespace: number, fill: (command: DataView) => void): Promise<Uint8Array> {
    const memory = this.#host.share(IDENTIFY_BYTES);
    try {
      await this.command(opcode, namespace, (view) => {
        put64(view, COMMAND.dataPointer, memory.address);
        fill(view);
      });
      return memory.bytes.slice(0, IDENTIFY_BYTES);
    } finally {
      memory.free();
    }
  }

  async #send(
    opcode: number,
    namespace: number,
    fill: (command: DataView) => void,
    deadlineMs: number,
  ): Promise<Answer> {
    const { queue } = this;
    let free = queue.acquire();
    while (!free) {
      await new Promise<void>((resolve) => void this.#waiting.push(resolve));
      free = queue.acquire();
    }
    const slot = free;
    if (!queue.live) {
      this.#release(slot);
      return { status: NVME_STATUS.hostAborted, result: 0 };
    }
    return new Promise((resolve) => {
      slot.end = (ended, status, result) => {
        this.#release(ended);
        resolve({ status, result });
      };
      putCommand(queue.command, 0, opcode, namespace, slot.id);
      fill(queue.command);
      queue.push(slot, deadlineMs);
      queue.ringDoorbell();
      if (deadlineMs !== FOREVER) this.#host.watch();
    });
  }

  #release(slot: CommandSlot): void {
    this.queue.release(slot);
    this.#waiting.shift()?.();
  }
}
