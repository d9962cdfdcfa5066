/**
 * The controller, from its driver's side: brought up, reset, lost and closed, with the queues that live in between.
 *
 * Idea: one path brings a controller up, the first time and after every reset. Whatever it was doing before is over when the
 * device is disabled and its bus mastering is off; only then do commands in flight end, each once, and their memory is unmapped.
 * Who sends I/O is told when there is room again, and when it is over.
 * Promises: every wait ends. After removal or a failed reset everything ends with "offline".
 * Specified by: NVM Express base specification 2.0, 3.5 (initialisation) and 3.6 (shutdown); behaviour of Linux 7.2 NVMe driver.
 */
import type { Dma } from "../../dma/index.ts";
import {
  ALL_ONES,
  COMMAND_BYTES,
  COMPLETION_BYTES,
  CONTROLLER_PAGE,
  type ControllerIdentity,
  decodeController,
  eventOf,
  IDENTIFY,
  STATUS_REGISTER,
} from "../../layouts/nvme/index.ts";
import type { Clock, PciDevice, Registers } from "../../platform/index.ts";
import { ADMIN_ENTRIES, AdminQueue } from "./admin-queue.ts";
import { type Cmb, cmbRing, enableCmb } from "./cmb.ts";
import type { CommandSlot } from "./command-slot.ts";
import { ControllerRegisters } from "./controller-registers.ts";
import type { SharedMemory } from "./descriptor-pool.ts";
import { closed } from "./errors.ts";
import { type NvmeOptions, NvmeWarnings } from "./options.ts";
import { type CommandRing, hostRing, QueuePair } from "./queue-pair.ts";
import { Watchdog } from "./watchdog.ts";

const LARGEST_QUEUE = 1024;
const DEFAULT_QUEUES = 4;
const DEFAULT_DEPTH = 127;
const DEFAULT_TIMEOUT_MS = 30_000;
const DEFAULT_POLL_MS = 0.05;
/** A queue in the controller's memory is not worth fewer entries than this. */
const SMALLEST_CMB_QUEUE = 64;

/** Who sends I/O commands. */
export interface ControllerUser {
  /** Completions were taken, or the controller goes on after a reset: there may be room. */
  resume(): void;
  /** It is over: nothing will ever complete again. */
  offline(): void;
}

export class Controller {
  readonly device: PciDevice;
  readonly clock: Clock;
  readonly warnings: NvmeWarnings = new NvmeWarnings();
  readonly queues: QueuePair[] = [];
  #identity: ControllerIdentity | undefined;
  cmb: Cmb | undefined = undefined;
  /** Bytes of it that queues lie in. */
  cmbTaken = 0;
  user: ControllerUser | undefined = undefined;
  readonly #dma: Dma;
  readonly #options: NvmeOptions;
  readonly #registers: ControllerRegisters;
  readonly #timeoutMs: number;
  readonly #watchdog: Watchdog;
  readonly #admin: AdminQueue;
  readonly #undo: (() => void)[] = [];
  #state: "starting" | "live" | "resetting" | "dead" = "starting";
  #resetting: Promise<void> | undefined;

  private constructor(registers: ControllerRegisters, dma: Dma, options: NvmeOptions) {
    const { device } = registers;
    this.device = device;
    this.#registers = registers;
    this.#dma = dma;
    this.#options = options;
    this.clock = options.clock;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#watchdog = new Watchdog({
      clock: options.clock,
      timeoutMs: this.#timeoutMs,
      pollMs: device.vectors === 0 ? (options.pollMs ?? DEFAULT_POLL_MS) : undefined,
      busy: () => this.#state !== "dead" && (this.inFlight > 0 || this.#admin.busy),
      lookForDeadlines: () => this.#lookForDeadlines(),
      lookForCompletions: () => {
        for (const queue of this.#all) queue.process();
        this.#completionsTaken();
      },
    });
    const queue = new QueuePair(0, ADMIN_ENTRIES, ...this.#rings(ADMIN_ENTRIES, 0), ...this.#doorbells());
    this.#admin = new AdminQueue(queue, this);
  }

  /**
   * @throws DmaError (rejects) ERR_DMA_NVME_ABSENT, ERR_DMA_NVME_NOT_READY (ENODEV), ERR_DMA_NVME_STATUS (EIO),
   * ERR_DMA_NVME_REQUEST (ETIMEDOUT), or for lack of memory; nothing is held then
   */
  static async open(device: PciDevice, dma: Dma, options: NvmeOptions): Promise<Controller> {
    const controller = new Controller(new ControllerRegisters(device, options.clock), dma, options);
    try {
      await controller.#open();
    } catch (error) {
      controller.#die();
      controller.#free();
      throw error;
    }
    return controller;
  }

