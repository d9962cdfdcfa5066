/**
 * A simulated NVMe controller as a PCI function: what its driver holds.
 *
 * Idea: registers in BAR 0, the controller memory buffer in BAR 4, messages by vector, and a configuration space with what drivers
 * look at. Its DMA goes through the port that the machine gave it, and only while bus mastering is on.
 * Promises: after {@link SimulatedNvme.remove} reads answer all ones and nothing moves any more, except what a fault plan says.
 * Specified by: NVM Express over PCIe transport specification 1.0, chapter 3.
 */

import { ALL_ONES, completionDoorbell, viewOf } from "../../../layouts/nvme/index.ts";
import type { HostMemory, PciDevice, Registers } from "../../../platform/index.ts";
import { requesterId, requesterName } from "../../../platform/index.ts";
import { CMB_BAR, NvmeController, type NvmeOptions } from "./nvme.ts";
import type { DmaPort } from "./nvme-data.ts";

export interface SimulatedNvmeOptions extends Omit<NvmeOptions, "interrupt"> {
  /** `ssss:bb:dd.f`, or a requester id. */
  readonly requester: string | number;
  /** RAM for its driver's buffers. */
  readonly memory: HostMemory;
  /** Where its BARs are on the bus. */
  readonly registersAddress?: number;
  readonly cmbAddress?: number;
}

const CONFIG_BYTES = 256;
const COMMAND_REGISTER = 4;
const BUS_MASTER = 4;
const BAR_0 = 0x10;
const MEMORY_BAR_64 = 4;
/** Mass storage, non-volatile memory, NVM Express. */
const CLASS_CODE = 0x010802;

export class SimulatedNvme implements PciDevice {
  readonly name: string;
  readonly requester: number;
  readonly memory: HostMemory;
  readonly controller: NvmeController;
  readonly vectors: number;
  /** Messages that nobody listened to. */
  missedInterrupts = 0;
  readonly #config = viewOf(new Uint8Array(CONFIG_BYTES));
  readonly #registersLength: number;
  readonly #listeners = new Map<number, Set<() => void>>();
  readonly #onRemoved = new Set<() => void>();
  #removed = false;

  constructor(options: SimulatedNvmeOptions) {
    this.requester = typeof options.requester === "number" ? options.requester : requesterId(options.requester);
    this.name = requesterName(this.requester);
    this.memory = options.memory;
    const { port } = options;
    const gated: DmaPort = {
      read: (address, into) => this.busMaster && port.read(address, into),
      write: (address, from) => this.busMaster && port.write(address, from),
    };
    this.controller = new NvmeController({ ...options, port: gated, interrupt: (vector) => this.#interrupt(vector) });
    this.vectors = this.controller.vectors;
    const doorbells = completionDoorbell(this.controller.ioQueues, options.doorbellStride ?? 0) + 4;
    this.#registersLength = 2 ** Math.ceil(Math.log2(Math.max(doorbells, 8192)));
    this.#config.setUint32(0, 0x0010_1b36, true);
    this.#config.setUint32(8, CLASS_CODE * 256, true);
    this.#setBar(0, options.registersAddress ?? 0);
    if (this.controller.cmb.length > 0) this.#setBar(CMB_BAR, options.cmbAddress ?? 0);
  }

  /** It may start transfers. */
  get busMaster(): boolean {
    return !this.#removed && (this.#config.getUint16(COMMAND_REGISTER, true) & BUS_MASTER) !== 0;
  }

  get removed(): boolean {
    return this.#removed;
  }

  bar(index: number): Registers | undefined {
    const { controller } = this;
    if (index === 0)
      return {
        length: this.#registersLength,
        read32: (offset) => controller.readRegister(offset),
        write32: (offset, value) => controller.writeRegister(offset, value >>> 0),
      };
    if (index !== CMB_BAR || controller.cmb.length === 0) return undefined;
    const bytes = new Uint8Array(4);
    const view = viewOf(bytes);
    return {
      length: controller.cmb.length,
      read32: (offset) => (controller.readCmb(offset, bytes) ? view.getUint32(0, true) : ALL_ONES),
      write32: (offset, value) => {
        view.setUint32(0, value, true);
        controller.writeCmb(offset, bytes);
      },
    };
  }

  readConfig(offset: number, bytes: 1 | 2 | 4): number {
    if (this.#removed || offset + bytes > CONFIG_BYTES) return ALL_ONES >>> (32 - 8 * bytes);
    if (bytes === 1) return this.#config.getUint8(offset);
    return bytes === 2 ? this.#config.getUint16(offset, true) : this.#config.getUint32(offset, true);
  }

  /** Only the command register can be written: BARs stay where the machine put them. */
  writeConfig(offset: number, bytes: 1 | 2 | 4, value: number): void {
    if (this.#removed || offset !== COMMAND_REGISTER) return;
    this.#config.setUint16(COMMAND_REGISTER, bytes === 1 ? value & 0xff : value & 0xffff, true);
  }

  setBusMaster(on: boolean): void {
    const command = this.readConfig(COMMAND_REGISTER, 2);
    this.writeConfig(COMMAND_REGISTER, 2, on ? command | BUS_MASTER : command & ~BUS_MASTER);
  }

  onInterrupt(vector: number, callback: () => void): () => void {
    const listeners = this.#listeners.get(vector) ?? new Set();
    this.#listeners.set(vector, listeners);
    listeners.add(callback);
    return () => void listeners.delete(callback);
  }

  async reset(): Promise<void> {
    this.controller.reset();
    this.setBusMaster(false);
  }

  onRemoved(callback: () => void): () => void {
    this.#onRemoved.add(callback);
    return () => void this.#onRemoved.delete(callback);
  }

  /** It is pulled out, whatever it was doing. */
  remove(): void {
    if (this.#removed) return;
    this.#removed = true;
    this.controller.remove();
    for (const callback of [...this.#onRemoved]) callback();
  }

  #interrupt(vector: number): void {
    const listeners = this.#listeners.get(vector);
    if (!listeners?.size) this.missedInterrupts++;
    else for (const callback of [...listeners]) callback();
  }

  #setBar(index: number, address: number): void {
    const at = BAR_0 + 4 * index;
    this.#config.setUint32(at, (address >>> 0) | MEMORY_BAR_64, true);
    this.#config.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
  }
}
