/** A machine with a VT-d unit for tests: the stack's driver, the simulated unit, and the table memory between them. */
import { Counters, type IovaPage, type PhysPage } from "../../src/base/index.ts";
import { VirtualClock } from "../../src/hosts/simulated/index.ts";
import { type SimulatedVtdOptions, SimulatedVtdUnit } from "../../src/hosts/simulated/units/vtd/index.ts";
import { VtdUnit, type VtdUnitOptions } from "../../src/iommu/index.ts";
import { type TableLayout, vtdSecondStage, x86_64 } from "../../src/layouts/pagetable/index.ts";
import { Arena, Gather, PageTable } from "../../src/pagetable/index.ts";
import type { TranslationTables } from "../../src/platform/index.ts";

/** 01:00.0 and 02:00.0. */
export const DEVICE = 0x0100;
export const OTHER = 0x0200;
export const page = (n: number): IovaPage => n as IovaPage;
export const frame = (n: number): PhysPage => n as PhysPage;

/** A domain without allocator: tables, and what a unit needs of them. */
export class Tables {
  readonly table: PageTable;
  readonly view: TranslationTables;
  readonly #unit: VtdUnit;

  constructor(unit: VtdUnit, memory: Arena, layout: TableLayout, domainId: number) {
    this.#unit = unit;
    this.table = new PageTable({ layout, memory, counters: new Counters() });
    const { table } = this;
    this.view = { domainId, layout, memory, root: () => table.root, topLevel: () => table.topLevel };
  }

  /** Clears entries and tells the unit, as a domain does. */
  unmap(start: number, pages: number): void {
    const gather = this.clear(start, pages);
    this.#unit.invalidateRange(this.view.domainId, gather.start as IovaPage, gather.end as IovaPage, gather.leavesOnly);
    this.table.complete(gather);
  }

  /** Clears entries, and leaves it at that. */
  clear(start: number, pages: number): Gather {
    const gather = new Gather();
    this.table.unmap(page(start), pages, gather);
    return gather;
  }
}

export interface VtdMachine {
  readonly memory: Arena;
  readonly clock: VirtualClock;
  readonly hardware: SimulatedVtdUnit;
  readonly unit: VtdUnit;
  /** Tables of a new domain, first stage in scalable mode unless said. */
  tables(domainId: number, layout?: TableLayout): Tables;
  /** Where each page goes, -1 for nowhere. */
  reach(pages: readonly number[], requester?: number, pasid?: number): number[];
}

export function vtdMachine(
  traits: Omit<SimulatedVtdOptions, "memory" | "clock"> = {},
  options: Partial<VtdUnitOptions> = {},
): VtdMachine {
  const memory = new Arena({ basePage: (2 ** 35) as PhysPage });
  const clock = new VirtualClock();
  const hardware = new SimulatedVtdUnit({ memory, clock, ...traits });
  const unit = new VtdUnit({ registers: hardware, memory, clock, ...options });
  return {
    memory,
    clock,
    hardware,
    unit,
    tables: (domainId, layout = traits.scalableMode ? x86_64() : vtdSecondStage()) =>
      new Tables(unit, memory, layout, domainId),
    reach: (pages, requester = DEVICE, pasid = -1) =>
      pages.map((n) => hardware.translate(requester, page(n), "read", pasid)),
  };
}