  async #open(): Promise<void> {
    const { device } = this;
    this.#undo.push(device.onRemoved(() => this.#die()));
    if (device.vectors > 0) this.#undo.push(device.onInterrupt(0, () => this.#interrupt(0)));
    await this.#start();
    this.#identity = decodeController(await this.identify(IDENTIFY.controller, 0));
    if (this.#registers.capabilities.controllerMemoryBuffer) this.cmb = enableCmb(device, this.#registers.registers);
    await this.#makeQueues();
    this.#goLive();
  }

  get identity(): ControllerIdentity {
    return this.#identity!; // an opened controller has said who it is
  }

  get state(): "starting" | "live" | "resetting" | "dead" {
    return this.#state;
  }

  /** Longest transfer that the controller takes, bytes. */
  get maxTransferBytes(): number {
    const { maxTransferShift } = this.identity;
    return maxTransferShift === 0 ? Number.MAX_SAFE_INTEGER : 2 ** maxTransferShift * CONTROLLER_PAGE;
  }

  /** Commands in flight on the I/O queues. */
  get inFlight(): number {
    let sum = 0;
    for (let i = 0; i < this.queues.length; i++) sum += this.queues[i]!.inFlight;
    return sum;
  }

  /** Memory that CPU and device share, one piece for either. @throws DmaError */
  share(length: number): SharedMemory {
    return this.#dma.allocCoherent(length, { forceContiguous: true });
  }

  /** Identify data about `namespace`. @throws as {@link AdminQueue.command} */
  identify(what: number, namespace: number): Promise<Uint8Array> {
    return this.#admin.identify(what, namespace);
  }

  /** A command was sent: somebody has to look after it. */
  watch(): void {
    this.#watchdog.watch();
  }

  /** When a command that is sent now has run out of time. */
  deadline(): number {
    return this.clock.nowMs() + this.#timeoutMs;
  }

