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
import { DmaAddr, PAGE_SIZE, PhysAddr } from "../../base/index.ts";
import { bounceIn, bounceOut } from "../path/bounce.ts";
import { checkPrivacy } from "../path/confidential.ts";
import { bounceForbidden, notCoherent, rangeHasBounced, unlinkDiffers } from "../errors.ts";
import type { Links } from "./links.ts";
import type { TranslatedPath } from "../path/translated.ts";
import type { Direction, DmaAttributes } from "../vectors.ts";

/** What a piece was linked with, as its owner says. */
interface As {
  readonly direction?: Direction;
  readonly attributes?: DmaAttributes;
}

/** A slot to copy out of, once the device cannot reach it any more. */
interface Held {
  readonly slot: PhysAddr;
  readonly length: number;
  readonly direction: Direction;
  readonly attributes: DmaAttributes;
}

export class CarefulLinks {
  hasBounced = false;
  readonly #path: TranslatedPath;
  readonly #links: Links;
  /** How each granule was linked, and how many bytes of it, by granule of the address space. */
  readonly #how = new Map<number, number>();
  /** Where in its granule a piece starts, if not at its start. */
  readonly #inside = new Map<number, number>();

  constructor(path: TranslatedPath, links: Links) {
    this.#path = path;
    this.#links = links;
  }

  link(
    address: number,
    phys: PhysAddr,
    length: number,
    direction: Direction,
    prot: number,
    attributes?: DmaAttributes,
  ): void {
    const { device } = this.#path;
    if (attributes?.requireCoherent) {
      if (this.hasBounced) throw rangeHasBounced(device.name);
      if (!device.coherent) throw notCoherent(device.name);
    }
    checkPrivacy(device, phys, length, attributes);
    if (!this.#path.bounces(phys, length, direction)) {
      this.#linkWhole(address, phys, length, direction, prot, attributes);
      return;
    }
    if (attributes?.mmio || attributes?.requireCoherent) throw bounceForbidden(device.name, phys, length);
    this.#linkBounced(address, phys, length, direction, prot, attributes);
  }

  /** Takes what [address, + length) reaches back for the CPU, around `clear`, which clears the entries. */
  unlink(address: number, length: number, as: As, clear: () => void): void {
    if (this.#path.device.checked) this.#checkSame(address, length, as);
    const held = this.#reclaim(address, length, as);
    clear();
    this.#giveBack(held);
  }

  /** The end of a range, around `release`, which is told whether the IOTLB must forget at once: slots are given back then. */
  finish(address: number, length: number, as: As, release: (now: boolean) => void): void {
    const held = this.#reclaim(address, length, as);
    release(held.length > 0);
    this.#giveBack(held);
  }

  /** Moves ownership of everything that is linked, slots included. */
  sync(to: "cpu" | "device"): void {
    const { device, ownership, granule } = this.#path;
    const { pool } = device.machine;
    if (device.coherent && !this.hasBounced) return;
    const slots: { phys: PhysAddr; length: number; direction: Direction }[] = [];
    for (const [at, how] of this.#how) {
      const { direction, attributes } = decode(how);
      const phys = this.#path.physOf(DmaAddr(at * granule + (this.#inside.get(at) ?? 0)));
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

  #linkWhole(
    address: number,
    phys: PhysAddr,
    length: number,
    direction: Direction,
    prot: number,
    attributes?: DmaAttributes,
  ): void {
    const { ownership } = this.#path;
    if (ownership.needed(attributes)) this.#forDevice(phys, length, direction);
    try {
      this.#links.map(address, phys, length, prot);
    } catch (error) {
      if (ownership.needed(attributes)) ownership.takeBack(phys, length, direction);
      throw error;
    }
    this.#path.device.machine.encryption?.mapped?.(phys, length);
    this.#remember(address, length, direction, attributes);
  }

  #linkBounced(
    address: number,
    phys: PhysAddr,
    length: number,
    direction: Direction,
    prot: number,
    attributes?: DmaAttributes,
  ): void {
    const path = this.#path;
    const bouncedBefore = this.hasBounced;
    const headPad = path.inside(phys);
    const tail = path.inside(phys + length);
    let done = 0;
    try {
      if (headPad > 0) {
        const head = Math.min(length, path.granule - headPad);
        this.#linkSlot(address, phys, head, direction, prot, attributes);
        done = head;
        if (done === length) return;
      }
      const middle = length - done - tail;
      if (middle > 0) {
        this.#linkWhole(address + done, PhysAddr(phys + done), middle, direction, prot, attributes);
        done += middle;
      }
      if (tail > 0) this.#linkSlot(address + done, PhysAddr(phys + done), tail, direction, prot, attributes);
    } catch (error) {
      if (done > 0) {
        const pages = path.pages(path.inside(address) + done);
        this.unlink(address, done, { direction, ...(attributes && { attributes }) }, () =>
          path.domain.unmapNow(path.pageOf(address), pages),
        );
      }
      if (!path.device.linuxCompatible) this.hasBounced = bouncedBefore;
      throw error;
    }
  }

  /** A piece inside one granule, through a slot that lies at the same place of its own granule. */
  #linkSlot(
    address: number,
    phys: PhysAddr,
    length: number,
    direction: Direction,
    prot: number,
    attributes?: DmaAttributes,
  ): void {
    const path = this.#path;
    const { device, granule, ownership } = path;
    const keep = device.linuxCompatible ? undefined : granule - 1;
    const slot = bounceIn(device, phys, length, granule - 1, keep);
    try {
      if (ownership.needed(attributes)) this.#forDevice(slot, length, direction);
      this.#links.map(address, slot, length, prot, path.inside(phys));
    } catch (error) {
      if (ownership.needed(attributes)) ownership.takeBack(slot, length, direction);
      bounceOut(device, slot, length, direction, attributes);
      throw error;
    }
    this.hasBounced = true;
    this.#remember(address, length, direction, attributes);
  }

