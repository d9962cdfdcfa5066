/**
 * Checks every byte that a device moves against the memory behind it.
 *
 * Idea: memory is filled by physical address and read by the device through its mapping, or written by the device and
 * read by physical address. What belongs at an address depends on the address and the request, so that bytes of an
 * earlier request, or of another page, are never taken for right, and memory that is in a request twice agrees.
 */
import { type DmaAddr, hex, type PhysAddr, type Random } from "../base/index.ts";
import type { DmaEngine, SimulatedMemory } from "../hosts/simulated/index.ts";
import { BytePattern, CHUNK, eachDifference } from "./byte-pattern.ts";
import type { ReplayRequest } from "./request.ts";
import type { MappedLoad } from "./strategies.ts";

/** A byte that came out wrong, or an access that was refused (`found` undefined). */
export interface Mismatch {
  readonly device: number;
  readonly phys: number;
  readonly expected: number;
  readonly found: number | undefined;
}

/** The memory of a larger request is forgotten piece by piece, so that memory stays bounded. */
const KEPT_BYTES = 64 * 1024 * 1024;

export class Verifier {
  verifiedBytes = 0;
  mismatches = 0;
  first: Mismatch | undefined;
  readonly #memory: SimulatedMemory;
  readonly #engine: DmaEngine;
  readonly #pattern: BytePattern;
  readonly #found = new Uint8Array(CHUNK);

  constructor(memory: SimulatedMemory, engine: DmaEngine, random: Random) {
    this.#memory = memory;
    this.#engine = engine;
    this.#pattern = new BytePattern(random);
  }

  /** Lets the device move all of `load` as its direction says, and checks it. `id` chooses the pattern. */
  check(id: number, load: ReplayRequest, mapped: MappedLoad): void {
    if (load.direction !== "from-device") this.#pass(id * 2, load, mapped, "read");
    if (load.direction !== "to-device") this.#pass(id * 2 + 1, load, mapped, "write");
  }

  #pass(id: number, load: ReplayRequest, mapped: MappedLoad, access: "read" | "write"): void {
    const memory = this.#memory;
    const engine = this.#engine;
    const forget = load.length > KEPT_BYTES;
    this.#eachPiece(id, load, mapped, (device, phys, expected) => {
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

  /** Walks input and output side by side, in pieces that lie in one of each, with the bytes that belong there. */
  #eachPiece(
    id: number,
    load: ReplayRequest,
    mapped: MappedLoad,
    visit: (device: DmaAddr, phys: PhysAddr, expected: Uint8Array) => void,
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
        visit((vec.address + used) as DmaAddr, where as PhysAddr, this.#pattern.at(id, where, piece));
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
