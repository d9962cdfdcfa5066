/**
 * Who owns the cache lines of a buffer, for devices that do not look into the CPU's caches.
 *
 * Idea: maintenance of a range may only be queued; the barrier completes it. So n ranges cost n operations and one barrier.
 * A coherent device has none of this, and the calls cost nothing.
 * Specified by: behaviour of Linux 7.2 DMA API (non-coherent devices).
 */
import type { Direction, PhysAddr } from "../../base/index.ts";
import { type DmaAttributes, skipsMaintenance } from "../../base/index.ts";
import type { DmaDevice } from "../device.ts";

/** The kmalloc sizes of Linux: an object of one of them shares its cache lines with nobody only if it fills them. */
const BUCKETS = [8, 16, 32, 64, 96, 128, 192];

/** Buffers smaller than their cache lines may share them with what the CPU writes meanwhile: such a buffer is bounced. */
function sharesCacheLine(length: number, cacheLine: number): boolean {
  if (cacheLine <= 1 || length >= 2 * cacheLine) return false;
  const size = BUCKETS.find((bucket) => bucket >= length) ?? 2 ** Math.ceil(Math.log2(length));
  return size % cacheLine !== 0;
}

export class Ownership {
  readonly #device: DmaDevice;

  constructor(device: DmaDevice) {
    this.#device = device;
  }

  /** True if a mapping with these attributes needs maintenance at all. */
  needed(attributes: DmaAttributes | undefined): boolean {
    return !this.#device.coherent && !skipsMaintenance(attributes);
  }

  /** True if the device writes to cache lines of which the CPU may write other parts meanwhile: such a buffer is bounced. */
  sharesLines(length: number, direction: Direction): boolean {
    const { coherent, cacheLine } = this.#device;
    return !coherent && direction !== "to-device" && sharesCacheLine(length, cacheLine);
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
