/**
 * The controller, from its driver's side: from reset to ready, admin commands, queues, time-outs, resets and the end.
 *
 * Idea: one path brings a controller up, the first time and after every reset. Whatever it was doing before is over when the
 * device is disabled and its bus mastering is off; only then do commands in flight end, each once, and their memory is unmapped.
 * Who sends I/O is told when the controller stops and when it goes on.
 * Promises: every wait ends. After removal or a failed reset everything ends with "offline".
 * Specified by: NVM Express base specification 2.0, 3.5 (initialisation) and 3.6 (shutdown); behaviour of Linux 7.2 NVMe driver.
 */
import type { Dma } from "../../dma/index.ts";
import {
  ADMIN,
  ALL_ONES,
  adminQueueSizes,
  type Capabilities,
  COMMAND,
  COMMAND_BYTES,
  COMPLETION_BYTES,
  CONFIGURATION,
  CONFIGURATION_4K,
  type ControllerIdentity,
  decodeCapabilities,
  decodeController,
  eventOf,
  FEATURE,
  IDENTIFY,
  IDENTIFY_BYTES,
  NVME_STATUS,
  put64,
  putCommand,
  QUEUE,
  REGISTER,
  readyTimeout500Ms,
  STATUS_MASK,
  STATUS_REGISTER,
  write64,
} from "../../layouts/nvme/index.ts";
import type { Clock, PciDevice, Registers, Timer } from "../../platform/index.ts";
import { type Cmb, cmbRing, enableCmb } from "./cmb.ts";
import type { CommandSlot } from "./command-slot.ts";
import type { SharedMemory } from "./descriptor-pool.ts";
import { closed, commandFailed, noController, notReady } from "./errors.ts";
import { type NvmeOptions, NvmeWarnings } from "./options.ts";
import { type CommandRing, hostRing, QueuePair } from "./queue-pair.ts";

