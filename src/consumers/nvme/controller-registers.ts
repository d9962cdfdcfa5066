/**
 * The controller's registers, as its driver uses them: switched on, off, shut down, and every wait in between.
 *
 * Promises: a wait ends: with what was hoped for, when the device is gone (all ones), or when the controller has had all the time
 * that it asks for.
 * Specified by: NVM Express base specification 2.0, 3.1 and 3.5; behaviour of Linux 7.2 NVMe driver (waiting).
 */
import {
  ALL_ONES,
  adminQueueSizes,
  type Capabilities,
  CONFIGURATION,
  CONFIGURATION_4K,
  CONTROLLER_PAGE,
  decodeCapabilities,
  REGISTER,
  readyTimeout500Ms,
  STATUS_REGISTER,
  write64,
} from "../../layouts/nvme/index.ts";
import type { Clock, PciDevice, Registers } from "../../platform/index.ts";
import { noController, notReady } from "./errors.ts";

const POLL_MS = 1;

export class ControllerRegisters {
  readonly device: PciDevice;
  readonly registers: Registers;
  readonly #clock: Clock;
  #capabilities: Capabilities;

  /** @throws DmaError ERR_DMA_NVME_ABSENT (ENODEV) */
  constructor(device: PciDevice, clock: Clock) {
    const registers = device.bar(0);
    if (!registers) throw noController(device.name, "it has no registers in BAR 0");
    this.device = device;
    this.registers = registers;
    this.#clock = clock;
    if (this.status === ALL_ONES) throw noController(device.name, "its status register reads all ones");
    this.#capabilities = this.#readCapabilities();
  }

  get capabilities(): Capabilities {
    return this.#capabilities;
  }

  get status(): number {
    return this.registers.read32(REGISTER.status);
  }

  /** From enabled or not to disabled. @throws DmaError (rejects) ERR_DMA_NVME_NOT_READY (ENODEV) */
  async disable(): Promise<void> {
    const configuration = this.registers.read32(REGISTER.configuration);
    if ((configuration & CONFIGURATION.enable) !== 0)
      this.registers.write32(REGISTER.configuration, (configuration & ~CONFIGURATION.enable) >>> 0);
    await this.#until(STATUS_REGISTER.ready, 0);
  }

  /** From disabled to ready, with admin queues of `entries` each. @throws as {@link disable} */
  async enable(entries: number, submissionAddress: number, completionAddress: number): Promise<void> {
    const { registers } = this;
    registers.write32(REGISTER.adminQueueSizes, adminQueueSizes(entries));
    write64(registers, REGISTER.adminSubmissionQueue, submissionAddress);
    write64(registers, REGISTER.adminCompletionQueue, completionAddress);
    registers.write32(REGISTER.configuration, CONFIGURATION_4K);
    this.#capabilities = this.#readCapabilities(); // they may depend on what was chosen
    registers.write32(REGISTER.configuration, CONFIGURATION_4K | CONFIGURATION.enable);
    await this.#until(STATUS_REGISTER.ready, STATUS_REGISTER.ready);
  }

  /** The controller puts everything in order and says when it has. @throws as {@link disable} */
  async shutDown(): Promise<void> {
    const configuration = this.registers.read32(REGISTER.configuration) & ~CONFIGURATION.shutdownMask;
    this.registers.write32(REGISTER.configuration, (configuration | CONFIGURATION.shutdownNormal) >>> 0);
    await this.#until(STATUS_REGISTER.shutdownMask, STATUS_REGISTER.shutdownComplete);
  }

  /** Waits until the status register, as far as `mask` goes, is `value`. */
  async #until(mask: number, value: number): Promise<void> {
    const { timeout500Ms, readyTimeouts } = this.#capabilities;
    const units = readyTimeouts
      ? Math.max(timeout500Ms, readyTimeout500Ms(this.registers.read32(REGISTER.readyTimeouts)))
      : timeout500Ms;
    const limitMs = (units + 1) * 500;
    const end = this.#clock.nowMs() + limitMs;
    for (;;) {
      const { status } = this;
      if (status === ALL_ONES) throw notReady(this.device.name, limitMs, status);
      if ((status & mask) === value) return;
      if (this.#clock.nowMs() >= end) throw notReady(this.device.name, limitMs, status);
      await new Promise<void>((resolve) => void this.#clock.after(POLL_MS, resolve));
    }
  }

  #readCapabilities(): Capabilities {
    const { registers } = this;
    const low = registers.read32(REGISTER.capabilities);
    const capabilities = decodeCapabilities(low, registers.read32(REGISTER.capabilitiesHigh));
    const { minPageShift } = capabilities;
    if (minPageShift > 0)
      throw noController(this.device.name, `its smallest page is ${CONTROLLER_PAGE << minPageShift} bytes`);
    return capabilities;
  }
}
