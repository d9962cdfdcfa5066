/**
 * A real PCI device in the hands of this process, through vfio-pci.
 *
 * Idea: the same interface as a simulated device, so that a driver cannot tell. Registers are mapped, configuration space
 * is read and written by calls, interrupts come as eventfds.
 * Promises: closing stops the device (bus mastering off) before it lets go of what is mapped; after `removed`, no access reaches the bus.
 * Specified by: Linux 7.2 uAPI, vfio.h; docs/real-hardware.md.
 */
import type { PhysAddr } from "../../base/index.ts";
import { barBusAddress, requesterId } from "../../layouts/pci/index.ts";
import {
  CONSTANTS,
  CStructValue,
  DEVICE_INFO,
  FEATURE,
  FEATURE_DMA_BUF,
  IRQ_INFO,
  IRQ_SET,
  REGION_DMA_RANGE,
  REGION_INFO,
  REQUESTS,
  type RequestName,
} from "../../layouts/uapi/index.ts";
import type { HostMemory, PciBar, PciDevice, PciNode, Registers } from "../../platform/index.ts";
import type { DeviceMemory } from "./device-memory.ts";
import type { LinuxDomain } from "./domain.ts";
import { badVector, noReset } from "./errors.ts";
import { called, type InterruptSource, type Interrupts } from "./interrupts.ts";
import { CalledRegisters, type ClosableRegisters, MappedRegisters } from "./registers.ts";
import type { Fd, Syscalls } from "./syscalls.ts";

const COMMAND = 4;
const COMMAND_MEMORY = 2;
const COMMAND_BUS_MASTER = 4;

/** Of a dma-buf: as open takes them. */
const READ_WRITE_CLOEXEC = 0o2000002;

/** Vectors that are set up; a device may have 2048, and each is a file and a kernel interrupt. */
const MOST_VECTORS = 64;

interface LinuxDeviceParts {
  readonly name: string;
  readonly fd: Fd;
  readonly sys: Syscalls;
  readonly domain: LinuxDomain;
  /** It leaves its address space, which closes `fd`. Cannot fail. */
  readonly leave: () => void;
  readonly memory: HostMemory;
  /** Where its BARs are told of when they are lent. */
  readonly deviceMemory: DeviceMemory;
  /** None: the device is polled. */
  readonly interrupts: Interrupts | undefined;
}

/** A real PCI device, through vfio-pci. Closing stops it before it lets go of what is mapped. */
export class LinuxDevice implements PciDevice, Disposable {
  readonly name: string;
  readonly requester: number;
  /**
   * The device as a PCI tree of its own, with nothing around it: a `Dma` with this node and a `P2pRouter` of its own reaches the
   * device's own memory (a controller memory buffer) by bus addresses, and all else through the IOMMU. This host does not read where
   * other devices stand.
   */
  readonly node: PciNode;
  /** Memory of the host: what its buffers are made of. */
  readonly memory: HostMemory;
  /** Its address space, which all devices of its group share: what a `Dma` is made with. */
  readonly domain: LinuxDomain;
  readonly vectors: number;
  /** VFIO can reset it. */
  readonly canReset: boolean;
  readonly #fd: Fd;
  readonly #leave: () => void;
  readonly #sys: Syscalls;
  readonly #interrupts: Interrupts | undefined;
  readonly #config: { offset: number; size: number };
  readonly #bars = new Map<number, ClosableRegisters | undefined>();
  readonly #deviceMemory: DeviceMemory;
  /** BARs that were lent, by index, and how each is taken back. */
  readonly #lent = new Map<number, () => void>();
  /** MSI-X or MSI, whichever has more vectors. */
  readonly #irqIndex: number;
  readonly #vectors = new Map<number, { source: InterruptSource; callbacks: Set<() => void> }>();
  #vectorsEnabled = false;
  readonly #notices: { source: InterruptSource; index: number }[] = [];
  readonly #onRemoved = new Set<() => void>();
  #removed = false;
  #closed = false;
  #errors = 0;

