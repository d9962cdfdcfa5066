/**
 * Mapping as drivers did it before, behind the same interface: for comparing, never for use.
 *
 * One-shot maps each segment by itself and keeps a record of each. The scatterlist maps all of them into one range, too,
 * but needs a table with an entry for each of them, filled before and kept until the end.
 */
import type { Direction, DmaAddr, PhysAddr } from "../../base/index.ts";
import type { Dma, DmaAttributes, PhysVec, ScatterlistMapping } from "../../dma/index.ts";
import { type RequestRange, TwoStepOps } from "./dma-ops.ts";

/** Each segment by itself. */
export class OneShotOps extends TwoStepOps {
  override tryReserveIova(): undefined {
    return undefined;
  }
}

/** An entry of a scatter table: page, offset, length, address, length of the mapping. */
export const SCATTER_ENTRY_BYTES = 32;

/** All segments by a table. */
export class ScatterlistOps extends TwoStepOps {
  /** Bytes of all tables so far. */
  tableBytes = 0;

  override tryReserveIova(length: number, _phys: number): RequestRange | undefined {
    if (this.mergeBoundary === 0) return undefined;
    return new ScatterTable(this.dma, length, (bytes) => {
      this.tableBytes += bytes;
    });
  }
}

class ScatterTable implements RequestRange {
  address: RequestRange["address"] = 0 as RequestRange["address"];
  readonly length: number;
  readonly #dma: Dma;
  readonly #count: (bytes: number) => void;
  readonly #entries: PhysVec[] = [];
  #direction: Direction = "to-device";
  #attributes: DmaAttributes | undefined;
  #mapping: ScatterlistMapping | undefined;

  constructor(dma: Dma, length: number, count: (bytes: number) => void) {
    this.#dma = dma;
    this.length = length;
    this.#count = count;
  }

  link(_offset: number, phys: PhysAddr, length: number, direction: Direction, attributes?: DmaAttributes): void {
    this.#entries.push({ phys, length });
    this.#direction = direction;
    this.#attributes = attributes;
  }

  sync(): void {
    this.#count(this.#entries.length * SCATTER_ENTRY_BYTES);
    this.#mapping = this.#dma.mapScatterlist(this.#entries, this.#direction, this.#attributes);
    const first: DmaAddr = this.#mapping.segments[0]!.address;
    this.address = first as RequestRange["address"];
  }

  destroy(): void {
    this.#mapping?.unmap();
  }
}
