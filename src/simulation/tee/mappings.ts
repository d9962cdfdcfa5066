/**
 * Mappings of a run: memory of a guest that a device was given, what is in it, and the way to take it back.
 *
 * Inside the trust private memory holds secrets; what a device outside is given, or is shared, never does.
 */

import { type DmaAddr, PAGE_SIZE, PhysAddr, PhysPage, type Random } from "../../base/index.ts";
import type { Dma } from "../../dma/index.ts";
import { pattern } from "../bytes.ts";
import { Broken } from "../scenario.ts";
import type { TeeWay } from "./plan.ts";
import { fillWithSecrets } from "./secrets.ts";
import type { Guest, Place } from "./world.ts";

/** Memory of a guest. */
interface Memory {
  readonly guest: Guest;
  readonly phys: PhysAddr;
  readonly length: number;
  /** What the guest's CPU sees there. */
  read(): Uint8Array;
  write(bytes: Uint8Array): void;
  free(): void;
}

/** A run of addresses, as the device was given it. */
interface Segment {
  readonly address: DmaAddr;
  readonly length: number;
}

/** Memory that a device was given. */
export interface LiveMapping {
  readonly place: Place;
  /** The device that was there then. */
  readonly engine: Place["engine"];
  readonly memory: Memory;
  readonly segments: readonly Segment[];
  /** Reached inside the trust. */
  readonly isTrusted: boolean;
  /** What the memory holds, once the device has done what it was asked. */
  content: Uint8Array;
  sync(to: "cpu" | "device"): void;
  release(): void;
}

/** Pages of a guest; undefined if there are none. */
export function takeMemory(guest: Guest, pages: number, shared: boolean): Memory | undefined {
  const { tvm } = guest;
  const first = tvm.pages.allocatePages(pages);
  if (first === undefined) return undefined;
  if (shared) tvm.encryption.convert(first, pages, "shared");
  const phys = PhysPage.start(first);
  const length = pages * PAGE_SIZE;
  return {
    guest,
    phys,
    length,
    read: () => {
      const bytes = new Uint8Array(length);
      tvm.read(phys, bytes);
      return bytes;
    },
    write: (bytes) => tvm.write(phys, bytes),
    free: () => tvm.pages.freePages(first, pages),
  };
}

/** Fills memory: with secrets, or with something that anybody may see. */
export function fill(memory: Memory, isSecret: boolean, random: Random): Uint8Array {
  const bytes = pattern(random.below(100), memory.length);
  if (isSecret) fillWithSecrets(bytes, memory.guest.tvm.number, random);
  memory.write(bytes);
  return bytes;
}

/** Maps memory through a door, in one of the ways. @throws DmaError */
export function mapMemory(place: Place, dma: Dma, memory: Memory, way: TeeWay, content: Uint8Array): LiveMapping {
  const isShared = way === "shared" || way === "shared two-step";
  const attributes = isShared ? { shared: true } : undefined;
  const isInside = dma.device.tdi === "run";
  const { phys, length } = memory;
  const base = { place, engine: place.engine, memory, content, isTrusted: isInside && way !== "shared" };
  if (isInside && (way === "two-step" || way === "shared two-step")) {
    const range = dma.tryReserveIova({ length })!;
    try {
      // Page by page, the last first: what is linked is what is reached, in any order.
      for (let at = length - PAGE_SIZE; at >= 0; at -= PAGE_SIZE)
        range.link(at, PhysAddr(phys + at), PAGE_SIZE, "bidirectional", attributes);
      range.sync();
    } catch (error) {
      range.destroy();
      throw error;
    }
    return { ...base, segments: [{ address: range.address, length }], sync: () => {}, release: () => range.destroy() };
  }
  if (way === "vectors") {
    const mapping = dma.mapVecs([{ phys, length }], "bidirectional", attributes);
    const sync = (to: "cpu" | "device"): void => (to === "cpu" ? mapping.syncForCpu() : mapping.syncForDevice());
    return { ...base, segments: mapping.vecs, sync, release: () => mapping.unmap() };
  }
  const mapping = dma.map(phys, length, "bidirectional", attributes);
  const sync = (to: "cpu" | "device"): void => (to === "cpu" ? mapping.syncForCpu() : mapping.syncForDevice());
  return { ...base, segments: [{ address: mapping.address, length }], sync, release: () => mapping.unmap() };
}

/** The device reads or writes all of a mapping. True if it went through; then the bytes are what they must be. */
export function transfer(mapping: LiveMapping, write: boolean, seed: number): boolean {
  const { engine, memory, segments } = mapping;
  if (write) {
    const bytes = pattern(seed, memory.length);
    if (!engine.scatter(segments, bytes)) {
      mapping.sync("cpu");
      mapping.content = memory.read(); // what lies before the refused page is written
      return false;
    }
    mapping.content = bytes;
    mapping.sync("cpu");
    compare(memory.read(), bytes, "memory that the device wrote");
    return true;
  }
  mapping.sync("device");
  const bytes = engine.gather(segments);
  engine.buffer = bytes ?? new Uint8Array(0);
  if (bytes) compare(bytes, mapping.content, "what the device read");
  return bytes !== undefined;
}

/** Takes memory back. @throws Broken if it does not hold what it must */
export function giveBack(mapping: LiveMapping): void {
  mapping.release();
  const found = mapping.memory.read();
  mapping.memory.free();
  compare(found, mapping.content, "memory that was given back");
}

function compare(found: Uint8Array, expected: Uint8Array, what: string): void {
  const at = found.findIndex((byte, i) => byte !== expected[i]);
  if (at >= 0) throw new Broken("bytes", `${what} holds ${found[at]} at byte ${at}, not ${expected[at]}`);
}
