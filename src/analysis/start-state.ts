/**
 * What was mapped when a recording began: from the kernel's own list of live mappings, or from a snapshot of page tables.
 *
 * Idea: with it, an unmap that fits nothing is an error; without it, it may belong to a mapping from before.
 * Promises: entries of kinds that have no `dma:*` events are left out.
 * Not for: a list that was taken long before the recording: take it right before, with the device as quiet as can be.
 * Specified by: debugfs `dma-api/dump` (dma-dump.ts).
 */

import { readDmaDump } from "./dma-dump.ts";
import type { Dispatch } from "./lifetimes/dispatch.ts";
import type { Ledger } from "./lifetimes/ledger.ts";
import { COHERENT, ONE_SHOT, SCATTERLIST } from "./lifetimes/table.ts";
import type { Mapping } from "./table-tree.ts";

/** One mapping that was live. Bytes. */
export interface LiveMapping {
  /** As the kernel names devices. */
  readonly device: string;
  /** By which call it was mapped. */
  readonly kind: "one-shot" | "scatterlist" | "coherent";
  /** DMA address. */
  readonly iova: number;
  /** How many bytes are mapped. */
  readonly length: number;
  /** Where they lie in memory. */
  readonly phys: number;
  /** The kernel's number. */
  readonly direction: number;
}

/** Pages that a device could reach, by its page tables. */
export interface LivePages {
  /** As the kernel names devices. */
  readonly device: string;
  /** What its tables say. */
  readonly mappings: readonly Mapping[];
}

/** What was mapped when a recording began, from dumps beside it. */
export class StartState {
  readonly #mappings: readonly LiveMapping[];
  readonly #pages: readonly LivePages[];
  readonly #listed: boolean;

  private constructor(mappings: readonly LiveMapping[], pages: readonly LivePages[], listed: boolean) {
    this.#mappings = mappings;
    this.#pages = pages;
    this.#listed = listed;
  }

  /** All one-shot mappings, scatterlists and coherent memory that were live. */
  static ofMappings(mappings: readonly LiveMapping[]): StartState {
    return new StartState(mappings, [], true);
  }

  /** What the page tables of some devices held; of other devices nothing is known. */
  static ofPages(pages: readonly LivePages[]): StartState {
    return new StartState([], pages, false);
  }

  /** Both: the list says how, the snapshot also has two-step ranges. */
  with(other: StartState): StartState {
    const mappings = [...this.#mappings, ...other.#mappings];
    return new StartState(mappings, [...this.#pages, ...other.#pages], this.#listed || other.#listed);
  }

  /** Puts it into the ledger. */
  seed(dispatch: Dispatch, ledger: Ledger): void {
    if (this.#listed) ledger.startListed = true;
    const kinds = { "one-shot": ONE_SHOT, scatterlist: SCATTERLIST, coherent: COHERENT };
    for (const { device, kind, iova, length, phys, direction } of this.#mappings)
      dispatch.oneShot.seed(kinds[kind], dispatch.device(device), iova, length, phys, direction);
    for (const { device, mappings } of this.#pages)
      for (const { iova, pages } of mappings) dispatch.ends.seedPages(dispatch.device(device), iova, pages);
  }
}

const KINDS: Readonly<Record<string, LiveMapping["kind"]>> = {
  "scatter-gather": "scatterlist",
  coherent: "coherent",
  noncoherent: "coherent",
};

/**
 * Reads a copy of debugfs `dma-api/dump`, or the same lines in a kernel's log.
 *
 * @throws DmaError ERR_DMA_DUMP_FORMAT (EINVAL), with the number of the line
 */
export const parseDmaDump = (text: string): StartState =>
  StartState.ofMappings(
    readDmaDump(text).map(({ device, type, phys, iova, length, direction }) => ({
      device,
      kind: KINDS[type] ?? "one-shot",
      phys,
      iova,
      length,
      direction: direction < 0 ? 0 : direction,
    })),
  );
