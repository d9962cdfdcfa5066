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
import {
  COMPLETION_ENTRY_SHIFT,
  CONFIGURATION,
  CONTROLLER_PAGE,
  completionDoorbell,
  ERROR_EVENT,
  EVENT,
  encodeCapabilities,
  join64,
  LOG_PAGE,
  REGISTER,
  SGL_SUPPORT,
  STATUS_REGISTER,
  SUBMISSION_ENTRY_SHIFT,
  versionOf,
} from "../../../../layouts/nvme/index.ts";
import type { Clock, Timer } from "../../../../platform/index.ts";
import { type BarModel, type DeviceModel, type DevicePort, registerTarget } from "../../device.ts";
import { notPlugged } from "../../errors.ts";
import { AdminCommands } from "./admin.ts";
import { checkNvmeOptions } from "./checks.ts";
import { CMB_BAR, ControllerMemory } from "./cmb.ts";
import type { DmaPort } from "./data.ts";
import { QueueEngine } from "./engine.ts";
import type { FaultPlan } from "./faults.ts";
import { IoCommands } from "./io.ts";
import { Namespace } from "./namespace.ts";
import type { NvmeModelOptions } from "./options.ts";

/**
 * A simulated NVMe controller: registers, queues, PRP and SGL by DMA, features, events, a memory buffer, and faults as
 * planned. NVM Express base specification 2.0.
 */
export class NvmeController implements DeviceModel {
  readonly vendorId = 0x1b36;
  readonly deviceId = 0x0010;
  /** Mass storage, non-volatile memory, NVM Express. */
  readonly classCode = 0x01_0802;
  readonly bars: readonly BarModel[];
  /** As it was made. */
  readonly options: NvmeModelOptions;
  /** Its disks, by NSID. */
  readonly namespaces: Map<number, Namespace> = new Map();
  readonly vectors: number;
  /** SGL support, as Identify tells it (SGLS). */
  readonly sgls: number;
  /** What fetches commands and posts completions. */
  readonly engine: QueueEngine;
  readonly #memory: ControllerMemory;
  #plug: DevicePort | undefined;
  #configuration = 0;
  #status = 0;
  #interruptMask = 0;
  #adminSizes = 0;
  readonly #adminBases = new Uint32Array(4);
  #shutdown: Timer | undefined;

  /** @throws DmaError ERR_DMA_SIM_NVME (EINVAL) */
  constructor(options: NvmeModelOptions) {
    checkNvmeOptions(options);
    this.options = options;
    options.namespaces.forEach((namespace, i) => void this.namespaces.set(i + 1, new Namespace(i + 1, namespace)));
    const memory = new ControllerMemory(options.cmbBytes ?? 0, options.cmbUses);
    this.#memory = memory;
    this.vectors = options.vectors ?? this.ioQueues + 1;
    this.sgls = options.sgls ?? SGL_SUPPORT.byteAligned | SGL_SUPPORT.metadata;
    this.bars = this.#makeBars();
    const port: DmaPort = {
      read: (address, into) =>
        memory.inside(address, into.length, (own) => into.set(own)) || this.#plugged.read(address, into),
      write: (address, from) =>
        memory.inside(address, from.length, (own) => own.set(from)) || this.#plugged.write(address, from),
    };
    const { namespaces, sgls, maxTransferBytes } = this;
    const mayHoldData = memory.mayHoldData.bind(memory);
    const io = new IoCommands({ port, namespaces, sgls, maxTransferBytes, mayHoldData });
    const admin = new AdminCommands(this, port);
    const controller = this;
    this.engine = new QueueEngine(
      {
        port,
        serviceMs: options.serviceMs ?? 0.02,
        get plugged() {
          return controller.#plugged;
        },
        get fatal() {
          return controller.fatal;
        },
        fail: () => this.#fail(),
        doIo: (command, broken) => io.execute(command, broken),
        doAdmin: (queue, id, command) => admin.execute(queue, id, command),
      },
      options.faults,
    );
  }

  plugged(port: DevicePort): void {
    this.#plug = port;
  }

  /** Faults may be planned at any time. */
  get faults(): FaultPlan | undefined {
    return this.engine.faults;
  }

  /** The plan is asked for each command that is fetched from then on; undefined: nothing goes wrong. */
  set faults(plan: FaultPlan | undefined) {
    this.engine.faults = plan;
  }

  /** Commands fetched so far. */
  get commands(): number {
    return this.engine.commands;
  }

  /** The controller memory buffer; empty without. */
  get cmb(): Uint8Array {
    return this.#memory.bytes;
  }

  /** Entries of the longest queue (CAP.MQES + 1). */
  get maxQueueEntries(): number {
    return this.options.maxQueueEntries ?? 1024;
  }

  /** I/O queue pairs that it has. */
  get ioQueues(): number {
    return this.options.ioQueues ?? 8;
  }

  /** Longest transfer of one command, bytes (MDTS). */
  get maxTransferBytes(): number {
    const shift = this.options.maxTransferShift ?? 0;
    return shift === 0 ? Number.MAX_SAFE_INTEGER : 2 ** shift * CONTROLLER_PAGE;
  }

