/**
 * An IOVA range that tells checked mode of every call.
 *
 * A class of its own, so that a range without checked mode pays nothing for it, not even a comparison.
 */
import type { IovaPage, PhysAddr } from "../base/index.ts";
import { IovaRange } from "../dma/two-step/iova-range.ts";
import type { TranslatedPath } from "../dma/path/translated.ts";
import type { Direction, DmaAttributes, PhysVec } from "../dma/vectors.ts";
import type { DeviceDebug } from "./device-debug.ts";
import type { LiveRange } from "./records.ts";

type As = { readonly lazy?: boolean; readonly direction?: Direction; readonly attributes?: DmaAttributes };

export class DebuggedRange extends IovaRange {
  readonly #debug: DeviceDebug;
  readonly #range: LiveRange;
  readonly #granule: number;
  /** Inside a call that was checked as a whole. */
  #inside = false;
  #over = false;

  constructor(path: TranslatedPath, page: IovaPage, pages: number, inside: number, length: number, debug: DeviceDebug) {
    super(path, page, pages, inside, length);
    this.#debug = debug;
    this.#granule = path.granule;
    this.#range = debug.twoStep.reserved(this.address, this.capacity);
  }

  /** Findings name ranges: each is an object of its own. */
  override reopen(): boolean {
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
      this.#linkChecked(offset, [{ phys, length }], direction, attributes, () =>
        super.link(offset, phys, length, direction, attributes),
      );
  }

  override linkVecs(offset: number, vecs: readonly PhysVec[], direction: Direction, attributes?: DmaAttributes): void {
    this.#linkChecked(offset, vecs, direction, attributes, () => super.linkVecs(offset, vecs, direction, attributes));
  }

  override place(
    offset: number,
    phys: PhysAddr,
    length: number,
    direction: Direction,
    attributes?: DmaAttributes,
  ): void {
    this.#linkChecked(offset, [{ phys, length }], direction, attributes, () =>
      super.place(offset, phys, length, direction, attributes),
    );
  }

  override sync(offset = 0, length: number = this.length - offset): void {
    super.sync(offset, length);
    this.#debug.twoStep.synced(this.#range, offset, length);
  }

  override unlink(offset: number, length: number, as: As = {}): void {
    if (this.#inside) {
      super.unlink(offset, length, as);
      return;
    }
    this.#debug.twoStep.unlinking(this.#range, offset, length, as);
    super.unlink(offset, length, as);
    this.#debug.twoStep.unlinked(this.#range, offset, length);
  }

  override destroy(mappedLength?: number, as: Pick<As, "direction" | "attributes"> = {}): void {
    if (!this.#over && mappedLength !== undefined)
      this.#debug.twoStep.destroying(this.#range, mappedLength, this.#granule);
    super.destroy(mappedLength, as);
    this.#over = true;
    this.#debug.twoStep.destroyed(this.#range);
  }

  #linkChecked(
    offset: number,
    vecs: readonly PhysVec[],
    direction: Direction,
    attributes: DmaAttributes | undefined,
    link: () => void,
  ): void {
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
      twoStep.linked(this.#range, at, length, phys, direction, attributes);
      at += length;
    }
  }
}
