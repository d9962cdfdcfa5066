/**
 * A Linux machine as a host: its memory, its clock, and its devices as far as they are bound to vfio-pci.
 *
 * Idea: the same interface as a simulated machine ({@link Host}), so that a driver written for one runs on the device
 * unchanged. Two back ends, chosen when a device is opened: iommufd with device nodes where the kernel has them, else
 * VFIO's container.
 * Promises: closing gives everything back: devices stopped, memory unmapped and unpinned, files closed; so does the end of the
 * process, however it comes. Nothing is bound or unbound here.
 * Specified by: docs/real-hardware.md.
 */
import {
  Dma,
  type DmaMachine,
  type Host,
  type HostCapabilities,
  type OpenDevice,
  type OpenDeviceOptions,
} from "../../dma/index.ts";
import { P2pRouter } from "../../p2p/index.ts";
import { closeAtExit } from "./cleanup.ts";
import { MonotonicClock } from "./clock.ts";
import { LinuxDevice } from "./device.ts";
import { DeviceMemory } from "./device-memory.ts";
import { LinuxDomain } from "./domain.ts";
import { hostClosed, noBackEnd, noIommu, noSuchDevice, openAlready, openedOtherwise, wrongDriver } from "./errors.ts";
import { Interrupts } from "./interrupts.ts";
import type { AddressRange, BackEnd, IoAddressSpace } from "./ioas.ts";
import { IOMMU_NODE, IommufdSpace } from "./iommufd.ts";
import { systemCalls } from "./koffi-syscalls.ts";
import { LinuxMemory } from "./memory.ts";
import type { Fd, Syscalls } from "./syscalls.ts";
import { fullName, groupObstacles, type PciFunction, Sysfs } from "./sysfs.ts";
import { CONTAINER_NODE, Type1Space } from "./type1.ts";

/** Where system calls and the kernel's files come from. */
export interface LinuxHostOptions {
  /** System calls; this process's own unless said. */
  readonly sys?: Syscalls;
  /** Where /sys, /proc and /dev are. */
  readonly sysfs?: Sysfs;
}

/** How a device is opened. */
export interface LinuxOpenOptions extends OpenDeviceOptions {
  /** iommufd where there is one, else type1, unless said. */
  readonly backEnd?: BackEnd;
  /** Links wait for their sync; those that continue each other become one call. False unless said. */
  readonly coalesce?: boolean;
  /** No interrupts: the driver must poll. Costs a processor, and is the quickest. False unless said. */
  readonly polled?: boolean;
}

/** A device of this machine, opened. */
export interface LinuxOpenDevice extends OpenDevice {
  /** Its registers, interrupts and configuration space, and what only a real device has. */
  readonly device: LinuxDevice;
  /** Its address space, or that of its IOMMU group. */
  readonly domain: LinuxDomain;
}

/** What a Linux host can and cannot do. */
export const LINUX_CAPABILITIES: HostCapabilities = {
  bounce: false,
  cacheControl: false,
  peerRoutes: false,
  lazy: false,
  splits: false,
  physicalAddresses: false,
};

/** Devices that the IOMMU cannot tell apart: one address space for all of them. */
interface OpenGroup {
  readonly space: IoAddressSpace;
  readonly domain: LinuxDomain;
  readonly options: LinuxOpenOptions;
  /** Those that are open, by name. */
  readonly members: Set<string>;
}

/** Of an address space, so the same for all that share it. */
const SHARED_OPTIONS = ["backEnd", "coalesce", "counters", "observer"] as const;

/** This machine. */
export class LinuxHost implements Host {
  readonly memory: LinuxMemory;
  /** The system's monotonic clock. */
  readonly clock: MonotonicClock = new MonotonicClock();
  /** What a {@link Dma} is made with. */
  readonly dmaMachine: DmaMachine;
  readonly capabilities: HostCapabilities = LINUX_CAPABILITIES;
  readonly #sys: Syscalls;
  readonly #sysfs: Sysfs;
  readonly #interrupts: Interrupts;
  readonly #deviceMemory = new DeviceMemory();
  readonly #devices = new Set<LinuxDevice>();
  /** By number. */
  readonly #groups = new Map<string, OpenGroup>();
  readonly #keepClosing: () => void;
  #closed = false;

