/**
 * An IOVA range that tells checked mode of every call.
 *
 * A class of its own, so that a range without checked mode pays nothing for it, not even a comparison.
 */
import type { IovaPage, PhysAddr } from "../base/index.ts";
import {
  type Direction,
  type DmaAttributes,
  type Granules,
  IovaRange,
  type PhysColumns,
  type PhysVec,
  piecesOf,
  type Terms,
  termsOf,
} from "../dma/index.ts";
import type { RangeChecks } from "./range-checks.ts";
import type { LiveRange } from "./records.ts";

/** What a range tells of itself. */
interface RangeWatch {
  readonly twoStep: RangeChecks;
  /** A link threw `error`. */
  refused(error: unknown, phys: number, length: number): void;
}

export class WatchedRange extends IovaRange {
  readonly #debug: RangeWatch;
  readonly #range: LiveRange;
  readonly #granule: number;
  /** Inside a call that was checked as a whole. */
  #inside = false;
  #over = false;

  constructor(granules: Granules, page: IovaPage, pages: number, inside: number, length: number, debug: RangeWatch) {
    super(granules, page, pages, inside, length);
    this.#debug = debug;
    this.#granule = granules.granule;
    this.#range = debug.twoStep.reserved(this.address, this.capacity);
  }

  /** Findings name ranges: each is an object of its own. */
  override reuse(): boolean {
    return false;
  }

  override link(
    offset: number,
    phys: PhysAddr,
    length: number,
    direction: Direction,
    attributes?: DmaAttributes,
  ): void {
    if (this.#inside) super.link(offset, phys, length, direction, attributes);
    else
      this.#linkChecked(offset, [{ phys, length }], termsOf(direction, attributes), () =>
        super.link(offset, phys, length, direction, attributes),
      );
  }

  override linkVecs(
    offset: number,
    pieces: readonly PhysVec[] | PhysColumns,
    direction: Direction,
    attributes?: DmaAttributes,
  ): void {
    const vecs = piecesOf(pieces);
    this.#linkChecked(offset, vecs, termsOf(direction, attributes), () =>
      super.linkVecs(offset, vecs, direction, attributes),
    );
  }

  override linkAtAnyOffset(offset: number, phys: PhysAddr, length: number, terms: Terms): void {
    this.#linkChecked(offset, [{ phys, length }], terms, () => super.linkAtAnyOffset(offset, phys, length, terms));
  }

  override sync(offset = 0, length: number = this.length - offset): void {
    super.sync(offset, length);
    this.#debug.twoStep.synced(this.#range, offset, length);
  }

  override unlink(offset: number, length: number, terms: Partial<Terms> & { readonly lazy?: boolean } = {}): void {
    if (this.#inside) {
      super.unlink(offset, length, terms);
      return;
    }
    this.#debug.twoStep.unlinking(this.#range, offset, length, terms);
    super.unlink(offset, length, terms);
    this.#debug.twoStep.unlinked(this.#range, offset, length);
  }

  override destroy(mappedLength?: number, terms: Partial<Terms> = {}): void {
    if (!this.#over && mappedLength !== undefined)
      this.#debug.twoStep.destroying(this.#range, mappedLength, this.#granule);
    super.destroy(mappedLength, terms);
    this.#over = true;
    this.#debug.twoStep.destroyed(this.#range);
  }

  #linkChecked(offset: number, vecs: readonly PhysVec[], terms: Terms, link: () => void): void {
    const { twoStep } = this.#debug;
    let at = offset;
    for (const { length } of vecs) {
      twoStep.linking(this.#range, at, length, this.length, this.#granule, !this.#over);
      at += length;
    }
    this.#inside = true;
    try {
      link();
    } catch (error) {
      this.#debug.refused(error, vecs[0]?.phys ?? 0, vecs[0]?.length ?? 0);
      throw error;
    } finally {
      this.#inside = false;
    }
    at = offset;
    for (const { phys, length } of vecs) {
      twoStep.linked(this.#range, at, length, phys, terms);
      at += length;
    }
  }
}
