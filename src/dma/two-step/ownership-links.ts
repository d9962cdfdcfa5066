/**
 * What a two-step link needs besides entries on a device that is not plain: bounce buffers for ragged ends, maintenance
 * of the CPU's caches, and the privacy of a confidential guest's memory.
 *
 * Idea: an untrusted device sees whole granules, so the head and the tail of a piece that do not fill theirs go through
 * slots; the middle is mapped where it lies. How each granule was linked is remembered in one byte of it.
 * Order at the end: clear the entries, invalidate, and only then copy out and give the slots back. Linux does the last
 * first, so that the device can still write into a slot that is somebody else's: only with `linuxCompatible`.
 * Specified by: behaviour of Linux 7.2 two-step DMA API with bounce.
 */

import type { DmaAttributes } from "../../base/index.ts";
import { DIRECTIONS, DmaAddr, directionNumber, PAGE_SIZE, PhysAddr } from "../../base/index.ts";
import { bounceForbidden, mixedSharing, notCoherent, rangeHasBounced, unlinkDiffers } from "../errors.ts";
import { bounceIn, bounceOut } from "../path/bounce.ts";
import { checkPrivacy } from "../path/confidential.ts";
import type { Granules } from "../path/granules.ts";
import type { Terms } from "../terms.ts";
import type { Direction } from "../vectors.ts";
import type { Links } from "./links.ts";

/** A slot to copy out of, once the device cannot reach it any more. */
interface Held {
  readonly slot: PhysAddr;
  readonly length: number;
  readonly terms: Terms;
}

export class OwnershipLinks {
  hasBounced = false;
  /** What is linked is shared memory; for a device whose addresses say so. */
  #isShared = false;
  readonly #granules: Granules;
  readonly #links: Links;
  /** How each granule was linked, and how many bytes of it, by granule of the address space. */
  readonly #linked = new Map<number, number>();
  /** Where in its granule a piece starts, if not at its start. */
  readonly #inside = new Map<number, number>();

  constructor(granules: Granules, links: Links) {
    this.#granules = granules;
    this.#links = links;
  }

  link(address: number, phys: PhysAddr, length: number, terms: Terms, prot: number): void {
    const { device } = this.#granules;
    const { direction, attributes } = terms;
    device.contract?.checkPiece(phys, length, attributes);
    this.#checkSharing(terms);
    if (attributes?.requireCoherent) {
      if (this.hasBounced) throw rangeHasBounced(device.name);
      if (!device.coherent) throw notCoherent(device.name);
    }
    checkPrivacy(device, phys, length, attributes);
    if (!this.#granules.bounces(phys, length, direction)) {
      this.#linkWhole(address, phys, length, terms, prot);
      return;
    }
    if (attributes?.mmio || attributes?.requireCoherent) throw bounceForbidden(device.name, phys, length);
    this.#linkBounced(address, phys, length, terms, prot);
  }

