/**
 * Memory that devices may write at this moment: to find two mappings of the same cache line.
 *
 * Why it matters: on a device that does not look into the CPU's caches, maintenance for one mapping throws away what the
 * device wrote through the other. On one that does, a shared line is harmless, but shared bytes are written twice.
 * Linux keeps the first line of each mapping only, and on machines whose DMA alignment is a byte reports nothing
 * (`linuxCompatible`); here every line counts, and on coherent devices every byte.
 * Specified by: behaviour of Linux 7.2 DMA debugging (active cache lines).
 */
import type { LiveMapping } from "./records.ts";
import { Spans } from "./spans.ts";

/** Mappings of one line beyond which Linux loses count. */
export const MOST_OVERLAPS = 7;

export class ActiveCacheLines {
  readonly #spans = new Spans<LiveMapping>(
    ({ phys }) => phys,
    ({ length }) => length,
  );

  add(mapping: LiveMapping): void {
    if (mapping.direction !== "to-device") this.#spans.add(mapping);
  }

  delete(mapping: LiveMapping): void {
    if (mapping.direction !== "to-device") this.#spans.delete(mapping);
  }

  clear(): void {
    this.#spans.clear();
  }

  /** Mappings that share a unit of `unit` bytes with [phys, + length). */
  sharing(phys: number, length: number, unit: number): LiveMapping[] {
    const first = Math.floor(phys / unit) * unit;
    const end = Math.ceil((phys + length) / unit) * unit;
    return this.#spans.overlapping(first, end - first);
  }
}