  /** Asks the controller to give up a command. It ends as ever, maybe sooner. */
  abort(slot: CommandSlot): void {
    if (slot.aborting || !slot.inFlight || this.#state !== "live") return;
    slot.aborting = true;
    this.#admin.abort(slot).catch(() => {}); // then its time-out decides
  }

  /**
   * Stops the controller and starts it anew. Commands in flight end with `hostAborted` in between.
   *
   * @throws DmaError (rejects) ERR_DMA_NVME_CLOSED (ENODEV) if it does not come back
   */
  reset(): Promise<void> {
    this.#resetting ??= this.#reset().finally(() => {
      this.#resetting = undefined;
    });
    return this.#resetting;
  }

  /** Every request must have ended. Queues are deleted, the controller shut down, all memory given back. Cannot fail. */
  async close(): Promise<void> {
    await this.#resetting?.catch(() => {});
    if (this.#state === "live")
      try {
        await this.#admin.deleteQueues(this.queues);
        await this.#registers.shutDown();
      } catch {
        // It does not answer: it is stopped below all the same.
      }
    if (this.#state !== "dead") {
      this.#state = "dead";
      await this.#stop();
    }
    this.#free();
  }

  async #reset(): Promise<void> {
    if (this.#state === "dead") throw closed(this.device.name);
    this.#state = "resetting";
    this.warnings.resets++;
    const fresh: SharedMemory[] = [];
    try {
      // Taken before anything is unmapped: a device that does not let go must not meet them at addresses that it knows.
      for (const queue of this.#all) fresh.push(this.share(queue.size * COMPLETION_BYTES));
      await this.#stop();
      for (const queue of this.#all) queue.restart(fresh.shift()!);
      await this.#start();
      if (this.cmb) enableCmb(this.device, this.#registers.registers);
      await this.#admin.numberOfQueues(this.queues.length);
      for (const queue of this.queues) await this.#admin.createQueue(queue, this.#vectorOf(queue));
      this.#goLive();
    } catch {
      for (const memory of fresh) memory.free();
      this.#die();
      throw closed(this.device.name);
    }
    this.user?.resume();
  }

  /** From anything to ready for admin commands. */
  async #start(): Promise<void> {
    const { queue } = this.#admin;
    await this.#registers.disable();
    this.device.setBusMaster(true);
    await this.#registers.enable(ADMIN_ENTRIES, queue.ring.address, queue.completions.address);
    queue.live = true;
  }

  #goLive(): void {
    if (this.#state === "dead") throw closed(this.device.name);
    this.#state = "live";
    void this.#hearEvents();
  }

  /** Nothing of the device moves any more when this resolves, and every command has ended. */
  async #stop(): Promise<void> {
    for (const queue of this.#all) queue.live = false;
    if (!this.device.removed) await this.#registers.disable().catch(() => this.device.reset());
    this.device.setBusMaster(false);
    this.#endCommands();
  }

  /** The controller is gone or lost. Bus mastering first, then every command ends. */
  #die(): void {
    if (this.#state === "dead") return;
    this.#state = "dead";
    for (const queue of this.#all) queue.live = false;
    this.device.setBusMaster(false);
    this.#endCommands();
    this.user?.offline();
  }

  #endCommands(): void {
    this.#watchdog.stop();
    for (const queue of this.#all) queue.cancelAll();
  }

  #free(): void {
    for (const undo of this.#undo) undo();
    this.#undo.length = 0;
    for (const queue of this.#all) queue.free();
    this.queues.length = 0;
  }

  get #all(): readonly QueuePair[] {
    return [this.#admin.queue, ...this.queues];
  }

  async #makeQueues(): Promise<void> {
    const { queues = Math.min(DEFAULT_QUEUES, this.device.vectors - 1), queueDepth = DEFAULT_DEPTH } = this.#options;
    const count = await this.#admin.numberOfQueues(Math.max(1, queues));
    const entries = this.#registers.capabilities.maxQueueEntries0 + 1;
    const size = Math.max(2, Math.min(queueDepth + 1, entries, LARGEST_QUEUE));
    for (let id = 1; id <= count; id++) {
      const queue = new QueuePair(id, size, ...this.#rings(size, id), ...this.#doorbells());
      this.queues.push(queue);
      const vector = this.#vectorOf(queue);
      if (vector) this.#undo.push(this.device.onInterrupt(vector, () => this.#interrupt(vector)));
      await this.#admin.createQueue(queue, vector);
    }
  }

  /** A queue's own vector, or the admin queue's if there are too few; undefined if there are none. */
  #vectorOf({ id }: QueuePair): number | undefined {
    const { vectors } = this.device;
    if (vectors === 0) return undefined;
    return id < vectors ? id : 0;
  }

  /** Rings of `size` entries; the submission ring in the controller's memory if that is wanted and there is room. */
  #rings(size: number, id: number): [CommandRing, SharedMemory] {
    const completions = this.share(size * COMPLETION_BYTES);
    const { cmb } = this;
    const bytes = Math.ceil((size * COMMAND_BYTES) / CONTROLLER_PAGE) * CONTROLLER_PAGE;
    const wanted = this.#options.submissionQueuesInCmb && id > 0 && size >= SMALLEST_CMB_QUEUE;
    if (wanted && cmb?.submissionQueues && this.cmbTaken + bytes <= cmb.length) {
      this.cmbTaken += bytes;
      return [cmbRing(cmb, this.cmbTaken - bytes), completions];
    }
    try {
      return [hostRing(this.share(size * COMMAND_BYTES)), completions];
    } catch (error) {
      completions.free();
      throw error;
    }
  }

  #doorbells(): [Registers, number, NvmeWarnings] {
    const { registers, capabilities } = this.#registers;
    return [registers, capabilities.doorbellStride, this.warnings];
  }

  #interrupt(vector: number): void {
    if (vector > 0) this.queues[vector - 1]?.process();
    else for (const queue of this.#all) if (queue.id === 0 || this.#vectorOf(queue) === 0) queue.process();
    this.#completionsTaken();
  }

  /** Somebody may send more now; and when nothing is in flight nobody has to look. */
  #completionsTaken(): void {
    if (this.#state === "live") this.user?.resume();
    this.#watchdog.rest();
  }

  #lookForDeadlines(): void {
    const now = this.clock.nowMs();
    for (const queue of this.#all)
      for (const slot of queue.slots) if (slot.inFlight && slot.deadlineMs <= now) this.#timedOut(queue, slot);
  }

  #timedOut(queue: QueuePair, slot: CommandSlot): void {
    const { id } = slot;
    queue.process(); // it may be done, and only its interrupt was lost
    this.#completionsTaken();
    if (!slot.inFlight || slot.id !== id) return;
    this.warnings.timeouts++;
    const { status } = this.#registers;
    if (status === ALL_ONES || (this.#state !== "live" && queue.id === 0)) this.#die();
    else if (slot.aborting || queue.id === 0 || (status & STATUS_REGISTER.fatal) !== 0) this.reset().catch(() => {});
    else {
      slot.deadlineMs = this.deadline();
      this.abort(slot);
    }
  }

  /** One asynchronous event request is always with the controller. */
  async #hearEvents(): Promise<void> {
    while (this.#state === "live") {
      const result = await this.#admin.event();
      if (result === undefined || this.#state !== "live") return;
      const event = eventOf(result);
      try {
        this.#options.onEvent?.(event);
      } catch {
        this.warnings.callbacks++; // its own affair: the next event is heard all the same
      }
      await this.#admin.readLog(event.logPage).catch(() => {});
    }
  }
}