  /** Takes what [address, + length) reaches back for the CPU, around `clear`, which clears the entries. */
  unlink(address: number, length: number, terms: Partial<Terms>, clear: () => void): void {
    if (this.#granules.device.refusesMisuse) this.#checkSame(address, length, terms);
    const held = this.#reclaim(address, length, terms);
    clear();
    this.#giveBack(held);
  }

  /** The end of a range, around `release`, which is told whether the IOTLB must forget at once: slots are given back then. */
  finish(address: number, length: number, terms: Partial<Terms>, release: (now: boolean) => void): void {
    const held = this.#reclaim(address, length, terms);
    release(held.length > 0);
    this.#giveBack(held);
  }

  /** Moves ownership of everything that is linked, slots included. */
  sync(to: "cpu" | "device"): void {
    const { device, ownership, granule } = this.#granules;
    const { pool } = device.machine;
    if (device.coherent && !this.hasBounced) return;
    const slots: { phys: PhysAddr; length: number; direction: Direction }[] = [];
    for (const [at, how] of this.#linked) {
      const { direction, attributes } = decode(how);
      const phys = this.#granules.physOf(DmaAddr(at * granule + (this.#inside.get(at) ?? 0)));
      if (phys === undefined) continue;
      const length = Math.floor(how / LENGTH);
      const inPool = pool?.holds(phys) === true;
      if (inPool && to === "device") pool.syncForDevice(phys, length, direction);
      if (ownership.needed(attributes))
        to === "cpu" ? ownership.forCpu(phys, length, direction) : ownership.forDevice(phys, length, direction);
      if (inPool) slots.push({ phys, length, direction });
    }
    if (!device.coherent) ownership.barrier();
    if (to === "cpu") for (const { phys, length, direction } of slots) pool?.syncForCpu(phys, length, direction);
  }

  #linkWhole(address: number, phys: PhysAddr, length: number, terms: Terms, prot: number): void {
    const { direction, attributes } = terms;
    const { ownership } = this.#granules;
    if (ownership.needed(attributes)) this.#forDevice(phys, length, direction);
    try {
      // What the table points to says that it is shared.
      const target = attributes?.shared ? phys + this.#granules.device.sharedBit : phys;
      this.#links.map(address, target, length, prot);
    } catch (error) {
      if (ownership.needed(attributes)) ownership.takeBack(phys, length, direction);
      throw error;
    }
    this.#granules.device.machine.encryption?.mapped?.(phys, length);
    this.#isShared = attributes?.shared === true;
    this.#remember(address, length, terms);
  }

  /** A range has one bit that says whether it is shared: its links are of one kind. */
  #checkSharing({ attributes }: Terms): void {
    const { device } = this.#granules;
    if (device.sharedBit === 0 || this.#linked.size === 0) return;
    if (this.#isShared !== (attributes?.shared === true)) throw mixedSharing(device.name, this.#isShared);
  }

  #linkBounced(address: number, phys: PhysAddr, length: number, terms: Terms, prot: number): void {
    const granules = this.#granules;
    const bouncedBefore = this.hasBounced;
    const headPad = granules.inside(phys);
    const tail = granules.inside(phys + length);
    let done = 0;
    try {
      if (headPad > 0) {
        const head = Math.min(length, granules.granule - headPad);
        this.#linkSlot(address, phys, head, terms, prot);
        done = head;
        if (done === length) return;
      }
      const middle = length - done - tail;
      if (middle > 0) {
        this.#linkWhole(address + done, PhysAddr(phys + done), middle, terms, prot);
        done += middle;
      }
      if (tail > 0) this.#linkSlot(address + done, PhysAddr(phys + done), tail, terms, prot);
    } catch (error) {
      if (done > 0) {
        const pages = granules.pages(granules.inside(address) + done);
        this.unlink(address, done, terms, () => granules.domain.unmapNow(granules.pageOf(address), pages));
      }
      if (!granules.device.linuxCompatible) this.hasBounced = bouncedBefore;
      throw error;
    }
  }

