/**
 * The memory of a simulated run: buffers of scattered pages, windows of peers, and a byte-exact shadow of each.
 *
 * The shadow is an oracle: whenever the CPU or a device reads, it must find what the shadow says.
 * Freed pages are filled with poison before they are given back, so that whoever still reads them can be told.
 */
import { PAGE_SIZE, type PhysAddr, PhysPage, type Random } from "../../base/index.ts";
import type { PhysVec } from "../../dma/index.ts";
import { isPoison, POISON_PAGE, pattern } from "../bytes.ts";
import { Broken } from "../scenario.ts";
import type { LiveMapping } from "./live-mapping.ts";
import { BUFFER_PAGES, BUFFERS } from "./plan.ts";
import type { World } from "./world.ts";

interface Buffer {
  pages: PhysPage[];
  readonly shadow: Uint8Array;
}

/** Pages of a peer's window that stand for pages of a buffer. */
const PEER_PAGES = 4;

export class Buffers {
  readonly #world: World;
  readonly #random: Random;
  readonly #buffers: Buffer[];
  /** What the windows of peers hold, by buffer and device that owns the window. */
  readonly #windows = new Map<string, Uint8Array>();

  constructor(world: World, random: Random) {
    this.#world = world;
    this.#random = random;
    this.#buffers = Array.from({ length: BUFFERS }, () => ({
      pages: [],
      shadow: new Uint8Array(BUFFER_PAGES * PAGE_SIZE),
    }));
  }

  /**
   * The pieces of [offset, + length) of a buffer; some of them in the window of another device than `notOf`, if that is
   * given. undefined if there is no memory.
   */
  pieces(buffer: number, offset: number, length: number, notOf?: number): PhysVec[] | undefined {
    if (!this.#allocated(buffer)) return undefined;
    const pieces: PhysVec[] = [];
    for (let at = offset; at < offset + length; ) {
      const page = Math.floor(at / PAGE_SIZE);
      const inside = at % PAGE_SIZE;
      const piece = Math.min(PAGE_SIZE - inside, offset + length - at);
      const phys =
        (notOf !== undefined && this.#peerPage(buffer, page, notOf)) ||
        PhysPage.start(this.#buffers[buffer]!.pages[page]!);
      pieces.push({ phys: (phys + inside) as PhysAddr, length: piece });
      at += piece;
    }
    return pieces;
  }

  /** The CPU looks at a mapping's memory: it finds what the shadow says. */
  checkAsCpu(mapping: LiveMapping, when: string): void {
    const found = new Uint8Array(mapping.length);
    this.#world.cpuRead(mapping.pieces, found);
    const wrong = this.#firstWrong(mapping, found);
    if (!wrong) return;
    const { at, expected } = wrong;
    throw new Broken(
      "bytes",
      `${when} (${mapping.way}, ${mapping.direction}) byte ${at} of ${mapping.length} reads ${found[at]}, not ${expected}`,
    );
  }

  /** A device read `found`, all of a mapping: it is what the shadow says, and never what memory holds once it was freed. */
  checkDeviceRead(mapping: LiveMapping, found: Uint8Array): void {
    const wrong = this.#firstWrong(mapping, found);
    if (!wrong) return;
    const { at, expected } = wrong;
    if (isPoison(found, at)) throw new Broken("poison", `the device read freed memory at byte ${at} of a live mapping`);
    throw new Broken(
      "bytes",
      `the device read ${found[at]} at byte ${at} of ${mapping.length}, not ${expected} (${mapping.way})`,
    );
  }

  /** Somebody wrote `bytes` at `at` of a mapping. */
  wrote(mapping: LiveMapping, at: number, bytes: Uint8Array): void {
    const whole = this.#shadowOf(mapping);
    whole.set(bytes, at);
    const { shadow } = this.#buffers[mapping.buffer]!;
    const kept = shadow.slice();
    shadow.set(whole, mapping.offset);
    this.#eachPeer(mapping, (window, from, position, length) => {
      window.set(whole.subarray(position, position + length), from);
      shadow.set(
        kept.subarray(mapping.offset + position, mapping.offset + position + length),
        mapping.offset + position,
      );
    });
  }

  /** The CPU writes all pages of a buffer that are its own. */
  fill(buffer: number, seed: number, isTaken: (page: number) => boolean): void {
    if (!this.#allocated(buffer)) return;
    const { pages, shadow } = this.#buffers[buffer]!;
    pages.forEach((page, i) => {
      if (isTaken(i)) return;
      const bytes = pattern(seed + i, PAGE_SIZE);
      this.#world.machine.memory.write(PhysPage.start(page), bytes);
      shadow.set(bytes, i * PAGE_SIZE);
    });
  }

  free(buffer: number): void {
    const one = this.#buffers[buffer]!;
    for (const page of one.pages) {
      this.#world.machine.memory.write(PhysPage.start(page), POISON_PAGE);
      this.#world.machine.pages.freePages(page, 1);
    }
    one.pages = [];
  }

  freeAll(): void {
    for (let i = 0; i < BUFFERS; i++) this.free(i);
  }

  /** A device is gone, and the bytes in its window with it. */
  forgetPeer(device: number): void {
    for (const key of [...this.#windows.keys()]) if (key.endsWith(`/${device}`)) this.#windows.delete(key);
  }

  /** What the bytes of a mapping must be. */
  #shadowOf(mapping: LiveMapping): Uint8Array {
    const { shadow } = this.#buffers[mapping.buffer]!;
    const bytes = shadow.slice(mapping.offset, mapping.offset + mapping.length);
    this.#eachPeer(mapping, (window, from, at, length) => bytes.set(window.subarray(from, from + length), at));
    return bytes;
  }

  #firstWrong(mapping: LiveMapping, found: Uint8Array): { readonly at: number; readonly expected: number } | undefined {
    const shadow = this.#shadowOf(mapping);
    const at = found.findIndex((byte, i) => byte !== shadow[i]);
    return at < 0 ? undefined : { at, expected: shadow[at]! };
  }

  #allocated(buffer: number): boolean {
    const one = this.#buffers[buffer]!;
    if (one.pages.length > 0) return true;
    for (let i = 0; i < BUFFER_PAGES; i++) {
      const page = this.#world.machine.pages.allocatePages(1);
      if (page === undefined) return false;
      one.pages.push(page);
    }
    const bytes = pattern(this.#random.below(251), BUFFER_PAGES * PAGE_SIZE);
    one.pages.forEach((page, i) => {
      this.#world.machine.memory.write(PhysPage.start(page), bytes.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
    });
    one.shadow.set(bytes);
    return true;
  }

  /** Every fourth page of a peer mapping lies in another device's window. */
  #peerPage(buffer: number, page: number, notOf: number): PhysAddr | 0 {
    if (page % 4 !== 1 || buffer >= PEER_PAGES) return 0;
    const owner = (notOf + 1) % this.#world.devices.length;
    const device = this.#world.devices[owner]!;
    if (device.dead || !device.pci.node.present) return 0;
    const key = `${buffer}/${owner}`;
    const { phys } = device.pci.node.bars[0]!;
    const start = (phys + buffer * PEER_PAGES * PAGE_SIZE) as PhysAddr;
    if (!this.#windows.has(key)) {
      const bytes = new Uint8Array(PEER_PAGES * PAGE_SIZE);
      this.#world.machine.memory.read(start, bytes);
      this.#windows.set(key, bytes);
    }
    return (start + Math.floor(page / 4) * PAGE_SIZE) as PhysAddr;
  }

  /** The parts of a mapping that lie in windows: the window's bytes, from where, where in the mapping, how many. */
  #eachPeer(mapping: LiveMapping, visit: (window: Uint8Array, from: number, at: number, length: number) => void): void {
    if (!mapping.peer) return;
    let at = 0;
    for (const { phys, length } of mapping.pieces) {
      for (const [key, bytes] of this.#windows) {
        const [buffer, owner] = key.split("/").map(Number) as [number, number];
        const bar = this.#world.devices[owner]!.pci.node.bars[0];
        if (!bar) continue;
        const start = bar.phys + buffer * PEER_PAGES * PAGE_SIZE;
        if (phys >= start && phys < start + bytes.length) visit(bytes, phys - start, at, length);
      }
      at += length;
    }
  }
}
