/**
 * The seam: where a driver runs. A simulated machine and a Linux machine are two values of {@link Host}, and a driver that
 * takes one runs on both.
 *
 * Idea: a host has memory, time and devices. Opening a device gives what a driver needs of it: its registers and interrupts,
 * and the {@link Dma} through which it reaches memory; the address space, pool and peers behind that are the host's.
 * Promises: {@link Host.close} gives everything back, in whatever state the devices are.
 */
import type { Counters, Observer } from "../base/index.ts";
import type { Clock, HostMemory, PciBar, PciDevice } from "../platform/index.ts";
import type { DeviceOptions } from "./device.ts";
import type { Dma } from "./dma.ts";
import type { DmaWatcher } from "./watch.ts";

/** What a host can and cannot do, for suites and drivers that run on any. */
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

/** What may be said of a device when it is opened. Hosts add their own. */
export interface OpenDeviceOptions {
  /** What mapping shall know of the device besides what the host knows: masks, segment limits, trust. */
  readonly limits?: Omit<DeviceOptions, "name" | "node" | "machine" | "observer" | "counters">;
  /** Where its costs are counted. Default: counters of its own. */
  readonly counters?: Counters;
  /** Told of every mapping. */
  readonly observer?: Observer;
  /** Looks over every call (`DmaDebug`). */
  readonly debug?: DmaWatcher;
}

/** A device in the hands of a driver. */
export interface OpenDevice {
  /** Its registers, interrupts and configuration space. */
  readonly device: PciDevice;
  /** Through which it reaches memory. */
  readonly dma: Dma;
  /** Where a memory BAR lies, for who maps it for other devices; undefined if the device has none there. */
  barMemory(index: number): PciBar | undefined;
}

/** A machine with devices. */
export interface Host extends Disposable {
  /** Memory for buffers. */
  readonly memory: HostMemory;
  /** Its time: simulated, or the system's. */
  readonly clock: Clock;
  /** What can be done here, and what not. */
  readonly capabilities: HostCapabilities;
  /** @param name `ssss:bb:dd.f` @throws DmaError what is missing, and what to do */
  openDevice(name: string, options?: OpenDeviceOptions): OpenDevice;
  /** Waits for work of a driver. On a simulated machine time moves meanwhile, and only then. */
  run<T>(work: Promise<T>): Promise<T>;
  /** Everything is given back. Cannot fail; a second time does nothing. */
  close(): void;
}
