/**
 * The queue engine of the simulated NVMe controller: commands come in, are worked on, and completions go out.
 *
 * Idea: a doorbell only says that there is something; fetching, working and telling happen in the machine's time. Faults that
 * were planned are put in here, where every command passes.
 * Promises: completions are held while their queue is full, and none is lost; a driver that takes none gets no more commands done than
 * the queue has entries, so that what is held is bounded. Queue memory that cannot be reached stops it.
 * Specified by: NVM Express base specification 2.0, 3.3 and 5.2 (asynchronous events).
 */
import type { DmaAddr } from "../../../../base/index.ts";
import {
  COMMAND,
  COMMAND_BYTES,
  COMPLETION_BYTES,
  DO_NOT_RETRY,
  eventResult,
  get64,
  NVME_STATUS,
  putCompletion,
  viewOf,
} from "../../../../layouts/nvme/index.ts";
import type { DevicePort } from "../../device.ts";
import type { DmaPort } from "./data.ts";
import type { FaultPlan, NvmeFault } from "./faults.ts";
import { type AdminAnswer, type Completion, CompletionQueue, SubmissionQueue } from "./queues.ts";

interface EngineHost {
  /** The controller's way to memory, its own included. */
  readonly port: DmaPort;
  readonly plugged: DevicePort;
  /** From fetched to done. */
  readonly serviceMs: number;
  readonly fatal: boolean;
  /** Queue memory could not be reached. */
  fail(): void;
  /** Does an I/O command; its status. */
  doIo(command: DataView, broken: boolean): number;
  /** Does an admin command; `undefined` if it is answered later. */
  doAdmin(queue: SubmissionQueue, id: number, command: DataView): AdminAnswer | undefined;
}

export class QueueEngine {
  readonly submissionQueues: Map<number, SubmissionQueue> = new Map();
  readonly completionQueues: Map<number, CompletionQueue> = new Map();
  /** Fetched, and told, so far. */
  commands = 0;
  completions = 0;
  /** Doorbells of the driver, of either kind of queue; interrupts to it. */
  submissionDoorbells = 0;
  completionDoorbells = 0;
  interrupts = 0;
  faults: FaultPlan | undefined;
  readonly #host: EngineHost;
  readonly #eventRequests: { queue: SubmissionQueue; id: number }[] = [];
  readonly #events: number[] = [];

  constructor(host: EngineHost, faults: FaultPlan | undefined) {
    this.#host = host;
    this.faults = faults;
  }

  /** The admin queues are there. */
  start(submissionBase: number, submissionSize: number, completionBase: number, completionSize: number): void {
    const completions = new CompletionQueue(0, completionBase, completionSize, 0);
    completions.users = 1;
    this.completionQueues.set(0, completions);
    this.submissionQueues.set(0, new SubmissionQueue(0, submissionBase, submissionSize, completions));
  }

  /** Forgets all queues and what is in them, without completions. */
  drop(): void {
    for (const queue of this.submissionQueues.values()) {
      for (const work of queue.outstanding.values()) work.cancel();
      queue.outstanding.clear();
    }
    this.submissionQueues.clear();
    this.completionQueues.clear();
    this.#eventRequests.length = 0;
    this.#events.length = 0;
  }

  /** I/O commands are under way. */
  get busy(): boolean {
    return [...this.submissionQueues.values()].some((queue) => queue.id > 0 && queue.outstanding.size > 0);
  }

  /** The driver has moved the tail of a submission queue, or the head of a completion queue. */
  ring(queue: SubmissionQueue | CompletionQueue, value: number): void {
    if (queue instanceof SubmissionQueue) {
      this.submissionDoorbells++;
      queue.tail = value;
      this.#host.plugged.clock.after(0, () => this.#fetch(queue));
      return;
    }
    this.completionDoorbells++;
    queue.head = value;
    while (!queue.full && queue.held.length > 0) this.#post(queue.held.shift()!);
    for (const waiting of this.submissionQueues.values())
      if (waiting.completions === queue && waiting.head !== waiting.tail)
        this.#host.plugged.clock.after(0, () => this.#fetch(waiting));
  }

