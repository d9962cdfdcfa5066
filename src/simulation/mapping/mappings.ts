/**
 * The mappings of a run, by the numbers that steps name them with: making them, ending them, and who owns which byte.
 *
 * Two oracles stand here: a call that is refused leaves nothing behind, and what the CPU finds in memory that was unmapped
 * is what the shadow says.
 */
import { DmaError } from "../../base/index.ts";
import { Broken } from "../scenario.ts";
import type { Buffers } from "./buffers.ts";
import { type LiveMapping, mapPieces } from "./live-mapping.ts";
import { MAPPINGS, type Step } from "./plan.ts";
import type { Reach } from "./reach.ts";
import type { World, WorldDevice } from "./world.ts";

type MapStep = Step & { do: "map" };

/** Refusals that a call may answer with, on a machine on which things go wrong. */
const EXPECTED = new Set(["ENOMEM", "EREMOTEIO", "ENXIO", "EIO", "EPERM", "EINVAL"]);

/** True for an error that a call may answer with; any other is a defect. */
export const isRefusal = (error: unknown): error is DmaError => error instanceof DmaError && EXPECTED.has(error.errno);

export class Mappings {
  readonly #world: World;
  readonly #buffers: Buffers;
  readonly #reach: Reach;
  readonly #slots: (LiveMapping | undefined)[] = new Array<undefined>(MAPPINGS).fill(undefined);

  constructor(world: World, buffers: Buffers, reach: Reach) {
    this.#world = world;
    this.#buffers = buffers;
    this.#reach = reach;
  }

  at(slot: number): LiveMapping | undefined {
    return this.#slots[slot];
  }

  some(test: (mapping: LiveMapping) => boolean): boolean {
    return this.#slots.some((mapping) => mapping && test(mapping));
  }

  /** Unmaps all that answer to `test`. */
  unmapEach(test: (mapping: LiveMapping) => boolean): void {
    this.#slots.forEach((mapping, slot) => {
      if (mapping && test(mapping)) this.unmap(slot);
    });
  }

  map(step: MapStep): void {
    if (this.#slots[step.mapping]) return;
    const device = this.#world.devices[step.device]!;
    if (device.dead) return;
    const pieces = this.#buffers.pieces(step.buffer, step.offset, step.length, step.peer ? step.device : undefined);
    if (!pieces || !this.#mayShare(step)) return;
    const before = this.#world.state(device);
    try {
      const mapping = mapPieces(device, step, pieces);
      this.#slots[step.mapping] = mapping;
      this.#reach.begin(device, mapping.vecs);
      this.#world.arena.failAt = 0;
    } catch (error) {
      this.#world.arena.failAt = 0;
      if (!isRefusal(error)) throw error;
      const after = this.#world.state(device);
      if (after !== before)
        throw new Broken("leak", `a refused map (${error.errno}) left something: ${before} before, ${after} after`);
    }
  }

  unmap(slot: number): void {
    const mapping = this.#slots[slot]!;
    this.#slots[slot] = undefined;
    this.#reach.end(mapping.device, [...mapping.vecs], mapping.buffer);
    this.#reach.forgetOldest();
    mapping.unmap();
    this.#buffers.checkAsCpu(mapping, "after unmap");
    this.plugAgain(mapping.device);
  }

  relink(mapping: LiveMapping, page: number, lazy: boolean): void {
    if (mapping.device.dead || !mapping.relink) return;
    const { failAt } = this.#world.arena;
    this.#world.arena.failAt = 0; // its tables are there; what fails is the next map
    mapping.relink(page, lazy);
    this.#world.arena.failAt = failAt;
  }

  /** A device that is gone and has nothing mapped any more gives its slot to a new one. */
  plugAgain(device: WorldDevice): void {
    const index = this.#world.devices.indexOf(device);
    if (!device.dead || index < 0 || device.pci.node.present) return;
    if (this.some((mapping) => mapping.device === device)) return;
    const held = this.#world.held(index);
    if (held !== 0) throw new Broken("leak", `a device that is gone still holds ${held} reservations and leaves`);
    this.#reach.forgetDevice(device);
    this.#world.arena.failAt = 0;
    this.#world.plugAgain(index);
  }

  /** True if a page of a buffer is a device's by now: the CPU leaves it alone. */
  owns(buffer: number, page: number): boolean {
    return this.some((mapping) => mapping.buffer === buffer && page >= mapping.firstPage && page <= mapping.lastPage);
  }

  /** True if another mapping is about some of the same pages. */
  overlaps(mapping: LiveMapping): boolean {
    return this.some(
      (other) =>
        other !== mapping &&
        other.buffer === mapping.buffer &&
        other.firstPage <= mapping.lastPage &&
        mapping.firstPage <= other.lastPage,
    );
  }

  /** A byte has one owner: mappings may overlap only where all of them only read, and nobody turns memory that others hold. */
  #mayShare(step: MapStep): boolean {
    const [first, last] = [Math.floor(step.offset / 4096), Math.floor((step.offset + step.length - 1) / 4096)];
    return !this.some((mapping) => {
      const apart = mapping.buffer !== step.buffer || mapping.lastPage < first || mapping.firstPage > last;
      return !apart && (mapping.direction !== "to-device" || step.direction !== "to-device");
    });
  }
}
