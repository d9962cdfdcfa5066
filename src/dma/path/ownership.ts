/**
 * Who owns the cache lines of a buffer, for devices that do not look into the CPU's caches.
 *
 * Idea: maintenance of a range may only be queued; the barrier completes it. So n ranges cost n operations and one barrier.
 * A coherent device has none of this, and the calls cost nothing.
 * Specified by: behaviour of Linux 7.2 DMA API (non-coherent devices).
 */
import type { Direction, PhysAddr } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";
import { type DmaAttributes, skipsMaintenance } from "../vectors.ts";

export class Ownership {
  readonly #device: DmaDevice;

  constructor(device: DmaDevice) {
    this.#device = device;
  }

  /** True if a mapping with these attributes needs maintenance at all. */
  needed(attributes: DmaAttributes | undefined): boolean {
    return !this.#device.coherent && !skipsMaintenance(attributes);
  }

  forDevice(phys: PhysAddr, length: number, direction: Direction): void {
    const device = this.#device;
    device.counters.cacheOperations++;
    device.observer?.cacheForDevice?.(phys, length, direction);
    // What the device will not write keeps its bytes, and so does what a failed call gives back: lines are written back first.
    const way = direction === "from-device" ? "bidirectional" : direction;
    device.machine.caches?.forDevice(phys, length, way);
  }

  forCpu(phys: PhysAddr, length: number, direction: Direction): void {
    const device = this.#device;
    device.counters.cacheOperations++;
    device.observer?.cacheForCpu?.(phys, length, direction);
    device.machine.caches?.forCpu(phys, length, direction);
  }

  /** A mapping failed after {@link forDevice}: the memory is the CPU's as before. Linux leaves it with the device. */
  takeBack(phys: PhysAddr, length: number, direction: Direction): void {
    if (this.#device.linuxCompatible) return;
    this.forCpu(phys, length, direction);
    this.barrier();
  }

  barrier(): void {
    const device = this.#device;
    device.counters.cacheBarriers++;
    device.observer?.cacheBarrier?.();
    device.machine.caches?.barrier();
  }
}
