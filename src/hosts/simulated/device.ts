/**
 * A device in a slot of a simulated machine: what its driver sees on one side, what the device itself can do on the other.
 *
 * Idea: a *model* says what a kind of device is: its identity, its BARs, what its registers do. Plugged in, it gets a
 * *port*: reads and writes of memory through the fabric, interrupts, time, chance. Its driver gets a {@link PciDevice} and
 * nothing else. Promises: once the device is gone, reads of its registers answer all ones and writes do nothing.
 */
import type { DmaAddr, Random } from "../../base/index.ts";
import type { Clock, HostMemory, PciDevice, Registers } from "../../platform/index.ts";
import type { Fabric } from "./fabric.ts";
import type { RegionTarget } from "./memory.ts";
import type { SimulatedPciNode } from "./pci.ts";

/** The memory behind a BAR. */
export interface BarModel {
  /** 0 to 5; each is a BAR of 64 bits, which takes the next index too. */
  readonly index: number;
  /** Bytes: a power of two from 4096 on. */
  readonly length: number;
  /** What an access to it does. */
  readonly target: RegionTarget;
}

/** What a kind of device is. */
export interface DeviceModel {
  /** Vendor in its configuration space, 16 bits. */
  readonly vendorId: number;
  /** Device in its configuration space, 16 bits. */
  readonly deviceId: number;
  /** Class, subclass, programming interface: 24 bits. */
  readonly classCode: number;
  /** Its memory BARs. */
  readonly bars: readonly BarModel[];
  /** Interrupt vectors. */
  readonly vectors: number;
  /** The device is in a slot and may begin. */
  plugged(port: DevicePort): void;
  /** Function-level reset: no transfer of before may follow. */
  reset(): void;
  /** No transfer is under way, and none begins by itself. Default: always so. */
  isQuiet?(): boolean;
  /** Reset, and what anybody brought into the memory of the device is gone. Default: {@link DeviceModel.reset}. */
  scrub?(): void;
}

/** What a device can do. */
export interface DevicePort {
  /** What it puts on the bus as its own name. */
  readonly requester: number;
  /** The machine's time. */
  readonly clock: Clock;
  /** Its own stream of chance. */
  readonly random: Random;
  /** Fills `into` from `address`; false if a page was refused. `pasid` unless -1. */
  read(address: DmaAddr, into: Uint8Array, pasid?: number): boolean;
  /** Puts `from` at `address`; false if a page was refused, and then the pages before it are written. */
  write(address: DmaAddr, from: Uint8Array, pasid?: number): boolean;
  /**
   * Sends the message of interrupt `vector`, counted from 0. Lost where the device may not start requests, is gone, or
   * lacks it.
   */
  interrupt(vector: number): void;
}

/** A BAR with plain memory behind it: a buffer of the device that peers can use. */
export function memoryTarget(length: number): RegionTarget & {
  /** The bytes themselves. */
  readonly bytes: Uint8Array;
} {
  const bytes = new Uint8Array(length);
  return {
    bytes,
    read: (offset, into) => into.set(bytes.subarray(offset, offset + into.length)),
    write: (offset, from) => bytes.set(from, offset),
  };
}

/** A BAR with registers of 32 bits behind it. Accesses are made of whole registers; others read all ones and do nothing. */
export function registerTarget(registers: {
  read32(offset: number): number;
  write32(offset: number, value: number): void;
}): RegionTarget {
  const isWhole = (offset: number, { length }: Uint8Array): boolean => offset % 4 === 0 && length % 4 === 0;
  const view = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView =>
    new DataView(buffer, byteOffset, byteLength);
  return {
    read(offset, into) {
      if (!isWhole(offset, into)) into.fill(0xff);
      else for (let at = 0; at < into.length; at += 4) view(into).setUint32(at, registers.read32(offset + at), true);
    },
    write(offset, from) {
      if (isWhole(offset, from))
        for (let at = 0; at < from.length; at += 4) registers.write32(offset + at, view(from).getUint32(at, true));
    },
  };
}

/** The command register, and its bits for memory decoding and bus mastering. */
const COMMAND = 0x04;
const MEMORY_DECODE = 0x02;
const BUS_MASTER = 0x04;

/** A model, and the machine it is plugged into. Made by {@link SimulatedMachine.plug}. */
export interface SimulatedPciDeviceOptions {
  /** Its place in the PCI tree. */
  readonly node: SimulatedPciNode;
  /** What kind of device it is: its identity, BARs and registers. */
  readonly model: DeviceModel;
  /** Carries its reads and writes of memory. */
  readonly fabric: Fabric;
  /** Where its driver allocates buffers. */
  readonly memory: HostMemory;
  /** The machine's time. */
  readonly clock: Clock;
  /** The device's own stream of chance. */
  readonly random: Random;
  /** Puts a BAR to another address on the bus. */
  readonly moveBar?: (index: number, busAddress: number) => void;
}

/** A device in a slot, as its driver sees it. */
export class SimulatedPciDevice implements PciDevice {
  /** Its place in the machine's tree. */
  readonly node: SimulatedPciNode;
  /** What it is, on the other side of the bus. */
  readonly model: DeviceModel;
  /** The machine's RAM, as buffers. */
  readonly memory: HostMemory;
  readonly vectors: number;
  readonly #config = new DataView(new ArrayBuffer(256));
  readonly #interrupts = new Map<number, Set<() => void>>();
  readonly #onRemoved = new Set<() => void>();
  readonly #moveBar: ((index: number, busAddress: number) => void) | undefined;
  /** Told after each write to configuration space, and after each reset of the function: for who watches the device. */
  onConfigured: ((what: "written" | "reset") => void) | undefined;