  /** Tells the driver that something happened, if it asked to be told; else as soon as it does. */
  raiseEvent(type: number, information: number, logPage: number): void {
    const result = eventResult(type, information, logPage);
    if (!this.#events.includes(result)) this.#events.push(result);
    this.#sendEvents();
  }

  /** An asynchronous event request: it stays until there is one. False if there are too many. */
  awaitEvent(queue: SubmissionQueue, id: number, limit: number): boolean {
    if (this.#eventRequests.length >= limit) return false;
    this.#eventRequests.push({ queue, id });
    this.#sendEvents();
    return true;
  }

  /** Puts a completion into its queue, or holds it until there is room. */
  complete(queue: SubmissionQueue, id: number, status: number, result: number): void {
    const completion: Completion = { queue, id, status, result };
    if (queue.completions.full || queue.completions.held.length > 0) queue.completions.held.push(completion);
    else this.#post(completion);
  }

  #sendEvents(): void {
    while (this.#events.length > 0 && this.#eventRequests.length > 0) {
      const { queue, id } = this.#eventRequests.shift()!;
      queue.outstanding.delete(id);
      this.complete(queue, id, NVME_STATUS.success, this.#events.shift()!);
    }
  }

  #post({ queue, id, status, result }: Completion): void {
    const { completions } = queue;
    const bytes = new Uint8Array(COMPLETION_BYTES);
    putCompletion(viewOf(bytes), 0, {
      result,
      submissionHead: queue.head,
      submissionQueue: queue.id,
      id,
      status: MAY_PASS.has(status) ? status : status | DO_NOT_RETRY,
      phase: completions.phase,
    });
    if (!this.#host.port.write((completions.base + completions.tail * COMPLETION_BYTES) as DmaAddr, bytes)) {
      this.#host.fail();
      return;
    }
    this.completions++;
    completions.tail = (completions.tail + 1) % completions.size;
    if (completions.tail === 0) completions.phase ^= 1;
    if (completions.vector < 0) return;
    this.interrupts++;
    this.#host.plugged.interrupt(completions.vector);
  }

  #fetch(queue: SubmissionQueue): void {
    const { held, size } = queue.completions;
    while (queue.head !== queue.tail && !this.#host.fatal && this.submissionQueues.get(queue.id) === queue) {
      if (held.length >= size) return; // until the driver has taken some
      const bytes = new Uint8Array(COMMAND_BYTES);
      if (!this.#host.port.read((queue.base + queue.head * COMMAND_BYTES) as DmaAddr, bytes)) {
        this.#host.fail();
        return;
      }
      queue.head = (queue.head + 1) % queue.size;
      this.commands++;
      this.#accept(queue, viewOf(bytes));
    }
  }

  #accept(queue: SubmissionQueue, command: DataView): void {
    const id = command.getUint16(COMMAND.id, true);
    if (queue.outstanding.has(id)) {
      this.complete(queue, id, NVME_STATUS.commandIdConflict, 0);
      return;
    }
    const fault = this.faults?.({
      queue: queue.id,
      opcode: command.getUint8(COMMAND.opcode),
      id,
      firstBlock: get64(command, COMMAND.firstBlock),
      blocks: command.getUint16(COMMAND.blocks0, true) + 1,
    });
    if (fault?.kind === "held") {
      queue.outstanding.set(id, { cancel() {} }); // nothing to stop: it is being done
      this.#perform(queue, id, command, fault);
      return;
    }
    const extra = fault?.kind === "slow" || fault?.kind === "late" ? fault.ms : 0;
    const { plugged, serviceMs } = this.#host;
    const timer = plugged.clock.after(serviceMs + extra, () => this.#perform(queue, id, command, fault));
    queue.outstanding.set(id, { cancel: () => fault?.kind !== "late" && timer.cancel() });
  }

  #perform(queue: SubmissionQueue, id: number, command: DataView, fault: NvmeFault | undefined): void {
    if (this.#host.fatal) return;
    let status: number = NVME_STATUS.success;
    let result = 0;
    if (fault?.kind === "status") status = fault.status;
    else if (queue.id > 0) status = this.#host.doIo(command, fault?.kind === "transfer-error");
    else {
      const answer = this.#host.doAdmin(queue, id, command);
      if (answer === undefined) return; // it is answered later
      ({ status, result } = answer);
    }
    if (fault?.kind === "held") {
      const timer = this.#host.plugged.clock.after(fault.ms, () => {
        queue.outstanding.delete(id);
        this.complete(queue, id, status, result);
      });
      queue.outstanding.set(id, timer);
      return;
    }
    queue.outstanding.delete(id);
    if (fault?.kind === "lost") return;
    if (fault?.kind === "wrong-id") this.complete(queue, fault.id, status, result);
    this.complete(queue, id, status, result);
    if (fault?.kind === "duplicate") this.complete(queue, id, status, result);
  }
}

/** Statuses after which the same command may succeed later: the driver made no mistake. */
const MAY_PASS: ReadonlySet<number> = new Set([
  NVME_STATUS.success,
  NVME_STATUS.dataTransferError,
  NVME_STATUS.internalError,
  NVME_STATUS.abortRequested,
  NVME_STATUS.abortedByQueueDeletion,
  NVME_STATUS.unrecoveredRead,
]);