  /** Made by {@link LinuxHost.openDevice}. @throws DmaError ERR_DMA_SYSCALL */
  constructor(parts: LinuxDeviceParts) {
    const { name, fd, sys, domain, leave, memory, deviceMemory, interrupts } = parts;
    this.name = name;
    this.domain = domain;
    this.memory = memory;
    this.#deviceMemory = deviceMemory;
    this.#fd = fd;
    this.#leave = leave;
    this.#sys = sys;
    this.#interrupts = interrupts;
    this.requester = requesterId(name);
    this.node = alone(this);
    const info = new CStructValue(DEVICE_INFO, { argsz: DEVICE_INFO.bytes });
    this.#call("VFIO_DEVICE_GET_INFO", info.bytes, "ask what the device is");
    this.canReset = (info.get("flags") & CONSTANTS.VFIO_DEVICE_FLAGS_RESET) !== 0;
    this.#config = this.#region(CONSTANTS.VFIO_PCI_CONFIG_REGION_INDEX);
    const msix = this.#countOf(CONSTANTS.VFIO_PCI_MSIX_IRQ_INDEX);
    const msi = this.#countOf(CONSTANTS.VFIO_PCI_MSI_IRQ_INDEX);
    this.#irqIndex = msix >= msi ? CONSTANTS.VFIO_PCI_MSIX_IRQ_INDEX : CONSTANTS.VFIO_PCI_MSI_IRQ_INDEX;
    this.vectors =
      interrupts === undefined || sys.workerLibrary === undefined ? 0 : Math.min(Math.max(msix, msi), MOST_VECTORS);
    this.writeConfig(COMMAND, 2, this.readConfig(COMMAND, 2) | COMMAND_MEMORY);
    if (this.vectors > 0) {
      this.#notify(CONSTANTS.VFIO_PCI_REQ_IRQ_INDEX, () => this.#remove());
      this.#notify(CONSTANTS.VFIO_PCI_ERR_IRQ_INDEX, () => this.#errors++);
    }
  }

  /** Errors that the device reported to the system (AER) since it was opened. */
  get reportedErrors(): number {
    return this.#errors;
  }

  get removed(): boolean {
    return this.#removed;
  }

