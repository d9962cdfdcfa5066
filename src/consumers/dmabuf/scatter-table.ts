/**
 * The classic form: the buffer as a scatterlist of its pages, which the importer's device maps and joins where it may.
 *
 * Kept beside the vectors, for comparison and because most exporters of Linux 7.2 still give nothing else. RAM only: a list of
 * pages has no word for memory without pages, nor for mixes. Specified by: behaviour of Linux 7.2 dma-buf heaps and udmabuf.
 */
import type { Direction } from "../../base/index.ts";
import type { Dma, DmaVec, MappedList } from "../../dma/index.ts";
import type { Importer } from "./importer.ts";
import { type BufferMapping, noBytes } from "./mapping.ts";
import { lengthOf, type StorageVec } from "./storage.ts";

/** Bytes of a table for each entry: the structure that a device driver walks. */
const TABLE_ENTRY_BYTES = 32;

/**
 * A mapped scatter table.
 *
 * @throws DmaError as `Dma.mapScatterlist`
 */
export function mapScatterTable({ dma }: Importer, vecs: readonly StorageVec[], direction: Direction): BufferMapping {
  return new ScatterTable(dma, vecs, direction);
}

class ScatterTable implements BufferMapping {
  readonly direction: Direction;
  readonly ranges: readonly DmaVec[];
  readonly bytesBy: BufferMapping["bytesBy"];
  readonly tableEntries: number;
  #mapped: MappedList | undefined;
  readonly #calls: Dma["lists"];

  constructor(dma: Dma, vecs: readonly StorageVec[], direction: Direction) {
    this.#calls = dma.lists;
    this.direction = direction;
    const { segments } = dma.mapScatterlist(vecs, direction);
    this.ranges = segments;
    this.bytesBy = { ...noBytes(), memory: lengthOf(vecs) };
    this.tableEntries = vecs.length;
    this.#mapped = { list: vecs, segments, direction, attributes: undefined };
    dma.counters.metadataBytes += vecs.length * TABLE_ENTRY_BYTES;
  }

  syncForCpu(direction: Direction): void {
    if (this.#mapped) this.#calls.syncForCpu({ ...this.#mapped, direction });
  }

  syncForDevice(direction: Direction): void {
    if (this.#mapped) this.#calls.syncForDevice({ ...this.#mapped, direction });
  }

  release(): void {
    const mapped = this.#mapped;
    this.#mapped = undefined;
    if (mapped) this.#calls.unmap(mapped);
  }
}