  /** @throws DmaError ERR_DMA_LINUX_PLATFORM, ERR_DMA_LINUX_LIBRARY (ENOSYS) */
  constructor(options: LinuxHostOptions = {}) {
    this.#sys = options.sys ?? systemCalls();
    this.#sysfs = options.sysfs ?? new Sysfs();
    this.memory = new LinuxMemory(this.#sys);
    this.dmaMachine = { memory: this.memory, pages: this.memory };
    this.#interrupts = new Interrupts(this.#sys);
    this.#keepClosing = closeAtExit(() => this.close());
  }

  /**
   * Opens a device that is bound to vfio-pci. Its address space is its own, or shared with those of its IOMMU group that are open:
   * what one of them maps, all of them reach.
   *
   * @param name `ssss:bb:dd.f`, or `bb:dd.f`
   * @throws DmaError ERR_DMA_LINUX_CLOSED, ERR_DMA_LINUX_DEVICE, ERR_DMA_LINUX_DRIVER, ERR_DMA_LINUX_IOMMU, ERR_DMA_LINUX_VFIO,
   * ERR_DMA_LINUX_GROUP, ERR_DMA_LINUX_SHARED, ERR_DMA_SYSCALL: each says what to do
   */
  openDevice(name: string, options: LinuxOpenOptions = {}): LinuxOpenDevice {
    if (this.#closed) throw hostClosed(name);
    const pci = this.#sysfs.pciFunction(fullName(name));
    if (pci === undefined) throw noSuchDevice(name);
    if (pci.group === undefined) throw noIommu(pci.name);
    if (pci.driver !== "vfio-pci") throw wrongDriver(pci.name, pci.driver);
    const { group, fd } = this.#enterGroup(pci, options);
    const leave = (): void => this.#leaveGroup(pci, group, fd);
    let device: LinuxDevice;
    try {
      device = new LinuxDevice({
        name: pci.name,
        fd,
        sys: this.#sys,
        domain: group.domain,
        leave,
        memory: this.memory,
        deviceMemory: this.#deviceMemory,
        interrupts: options.polled ? undefined : this.#interrupts,
      });
    } catch (error) {
      leave();
      throw error;
    }
    this.#devices.add(device);
    const { domain } = group;
    const dma = new Dma({
      ...options.limits,
      domain,
      name: device.name,
      node: device.node,
      machine: { ...this.dmaMachine, peers: new P2pRouter() }, // its own memory, by bus addresses
      ...(options.observer && { observer: options.observer }),
      ...(options.counters && { counters: options.counters }),
      ...(options.debug && { debug: options.debug }),
    });
    return { device, dma, domain, barMemory: (index) => device.barMemory(index) };
  }

  /** Real time passes by itself. */
  run<T>(work: Promise<T>): Promise<T> {
    return work;
  }

  /**
   * Closes every device, and gives out no more memory; buffers that are held stay their owners'. Cannot fail; a second time does
   * nothing.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const device of this.#devices) device.close();
    this.#devices.clear();
    this.#interrupts.close();
    this.memory.close();
    this.#keepClosing();
  }

  /** As `close`, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Makes the group's address space for its first device, and lets others in. */
  #enterGroup(pci: PciFunction, options: LinuxOpenOptions): { group: OpenGroup; fd: Fd } {
    const open = this.#groups.get(pci.group!);
    if (open === undefined) {
      const space = this.#openSpace(pci, options.backEnd);
      let domain: LinuxDomain;
      try {
        domain = new LinuxDomain(space, { ...options, keepOut: this.#peerMemory(pci) });
      } catch (error) {
        space.close();
        throw error;
      }
      const said = { coalesce: false, ...options, backEnd: space.kind };
      const group = { space, domain, options: said, members: new Set([pci.name]) };
      this.#groups.set(pci.group!, group);
      return { group, fd: space.device };
    }
    for (const what of SHARED_OPTIONS)
      if (options[what] !== undefined && options[what] !== open.options[what])
        throw openedOtherwise(pci.name, pci.group!, [...open.members], what);
    if (open.members.has(pci.name)) throw openAlready(pci.name);
    const fd = open.space.attach(pci.name, pci.node);
    open.members.add(pci.name);
    return { group: open, fd };
  }

  #leaveGroup({ name, group: number }: PciFunction, group: OpenGroup, fd: Fd): void {
    group.members.delete(name);
    if (group.members.size > 0) group.space.detach(fd);
    else {
      this.#groups.delete(number!);
      group.domain.close();
    }
  }

  /**
   * Memory of the device itself and of its group. Requests for it need not come to the IOMMU: a device takes those for its own
   * memory (a controller memory buffer), a switch sends others to the peer. So no mapping may lie there.
   */
  #peerMemory({ name, group }: PciFunction): AddressRange[] {
    const members = new Set([name, ...this.#sysfs.groupMembers(group!)]);
    return [...members].flatMap((member) => this.#sysfs.memoryOf(member));
  }

  #openSpace({ name, node, group }: PciFunction, asked: BackEnd | undefined): IoAddressSpace {
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
