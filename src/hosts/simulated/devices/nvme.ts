/**
 * A simulated NVMe controller: registers, queues, commands and their data, as hardware does it.
 *
 * Idea: it knows the driver only by what the driver writes into registers and memory, and reaches memory only through its port, so
 * that the IOMMU, the bus and everything else on the way is as real for it as for any device. What a driver does wrong gets the
 * status that the specification gives it; what must not happen at all, a queue entry that cannot be fetched, is a fatal
 * status. Work is done by the clock, never inside a register write.
 * Promises: no exception for anything a driver may do.
 * Not for: what a device does inside; service times are given.
 * Specified by: NVM Express base specification 2.0; NVM Express over PCIe transport specification 1.0.
 */
import type { DmaAddr } from "../../../base/index.ts";
import {
  COMMAND,
  COMMAND_BYTES,
  COMPLETION_BYTES,
  COMPLETION_ENTRY_SHIFT,
  CONFIGURATION,
  CONTROLLER_PAGE,
  completionDoorbell,
  DO_NOT_RETRY,
  ERROR_EVENT,
  EVENT,
  encodeCapabilities,
  encodeCmb,
  eventResult,
  LOG_PAGE,
  NVME_STATUS,
  putCompletion,
  REGISTER,
  SGL_SUPPORT,
  STATUS_REGISTER,
  SUBMISSION_ENTRY_SHIFT,
  versionOf,
  viewOf,
} from "../../../layouts/nvme/index.ts";
import type { Clock } from "../../../platform/index.ts";
import { type BarModel, type DeviceModel, type DevicePort, registerTarget } from "../device.ts";
import { notPlugged } from "../errors.ts";
import { AdminCommands } from "./nvme-admin.ts";
import type { DmaPort } from "./nvme-data.ts";
import type { FaultPlan, NvmeFault } from "./nvme-faults.ts";
import { IoCommands } from "./nvme-io.ts";
import { Namespace, type NamespaceOptions } from "./nvme-namespace.ts";
import { type Completion, CompletionQueue, SubmissionQueue } from "./nvme-queues.ts";

export interface NvmeOptions {
  readonly namespaces: readonly NamespaceOptions[];
  readonly vectors?: number;
  /** I/O queues of each kind; 8 unless said. */
  readonly ioQueues?: number;
  /** Entries of the largest I/O queue; 1024 unless said. */
  readonly maxQueueEntries?: number;
  /** Longest transfer: 2^n pages of 4 KiB; 0, the default, is no limit. */
  readonly maxTransferShift?: number;
  /** SGLS: byte-aligned SGLs, also for metadata, unless said. */
  readonly sgls?: number;
  readonly doorbellStride?: number;
  /** Smallest memory page: 4 KiB shifted left by this. */
  readonly minPageShift?: number;
  /** Memory of its own that others may use; none unless said. */
  readonly cmbBytes?: number;
  /** What it may be used for; everything unless said. */
  readonly cmbUses?: { readonly submissionQueues?: boolean; readonly readData?: boolean; readonly writeData?: boolean };
  /** From enabled to ready; 1 ms unless said. */
  readonly readyMs?: number;
  /** From fetched to done; 0.02 ms unless said. */
  readonly serviceMs?: number;
  readonly serialNumber?: string;
  readonly modelNumber?: string;
  readonly faults?: FaultPlan;
}

/** The BAR that the controller memory buffer is in. */
export const CMB_BAR = 4;
/** Granularity of the buffer's size. */
const CMB_UNIT = CONTROLLER_PAGE;