  /** The bytes of the piece; Linux maintains its whole granules, and what lies beside the piece in them may be lost. */
  #forDevice(phys: PhysAddr, length: number, direction: Direction): void {
    if (!this.#path.device.linuxCompatible) {
      this.#path.ownership.forDevice(phys, length, direction);
      return;
    }
    const inside = this.#path.inside(phys);
    const bytes = this.#path.pages(inside + length) * PAGE_SIZE;
    this.#path.ownership.forDevice(PhysAddr(phys - inside), bytes, direction);
  }

  /**
   * Cache maintenance for the CPU, granule by granule, and the slots that are to be copied out of once the device cannot
   * reach them; `linuxCompatible` copies at once. Stops at the first granule that reaches nothing.
   */
  #reclaim(address: number, length: number, as: As): Held[] {
    const path = this.#path;
    const { device, ownership, granule } = path;
    const held: Held[] = [];
    const told = as.direction !== undefined;
    const { encryption, pool } = device.machine;
    const touched = this.hasBounced || encryption !== undefined;
    if (!touched && (device.coherent || (told && !ownership.needed(as.attributes)))) return held;
    const end = address + length;
    let maintained = false;
    for (let at = address; at < end; ) {
      const index = Math.floor(at / granule);
      const linked = this.#how.get(index);
      if (!told) at = index * granule + (this.#inside.get(index) ?? 0);
      const room = granule - path.inside(at);
      const how = told ? encode(as.direction!, as.attributes) : linked;
      if (how !== undefined) {
        const phys = path.physOf(DmaAddr(at));
        if (phys === undefined) break;
        const { direction, attributes } = decode(how);
        const piece = Math.min(end - at, linked === undefined ? room : Math.floor(linked / LENGTH));
        if (ownership.needed(attributes)) {
          ownership.forCpu(phys, piece, direction);
          maintained = true;
        }
        if (!pool?.holds(phys)) encryption?.unmapped?.(phys, piece);
        else if (device.linuxCompatible) bounceOut(device, phys, piece, direction, attributes);
        else held.push({ slot: phys, length: piece, direction, attributes });
      }
      this.#how.delete(index);
      this.#inside.delete(index);
      at += room;
    }
    if (maintained) ownership.barrier();
    return held;
  }

  #giveBack(held: readonly Held[]): void {
    for (const { slot, length, direction, attributes } of held)
      bounceOut(this.#path.device, slot, length, direction, attributes);
  }

  #remember(address: number, length: number, direction: Direction, attributes?: DmaAttributes): void {
    const { granule } = this.#path;
    const how = encode(direction, attributes);
    const end = address + length;
    for (let at = address; at < end; ) {
      const room = granule - this.#path.inside(at);
      const index = Math.floor(at / granule);
      this.#how.set(index, how + Math.min(room, end - at) * LENGTH);
      if (room < granule) this.#inside.set(index, granule - room);
      at += room;
    }
  }

  #checkSame(address: number, length: number, as: As): void {
    if (as.direction === undefined) return;
    const { granule } = this.#path;
    const said = encode(as.direction, as.attributes);
    for (let index = Math.floor(address / granule); index * granule < address + length; index++) {
      const how = this.#how.get(index);
      if (how === undefined || said === how % LENGTH) continue;
      const same = decode(how).direction === as.direction;
      throw unlinkDiffers(same ? "the set of attributes" : `the direction ${JSON.stringify(as.direction)}`);
    }
  }
}

const DIRECTIONS: readonly Direction[] = ["bidirectional", "to-device", "from-device"];

/** What matters at the end of a piece, in a few bits. */
function encode(direction: Direction, attributes?: DmaAttributes): number {
  return DIRECTIONS.indexOf(direction) | (attributes?.skipCpuSync ? SKIP : 0) | (attributes?.mmio ? DEVICE_MEMORY : 0);
}

function decode(how: number): { direction: Direction; attributes: DmaAttributes } {
  return {
    direction: DIRECTIONS[how & 3]!,
    attributes: { skipCpuSync: (how & SKIP) !== 0, mmio: (how & DEVICE_MEMORY) !== 0 },
  };
}

const SKIP = 4;
const DEVICE_MEMORY = 8;
/** Above the bits: bytes. */
const LENGTH = 16;
