/**
 * A scatter table: pages as an older kernel keeps them for a device, one structure for what goes in and what comes out.
 *
 * Idea: entries of 32 bytes in chunks of one page, 128 to a chunk; while more follow, the last place of a chunk is a link to
 * the next. Neighbouring pages share an entry. It is here to be compared with: what a page list saves is measured against it.
 * Specified by: layout of Linux's scatterlist on 64-bit machines.
 */
import { PAGE_SIZE, PhysPage } from "../../../../base/index.ts";
import type { PhysVec } from "../../../../dma/index.ts";
import type { PageRun, PageStore } from "./page-stores.ts";

/** Bytes of an entry: page and flags 8, offset 4, length 4, DMA address 8, DMA length 4, flags 4. */
const SCATTER_ENTRY_BYTES = 32;
/** Places in a chunk. */
const SCATTER_CHUNK_ENTRIES: number = PAGE_SIZE / SCATTER_ENTRY_BYTES;
/** Pages begin at offset 0 of themselves, which new entries have already. */
const AT = { page: 0, length: 12, dmaAddress: 16, dmaLength: 24 } as const;

/** Links in a table of `entries`: each chunk but the last gives a place for one. */
export const scatterLinks = (entries: number): number =>
  entries <= SCATTER_CHUNK_ENTRIES ? 0 : Math.ceil((entries - SCATTER_CHUNK_ENTRIES) / (SCATTER_CHUNK_ENTRIES - 1));

/** Bytes of a table of `entries`. */
export const scatterTableBytes = (entries: number): number => SCATTER_ENTRY_BYTES * (entries + scatterLinks(entries));

/** Most pages of an entry: its length has 32 bits. */
const LONGEST_ENTRY_PAGES = 2 ** 20 - 1;

export class ScatterTable implements PageStore {
  readonly #chunks: DataView[] = [];
  readonly #entries: number;
  /** Where the last page was found, and how many lie before: pages are asked for in order. */
  #entry = 0;
  #before = 0;

  constructor(given: readonly PageRun[]) {
    const runs = given.flatMap(splitLong);
    this.#entries = runs.length;
    for (let left = runs.length; left > 0; ) {
      const isLast = left <= SCATTER_CHUNK_ENTRIES;
      const places = isLast ? left : SCATTER_CHUNK_ENTRIES;
      this.#chunks.push(new DataView(new ArrayBuffer(places * SCATTER_ENTRY_BYTES)));
      left -= isLast ? left : SCATTER_CHUNK_ENTRIES - 1;
    }
    runs.forEach(([page, pages], i) => {
      const [chunk, at] = this.#placeOf(i);
      chunk.setFloat64(at + AT.page, page, true);
      chunk.setUint32(at + AT.length, pages * PAGE_SIZE, true);
    });
  }

  get entries(): number {
    return this.#entries;
  }

  /** Bytes it takes. */
  get bytes(): number {
    return this.#chunks.reduce((sum, { byteLength }) => sum + byteLength, 0);
  }

  pageAt(index: number): PhysPage {
    if (index < this.#before) [this.#entry, this.#before] = [0, 0];
    for (;;) {
      const [page, pages] = this.#runAt(this.#entry);
      if (index < this.#before + pages) return PhysPage.add(page, index - this.#before);
      this.#before += pages;
      this.#entry++;
    }
  }

  /** All entries, whatever is asked: a table is mapped as a whole. */
  vecs(): PhysVec[] {
    return Array.from({ length: this.#entries }, (_, i) => {
      const [page, pages] = this.#runAt(i);
      return { phys: PhysPage.start(page), length: pages * PAGE_SIZE };
    });
  }

  /** Notes what came out of mapping: at most as many segments as there are entries. */
  noteSegment(index: number, address: number, length: number): void {
    const [chunk, at] = this.#placeOf(index);
    chunk.setFloat64(at + AT.dmaAddress, address, true);
    chunk.setUint32(at + AT.dmaLength, length, true);
  }

  /** The segment noted at `index`; of length 0 after the last. */
  segmentAt(index: number): { readonly address: number; readonly length: number } {
    const [chunk, at] = this.#placeOf(index);
    return { address: chunk.getFloat64(at + AT.dmaAddress, true), length: chunk.getUint32(at + AT.dmaLength, true) };
  }

  #runAt(index: number): PageRun {
    const [chunk, at] = this.#placeOf(index);
    return [chunk.getFloat64(at + AT.page, true) as PhysPage, chunk.getUint32(at + AT.length, true) / PAGE_SIZE];
  }

  #placeOf(index: number): [chunk: DataView, at: number] {
    const perChunk = SCATTER_CHUNK_ENTRIES - 1;
    const chunk = Math.min(Math.floor(index / perChunk), this.#chunks.length - 1);
    return [this.#chunks[chunk]!, (index - chunk * perChunk) * SCATTER_ENTRY_BYTES];
  }
}

const splitLong = ([page, pages]: PageRun): PageRun[] =>
  Array.from({ length: Math.ceil(pages / LONGEST_ENTRY_PAGES) }, (_, i) => [
    PhysPage.add(page, i * LONGEST_ENTRY_PAGES),
    Math.min(LONGEST_ENTRY_PAGES, pages - i * LONGEST_ENTRY_PAGES),
  ]);