export class NvmeController implements DeviceModel {
  readonly vendorId = 0x1b36;
  readonly deviceId = 0x0010;
  /** Mass storage, non-volatile memory, NVM Express. */
  readonly classCode = 0x01_0802;
  readonly bars: readonly BarModel[];
  readonly options: NvmeOptions;
  readonly namespaces: Map<number, Namespace> = new Map();
  readonly submissionQueues: Map<number, SubmissionQueue> = new Map();
  readonly completionQueues: Map<number, CompletionQueue> = new Map();
  /** The controller memory buffer; empty without. */
  readonly cmb: Uint8Array;
  readonly vectors: number;
  readonly sgls: number;
  commands = 0;
  completions = 0;
  /** May be changed at any time. */
  faults: FaultPlan | undefined;

  readonly #port: DmaPort;
  #plug: DevicePort | undefined;
  readonly #admin: AdminCommands;
  readonly #io: IoCommands;
  #configuration = 0;
  #status = 0;
  #interruptMask = 0;
  #adminSizes = 0;
  readonly #adminBases = new Uint32Array(4);
  #cmbControl = 0;
  #cmbAddress = 0;
  readonly #eventRequests: { queue: SubmissionQueue; id: number }[] = [];
  readonly #events: number[] = [];

  constructor(options: NvmeOptions) {
    this.options = options;
    options.namespaces.forEach((namespace, i) => void this.namespaces.set(i + 1, new Namespace(i + 1, namespace)));
    this.cmb = new Uint8Array(options.cmbBytes ?? 0);
    this.vectors = options.vectors ?? (options.ioQueues ?? 8) + 1;
    this.sgls = options.sgls ?? SGL_SUPPORT.byteAligned | SGL_SUPPORT.metadata;
    this.faults = options.faults;
    this.#port = {
      read: (address, into) =>
        this.#inside(address, into.length, (own) => into.set(own)) || this.#plugged.read(address, into),
      write: (address, from) =>
        this.#inside(address, from.length, (own) => own.set(from)) || this.#plugged.write(address, from),
    };
    this.bars = this.#makeBars();
    this.#admin = new AdminCommands(this, this.#port);
    this.#io = new IoCommands({
      port: this.#port,
      namespaces: this.namespaces,
      sgls: this.sgls,
      maxTransferBytes: this.maxTransferBytes,
      mayHoldData: (address, access) => {
        const { readData = true, writeData = true } = options.cmbUses ?? {};
        return !this.#inCmb(address, 1) || (access === "read" ? readData : writeData);
      },
    });
  }

  plugged(port: DevicePort): void {
    this.#plug = port;
  }

  get maxQueueEntries(): number {
    return this.options.maxQueueEntries ?? 1024;
  }

  get ioQueues(): number {
    return this.options.ioQueues ?? 8;
  }

  get maxTransferBytes(): number {
    const shift = this.options.maxTransferShift ?? 0;
    return shift === 0 ? Number.MAX_SAFE_INTEGER : 2 ** shift * CONTROLLER_PAGE;
  }

  get ready(): boolean {
    return (this.#status & STATUS_REGISTER.ready) !== 0;
  }

  get fatal(): boolean {
    return (this.#status & STATUS_REGISTER.fatal) !== 0;
  }

  readRegister(offset: number): number {
    switch (offset) {
      case REGISTER.capabilities:
      case REGISTER.capabilitiesHigh:
        return encodeCapabilities({
          maxQueueEntries0: this.maxQueueEntries - 1,
          contiguousQueuesRequired: true,
          timeout500Ms: 20,
          doorbellStride: this.options.doorbellStride ?? 0,
          minPageShift: this.options.minPageShift ?? 0,
          maxPageShift: Math.max(4, this.options.minPageShift ?? 0),
          controllerMemoryBuffer: this.cmb.length > 0,
          readyTimeouts: false,
        })[offset === REGISTER.capabilities ? 0 : 1];
      case REGISTER.version:
        return versionOf(2, 0);
      case REGISTER.interruptMaskSet:
      case REGISTER.interruptMaskClear:
        return this.#interruptMask;
      case REGISTER.configuration:
        return this.#configuration;
      case REGISTER.status:
        return this.#status;
      case REGISTER.adminQueueSizes:
        return this.#adminSizes;
      case REGISTER.cmbLocation:
      case REGISTER.cmbSize:
        return this.#cmbRegisters()[offset === REGISTER.cmbLocation ? 0 : 1];
      case REGISTER.cmbControl:
        return (this.#cmbControl | (this.#cmbAddress & 0xffff_f000)) >>> 0;
      case REGISTER.cmbControl + 4:
        return Math.floor(this.#cmbAddress / 2 ** 32);
      default: {
        const base = (offset - REGISTER.adminSubmissionQueue) / 4;
        return base >= 0 && base < 4 ? this.#adminBases[base]! : 0;
      }
    }
  }

  writeRegister(offset: number, value: number): void {
    if (offset >= REGISTER.doorbells) {
      this.#doorbell(offset, value);
      return;
    }
    switch (offset) {
      case REGISTER.interruptMaskSet:
        this.#interruptMask |= value;
        return;
      case REGISTER.interruptMaskClear:
        this.#interruptMask &= ~value;
        return;
      case REGISTER.configuration:
        this.#configure(value);
        return;
      case REGISTER.adminQueueSizes:
        this.#adminSizes = value;
        return;
      case REGISTER.cmbControl:
        this.#cmbControl = value & 3;
        this.#cmbAddress = Math.floor(this.#cmbAddress / 2 ** 32) * 2 ** 32 + ((value & 0xffff_f000) >>> 0);
        return;
      case REGISTER.cmbControl + 4:
        this.#cmbAddress = value * 2 ** 32 + (this.#cmbAddress % 2 ** 32);
        return;
      default: {
        const base = (offset - REGISTER.adminSubmissionQueue) / 4;
        if (base >= 0 && base < 4) this.#adminBases[base] = value;
      }
    }
  }

  /** As after power-on. */
  reset(): void {
    this.#dropQueues();
    this.#configuration = 0;
    this.#status = 0;
    this.#cmbControl = 0;
    this.#cmbAddress = 0;
  }

  /** Tells the driver that something happened, if it asked to be told. */
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

  #sendEvents(): void {
    while (this.#events.length > 0 && this.#eventRequests.length > 0) {
      const { queue, id } = this.#eventRequests.shift()!;
      queue.outstanding.delete(id);
      this.complete(queue, id, NVME_STATUS.success, this.#events.shift()!);
    }
  }

  /** Puts a completion into its queue, or holds it until there is room. */
  complete(queue: SubmissionQueue, id: number, status: number, result: number): void {
    const completion: Completion = { queue, id, status, result };
    if (queue.completions.full || queue.completions.held.length > 0) queue.completions.held.push(completion);
    else this.#post(completion);
  }

  #post({ queue, id, status, result }: Completion): void {
    const { completions } = queue;
    const bytes = new Uint8Array(COMPLETION_BYTES);
    putCompletion(viewOf(bytes), 0, {
      result,
      submissionHead: queue.head,
      submissionQueue: queue.id,
      id,
      status: mayHelp(status) ? status : status | DO_NOT_RETRY,
      phase: completions.phase,
    });
    if (!this.#port.write((completions.base + completions.tail * COMPLETION_BYTES) as DmaAddr, bytes)) {
      this.#fail();
      return;
    }
    this.completions++;
    completions.tail = (completions.tail + 1) % completions.size;
    if (completions.tail === 0) completions.phase ^= 1;
    if (completions.vector >= 0) this.#plugged.interrupt(completions.vector);
  }

  #configure(value: number): void {
    const was = this.#configuration;
    this.#configuration = value;
    const enabled = (value & CONFIGURATION.enable) !== 0;
    if (enabled && (was & CONFIGURATION.enable) === 0) {
      this.#status = 0;
      this.#clock.after(this.options.readyMs ?? 1, () => {
        if ((this.#configuration & CONFIGURATION.enable) !== 0 && !this.ready) this.#start();
      });
    } else if (!enabled && (was & CONFIGURATION.enable) !== 0) {
      this.#dropQueues();
      this.#status &= ~(STATUS_REGISTER.ready | STATUS_REGISTER.fatal);
    }
    if ((value & CONFIGURATION.shutdownMask) !== 0 && (was & CONFIGURATION.shutdownMask) === 0) this.#shutDown();
  }

  #start(): void {
    const cc = this.#configuration;
    const [submission, completion] = [this.#adminBases[0]!, this.#adminBases[2]!];
    const sizesFit =
      ((cc >>> CONFIGURATION.submissionEntryAt) & 0xf) >= SUBMISSION_ENTRY_SHIFT &&
      ((cc >>> CONFIGURATION.completionEntryAt) & 0xf) >= COMPLETION_ENTRY_SHIFT;
    const pageShift = (cc >>> CONFIGURATION.pageShiftAt) & 0xf;
    const pagesFit = pageShift >= (this.options.minPageShift ?? 0) && pageShift <= 4;
    if (!sizesFit || !pagesFit || submission % CONTROLLER_PAGE !== 0 || completion % CONTROLLER_PAGE !== 0) {
      this.#fail();
      return;
    }
    const base = (index: number): number => this.#adminBases[index]! + this.#adminBases[index + 1]! * 2 ** 32;
    const completions = new CompletionQueue(0, base(2), ((this.#adminSizes >>> 16) & 0xfff) + 1, 0);
    completions.users = 1;
    this.completionQueues.set(0, completions);
    this.submissionQueues.set(0, new SubmissionQueue(0, base(0), (this.#adminSizes & 0xfff) + 1, completions));
    this.#status |= STATUS_REGISTER.ready;
  }

  /** Finishes what has been fetched, then says so. */
  #shutDown(): void {
    const poll = (): void => {
      const busy = [...this.submissionQueues.values()].some((queue) => queue.id > 0 && queue.outstanding.size > 0);
      if (busy) this.#clock.after(1, poll);
      else this.#status |= STATUS_REGISTER.shutdownComplete;
    };
    this.#clock.after(1, poll);
  }

  #dropQueues(): void {
    for (const queue of this.submissionQueues.values()) {
      for (const work of queue.outstanding.values()) work.cancel();
      queue.outstanding.clear();
    }
    this.submissionQueues.clear();
    this.completionQueues.clear();
    this.#eventRequests.length = 0;
    this.#events.length = 0;
  }

  /** Queue memory could not be reached: nothing goes on until a reset. */
  #fail(): void {
    this.#status |= STATUS_REGISTER.fatal;
  }

  #doorbell(offset: number, value: number): void {
    const index = (offset - REGISTER.doorbells) / (4 << (this.options.doorbellStride ?? 0));
    const id = index >>> 1;
    const queue = (index & 1) === 0 ? this.submissionQueues.get(id) : this.completionQueues.get(id);
    if (!queue || !Number.isInteger(index))
      this.raiseEvent(EVENT.error, ERROR_EVENT.invalidDoorbellRegister, LOG_PAGE.error);
    else if (value >= queue.size) this.raiseEvent(EVENT.error, ERROR_EVENT.invalidDoorbellValue, LOG_PAGE.error);
    else if (queue instanceof SubmissionQueue) {
      queue.tail = value;
      this.#clock.after(0, () => this.#fetch(queue));
    } else {
      queue.head = value;
      while (!queue.full && queue.held.length > 0) this.#post(queue.held.shift()!);
    }
  }

  #fetch(queue: SubmissionQueue): void {
    while (queue.head !== queue.tail && !this.fatal && this.submissionQueues.get(queue.id) === queue) {
      const bytes = new Uint8Array(COMMAND_BYTES);
      if (!this.#port.read((queue.base + queue.head * COMMAND_BYTES) as DmaAddr, bytes)) {
        this.#fail();
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
    const fault = this.faults?.({ queue: queue.id, opcode: command.getUint8(COMMAND.opcode), id });
    const extra = fault?.kind === "slow" || fault?.kind === "late" ? fault.ms : 0;
    const timer = this.#clock.after((this.options.serviceMs ?? 0.02) + extra, () =>
      this.#perform(queue, id, command, fault),
    );
    queue.outstanding.set(id, { cancel: () => fault?.kind !== "late" && timer.cancel() });
  }

  #perform(queue: SubmissionQueue, id: number, command: DataView, fault: NvmeFault | undefined): void {
    if (this.fatal) return;
    let status: number = NVME_STATUS.success;
    let result = 0;
    if (fault?.kind === "status") status = fault.status;
    else if (queue.id > 0) status = this.#io.execute(command, fault?.kind === "transfer-error");
    else {
      const answer = this.#admin.execute(queue, id, command);
      if (answer === undefined) return; // it is answered later
      ({ status, result } = answer);
    }
    queue.outstanding.delete(id);
    if (fault?.kind === "lost") return;
    if (fault?.kind === "wrong-id") this.complete(queue, fault.id, status, result);
    this.complete(queue, id, status, result);
    if (fault?.kind === "duplicate") this.complete(queue, id, status, result);
  }

  #inCmb(address: number, length: number): boolean {
    return (
      (this.#cmbControl & 2) !== 0 &&
      address >= this.#cmbAddress &&
      address + length <= this.#cmbAddress + this.cmb.length
    );
  }

  /** Does `use` with the controller's own memory, if [address, + length) lies there. */
  #inside(address: number, length: number, use: (own: Uint8Array) => void): boolean {
    if (!this.#inCmb(address, length)) return false;
    const at = address - this.#cmbAddress;
    use(this.cmb.subarray(at, at + length));
    return true;
  }

  #makeBars(): BarModel[] {
    const doorbells = completionDoorbell(this.ioQueues, this.options.doorbellStride ?? 0) + 4;
    const length = 2 ** Math.ceil(Math.log2(Math.max(doorbells, 2 * REGISTER.doorbells)));
    const target = registerTarget({
      read32: (offset) => this.readRegister(offset),
      write32: (offset, value) => this.writeRegister(offset, value),
    });
    const { cmb } = this;
    if (cmb.length === 0) return [{ index: 0, length, target }];
    const memory: BarModel["target"] = {
      read: (offset, into) => into.set(cmb.subarray(offset, offset + into.length)),
      write: (offset, from) => cmb.set(from, offset),
    };
    return [
      { index: 0, length, target },
      { index: CMB_BAR, length: cmb.length, target: memory },
    ];
  }

  get #plugged(): DevicePort {
    if (!this.#plug) throw notPlugged();
    return this.#plug;
  }

  get #clock(): Clock {
    return this.#plugged.clock;
  }

  #cmbRegisters(): readonly [number, number] {
    if (this.cmb.length === 0 || (this.#cmbControl & 1) === 0) return [0, 0];
    const { submissionQueues = true, readData = true, writeData = true } = this.options.cmbUses ?? {};
    return encodeCmb({
      bar: CMB_BAR,
      offsetUnits: 0,
      sizeUnits: this.cmb.length / CMB_UNIT,
      unitBytes: CMB_UNIT,
      submissionQueues,
      completionQueues: false,
      lists: false,
      readData,
      writeData,
    });
  }
}

/** May the same command succeed later? The driver made no mistake then. */
const mayHelp = (status: number): boolean =>
  status === NVME_STATUS.success ||
  status === NVME_STATUS.dataTransferError ||
  status === NVME_STATUS.internalError ||
  status === NVME_STATUS.abortRequested ||
  status === NVME_STATUS.abortedByQueueDeletion ||
  status === NVME_STATUS.unrecoveredRead;