  /** CSTS.RDY: it takes commands. */
  get ready(): boolean {
    return (this.#status & STATUS_REGISTER.ready) !== 0;
  }

  /** CSTS.CFS: it stopped, and only a reset helps. */
  get fatal(): boolean {
    return (this.#status & STATUS_REGISTER.fatal) !== 0;
  }

  /** What 32 bits at byte `offset` of BAR 0 read as; 0 where the specification has no register. */
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
          maxPageShift: Math.max(LARGEST_PAGE_SHIFT, this.options.minPageShift ?? 0),
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
        return this.#memory.registers[offset === REGISTER.cmbLocation ? 0 : 1];
      case REGISTER.cmbControl:
        return this.#memory.controlLow;
      case REGISTER.cmbControl + 4:
        return this.#memory.controlHigh;
      default: {
        const base = (offset - REGISTER.adminSubmissionQueue) / 4;
        return base >= 0 && base < 4 ? this.#adminBases[base]! : 0;
      }
    }
  }

  /** A write of 32 bits at byte `offset` of BAR 0: settings take effect at once, a doorbell starts work. */
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
        this.#memory.controlLow = value;
        return;
      case REGISTER.cmbControl + 4:
        this.#memory.controlHigh = value;
        return;
      default: {
        const base = (offset - REGISTER.adminSubmissionQueue) / 4;
        if (base >= 0 && base < 4) this.#adminBases[base] = value;
      }
    }
  }

  /** As after power-on. */
  reset(): void {
    this.engine.drop();
    this.#shutdown?.cancel();
    this.#configuration = 0;
    this.#status = 0;
    this.#memory.reset();
  }

  isQuiet(): boolean {
    return this.engine.submissionQueues.size === 0;
  }

  scrub(): void {
    this.reset();
    this.cmb.fill(0);
  }

  #configure(value: number): void {
    const was = this.#configuration;
    this.#configuration = value;
    const enabled = (value & CONFIGURATION.enable) !== 0;
    if (enabled && (was & CONFIGURATION.enable) === 0) {
      this.#shutdown?.cancel();
      this.#status = 0;
      this.#clock.after(this.options.readyMs ?? 1, () => {
        if ((this.#configuration & CONFIGURATION.enable) !== 0 && !this.ready) this.#start();
      });
    } else if (!enabled && (was & CONFIGURATION.enable) !== 0) {
      this.engine.drop();
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
    const pagesFit = pageShift >= (this.options.minPageShift ?? 0) && pageShift <= LARGEST_PAGE_SHIFT;
    if (!sizesFit || !pagesFit || submission % CONTROLLER_PAGE !== 0 || completion % CONTROLLER_PAGE !== 0) {
      this.#fail();
      return;
    }
    const base = (index: number): number => join64(this.#adminBases[index]!, this.#adminBases[index + 1]!);
    this.engine.start(base(0), (this.#adminSizes & 0xfff) + 1, base(2), ((this.#adminSizes >>> 16) & 0xfff) + 1);
    this.#status |= STATUS_REGISTER.ready;
  }

  /** Finishes what has been fetched, then says so. */
  #shutDown(): void {
    const look = (): void => {
      if (this.engine.busy) this.#shutdown = this.#clock.after(1, look);
      else this.#status |= STATUS_REGISTER.shutdownComplete;
    };
    this.#shutdown = this.#clock.after(1, look);
  }

  /** Queue memory could not be reached: nothing goes on until a reset. */
  #fail(): void {
    this.#status |= STATUS_REGISTER.fatal;
  }

  #doorbell(offset: number, value: number): void {
    const { engine } = this;
    const index = (offset - REGISTER.doorbells) / (4 << (this.options.doorbellStride ?? 0));
    const queues = (index & 1) === 0 ? engine.submissionQueues : engine.completionQueues;
    const queue = Number.isInteger(index) ? queues.get(index >>> 1) : undefined;
    if (!queue) engine.raiseEvent(EVENT.error, ERROR_EVENT.invalidDoorbellRegister, LOG_PAGE.error);
    else if (value >= queue.size) engine.raiseEvent(EVENT.error, ERROR_EVENT.invalidDoorbellValue, LOG_PAGE.error);
    else engine.ring(queue, value);
  }

  #makeBars(): BarModel[] {
    const doorbells = completionDoorbell(this.ioQueues, this.options.doorbellStride ?? 0) + 4;
    const length = 2 ** Math.ceil(Math.log2(Math.max(doorbells, 2 * REGISTER.doorbells)));
    const target = registerTarget({
      read32: (offset) => this.readRegister(offset),
      write32: (offset, value) => this.writeRegister(offset, value),
    });
    const registers: BarModel = { index: 0, length, target };
    if (this.cmb.length === 0) return [registers];
    return [registers, { index: CMB_BAR, length: this.cmb.length, target: this.#memory.target }];
  }

  get #plugged(): DevicePort {
    if (!this.#plug) throw notPlugged();
    return this.#plug;
  }

  get #clock(): Clock {
    return this.#plugged.clock;
  }
}

/** Memory pages of 64 KiB, if a driver wants that. */
const LARGEST_PAGE_SHIFT = 4;
