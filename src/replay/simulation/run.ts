/**
 * One simulated run: the steps of a plan, one after the other, with every promise of the stack checked as it goes.
 *
 * The oracles: (a) a byte-exact shadow of every buffer, compared whenever its bytes are the CPU's or a device reads them;
 * (b) no access of a device ever reaches a page after its mapping was torn down and flushed; (c) at the end everything is
 * back as it was at the start, and a failed call leaves nothing at any time; (d) freed memory is poisoned, and no device
 * ever reads the poison. A run ends at the first promise that is broken.
 */
import { DmaError, type IovaPage, PhysPage, Random } from "../../base/index.ts";
import type { DmaVec } from "../../dma/index.ts";
import type { Requester } from "../../platform/index.ts";
import type { Observer } from "../../trace/index.ts";
import { Buffers } from "./buffers.ts";
import { type LiveMapping, mapPieces } from "./mapping.ts";
import { MAPPINGS, type MappingPlan, type Step } from "./plan.ts";
import { Broken, type RunOptions, type RunResult, type Violation, violationOf } from "./scenario.ts";
import { type PlantedParts, World, type WorldDevice } from "./world.ts";

/** Refusals that a call may answer with, on a machine on which things go wrong. */
const EXPECTED = new Set(["ENOMEM", "EREMOTEIO", "ENXIO", "EIO", "EPERM", "EINVAL"]);

export function runMapping(plan: MappingPlan, options: RunOptions = {}): RunResult {
  const run = new Run(plan, options.observer, options.parts);
  return run.all();
}

/** What is left of a mapping that is over: its addresses, until nobody may reach them. */
interface Dead {
  readonly device: WorldDevice;
  readonly vecs: readonly DmaVec[];
  readonly buffer: number;
  /** The unit may still know it: lazy mode, before the flush. */
  flushed: boolean;
}

class Run {
  readonly #plan: MappingPlan;
  readonly #world: World;
  readonly #buffers: Buffers;
  readonly #mappings: (LiveMapping | undefined)[] = new Array<undefined>(MAPPINGS).fill(undefined);
  readonly #dead: Dead[] = [];
  readonly #hoard: number[] = [];
  /** Page of a device's address space -> live mappings of it, by device. */
  readonly #reachable = new Map<Requester, Map<IovaPage, number>>();
  #events = 0;
  #bytesMoved = 0;

  constructor(plan: MappingPlan, observer: Observer | undefined, parts: PlantedParts | undefined) {
    this.#plan = plan;
    this.#world = new World(plan.seed, plan.config, (device) => this.#flushed(device), observer, parts);
    this.#buffers = new Buffers(this.#world, Random.fromSeed(plan.seed).fork("buffers"));
    this.#world.watch = (requester, page, access) => this.#accessed(requester, page, access);
  }

  all(): RunResult {
    let step = 0;
    let violation: Violation | undefined;
    try {
      for (; step < this.#plan.steps.length; step++) this.#step(this.#plan.steps[step]!);
      this.#end();
    } catch (error) {
      violation = violationOf(error, step);
    }
    return { events: this.#events, violation, bytesMoved: this.#bytesMoved };
  }

  #step(step: Step): void {
    const before = this.#events;
    this.#events++;
    switch (step.do) {
      case "map":
        this.#map(step);
        break;
      case "tick":
        this.#world.machine.clock.advance(step.ms);
        break;
      case "fill":
        this.#buffers.fill(step.buffer, step.seed, (page) => this.#ownedByDevice(step.buffer, page));
        break;
      case "free buffer":
        this.#freeBuffer(step.buffer);
        break;
      case "stale access":
        this.#staleAccess(step.nth, step.access);
        break;
      case "coherent":
        this.#coherent(step);
        break;
      case "fill pool":
        this.#fillPool(step.leave);
        break;
      case "empty pool":
        this.#emptyPool();
        break;
      case "fail table":
        this.#world.arena.failAt = step.nth;
        break;
      case "pull out":
        this.#pullOut(step.device);
        break;
      case "change ACS":
        this.#changeAcs(step.port, step.bits);
        break;
      case "silence device":
        this.#silence(step.device);
        break;
      default: {
        const mapping = this.#mappings[step.mapping];
        if (mapping) this.#onMapping(step, mapping);
        else this.#events = before;
      }
    }
  }

  #onMapping(step: Exclude<Step, { do: "map" }> & { mapping: number }, mapping: LiveMapping): void {
    switch (step.do) {
      case "unmap":
        this.#unmap(step.mapping, mapping);
        break;
      case "device writes":
        this.#deviceWrites(mapping, step.offset, step.length, step.seed);
        break;
      case "device reads":
        this.#deviceReads(mapping);
        break;
      case "turn":
        this.#turn(mapping, step.seed);
        break;
      case "relink":
        this.#relink(mapping, step.page, step.lazy);
        break;
      case "lose doorbell":
        break; // the device never hears of it: nothing moves, and nothing may have changed
    }
  }

