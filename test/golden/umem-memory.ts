/** Memory of the umem recordings: pages, a shared buffer, and the names of accesses. */
import { PAGE_SIZE, PhysAddr, type PhysPage } from "../../src/base/index.ts";
import type { BufferAttachment, BufferImporter, SharedBuffer } from "../../src/consumers/rdma/index.ts";
import type { ScatterlistMapping } from "../../src/dma/index.ts";
import { ACCESS } from "../../src/layouts/rdma/index.ts";
import { known } from "./judge.ts";

/** Pages of RAM, lowest first: where they are does not matter here. */
export class PlainPages {
  #next = 256;
  readonly #free: number[] = [];

  allocatePages(pages: number): PhysPage | undefined {
    if (pages === 1 && this.#free.length > 0) return this.#free.pop()! as PhysPage;
    const first = this.#next;
    this.#next += pages;
    return first as PhysPage;
  }

  /** Pages that begin at a multiple of their number. */
  allocateAligned(pages: number): PhysPage {
    this.#next = Math.ceil(this.#next / pages) * pages;
    return this.allocatePages(pages)!;
  }

  freePages(page: PhysPage, pages: number): void {
    for (let i = 0; i < pages; i++) this.#free.push(page + i);
  }
}

/** A buffer of the system heap: one block of memory, mapped by whoever attaches. */
export class HeapBuffer implements SharedBuffer {
  readonly lengthBytes: number;
  readonly #phys: PhysAddr;
  readonly #importers: BufferImporter[] = [];

  constructor(page: PhysPage, lengthBytes: number) {
    this.#phys = PhysAddr(page * PAGE_SIZE);
    this.lengthBytes = lengthBytes;
  }

  attach(importer: BufferImporter): BufferAttachment {
    this.#importers.unshift(importer);
    let mapping: ScatterlistMapping | undefined;
    return {
      pin: () => {},
      unpin: () => {},
      map: () => {
        mapping = importer.dma.mapScatterlist([{ phys: this.#phys, length: this.lengthBytes }], "bidirectional");
        return mapping.segments;
      },
      unmap: () => {
        mapping?.unmap();
        mapping = undefined;
      },
      wait: () => {},
      detach: () => void this.#importers.splice(this.#importers.indexOf(importer), 1),
    };
  }

  /** It moves: whoever attached last hears of it first. */
  move(): void {
    for (const { invalidate } of [...this.#importers]) invalidate?.();
  }
}

/** Bits that files name without a meaning. */
const OTHER_BITS = /^(?:bit|optional)(\d+)$/;
const NAMES: Readonly<Record<string, number>> = { ...ACCESS, mwBind: ACCESS.windowBind };

/** Access bits of names. */
export function accessOf(names: unknown): number {
  let access = 0;
  for (const name of names as string[]) {
    const bit = OTHER_BITS.exec(name);
    access |= bit ? 2 ** Number(bit[1]) : known("the access", NAMES, name);
  }
  return access;
}