  /** A piece inside one granule, through a slot that lies at the same place of its own granule. */
  #linkSlot(address: number, phys: PhysAddr, length: number, terms: Terms, prot: number): void {
    const { direction, attributes } = terms;
    const granules = this.#granules;
    const { device, granule, ownership } = granules;
    const keep = device.linuxCompatible ? undefined : granule - 1;
    const slot = bounceIn(device, phys, length, granule - 1, keep);
    try {
      if (ownership.needed(attributes)) this.#forDevice(slot, length, direction);
      this.#links.map(address, slot, length, prot, granules.inside(phys));
    } catch (error) {
      if (ownership.needed(attributes)) ownership.takeBack(slot, length, direction);
      bounceOut(device, slot, length, terms);
      throw error;
    }
    this.hasBounced = true;
    this.#remember(address, length, terms);
  }

  /** The bytes of the piece; Linux maintains its whole granules, and what lies beside the piece in them may be lost. */
  #forDevice(phys: PhysAddr, length: number, direction: Direction): void {
    if (!this.#granules.device.linuxCompatible) {
      this.#granules.ownership.forDevice(phys, length, direction);
      return;
    }
    const inside = this.#granules.inside(phys);
    const bytes = this.#granules.pages(inside + length) * PAGE_SIZE;
    this.#granules.ownership.forDevice(PhysAddr(phys - inside), bytes, direction);
  }

  /**
   * Cache maintenance for the CPU, granule by granule, and the slots that are to be copied out of once the device cannot
   * reach them; `linuxCompatible` copies at once. Stops at the first granule that reaches nothing.
   */
  #reclaim(address: number, length: number, terms: Partial<Terms>): Held[] {
    const granules = this.#granules;
    const { device, ownership, granule } = granules;
    const held: Held[] = [];
    const { direction } = terms;
    const isGiven = direction !== undefined;
    const { encryption, pool } = device.machine;
    const touched = this.hasBounced || encryption !== undefined;
    if (!touched && (device.coherent || (isGiven && !ownership.needed(terms.attributes)))) return held;
    const end = address + length;
    let maintained = false;
    for (let at = address; at < end; ) {
      const index = Math.floor(at / granule);
      const linked = this.#linked.get(index);
      if (!isGiven) at = index * granule + (this.#inside.get(index) ?? 0);
      const room = granule - granules.inside(at);
      const how = isGiven ? encode(direction, terms.attributes) : linked;
      if (how !== undefined) {
        const phys = granules.physOf(DmaAddr(at));
        if (phys === undefined) break;
        const asLinked = decode(how);
        const piece = Math.min(end - at, linked === undefined ? room : Math.floor(linked / LENGTH));
        if (ownership.needed(asLinked.attributes)) {
          ownership.forCpu(phys, piece, asLinked.direction);
          maintained = true;
        }
        if (!pool?.holds(phys)) encryption?.unmapped?.(phys, piece);
        else if (device.linuxCompatible) bounceOut(device, phys, piece, asLinked);
        else held.push({ slot: phys, length: piece, terms: asLinked });
      }
      this.#linked.delete(index);
      this.#inside.delete(index);
      at += room;
    }
    if (maintained) ownership.barrier();
    return held;
  }

  #giveBack(held: readonly Held[]): void {
    for (const { slot, length, terms } of held) bounceOut(this.#granules.device, slot, length, terms);
  }

  #remember(address: number, length: number, { direction, attributes }: Terms): void {
    const { granule } = this.#granules;
    const how = encode(direction, attributes);
    const end = address + length;
    for (let at = address; at < end; ) {
      const room = granule - this.#granules.inside(at);
      const index = Math.floor(at / granule);
      this.#linked.set(index, how + Math.min(room, end - at) * LENGTH);
      if (room < granule) this.#inside.set(index, granule - room);
      at += room;
    }
  }

  #checkSame(address: number, length: number, terms: Partial<Terms>): void {
    const { direction, attributes } = terms;
    if (direction === undefined) return;
    const { granule } = this.#granules;
    const said = encode(direction, attributes);
    for (let index = Math.floor(address / granule); index * granule < address + length; index++) {
      const how = this.#linked.get(index);
      if (how === undefined || said === how % LENGTH) continue;
      const same = decode(how).direction === direction;
      throw unlinkDiffers(same ? "the set of attributes" : `the direction ${JSON.stringify(direction)}`);
    }
  }
}

/** What matters at the end of a piece, in a few bits. */
function encode(direction: Direction, attributes?: DmaAttributes): number {
  return directionNumber(direction) | (attributes?.skipCpuSync ? SKIP : 0) | (attributes?.mmio ? DEVICE_MEMORY : 0);
}

function decode(how: number): Terms {
  return {
    direction: DIRECTIONS[how & 3]!,
    attributes: { skipCpuSync: (how & SKIP) !== 0, mmio: (how & DEVICE_MEMORY) !== 0 },
  };
}

const SKIP = 4;
const DEVICE_MEMORY = 8;
/** Above the bits: bytes. */
const LENGTH = 16;
