/**
 * The accidents of a run: the bounce pool fills up, devices are pulled out or stop answering, ports change their access
 * control.
 */
import { PhysPage } from "../../base/index.ts";
import type { Buffers } from "./buffers.ts";
import type { Mappings } from "./mappings.ts";
import type { World } from "./world.ts";

export class Accidents {
  readonly #world: World;
  readonly #buffers: Buffers;
  readonly #mappings: Mappings;
  /** Slots of the pool that somebody else holds. */
  readonly #hoard: number[] = [];

  constructor(world: World, buffers: Buffers, mappings: Mappings) {
    this.#world = world;
    this.#buffers = buffers;
    this.#mappings = mappings;
  }

  /** Somebody else takes the bounce pool, but for `leave` slots. */
  fillPool(leave: number): void {
    const { pool } = this.#world;
    if (!pool) return;
    const limits = { minAlignMask: 0, segmentBoundaryMask: 2 ** 32 - 1 };
    while (pool.slots - pool.used > leave) {
      const slots = Math.min(64, pool.slots - pool.used - leave);
      const at = pool.map(PhysPage.start(1 as PhysPage), Math.max(1, slots) * 2048, 0, limits);
      if (at === undefined) return;
      this.#hoard.push(at);
    }
  }

  /** And gives it back. */
  emptyPool(): void {
    for (const at of this.#hoard.splice(0)) this.#world.pool!.unmap(at as never, 1, "to-device", true);
  }

  failTable(nth: number): void {
    this.#world.arena.failAt = nth;
  }

  pullOut(index: number): void {
    const device = this.#world.devices[index]!;
    if (device.dead) return;
    // Whoever has its window mapped lets go first: what a window that is gone reads as is nobody's promise.
    this.#mappings.unmapEach((mapping) => mapping.peer && mapping.device !== device);
    this.#world.pullOut(index);
    this.#buffers.forgetPeer(index);
    this.#mappings.plugAgain(device);
  }

  changeAcs(port: number, bits: number): void {
    if (this.#mappings.some((mapping) => mapping.peer)) return; // whoever maps peers quiesces them first
    const node = this.#world.devices[port]!.pci.node.parent;
    if (node) node.acsControl = bits;
  }

  /** From here on a device answers no invalidation of its TLB. */
  silence(index: number): void {
    const device = this.#world.devices[index]!;
    if (device.dead || !this.#world.vtd) return;
    this.#world.vtd.hardware.addDeviceTlb(device.pci.requester).manners = "silent";
  }
}
