/**
 * Checks that a device reaches the memory of a request, and that byte for byte.
 *
 * Idea: memory is filled by physical address and read by the device through its mapping, or written by the device and
 * read by physical address. What belongs at an address depends on the address and the request, so that bytes of an
 * earlier request, or of another page, are never taken for right, and memory that is in a request twice agrees. Of a request
 * whose bytes are not moved, every page is translated as the device's access would be, and held against the page that it is of.
 */
import { type DmaAddr, hex, type IovaPage, PAGE_SIZE, type PhysAddr, type Random } from "../base/index.ts";
import type { DmaEngine, SimulatedMemory } from "../hosts/simulated/index.ts";
import { BytePattern, CHUNK, eachDifference } from "./byte-pattern.ts";
import type { ReplayRequest } from "./request.ts";
import type { MappedLoad } from "./strategies.ts";

/** A byte that came out wrong, or an access that was refused (`found` undefined). */
export interface Mismatch {
  /** Where the device looked for it, bytes. */
  readonly device: number;
  /** Where the byte belongs in memory. */
  readonly phys: number;
  /** What belongs there, 0 to 255. */
  readonly expected: number;
  /** What was there; undefined: the access was refused. */
  readonly found: number | undefined;
}

/** The memory of a larger request is forgotten piece by piece, so that memory stays bounded. */
const KEPT_BYTES = 64 * 1024 * 1024;

/** Which requests have their bytes moved: a share of all, chosen by their numbers and a seed. */
interface MovedShare {
  /** 0 to 1. */
  readonly share: number;
  readonly seed: number;
}

/** Whether the bytes of request `id` are moved. The same ones under every strategy. */
function isMoved(id: number, { share, seed }: MovedShare): boolean {
  if (share >= 1 || share <= 0) return share >= 1;
  let mixed = Math.imul(id ^ Math.imul(seed | 0, 0x9e37_79b1), 0x85eb_ca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2_ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0 < share * 2 ** 32;
}

/** Where a page of the device leads; -1: it may not. */
type Translate = (page: IovaPage, access: "read" | "write") => number;

export class Verifier {
  verifiedBytes = 0;
  /** Pages that were translated only. */
  translatedPages = 0;
  mismatches = 0;
  first: Mismatch | undefined;
  readonly #memory: SimulatedMemory;
  readonly #engine: DmaEngine;
  readonly #pattern: BytePattern;
  readonly #found = new Uint8Array(CHUNK);

  readonly #translate: Translate;
  readonly #moved: MovedShare;

  constructor(
    memory: SimulatedMemory,
    engine: DmaEngine,
    translate: Translate,
    random: Random,
    moved: MovedShare = { share: 1, seed: 0 },
  ) {
    this.#translate = translate;
    this.#moved = moved;
    this.#memory = memory;
    this.#engine = engine;
    this.#pattern = new BytePattern(random);
  }

  /** Lets the device move all of, or translates every page of, `load` as its direction says, and checks it. `id` chooses the pattern. */
  check(id: number, load: ReplayRequest, mapped: MappedLoad): void {
    if (!isMoved(id, this.#moved)) {
      if (load.direction !== "from-device") this.#translated(load, mapped, "read");
      if (load.direction !== "to-device") this.#translated(load, mapped, "write");
      return;
    }
    if (load.direction !== "from-device") this.#pass(id * 2, load, mapped, "read");
    if (load.direction !== "to-device") this.#pass(id * 2 + 1, load, mapped, "write");
  }

  #pass(id: number, load: ReplayRequest, mapped: MappedLoad, access: "read" | "write"): void {
    const memory = this.#memory;
    const engine = this.#engine;
    const forget = load.length > KEPT_BYTES;
    this.#eachPiece(load, mapped, (device, phys, length) => {
      const expected = this.#pattern.at(id, phys, length);
      const found = this.#found.subarray(0, expected.length);
      let allowed: boolean;
      if (access === "read") {
        memory.write(phys, expected);
        allowed = engine.read(device, found);
      } else {
        allowed = engine.write(device, expected);
        memory.read(phys, found);
      }
      if (allowed) this.#compare(expected, found, device, phys);
      else this.#report({ device, phys, expected: expected[0]!, found: undefined });
      if (forget) memory.forget(phys, expected.length);
    });
  }

  #translated(load: ReplayRequest, mapped: MappedLoad, access: "read" | "write"): void {
    this.#eachPiece(load, mapped, (device, phys, length) => {
      // What lies askew in its page leads to another byte of it.
      const askew = (device % PAGE_SIZE) - (phys % PAGE_SIZE);
      let page = Math.floor(device / PAGE_SIZE);
      let expected = Math.floor(phys / PAGE_SIZE);
      for (const end = Math.ceil((phys + length) / PAGE_SIZE); expected < end; expected++, page++) {
        this.translatedPages++;
        const found = this.#translate(page as IovaPage, access);
        if (found !== expected || askew !== 0)
          this.#report({ device, phys, expected: phys, found: found < 0 ? undefined : found * PAGE_SIZE + askew });
      }
    });
  }

  /** Walks input and output side by side, in pieces that lie in one of each. */
  #eachPiece(
    load: ReplayRequest,
    mapped: MappedLoad,
    visit: (device: DmaAddr, phys: PhysAddr, length: number) => void,
  ): void {
    let out = 0;
    let used = 0;
    for (const { phys, length } of load.vecs) {
      for (let at = 0; at < length; ) {
        const vec = mapped.vecs[out];
        if (!vec) {
          this.#report({ device: -1, phys: phys + at, expected: 0, found: undefined });
          return;
        }
        const piece = Math.min(length - at, vec.length - used, CHUNK);
        const where = phys + at;
        visit((vec.address + used) as DmaAddr, where as PhysAddr, piece);
        used += piece;
        at += piece;
        if (used === vec.length) {
          out++;
          used = 0;
        }
      }
    }
  }

  #compare(expected: Uint8Array, found: Uint8Array, device: number, phys: number): void {
    this.verifiedBytes += expected.length;
    eachDifference(expected, found, (at) => {
      this.#report({ device: device + at, phys: phys + at, expected: expected[at]!, found: found[at]! });
    });
  }

  #report(mismatch: Mismatch): void {
    this.mismatches++;
    this.first ??= mismatch;
  }
}

/** One mismatch in words. */
export const describeMismatch = ({ device, phys, expected, found }: Mismatch): string =>
  `device address ${hex(device)}, physical address ${hex(phys)}: expected ${hex(expected)}, ` +
  (found === undefined ? "but the access was refused" : `found ${hex(found)}`);
