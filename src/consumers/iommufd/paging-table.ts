/**
 * A table for iommufd made of a paging domain of the stack: its page table, its unit, its invalidations.
 *
 * Idea: a domain counts in pages; here a page is whatever the unit's smallest page is, also less than the CPU's (`unitBytes`).
 * Promises: as asked of a {@link UserTable}. Dirty leaves are reported to their ends, or as Linux does, by the option.
 */
import { assert, type IovaPage, PAGE_SIZE } from "../../base/index.ts";
import type { PagingDomain } from "../../iommu/index.ts";
import { MMIO, READ, WRITE } from "../../layouts/pagetable/index.ts";
import type { FrameRuns } from "./frame-runs.ts";
import type { IovaSpan, TableAccess, TableLeaf, UserTable } from "./hardware.ts";
import { LAST_IOVA } from "./ranges.ts";

/** What a domain does not say of itself. */
export interface DomainTableOptions {
  /** The domain behind it. */
  readonly domain: PagingDomain;
  /** Bytes of the domain's pages: 4096 unless said. */
  readonly unitBytes?: number;
  /** All addresses of the format unless said. */
  readonly aperture?: IovaSpan;
  /** It can say what devices wrote. False unless said. */
  readonly tracksDirty?: boolean;
  /** Devices see the CPU's caches, whatever their requests say. False unless said. */
  readonly forcesCoherency?: boolean;
  /** Of a dirty leaf of several items the last is left out, as Linux leaves it out. */
  readonly leavesOutLastItem?: boolean;
}

/** A paging domain, as iommufd drives it. */
export class DomainTable implements UserTable {
  /** The domain behind it. */
  readonly domain: PagingDomain;
  readonly unitBytes: number;
  readonly aperture: IovaSpan;
  readonly tracksDirty: boolean;
  readonly forcesCoherency: boolean;
  readonly #leavesOutLastItem: boolean;

  /** Takes over the domain: {@link destroy} ends it. */
  constructor(options: DomainTableOptions) {
    this.domain = options.domain;
    this.unitBytes = options.unitBytes ?? PAGE_SIZE;
    const { layout } = options.domain.table;
    const bits = layout.inputBits - 12 + Math.log2(this.unitBytes);
    this.aperture = options.aperture ?? { first: 0n, last: bits >= 64 ? LAST_IOVA : (1n << BigInt(bits)) - 1n };
    this.tracksDirty = options.tracksDirty ?? false;
    this.forcesCoherency = options.forcesCoherency ?? false;
    this.#leavesOutLastItem = options.leavesOutLastItem ?? false;
  }

  get pageSizes(): bigint {
    let sizes = 0n;
    for (const lg of this.domain.table.layout.leafSizes) sizes |= BigInt(this.unitBytes) << BigInt(lg);
    return sizes;
  }

  mapRuns(unit: number, phys: Float64Array, units: Int32Array, count: number, access: TableAccess): void {
    const prot = (access.read ? READ : 0) | (access.write ? WRITE : 0) | (access.mmio ? MMIO : 0);
    const mapped = this.domain.mapRuns(unit as IovaPage, phys, units, count, prot);
    this.domain.sync(unit as IovaPage, mapped);
  }

  unmap(unit: number, units: number): void {
    const done = this.domain.unmapNow(unit as IovaPage, units);
    assert(done === units, `${units} units were to be unmapped, and ${done} were`);
  }

  leafAt(unit: number): TableLeaf | undefined {
    const found = this.domain.table.translate(unit as IovaPage);
    return found && { phys: found.phys, leafStart: found.leafStart, leafUnits: found.leafPages };
  }

  lookup(unit: number): number {
    return this.domain.lookup(unit as IovaPage);
  }

  readRuns(unit: number, units: number, into: FrameRuns): number {
    const { table } = this.domain;
    let done = 0;
    for (;;) {
      done += table.readRuns((unit + done) as IovaPage, units - done, into);
      if (done === units || into.length < into.frames.length) return done;
      into.grow();
    }
  }

  splitAt(unit: number): void {
    this.domain.splitAt(unit as IovaPage);
  }

  setDirtyTracking(_on: boolean): void {
    // The format always marks what is written.
  }

  readDirty(unit: number, units: number, clear: boolean, report: (unit: number, units: number) => void): void {
    const end = unit + units;
    this.domain.readDirty(unit as IovaPage, units, clear, (from, count) => {
      // The last leaf may reach beyond the range, and its end is what Linux counts from.
      const leaf = this.#leavesOutLastItem ? this.leafAt(from) : undefined;
      const item = leaf ? 512 ** Math.floor(Math.log2(leaf.leafUnits) / 9) : 0;
      const isMany = leaf !== undefined && leaf.leafUnits > item;
      const last = isMany ? leaf.leafStart + leaf.leafUnits - item : from + count;
      if (Math.min(last, end) > from) report(from, Math.min(last, end) - from);
    });
  }

  /** Ends the domain behind it. */
  destroy(): void {
    this.domain.destroy();
  }
}
