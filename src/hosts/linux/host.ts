/**
 * A Linux machine as a host: its memory, its clock, and its devices as far as they are bound to vfio-pci.
 *
 * Idea: the other value of the seam. What a driver gets from a simulated machine it gets from here, and runs on the device.
 * Two back ends, chosen when a device is opened: iommufd with device nodes where the kernel has them, else VFIO's container.
 * Promises: closing gives everything back: devices stopped, memory unmapped and unpinned, files closed; so does the end of the
 * process, however it comes. Nothing is bound or unbound here.
 * Specified by: docs/real-hardware.md.
 */
import type { Counters } from "../../base/index.ts";
import type { DmaMachine } from "../../dma/index.ts";
import type { Observer } from "../../trace/index.ts";
import { closeAtExit } from "./cleanup.ts";
import { MonotonicClock } from "./clock.ts";
import { LinuxDevice } from "./device.ts";
import { DeviceMemory } from "./device-memory.ts";
import { LinuxDomain } from "./domain.ts";
import { hostClosed, noBackEnd, noIommu, noSuchDevice, wrongDriver } from "./errors.ts";
import { Interrupts } from "./interrupts.ts";
import { IOMMU_NODE, IommufdSpace } from "./iommufd.ts";
import type { AddressRange, BackEnd, KernelSpace } from "./kernel-space.ts";
import { systemCalls } from "./koffi-sys.ts";
import { LinuxMemory } from "./memory.ts";
import type { Sys } from "./sys.ts";
import { fullName, groupObstacles, type PciFunction, Sysfs } from "./sysfs.ts";
import { CONTAINER_NODE, Type1Space } from "./type1.ts";

export interface LinuxHostOptions {
  /** System calls; this process's own unless said. */
  readonly sys?: Sys;
  /** Where /sys, /proc and /dev are. */
  readonly sysfs?: Sysfs;
}

export interface OpenDeviceOptions {
  /** iommufd where there is one, else type1, unless said. */
  readonly backEnd?: BackEnd;
  /** Links wait for their sync; those that continue each other become one call. False unless said. */
  readonly coalesce?: boolean;
  /** No interrupts: the driver must poll. Costs a processor, and is the quickest. False unless said. */
  readonly polled?: boolean;
  readonly counters?: Counters;
  /** Told of every mapping that the kernel was given or lost. */
  readonly observer?: Observer;
}

/** What a host can and cannot do, for suites that run on any. */
export interface HostCapabilities {
  /** Memory that a device cannot reach goes through a bounce pool. */
  readonly bounce: boolean;
  /** CPU caches can be maintained for devices that do not look into them. */
  readonly cacheControl: boolean;
  /** The DMA API's peer routes; without them a peer's memory is mapped like RAM, or not at all. */
  readonly peerRoutes: boolean;
  /** Invalidations can wait in a flush queue. */
  readonly lazy: boolean;
  /** A part of what was mapped together can be unmapped. */
  readonly splits: boolean;
  /** What mapping calls take are addresses of the machine's memory, not of this process. */
  readonly physicalAddresses: boolean;
}

export const LINUX_CAPABILITIES: HostCapabilities = {
  bounce: false,
  cacheControl: false,
  peerRoutes: false,
  lazy: false,
  splits: false,
  physicalAddresses: false,
};

export class LinuxHost implements Disposable {
  readonly memory: LinuxMemory;
  readonly clock: MonotonicClock = new MonotonicClock();
  /** What a {@link Dma} is made with. */
  readonly machine: DmaMachine;
  readonly capabilities: HostCapabilities = LINUX_CAPABILITIES;
  readonly #sys: Sys;
  readonly #sysfs: Sysfs;
  readonly #interrupts: Interrupts;
  readonly #deviceMemory = new DeviceMemory();
  readonly #devices = new Set<LinuxDevice>();
  readonly #keepClosing: () => void;
  #closed = false;

  /** @throws DmaError ERR_DMA_LINUX_PLATFORM, ERR_DMA_LINUX_LIBRARY (ENOSYS) */
  constructor(options: LinuxHostOptions = {}) {
    this.#sys = options.sys ?? systemCalls();
    this.#sysfs = options.sysfs ?? new Sysfs();
    this.memory = new LinuxMemory(this.#sys);
    this.machine = { memory: this.memory, pages: this.memory };
    this.#interrupts = new Interrupts(this.#sys);
    this.#keepClosing = closeAtExit(() => this.close());
  }

  /**
   * Opens a device that is bound to vfio-pci, with an address space of its own.
   *
   * @param name `ssss:bb:dd.f`, or `bb:dd.f`
   * @throws DmaError ERR_DMA_LINUX_CLOSED, ERR_DMA_LINUX_DEVICE, ERR_DMA_LINUX_DRIVER, ERR_DMA_LINUX_IOMMU, ERR_DMA_LINUX_VFIO,
   * ERR_DMA_LINUX_GROUP, ERR_DMA_SYSCALL: each says what to do
   */
  openDevice(name: string, options: OpenDeviceOptions = {}): LinuxDevice {
    if (this.#closed) throw hostClosed(name);
    const pci = this.#sysfs.pciFunction(fullName(name));
    if (pci === undefined) throw noSuchDevice(name);
    if (pci.group === undefined) throw noIommu(pci.name);
    if (pci.driver !== "vfio-pci") throw wrongDriver(pci.name, pci.driver);
    const space = this.#openSpace(pci, options.backEnd);
    let device: LinuxDevice;
    try {
      device = new LinuxDevice({
        name: pci.name,
        fd: space.device,
        sys: this.#sys,
        domain: new LinuxDomain(space, { ...options, keepOut: this.#peerMemory(pci) }),
        memory: this.memory,
        deviceMemory: this.#deviceMemory,
        interrupts: options.polled ? undefined : this.#interrupts,
      });
    } catch (error) {
      space.close();
      throw error;
    }
    this.#devices.add(device);
    return device;
  }

  /** Closes every device. Cannot fail; a second time does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const device of this.#devices) device.close();
    this.#devices.clear();
    this.#interrupts.close();
    this.#keepClosing();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Memory of the device itself and of its group. Requests for it need not come to the IOMMU: a device takes those for its own
   * memory (a controller memory buffer), a switch sends others to the peer. So no mapping may lie there.
   */
  #peerMemory({ name, group }: PciFunction): AddressRange[] {
    const members = new Set([name, ...this.#sysfs.groupMembers(group!)]);
    return [...members].flatMap((member) => this.#sysfs.memoryOf(member));
  }

  #openSpace(
    { name, node, group }: PciFunction,
    asked: BackEnd | undefined,
  ): KernelSpace & { readonly device: number } {
    const sysfs = this.#sysfs;
    const reasons: string[] = [];
    if (asked !== "type1") {
      if (!sysfs.exists(IOMMU_NODE))
        reasons.push(`iommufd: no ${IOMMU_NODE} (modprobe iommufd; some kernels have none)`);
      else if (node === undefined) reasons.push("iommufd: no device node (CONFIG_VFIO_DEVICE_CDEV is not set)");
      else return new IommufdSpace(this.#sys, node, name, this.#deviceMemory);
    }
    if (asked !== "iommufd") {
      if (sysfs.exists(CONTAINER_NODE)) return new Type1Space(this.#sys, group!, name, groupObstacles(sysfs, group!));
      reasons.push(`type1: no ${CONTAINER_NODE} (modprobe vfio-pci)`);
    }
    throw noBackEnd(reasons);
  }
}