const ADMIN_ENTRIES = 32;
const LARGEST_QUEUE = 1024;
const POLL_MS = 1;
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
  readonly timeoutMs: number;
  identity!: ControllerIdentity;
  cmb: Cmb | undefined = undefined;
  /** Bytes of it that queues lie in. */
  cmbTaken = 0;
  user: ControllerUser | undefined = undefined;
  state: "starting" | "live" | "resetting" | "dead" = "starting";
  readonly #dma: Dma;
  readonly #options: NvmeOptions;
  readonly #registers: Registers;
  readonly #undo: (() => void)[] = [];
  #capabilities!: Capabilities;
  #admin!: QueuePair;
  readonly #adminWaiting: (() => void)[] = [];
  #watch: Timer | undefined;
  #poll: Timer | undefined;
  #resetting: Promise<void> | undefined;

  private constructor(device: PciDevice, registers: Registers, dma: Dma, options: NvmeOptions) {
    this.device = device;
    this.#registers = registers;
    this.#dma = dma;
    this.#options = options;
    this.clock = options.clock;
    this.timeoutMs = options.timeoutMs ?? 30_000;
  }

  /** @throws DmaError ERR_DMA_NVME_ABSENT, ERR_DMA_NVME_NOT_READY (ENODEV), ERR_DMA_NVME_STATUS (EIO), or no memory */
  static async open(device: PciDevice, dma: Dma, options: NvmeOptions): Promise<Controller> {
    const registers = device.bar(0);
    if (!registers) throw noController(device.name, "it has no registers in BAR 0");
    if (registers.read32(REGISTER.status) === ALL_ONES)
      throw noController(device.name, "its status register reads all ones");
    const controller = new Controller(device, registers, dma, options);
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
    this.#readCapabilities();
    this.#admin = new QueuePair(0, ADMIN_ENTRIES, ...this.#rings(ADMIN_ENTRIES), ...this.#doorbells());
    this.#undo.push(this.device.onRemoved(() => this.#die()));
    if (this.device.vectors > 0) this.#undo.push(this.device.onInterrupt(0, () => this.#interrupt(this.#admin)));
    await this.#start();
    this.identity = decodeController(await this.#identify(IDENTIFY.controller, 0));
    if (this.#capabilities.controllerMemoryBuffer) this.cmb = enableCmb(this.device, this.#registers);
    await this.#makeQueues();
    this.state = "live";
    void this.#awaitEvents();
  }

  /** Longest transfer that the controller takes, bytes. */
  get maxTransferBytes(): number {
    const { maxTransferShift } = this.identity;
    return maxTransferShift === 0 ? Number.MAX_SAFE_INTEGER : 2 ** maxTransferShift * 4096;
  }

  /** Commands in flight on the I/O queues. */
  get inFlight(): number {
    return this.queues.reduce((sum, queue) => sum + queue.inFlight, 0);
  }

  /** Memory that CPU and device share, one piece for either. @throws DmaError */
  share(length: number): SharedMemory {
    return this.#dma.allocCoherent(length, { forceContiguous: true });
  }

  /** Identify data about `namespace`. */
  identify(what: number, namespace: number): Promise<Uint8Array> {
    return this.#identify(what, namespace);
  }

  /** A command was sent: somebody has to look after it. */
  watch(): void {
    const { clock } = this;
    this.#watch ??= clock.after(this.timeoutMs / 2, () => this.#look());
    if (this.device.vectors === 0) this.#poll ??= clock.after(this.#options.pollMs ?? 0.05, () => this.#pollQueues());
  }

  /** When a command that is sent now has run out of time. */
  deadline(): number {
    return this.clock.nowMs() + this.timeoutMs;
  }

  /** Asks the controller to give up a command. It ends as ever, maybe sooner. */
  abort(slot: CommandSlot): void {
    if (slot.aborting || !slot.inFlight || this.state !== "live") return;
    slot.aborting = true;
    const cdw10 = slot.queue.id | (slot.id << 16);
    this.command(ADMIN.abort, 0, (view) => view.setUint32(COMMAND.cdw10, cdw10, true)).catch(() => {});
  }

  /**
   * Stops the controller and starts it anew. Commands in flight end with `hostAborted` in between.
   *
   * @throws DmaError ERR_DMA_NVME_CLOSED (ENODEV) if it does not come back
   */
  reset(): Promise<void> {
    this.#resetting ??= this.#reset().finally(() => {
      this.#resetting = undefined;
    });
    return this.#resetting;
  }

  async #reset(): Promise<void> {
    if (this.state === "dead") throw closed(this.device.name);
    this.state = "resetting";
    this.warnings.resets++;
    const queues = [this.#admin, ...this.queues];
    const fresh: SharedMemory[] = [];
    try {
      // Taken before anything is unmapped: a device that does not let go must not meet them at addresses that it knows.
      for (const queue of queues) fresh.push(this.share(queue.size * COMPLETION_BYTES));
      await this.#stop();
      for (const queue of queues) queue.restart(fresh.shift()!);
      await this.#start();
      if (this.cmb) enableCmb(this.device, this.#registers);
      await this.#askForQueues(this.queues.length);
      for (const queue of this.queues) await this.#create(queue);
    } catch {
      for (const memory of fresh) memory.free();
      this.#die();
      throw closed(this.device.name);
    }
    this.state = "live";
    void this.#awaitEvents();
    this.user?.resume();
  }

  /** Nothing of the device moves any more when this resolves, and every command has ended. */
  async #stop(): Promise<void> {
    for (const queue of [this.#admin, ...this.queues]) queue.live = false;
    if (!this.device.removed)
      try {
        await this.#disable();
      } catch {
        await this.device.reset();
      }
    this.device.setBusMaster(false);
    this.#cancelAll();
  }

  #cancelAll(): void {
    this.#watch?.cancel();
    this.#poll?.cancel();
    this.#watch = undefined;
    this.#poll = undefined;
    for (const queue of this.queues) queue.cancelAll();
    this.#admin.cancelAll();
  }

  /** Every request must have ended. Queues are deleted, the controller shut down, all memory given back. */
  async close(): Promise<void> {
    if (this.state === "live")
      try {
        for (const { id } of this.queues) await this.#deleteQueue(ADMIN.deleteSubmissionQueue, id);
        for (const { id } of this.queues) await this.#deleteQueue(ADMIN.deleteCompletionQueue, id);
        await this.#shutDown();
      } catch {
        // It does not answer: it is stopped below all the same.
      }
    if (this.state !== "dead") {
      this.state = "dead";
      await this.#stop();
    }
    this.#free();
  }

  /** Sends an admin command. Rejects if its status is not success. */
  async command(opcode: number, namespace: number, fill: (command: DataView) => void): Promise<number> {
    const { status, result } = await this.#send(opcode, namespace, fill, this.deadline());
    if ((status & STATUS_MASK) !== NVME_STATUS.success)
      throw commandFailed(`admin command 0x${opcode.toString(16)}`, status);
    return result;
  }

  async #send(
    opcode: number,
    namespace: number,
    fill: (command: DataView) => void,
    deadlineMs: number,
  ): Promise<{ status: number; result: number }> {
    const queue = this.#admin;
    let slot = queue.acquire();
    while (!slot) {
      await new Promise<void>((resolve) => void this.#adminWaiting.push(resolve));
      slot = queue.acquire();
    }
    if (!queue.live) {
      queue.release(slot);
      return { status: NVME_STATUS.hostAborted, result: 0 };
    }
    const own = slot;
    return new Promise((resolve) => {
      own.end = (ended, status, result) => {
        queue.release(ended);
        this.#adminWaiting.shift()?.();
        resolve({ status, result });
      };
      putCommand(queue.command, 0, opcode, namespace, own.id);
      fill(queue.command);
      queue.push(own, deadlineMs);
      queue.ringDoorbell();
      if (deadlineMs !== FOREVER) this.watch();
    });
  }

  async #identify(what: number, namespace: number): Promise<Uint8Array> {
    const memory = this.share(IDENTIFY_BYTES);
    try {
      await this.command(ADMIN.identify, namespace, (view) => {
        put64(view, COMMAND.dataPointer, memory.address);
        view.setUint32(COMMAND.cdw10, what, true);
      });
      return memory.bytes.slice(0, IDENTIFY_BYTES);
    } finally {
      memory.free();
    }
  }

  #readCapabilities(): void {
    const { read32 } = { read32: (offset: number) => this.#registers.read32(offset) };
    this.#capabilities = decodeCapabilities(read32(REGISTER.capabilities), read32(REGISTER.capabilitiesHigh));
    if (this.#capabilities.minPageShift > 0)
      throw noController(this.device.name, `its smallest page is ${4096 << this.#capabilities.minPageShift} bytes`);
  }

  /** From anything to ready. */
  async #start(): Promise<void> {
    const registers = this.#registers;
    await this.#disable();
    this.device.setBusMaster(true);
    registers.write32(REGISTER.adminQueueSizes, adminQueueSizes(ADMIN_ENTRIES));
    write64(registers, REGISTER.adminSubmissionQueue, this.#admin.ring.address);
    write64(registers, REGISTER.adminCompletionQueue, this.#admin.completions.address);
    registers.write32(REGISTER.configuration, CONFIGURATION_4K);
    this.#readCapabilities();
    registers.write32(REGISTER.configuration, CONFIGURATION_4K | CONFIGURATION.enable);
    await this.#status(STATUS_REGISTER.ready, STATUS_REGISTER.ready);
    this.#admin.live = true;
  }

  async #disable(): Promise<void> {
    const registers = this.#registers;
    const configuration = registers.read32(REGISTER.configuration);
    if ((configuration & CONFIGURATION.enable) !== 0)
      registers.write32(REGISTER.configuration, (configuration & ~CONFIGURATION.enable) >>> 0);
    await this.#status(STATUS_REGISTER.ready, 0);
  }

  async #shutDown(): Promise<void> {
    const registers = this.#registers;
    const configuration = registers.read32(REGISTER.configuration) & ~CONFIGURATION.shutdownMask;
    registers.write32(REGISTER.configuration, (configuration | CONFIGURATION.shutdownNormal) >>> 0);
    await this.#status(STATUS_REGISTER.shutdownMask, STATUS_REGISTER.shutdownComplete);
  }

  /** Waits until the status register, as far as `mask` goes, is `value`. */
  async #status(mask: number, value: number): Promise<void> {
    const { timeout500Ms, readyTimeouts } = this.#capabilities;
    const units = readyTimeouts
      ? Math.max(timeout500Ms, readyTimeout500Ms(this.#registers.read32(REGISTER.readyTimeouts)))
      : timeout500Ms;
    const limitMs = (units + 1) * 500;
    const until = this.clock.nowMs() + limitMs;
    for (;;) {
      const status = this.#registers.read32(REGISTER.status);
      if (status === ALL_ONES) throw notReady(this.device.name, limitMs, status);
      if ((status & mask) === value) return;
      if (this.clock.nowMs() >= until) throw notReady(this.device.name, limitMs, status);
      await new Promise<void>((resolve) => void this.clock.after(POLL_MS, resolve));
    }
  }

  /** How many I/O queues the controller grants of `wanted`. */
  async #askForQueues(wanted: number): Promise<number> {
    const both = (wanted - 1) | ((wanted - 1) << 16);
    const granted = await this.command(ADMIN.setFeatures, 0, (view) => {
      view.setUint32(COMMAND.cdw10, FEATURE.numberOfQueues, true);
      view.setUint32(COMMAND.cdw11, both, true);
    });
    return Math.min(wanted, (granted & 0xffff) + 1, (granted >>> 16) + 1);
  }

  async #makeQueues(): Promise<void> {
    const { vectors } = this.device;
    const wanted = Math.max(1, this.#options.queues ?? Math.min(4, vectors - 1));
    const count = await this.#askForQueues(wanted);
    const depth = (this.#options.queueDepth ?? 127) + 1;
    const size = Math.max(2, Math.min(depth, this.#capabilities.maxQueueEntries0 + 1, LARGEST_QUEUE));
    for (let id = 1; id <= count; id++) {
      const [ring, completions] = this.#rings(size, id);
      const queue = new QueuePair(id, size, ring, completions, ...this.#doorbells());
      this.queues.push(queue);
      if (this.#vectorOf(queue) > 0)
        this.#undo.push(this.device.onInterrupt(this.#vectorOf(queue), () => this.#interrupt(queue)));
      await this.#create(queue);
    }
    // Queues that share the admin queue's vector are looked at with it.
  }

  /** The vector of a queue: its own, or that of the admin queue if there are too few. */
  #vectorOf(queue: QueuePair): number {
    return queue.id < this.device.vectors ? queue.id : 0;
  }

  async #create(queue: QueuePair): Promise<void> {
    const sizes = queue.id | ((queue.size - 1) << 16);
    const interrupts = this.device.vectors > 0 ? QUEUE.interrupts : 0;
    await this.command(ADMIN.createCompletionQueue, 0, (view) => {
      put64(view, COMMAND.dataPointer, queue.completions.address);
      view.setUint32(COMMAND.cdw10, sizes, true);
      view.setUint32(COMMAND.cdw11, QUEUE.contiguous | interrupts | (this.#vectorOf(queue) << 16), true);
    });
    await this.command(ADMIN.createSubmissionQueue, 0, (view) => {
      put64(view, COMMAND.dataPointer, queue.ring.address);
      view.setUint32(COMMAND.cdw10, sizes, true);
      view.setUint32(COMMAND.cdw11, QUEUE.contiguous | (queue.id << 16), true);
    });
    queue.live = true;
  }

  #deleteQueue(opcode: number, id: number): Promise<number> {
    return this.command(opcode, 0, (view) => view.setUint32(COMMAND.cdw10, id, true));
  }

  /** Rings of `size` entries; the submission ring in the controller's memory if that is wanted and there is room. */
  #rings(size: number, id = 0): [CommandRing, SharedMemory] {
    const completions = this.share(size * COMPLETION_BYTES);
    const { cmb } = this;
    const bytes = Math.ceil((size * COMMAND_BYTES) / 4096) * 4096;
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
    return [this.#registers, this.#capabilities.doorbellStride, this.warnings];
  }

  #interrupt(queue: QueuePair): void {
    queue.process();
    if (queue.id === 0) for (const each of this.queues) if (this.#vectorOf(each) === 0) each.process();
    this.#settle();
  }

  /** After completions: somebody may send more; and when nothing is in flight nobody has to look. */
  #settle(): void {
    if (this.state === "live") this.user?.resume();
    if (this.#watch && this.inFlight === 0 && !this.#adminBusy()) {
      this.#watch.cancel();
      this.#watch = undefined;
    }
  }

  #adminBusy(): boolean {
    return this.#admin.slots.some((slot) => slot.inFlight && slot.deadlineMs !== FOREVER);
  }

  #pollQueues(): void {
    this.#poll = undefined;
    this.#admin.process();
    for (const queue of this.queues) queue.process();
    this.#settle();
    if (this.state !== "dead" && (this.inFlight > 0 || this.#admin.inFlight > 0)) this.watch();
  }

  /** Looks for commands that have run out of time. */
  #look(): void {
    this.#watch = undefined;
    const now = this.clock.nowMs();
    for (const queue of [this.#admin, ...this.queues])
      for (const slot of queue.slots)
        if (slot.inFlight && slot.deadlineMs <= now && this.state !== "dead") this.#timedOut(queue, slot);
    if (this.state !== "dead" && (this.inFlight > 0 || this.#adminBusy())) this.watch();
  }

  #timedOut(queue: QueuePair, slot: CommandSlot): void {
    queue.process(); // it may be done, and only its interrupt was lost
    this.#settle();
    if (!slot.inFlight) return;
    this.warnings.timeouts++;
    const status = this.#registers.read32(REGISTER.status);
    if (status === ALL_ONES) {
      this.#die();
      return;
    }
    const again = slot.aborting || queue.id === 0 || (status & STATUS_REGISTER.fatal) !== 0;
    if (again) {
      if (this.state === "live") this.reset().catch(() => {});
      else if (this.state === "starting") queue.cancelAll();
      else this.#die();
      return;
    }
    slot.deadlineMs = this.deadline();
    this.abort(slot);
  }

  /** The controller is gone or lost. Bus mastering first, then every command ends. */
  #die(): void {
    if (this.state === "dead") return;
    this.state = "dead";
    this.device.setBusMaster(false);
    if (this.#admin) {
      for (const queue of [this.#admin, ...this.queues]) queue.live = false;
      this.#cancelAll();
    }
    this.user?.offline();
  }

  #free(): void {
    for (const undo of this.#undo) undo();
    this.#undo.length = 0;
    for (const queue of this.queues) queue.free();
    this.queues.length = 0;
    this.#admin?.free();
  }

  /** One asynchronous event request is always with the controller. */
  async #awaitEvents(): Promise<void> {
    while (this.state === "live") {
      const { status, result } = await this.#send(ADMIN.asyncEvent, 0, () => {}, FOREVER);
      if ((status & STATUS_MASK) !== NVME_STATUS.success || this.state !== "live") return;
      const event = eventOf(result);
      this.#options.onEvent?.(event);
      await this.#readLog(event.logPage).catch(() => {}); // reading it lets the next event of the kind come
    }
  }

  async #readLog(page: number): Promise<void> {
    const memory = this.share(IDENTIFY_BYTES);
    try {
      await this.command(ADMIN.getLogPage, 0xffff_ffff, (view) => {
        put64(view, COMMAND.dataPointer, memory.address);
        view.setUint32(COMMAND.cdw10, page | ((512 / 4 - 1) << 16), true);
      });
    } finally {
      memory.free();
    }
  }
}

/** The deadline of a command that may take as long as it likes. */
const FOREVER = Number.MAX_SAFE_INTEGER;