  bar(index: number): Registers | undefined {
    if (!this.#bars.has(index)) this.#bars.set(index, index < 6 ? this.#openBar(index) : undefined);
    return this.#bars.get(index);
  }

  /**
   * A BAR as memory: `phys`, where this process has it, is what mapping calls of _other_ devices take; `busAddress`, what the
   * device itself knows it by. Undefined without such a BAR, or if VFIO does not let it be mapped. End what is mapped of it before
   * this device is closed.
   *
   * A device on type1 reaches it by its address. One on iommufd by a dma-buf, where the kernel makes one (Linux 7.2 does, with
   * CONFIG_VFIO_PCI_DMABUF); else mapping it fails with EFAULT. A reset of the owner ends what iommufd maps of it: map it again.
   */
  barMemory(index: number): PciBar | undefined {
    const registers = this.bar(index);
    if (!(registers instanceof MappedRegisters) || registers.address === undefined) return undefined;
    const { address, length } = registers;
    if (!this.#lent.has(index)) this.#lent.set(index, this.#lend(index, address, length));
    return { index, phys: address as PhysAddr, length, busAddress: barBusAddress(this, index) };
  }

  readConfig(offset: number, bytes: 1 | 2 | 4): number {
    const into = new Uint8Array(4);
    if (this.#removed || this.#closed) into.fill(0xff);
    else {
      const part = into.subarray(0, bytes);
      const from = this.#config.offset + offset;
      this.#sys.pread(this.#fd, part, from, `read configuration byte ${offset} of ${this.name}`);
    }
    const all = new DataView(into.buffer).getUint32(0, true);
    return bytes === 4 ? all : all & (2 ** (8 * bytes) - 1);
  }

  writeConfig(offset: number, bytes: 1 | 2 | 4, value: number): void {
    if (this.#removed || this.#closed) return;
    const from = new Uint8Array(4);
    new DataView(from.buffer).setUint32(0, value, true);
    const purpose = `write configuration byte ${offset} of ${this.name}`;
    this.#sys.pwrite(this.#fd, from.subarray(0, bytes), this.#config.offset + offset, purpose);
  }

  setBusMaster(on: boolean): void {
    const command = this.readConfig(COMMAND, 2);
    this.writeConfig(COMMAND, 2, on ? command | COMMAND_BUS_MASTER : command & ~COMMAND_BUS_MASTER);
  }

  /** @throws DmaError ERR_DMA_LINUX_VECTOR (EINVAL), ERR_DMA_SYSCALL */
  onInterrupt(vector: number, callback: () => void): () => void {
    if (!(vector >= 0 && vector < this.vectors)) throw badVector(this.name, vector, this.vectors);
    let entry = this.#vectors.get(vector);
    if (entry === undefined) {
      const callbacks = new Set<() => void>();
      const source = this.#interrupts!.open(() => {
        for (const one of [...callbacks]) one();
      });
      try {
        this.#enableVectors();
        this.#setIrqs(this.#irqIndex, vector, [source.fd]);
      } catch (error) {
        source.close();
        throw error;
      }
      entry = { source, callbacks };
      this.#vectors.set(vector, entry);
    }
    const own = (): void => callback(); // the same function may be given twice
    entry.callbacks.add(own);
    return () => {
      entry.callbacks.delete(own);
      if (entry.callbacks.size > 0 || this.#vectors.get(vector) !== entry) return;
      this.#vectors.delete(vector);
      if (!this.#closed) this.#setIrqs(this.#irqIndex, vector, [-1]);
      entry.source.close();
    };
  }

  /** @throws DmaError ERR_DMA_LINUX_RESET (EOPNOTSUPP), ERR_DMA_SYSCALL */
  async reset(): Promise<void> {
    if (!this.canReset) throw noReset(this.name);
    if (this.#removed || this.#closed) return;
    this.#sys.ioctl(this.#fd, REQUESTS.VFIO_DEVICE_RESET, 0, "VFIO_DEVICE_RESET", `reset ${this.name}`);
  }

  onRemoved(callback: () => void): () => void {
    this.#onRemoved.add(callback);
    return () => this.#onRemoved.delete(callback);
  }

  /**
   * Stops the device, and lets go of it; with the last device of its group everything is unmapped. Cannot fail; a second time does
   * nothing.
   */
  close(): void {
    if (this.#closed) return;
    for (const step of [() => this.setBusMaster(false), () => this.#disableInterrupts(), () => this.#closeBars()])
      try {
        step();
      } catch {
        // the device may be gone: the rest must happen all the same
      }
    this.#closed = true;
    this.#leave();
  }

  /** As `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** The system wants the device back: from here on nothing reaches it. */
  #remove(): void {
    if (this.#removed) return;
    this.#removed = true;
    this.#closeBars();
    for (const callback of [...this.#onRemoved]) called(callback); // one that throws does not keep the others from being told
  }

  #closeBars(): void {
    for (const takeBack of this.#lent.values()) takeBack();
    this.#lent.clear();
    for (const registers of this.#bars.values()) registers?.close();
  }

  /** A dma-buf of the whole BAR, if this kernel makes them. The answer takes it back. */
  #lend(index: number, address: number, length: number): () => void {
    const flags = CONSTANTS.VFIO_DEVICE_FEATURE_GET | CONSTANTS.VFIO_DEVICE_FEATURE_DMA_BUF;
    const what = { region_index: index, open_flags: READ_WRITE_CLOEXEC, nr_ranges: 1 };
    const extra = FEATURE_DMA_BUF.bytes + REGION_DMA_RANGE.bytes;
    const { bytes } = new CStructValue(FEATURE, { argsz: FEATURE.bytes + extra, flags }, extra);
    bytes.set(new CStructValue(FEATURE_DMA_BUF, what).bytes, FEATURE.bytes);
    const all = new CStructValue(REGION_DMA_RANGE, { offset: 0, length });
    bytes.set(all.bytes, FEATURE.bytes + FEATURE_DMA_BUF.bytes);
    let fd: Fd;
    try {
      fd = this.#call("VFIO_DEVICE_FEATURE", bytes, `make a dma-buf of BAR ${index}`);
    } catch {
      return () => {}; // an older kernel, or one without: whoever maps it on iommufd is told so by the call that fails
    }
    const takeBack = this.#deviceMemory.lend(address, length, fd);
    return () => {
      takeBack();
      this.#sys.close(fd);
    };
  }

  #openBar(index: number): ClosableRegisters | undefined {
    const { offset, size, flags } = this.#region(index);
    if (size === 0 || this.#removed || this.#closed) return undefined;
    return flags & CONSTANTS.VFIO_REGION_INFO_FLAG_MMAP
      ? new MappedRegisters(this.#sys, this.#fd, { offset, size }, `BAR ${index} of ${this.name}`)
      : new CalledRegisters(this.#sys, this.#fd, { offset, size });
  }

  #region(index: number): { offset: number; size: number; flags: number } {
    const info = new CStructValue(REGION_INFO, { argsz: REGION_INFO.bytes, index });
    this.#call("VFIO_DEVICE_GET_REGION_INFO", info.bytes, `ask for region ${index}`);
    return { offset: info.get("offset"), size: info.get("size"), flags: info.get("flags") };
  }

  #countOf(index: number): number {
    const info = new CStructValue(IRQ_INFO, { argsz: IRQ_INFO.bytes, index });
    try {
      this.#call("VFIO_DEVICE_GET_IRQ_INFO", info.bytes, `ask for interrupts of kind ${index}`);
    } catch {
      return 0; // a kind that this device does not have
    }
    return info.get("count");
  }

  /** All vectors at once, silent: older kernels cannot add one later. */
  #enableVectors(): void {
    if (this.#vectorsEnabled) return;
    this.#setIrqs(this.#irqIndex, 0, new Array<number>(this.vectors).fill(-1));
    this.#vectorsEnabled = true;
  }

  /** Other things that the kernel tells of a device; not every device has them. */
  #notify(index: number, callback: () => void): void {
    if (this.#countOf(index) === 0) return;
    const source = this.#interrupts!.open(callback);
    try {
      this.#setIrqs(index, 0, [source.fd]);
      this.#notices.push({ source, index });
    } catch {
      source.close();
    }
  }

  #disableInterrupts(): void {
    const kinds = [...this.#notices.map(({ index }) => index), ...(this.#vectorsEnabled ? [this.#irqIndex] : [])];
    for (const index of kinds)
      try {
        this.#setIrqs(index, 0, []);
      } catch {
        // closing the device ends them
      }
    for (const { source } of [...this.#notices.splice(0), ...this.#vectors.values()]) source.close();
    this.#vectors.clear();
  }

  /** Eventfds for vectors from `start` on, -1 for none; an empty list turns the kind off. */
  #setIrqs(index: number, start: number, fds: readonly number[]): void {
    const data = fds.length === 0 ? CONSTANTS.VFIO_IRQ_SET_DATA_NONE : CONSTANTS.VFIO_IRQ_SET_DATA_EVENTFD;
    const length = IRQ_SET.bytes + fds.length * 4;
    const flags = data | CONSTANTS.VFIO_IRQ_SET_ACTION_TRIGGER;
    const set = new CStructValue(IRQ_SET, { argsz: length, flags, index, start, count: fds.length }, fds.length * 4);
    const view = new DataView(set.bytes.buffer);
    fds.forEach((fd, i) => {
      view.setInt32(IRQ_SET.bytes + i * 4, fd, true);
    });
    this.#call("VFIO_DEVICE_SET_IRQS", set.bytes, `set up interrupts of kind ${index}`);
  }

  #call(request: RequestName, argument: Uint8Array, purpose: string): number {
    return this.#sys.ioctl(this.#fd, REQUESTS[request], argument, request, () => `${purpose} (${this.name})`);
  }
}

/** A device on a root complex of its own. */
function alone(device: LinuxDevice): PciNode {
  const { requester } = device;
  const unknown = { vendor: "", family: 0 };
  return {
    requester,
    kind: "root-endpoint",
    parent: undefined,
    hostBridge: { segment: Math.floor(requester / 65_536), vendorId: 0, deviceId: 0, cpu: unknown },
    acsControl: 0,
    externalFacing: false,
    get present() {
      return !device.removed;
    },
  };
}