  #map(step: Step & { do: "map" }): void {
    if (this.#mappings[step.mapping]) return;
    const device = this.#world.devices[step.device]!;
    if (device.dead) return;
    const pieces = this.#buffers.pieces(step.buffer, step.offset, step.length, step.peer ? step.device : undefined);
    if (!pieces || !this.#mayShare(step)) return;
    const before = this.#state(device);
    try {
      const mapping = mapPieces(device, step, pieces);
      this.#mappings[step.mapping] = mapping;
      this.#count(mapping, 1);
      this.#world.arena.failAt = 0;
    } catch (error) {
      this.#world.arena.failAt = 0;
      if (!(error instanceof DmaError && EXPECTED.has(error.errno))) throw error;
      const after = this.#state(device);
      if (after !== before)
        throw new Broken("leak", `a refused map (${error.errno}) left something: ${before} before, ${after} after`);
    }
  }

  /** A byte has one owner: mappings may overlap only where all of them only read, and nobody turns memory that others hold. */
  #mayShare(step: Step & { do: "map" }): boolean {
    const [first, last] = [Math.floor(step.offset / 4096), Math.floor((step.offset + step.length - 1) / 4096)];
    return this.#mappings.every((mapping) => {
      if (!mapping || mapping.buffer !== step.buffer) return true;
      const apart = mapping.lastPage < first || mapping.firstPage > last;
      return apart || (mapping.direction === "to-device" && step.direction === "to-device");
    });
  }

  #ownedByDevice(buffer: number, page: number): boolean {
    return this.#mappings.some(
      (mapping) => mapping && mapping.buffer === buffer && page >= mapping.firstPage && page <= mapping.lastPage,
    );
  }

  #unmap(slot: number, mapping: LiveMapping): void {
    this.#mappings[slot] = undefined;
    this.#count(mapping, -1);
    const lazily = mapping.device.domain?.mode === "lazy";
    this.#dead.unshift({
      device: mapping.device,
      vecs: [...mapping.vecs],
      buffer: mapping.buffer,
      flushed: !lazily,
    });
    if (this.#dead.length > 8) this.#dead.pop();
    mapping.unmap();
    this.#compare(mapping, "after unmap");
    this.#maybePlugAgain(mapping.device);
  }

  /** The CPU reads what is its own again. */
  #compare(mapping: LiveMapping, when: string): void {
    const found = new Uint8Array(mapping.length);
    this.#world.cpuRead(mapping.pieces, found);
    const expected = this.#buffers.shadow(mapping);
    const at = found.findIndex((byte, i) => byte !== expected[i]);
    if (at >= 0)
      throw new Broken(
        "bytes",
        `${when} (${mapping.way}, ${mapping.direction}) byte ${at} of ${mapping.length} reads ${found[at]}, not ${expected[at]}`,
      );
  }

  #deviceWrites(mapping: LiveMapping, offset: number, length: number, seed: number): void {
    if (mapping.direction === "to-device" || mapping.device.dead) return;
    const at = offset % mapping.length;
    const bytes = pattern(seed, Math.min(length, mapping.length - at));
    // A CPU fetches lines ahead at any time; what it has of them then is stale once the device has written.
    this.#world.cpuRead(mapping.pieces, new Uint8Array(mapping.length));
    if (!this.#move(mapping, at, bytes, "write")) return;
    this.#buffers.wrote(mapping, at, bytes);
    this.#bytesMoved += bytes.length;
  }

  #deviceReads(mapping: LiveMapping): void {
    if (mapping.direction === "from-device" || mapping.device.dead) return;
    const found = new Uint8Array(mapping.length);
    if (!this.#move(mapping, 0, found, "read")) return;
    this.#bytesMoved += found.length;
    const expected = this.#buffers.shadow(mapping);
    const at = found.findIndex((byte, i) => byte !== expected[i]);
    if (at < 0) return;
    if (isPoison(found, at)) throw new Broken("poison", `the device read freed memory at byte ${at} of a live mapping`);
    throw new Broken(
      "bytes",
      `the device read ${found[at]} at byte ${at} of ${mapping.length}, not ${expected[at]} (${mapping.way})`,
    );
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
        this.#noticeGivenUp();
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

  /** The CPU looks, changes what it may, and hands the memory back. */
  #turn(mapping: LiveMapping, seed: number): void {
    if (mapping.device.dead) return;
    mapping.syncForCpu();
    this.#compare(mapping, "after a sync for the CPU");
    const shared = this.#mappings.some(
      (other) => other && other !== mapping && other.buffer === mapping.buffer && overlap(other, mapping),
    );
    if (mapping.direction !== "from-device" && !shared) {
      const bytes = pattern(seed, mapping.length);
      this.#world.cpuWrite(mapping.pieces, bytes);
      this.#buffers.wrote(mapping, 0, bytes);
    }
    mapping.syncForDevice();
  }

  #relink(mapping: LiveMapping, page: number, lazy: boolean): void {
    if (mapping.device.dead || !mapping.relink) return;
    const { failAt } = this.#world.arena;
    this.#world.arena.failAt = 0; // its tables are there; what fails is the next map
    mapping.relink(page, lazy);
    this.#world.arena.failAt = failAt;
  }

  #freeBuffer(buffer: number): void {
    if (this.#mappings.some((mapping) => mapping?.buffer === buffer)) return;
    if (this.#dead.some((dead) => dead.buffer === buffer && !dead.flushed)) return;
    this.#buffers.free(buffer);
  }

  /** A device that goes on after its mapping is over must find nothing there, once everything was flushed. */
  #staleAccess(nth: number, access: "read" | "write"): void {
    const dead = this.#dead[nth];
    if (!dead || dead.device.dead || dead.device.domain === undefined) return;
    for (const { address, length, bus } of dead.vecs) {
      if (bus) continue;
      const page = Math.floor(address / 4096) as IovaPage;
      if (this.#reachable.get(dead.device.pci.requester)?.get(page)) continue; // somebody else's by now
      const bytes = new Uint8Array(Math.min(length, 64));
      if (access === "write" && !dead.flushed) continue; // it may go through, and nobody knows where to
      const through =
        access === "read"
          ? this.#world.deviceRead(dead.device, address, bytes)
          : this.#world.deviceWrite(dead.device, address, bytes);
      if (through && isPoison(bytes, 0)) throw new Broken("poison", "a stale read reached freed memory");
    }
  }

  /** Every access that a unit let through comes here. */
  #accessed(requester: Requester, page: IovaPage, access: "read" | "write"): void {
    if (this.#reachable.get(requester)?.get(page)) return;
    const known = this.#dead.find(
      ({ device, vecs, flushed }) =>
        device.pci.requester === requester && !flushed && vecs.some((vec) => holds(vec, page)),
    );
    if (known) return;
    this.#noticeGivenUp();
    if (this.#world.devices.some(({ pci, dead }) => dead && pci.requester === requester)) return;
    throw new Broken(
      "teardown",
      `a ${access} of page 0x${page.toString(16)} went through, though nothing is mapped there and everything was flushed`,
    );
  }

  #coherent(step: Step & { do: "coherent" }): void {
    const device = this.#world.devices[step.device]!;
    if (device.dead) return;
    const before = this.#state(device);
    this.#world.arena.failAt = 0;
    let memory: ReturnType<typeof device.dma.allocCoherent>;
    try {
      memory = device.dma.allocCoherent(step.length);
    } catch (error) {
      if (!(error instanceof DmaError && EXPECTED.has(error.errno))) throw error;
      return;
    }
    const vecs = [{ address: memory.address, length: step.length }];
    this.#countPages(device, vecs, 1);
    const bytes = pattern(step.seed, step.length);
    const seen = new Uint8Array(step.length);
    const zero = this.#world.deviceRead(device, memory.address, seen) && seen.every((byte) => byte === 0);
    this.#noticeGivenUp();
    if (!zero && !device.dead) throw new Broken("bytes", "coherent memory is not zero at first, or not there");
    if (!device.dead) {
      this.#world.deviceWrite(device, memory.address, bytes);
      this.#bytesMoved += bytes.length;
      memory.read(0, seen);
      if (seen.some((byte, i) => byte !== bytes[i]))
        throw new Broken("bytes", "the CPU does not see what the device wrote");
    }
    this.#countPages(device, vecs, -1);
    this.#dead.unshift({ device, vecs, buffer: -1, flushed: device.domain?.mode !== "lazy" });
    memory.free();
    if (this.#state(device) !== before) throw new Broken("leak", "coherent memory was not given back whole");
  }

  #fillPool(leave: number): void {
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

  #emptyPool(): void {
    for (const at of this.#hoard.splice(0)) this.#world.pool!.unmap(at as never, 1, "to-device", true);
  }

  #pullOut(index: number): void {
    const device = this.#world.devices[index]!;
    if (device.dead) return;
    // Whoever has its window mapped lets go first: what a window that is gone reads as is nobody's promise.
    this.#mappings.forEach((mapping, slot) => {
      if (mapping?.peer && mapping.device !== device) this.#unmap(slot, mapping);
    });
    this.#world.replace(index);
    this.#buffers.forgetPeer(index);
    this.#maybePlugAgain(device);
  }

  /** A slot gets a new device once its old one has nothing mapped. */
  #maybePlugAgain(device: WorldDevice): void {
    const index = this.#world.devices.indexOf(device);
    if (!device.dead || index < 0 || device.pci.node.present) return;
    if (this.#mappings.some((mapping) => mapping?.device === device)) return;
    const held = this.#world.held(index);
    if (held !== 0) throw new Broken("leak", `a device that is gone still holds ${held} reservations and leaves`);
    for (let i = this.#dead.length - 1; i >= 0; i--) if (this.#dead[i]!.device === device) this.#dead.splice(i, 1);
    this.#world.arena.failAt = 0;
    this.#world.plugAgain(index);
  }

  #changeAcs(port: number, bits: number): void {
    if (this.#mappings.some((mapping) => mapping?.peer)) return; // whoever maps peers quiesces them first
    const node = this.#world.devices[port]!.pci.node.parent;
    if (node) node.acsControl = bits;
  }

  #silence(index: number): void {
    const device = this.#world.devices[index]!;
    if (device.dead || !this.#world.vtd) return;
    this.#world.vtd.hardware.addDeviceTlb(device.pci.requester).manners = "silent";
  }

  /** Devices that did not answer an invalidation have lost the unit's trust: what they do is not judged any more. */
  #noticeGivenUp(): void {
    for (const fault of this.#world.vtd?.unit.faults.drain() ?? []) {
      if (fault.kind !== "device-given-up") continue;
      for (const device of this.#world.devices) if (device.pci.requester === fault.requester) device.dead = true;
    }
  }

  #flushed(index: number): void {
    for (const dead of this.#dead) if (this.#world.devices.indexOf(dead.device) === index) dead.flushed = true;
  }

  #count(mapping: LiveMapping, by: 1 | -1): void {
    this.#countPages(mapping.device, mapping.vecs, by);
  }

  #countPages(device: WorldDevice, vecs: readonly DmaVec[], by: 1 | -1): void {
    const { requester } = device.pci;
    let pages = this.#reachable.get(requester);
    if (!pages) {
      pages = new Map();
      this.#reachable.set(requester, pages);
    }
    for (const { address, length, bus } of vecs) {
      if (bus) continue;
      const granule = device.dma.mergeBoundary + 1; // a trusted device reaches whole granules
      const first = (Math.floor(address / granule) * granule) / 4096;
      const end = (Math.ceil((address + length) / granule) * granule) / 4096;
      for (let page = first; page < end; page++) pages.set(page as IovaPage, (pages.get(page as IovaPage) ?? 0) + by);
    }
  }

  /** Everything that a call may leave behind. */
  #state(device: WorldDevice): string {
    const index = this.#world.devices.indexOf(device);
    const { machine, pool } = this.#world;
    const confidential = machine.encryption ? `, ${machine.encryption.sharedPages} shared pages` : "";
    return `${this.#world.held(index)} held, ${pool?.used ?? 0} slots, ${machine.ram.pagesInUse} pages${confidential}`;
  }

  #end(): void {
    this.#world.arena.failAt = 0;
    this.#mappings.forEach((mapping, slot) => {
      if (mapping) this.#unmap(slot, mapping);
    });
    this.#emptyPool();
    this.#world.machine.clock.advance(1000);
    for (let i = 0; i < this.#dead.length; i++) this.#staleAccess(i, "read");
    this.#buffers.freeAll();
    const leaks = this.#world.machine.leaks().filter((leak) => !leak.startsWith("timers") && !leak.startsWith("peer"));
    if (leaks.length > 0) throw new Broken("leak", `at the end: ${leaks.join("; ")}`);
    this.#world.close();
  }
}

const holds = ({ address, length }: DmaVec, page: number): boolean =>
  page >= Math.floor(address / 4096) && page <= Math.floor((address + length - 1) / 4096);

const overlap = (a: LiveMapping, b: LiveMapping): boolean => a.firstPage <= b.lastPage && b.firstPage <= a.lastPage;

export const pattern = (seed: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (seed + 7 * i + 13 * (i >> 8)) & 255;
  return bytes;
};

/** What freed memory is filled with. */
export const POISON: Uint8Array = Uint8Array.from([0xde, 0xad, 0xf0, 0x0d, 0xba, 0xdd, 0xca, 0xfe]);

function isPoison(bytes: Uint8Array, from: number): boolean {
  for (let at = from; at + 8 <= bytes.length && at < from + 8; at++)
    if (POISON.every((byte, i) => bytes[at + i] === byte)) return true;
  return false;
}
