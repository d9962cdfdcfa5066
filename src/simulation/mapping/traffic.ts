/**
 * Bytes on the move: devices and the CPU write what they own, and whoever reads finds what was written last.
 */

import { pattern } from "../bytes.ts";
import { Broken } from "../scenario.ts";
import type { Buffers } from "./buffers.ts";
import type { LiveMapping } from "./live-mapping.ts";
import { isRefusal, type Mappings } from "./mappings.ts";
import type { Step } from "./plan.ts";
import type { Reach } from "./reach.ts";
import type { World } from "./world.ts";

export class Traffic {
  /** Bytes that devices moved. */
  bytesMoved = 0;
  readonly #world: World;
  readonly #buffers: Buffers;
  readonly #reach: Reach;
  readonly #mappings: Mappings;

  constructor(world: World, buffers: Buffers, reach: Reach, mappings: Mappings) {
    this.#world = world;
    this.#buffers = buffers;
    this.#reach = reach;
    this.#mappings = mappings;
  }

  deviceWrites(mapping: LiveMapping, offset: number, length: number, seed: number): void {
    if (mapping.direction === "to-device" || mapping.device.dead) return;
    const at = offset % mapping.length;
    const bytes = pattern(seed, Math.min(length, mapping.length - at));
    // A CPU fetches lines ahead at any time; what it has of them then is stale once the device has written.
    this.#world.cpuRead(mapping.pieces, new Uint8Array(mapping.length));
    if (!this.#move(mapping, at, bytes, "write")) return;
    this.#buffers.wrote(mapping, at, bytes);
    this.bytesMoved += bytes.length;
  }

  deviceReads(mapping: LiveMapping): void {
    if (mapping.direction === "from-device" || mapping.device.dead) return;
    const found = new Uint8Array(mapping.length);
    if (!this.#move(mapping, 0, found, "read")) return;
    this.bytesMoved += found.length;
    this.#buffers.checkDeviceRead(mapping, found);
  }

  /** The CPU looks, changes what it may, and hands the memory back. */
  turn(mapping: LiveMapping, seed: number): void {
    if (mapping.device.dead) return;
    mapping.syncForCpu();
    this.#buffers.checkAsCpu(mapping, "after a sync for the CPU");
    if (mapping.direction !== "from-device" && !this.#mappings.overlaps(mapping)) {
      const bytes = pattern(seed, mapping.length);
      this.#world.cpuWrite(mapping.pieces, bytes);
      this.#buffers.wrote(mapping, 0, bytes);
    }
    mapping.syncForDevice();
  }

  /** Coherent memory, from its allocation to its end: zero at first, both sides see each other's bytes, all is given back. */
  coherent(step: Step & { do: "coherent" }): void {
    const device = this.#world.devices[step.device]!;
    if (device.dead) return;
    const before = this.#world.state(device);
    this.#world.arena.failAt = 0;
    let memory: ReturnType<typeof device.dma.allocCoherent>;
    try {
      memory = device.dma.allocCoherent(step.length);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      return;
    }
    const vecs = [{ address: memory.address, length: step.length }];
    this.#reach.begin(device, vecs);
    const bytes = pattern(step.seed, step.length);
    const seen = new Uint8Array(step.length);
    const zero = this.#world.deviceRead(device, memory.address, seen) && seen.every((byte) => byte === 0);
    this.#world.noticeGivenUp();
    if (!zero && !device.dead) throw new Broken("bytes", "coherent memory is not zero at first, or not there");
    if (!device.dead) {
      this.#world.deviceWrite(device, memory.address, bytes);
      this.bytesMoved += bytes.length;
      memory.read(0, seen);
      if (seen.some((byte, i) => byte !== bytes[i]))
        throw new Broken("bytes", "the CPU does not see what the device wrote");
    }
    this.#reach.end(device, vecs);
    memory.free();
    if (this.#world.state(device) !== before) throw new Broken("leak", "coherent memory was not given back whole");
  }

  /** True if it went through; a refusal of what is mapped is a broken promise, unless the unit gave the device up. */
  #move(mapping: LiveMapping, from: number, bytes: Uint8Array, access: "read" | "write"): boolean {
    let skip = from;
    let at = 0;
    for (const { address, length } of mapping.vecs) {
      if (skip >= length) {
        skip -= length;
        continue;
      }
      const piece = Math.min(length - skip, bytes.length - at);
      if (piece === 0) break;
      const part = bytes.subarray(at, at + piece);
      const moved =
        access === "read"
          ? this.#world.deviceRead(mapping.device, address + skip, part)
          : this.#world.deviceWrite(mapping.device, address + skip, part);
      if (!moved) {
        this.#world.noticeGivenUp();
        if (mapping.device.dead) return false;
        throw new Broken(
          "bytes",
          `a ${access} of ${piece} bytes at 0x${(address + skip).toString(16)} was refused, though mapped (${mapping.way}, ${mapping.direction})`,
        );
      }
      at += piece;
      skip = 0;
    }
    return true;
  }
}
