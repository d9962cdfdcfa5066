/** Memory of the host that transfers read and write: pages here and there. */
import { KiB, PAGE_SIZE, type PhysAddr } from "../../base/index.ts";
import type { PhysVec } from "../../dma/index.ts";
import type { SimulatedMachine } from "../../hosts/simulated/index.ts";
import { readPieces, writePieces } from "../bytes.ts";

export class HostMemory {
  readonly #machine: SimulatedMachine;

  constructor(machine: SimulatedMachine) {
    this.#machine = machine;
  }

  /** Whole pages, or pieces that start and end inside of pages, in steps of 4 bytes. undefined if there is none. */
  take(length: number, ragged: boolean): PhysVec[] | undefined {
    const vecs: PhysVec[] = [];
    const piece = ragged ? 3 * KiB : PAGE_SIZE;
    for (let at = 0; at < length; at += piece) {
      const page = this.#machine.pages.allocatePages(1);
      if (page === undefined) {
        this.giveBack(vecs);
        return undefined;
      }
      const inside = ragged ? 512 : 0;
      vecs.push({ phys: (page * PAGE_SIZE + inside) as PhysAddr, length: Math.min(piece, length - at) });
    }
    return vecs;
  }

  giveBack(vecs: readonly PhysVec[]): void {
    for (const { phys } of vecs) this.#machine.pages.freePages(Math.floor(phys / PAGE_SIZE) as never, 1);
  }

  write(vecs: readonly PhysVec[], bytes: Uint8Array): void {
    writePieces(this.#machine.memory, vecs, bytes);
  }

  read(vecs: readonly PhysVec[], length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    readPieces(this.#machine.memory, vecs, bytes);
    return bytes;
  }
}