  /** Made by {@link SimulatedMachine.plug}. */
  constructor(options: SimulatedPciDeviceOptions) {
    const { node, model, fabric, clock, random } = options;
    this.node = node;
    this.model = model;
    this.memory = options.memory;
    this.vectors = model.vectors;
    this.#moveBar = options.moveBar;
    this.#config.setUint16(0x00, model.vendorId, true);
    this.#config.setUint16(0x02, model.deviceId, true);
    this.#config.setUint16(COMMAND, MEMORY_DECODE, true);
    this.#config.setUint32(0x08, (model.classCode << 8) >>> 0, true);
    // 64-bit BARs, prefetchable: two words each; an index that the one before took has no room of its own.
    for (const { index, busAddress } of node.bars) {
      this.#config.setUint32(0x10 + index * 4, (busAddress % 2 ** 32) + 0xc, true);
      if (index < 5) this.#config.setUint32(0x14 + index * 4, Math.floor(busAddress / 2 ** 32), true);
    }
    model.plugged({
      requester: node.requester,
      clock,
      random,
      read: (address, into, pasid) => fabric.read(node, address, into, pasid),
      write: (address, from, pasid) => fabric.write(node, address, from, pasid),
      interrupt: (vector) => this.#interrupt(vector),
    });
  }

  get name(): string {
    return this.node.name;
  }

  get requester(): number {
    return this.node.requester;
  }

  get removed(): boolean {
    return !this.node.present;
  }

  bar(index: number): Registers | undefined {
    const model = this.model.bars.find((bar) => bar.index === index);
    if (!model) return undefined;
    const word = new Uint8Array(4);
    const view = new DataView(word.buffer);
    const inside = (offset: number): boolean =>
      !this.removed && this.node.decodesMemory && offset >= 0 && offset + 4 <= model.length;
    return {
      length: model.length,
      read32: (offset) => {
        if (!inside(offset)) return 0xffff_ffff;
        model.target.read(offset, word);
        return view.getUint32(0, true);
      },
      write32: (offset, value) => {
        if (!inside(offset)) return;
        view.setUint32(0, value, true);
        model.target.write(offset, word);
      },
    };
  }

  readConfig(offset: number, bytes: 1 | 2 | 4): number {
    if (this.removed || offset < 0 || offset + bytes > 256) return 2 ** (bytes * 8) - 1;
    if (bytes === 1) return this.#config.getUint8(offset);
    return bytes === 2 ? this.#config.getUint16(offset, true) : this.#config.getUint32(offset, true);
  }

  /** Only the command register and the BARs can be written. */
  writeConfig(offset: number, bytes: 1 | 2 | 4, value: number): void {
    if (this.removed || bytes === 1) return;
    if (offset === COMMAND) {
      this.#config.setUint16(COMMAND, value & (MEMORY_DECODE | BUS_MASTER), true);
      this.node.busMaster = (value & BUS_MASTER) !== 0;
      this.node.decodesMemory = (value & MEMORY_DECODE) !== 0;
    } else if (bytes !== 4 || !this.#writeBar(offset, value)) return;
    this.onConfigured?.("written");
  }

  /** One word of a BAR, whose low bits are fixed by its size. False if there is none. */
  #writeBar(offset: number, value: number): boolean {
    const bar = this.node.bars.find(({ index }) => offset === 0x10 + 4 * index || offset === 0x14 + 4 * index);
    if (!bar) return false;
    const at = 0x10 + 4 * bar.index;
    const mask = (2 ** 32 - Math.min(bar.length, 2 ** 32)) >>> 0;
    const low = offset === at ? ((value & mask) >>> 0) + 0xc : this.#config.getUint32(at, true);
    const high = offset === at ? this.#config.getUint32(at + 4, true) : value >>> 0;
    this.#config.setUint32(at, low, true);
    this.#config.setUint32(at + 4, high, true);
    this.#moveBar?.(bar.index, high * 2 ** 32 + low - 0xc);
    return true;
  }

  setBusMaster(on: boolean): void {
    const command = this.#config.getUint16(COMMAND, true);
    this.writeConfig(COMMAND, 2, on ? command | BUS_MASTER : command & ~BUS_MASTER);
  }

  onInterrupt(vector: number, callback: () => void): () => void {
    let callbacks = this.#interrupts.get(vector);
    if (!callbacks) {
      callbacks = new Set();
      this.#interrupts.set(vector, callbacks);
    }
    const own = (): void => callback();
    callbacks.add(own);
    return () => void callbacks.delete(own);
  }

  /** Configuration stays as it was: hosts put it back. */
  reset(): Promise<void> {
    if (!this.removed) {
      this.model.reset();
      this.onConfigured?.("reset");
    }
    return Promise.resolve();
  }

  onRemoved(callback: () => void): () => void {
    const own = (): void => callback();
    this.#onRemoved.add(own);
    return () => void this.#onRemoved.delete(own);
  }

  /** The device is gone. Only the machine does this. */
  announceRemoval(): void {
    for (const callback of [...this.#onRemoved]) callback();
  }

  /** A message: a write to memory, which a device that is gone or may not start requests does not make. */
  #interrupt(vector: number): void {
    if (this.removed || !this.node.busMaster || vector < 0 || vector >= this.vectors) return;
    for (const callback of [...(this.#interrupts.get(vector) ?? [])]) callback();
  }
}
