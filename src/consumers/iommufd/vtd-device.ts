/**
 * A device behind a VT-d unit that nests: a guest's own tables are its first stage, below a table of an address space.
 *
 * Idea: the guest writes its tables in its own memory, where nobody copies or watches them; the unit reads them there, each pointer
 * and each result translated by the parent. What the guest has changed it says by invalidations, many in one call. So a map of the
 * guest costs the host nothing, and an unmap its share of a call.
 * Promises: whatever a guest writes into its tables, its devices reach only what the parent maps.
 * Not for: units of other makers; virtual IOMMUs, which VT-d does without.
 * Specified by: `struct iommu_hwpt_vtd_s1`, `iommu_hwpt_vtd_s1_invalidate` and `iommu_hw_info_vtd` of Linux 7.2; VT-d, 3.7.
 */
import type { IovaPage, PhysPage } from "../../base/index.ts";
import type { NestedTables } from "../../platform/index.ts";
import { badArgument, badAttach, notSupported } from "./errors.ts";
import type { InvalidationTarget, NestedTable, TableRequest, UserDevice, UserTable, VendorData } from "./hardware.ts";
import { DomainTable } from "./paging-table.ts";
import { UnitDevice, type UnitDeviceOptions, type UnitIommu } from "./unit-device.ts";

/** The vendor's words of this kind: a first stage, its invalidations, and what the unit is. */
export const VTD_WORDS = 1;
const FIRST_STAGE_BYTES = 24;
const INVALIDATION_BYTES = 24;
const LEAF_ONLY = 1;
/** So many pages: everything. */
const ALL_PAGES = 2n ** 64n - 1n;
const LAST_PAGE = 2n ** 52n;
/** Levels of a first stage, by the bits of its addresses. */
const LEVELS: Readonly<Record<number, number>> = { 48: 4, 57: 5 };

/** What a nesting unit says of itself. */
export interface VtdDeviceOptions extends UnitDeviceOptions {
  /** CAP and ECAP of the unit, for whoever builds a virtual one for the guest. */
  readonly registers: {
    /** CAP (VT-d specification, 11.4.2). */
    readonly capability: bigint;
    /** ECAP (VT-d specification, 11.4.3). */
    readonly extended: bigint;
  };
}

/** A guest's first stage on a parent. */
class FirstStage implements NestedTable {
  readonly tables: NestedTables;
  readonly parent: DomainTable;
  readonly domainId: number;
  readonly invalidation: InvalidationTarget;
  readonly #iommu: UnitIommu;

  constructor(iommu: UnitIommu, parent: DomainTable, tables: NestedTables) {
    this.tables = tables;
    this.parent = parent;
    this.#iommu = iommu;
    this.domainId = iommu.takeNumber();
    this.invalidation = {
      type: VTD_WORDS,
      leastBytes: INVALIDATION_BYTES,
      mostBytes: INVALIDATION_BYTES,
      invalidate: (entries) => this.#invalidate(entries),
    };
  }

  #invalidate(entries: readonly Uint8Array[]): { readonly done: number; readonly refused?: Error } {
    for (const [done, entry] of entries.entries()) {
      const refused = this.#forget(entry);
      if (refused) return { done, refused };
    }
    return { done: entries.length };
  }

  /** One request: address, pages, flags. Why it is refused. */
  #forget(entry: Uint8Array): Error | undefined {
    const view = new DataView(entry.buffer, entry.byteOffset, INVALIDATION_BYTES);
    const [address, pages] = [view.getBigUint64(0, true), view.getBigUint64(8, true)];
    const flags = view.getUint32(16, true);
    if ((flags & ~LEAF_ONLY) !== 0 || view.getUint32(20, true) !== 0)
      return notSupported(`invalidation flags ${flags}`);
    if (address % 4096n !== 0n) return badArgument(`an invalidation at ${address}, which is no page`);
    const { unit } = this.#iommu;
    if (pages === ALL_PAGES) {
      if (address !== 0n) return badArgument("everything is invalidated from address 0 on");
      unit.invalidateDomain(this.domainId);
      return undefined;
    }
    const first = address / 4096n;
    if (pages === 0n || first + pages > LAST_PAGE) return badArgument(`${pages} pages from ${address} on`);
    const start = Number(first);
    unit.invalidateRange(
      this.domainId,
      start as IovaPage,
      (start + Number(pages)) as IovaPage,
      (flags & LEAF_ONLY) !== 0,
    );
    return undefined;
  }

  destroy(): void {
    this.#iommu.giveNumber(this.domainId);
  }
}

/** A device behind a VT-d unit in scalable mode that can nest. */
export class VtdUserDevice extends UnitDevice {
  readonly #iommu: UnitIommu;
  readonly #requester: number;
  readonly #registers: VtdDeviceOptions["registers"];

  /** Attaches nothing yet. */
  constructor(options: VtdDeviceOptions) {
    super(options);
    this.#iommu = options.iommu;
    this.#requester = options.requester;
    this.#registers = options.registers;
  }

  /** `iommu_hw_info_vtd`: flags, and the capability registers. */
  override hardwareInfo(type: number): ReturnType<UserDevice["hardwareInfo"]> {
    if (type !== 0 && type !== VTD_WORDS) throw notSupported(`hardware information of type ${type}`);
    const data = new Uint8Array(24);
    const view = new DataView(data.buffer);
    view.setBigUint64(8, this.#registers.capability, true);
    view.setBigUint64(16, this.#registers.extended, true);
    return { type: VTD_WORDS, data };
  }

  /** A parent is a table as any other: every second stage can be one. */
  override openTable(request: TableRequest): UserTable {
    if (request.nestParent && !this.#iommu.unit.attachNested) throw notSupported("tables to nest on");
    return super.openTable({ ...request, nestParent: false });
  }

  /** @throws DmaError EOPNOTSUPP for another kind of table, or flags; EINVAL for a width or place that no table has */
  openNested(parent: UserTable, data: VendorData): NestedTable {
    if (data.type !== VTD_WORDS || !(parent instanceof DomainTable))
      throw notSupported(`nested tables of type ${data.type}`);
    const bytes = data.read(FIRST_STAGE_BYTES, FIRST_STAGE_BYTES);
    const view = new DataView(bytes.buffer, bytes.byteOffset, FIRST_STAGE_BYTES);
    const [flags, place] = [view.getBigUint64(0, true), view.getBigUint64(8, true)];
    const [width, reserved] = [view.getUint32(16, true), view.getUint32(20, true)];
    // Requests of the supervisor, extended accessed bits, write protection: the units here have none of them.
    if (flags !== 0n || reserved !== 0) throw notSupported(`flags ${flags} of a first stage`);
    const levels = LEVELS[width];
    if (levels === undefined) throw badArgument(`a first stage of ${width} bits: 48 or 57`);
    if (place % 4096n !== 0n || place >= 2n ** 52n) throw badArgument(`a first stage at ${place}`);
    return new FirstStage(this.#iommu, parent, { table: Number(place / 4096n) as PhysPage, levels });
  }

  /** @throws DmaError EINVAL for tables that the unit does not take */
  override attach(pasid: number, table: UserTable | NestedTable): void {
    if (!(table instanceof FirstStage)) {
      super.attach(pasid, table);
      return;
    }
    const { unit } = this.#iommu;
    if (!unit.attachNested) throw badAttach("EINVAL", "the unit does not nest");
    const options = pasid === 0 ? {} : { pasid, pasidBits: this.pasidBits };
    unit.attachNested(this.#requester, table.domainId, table.tables, table.parent.domain.tables, options);
  }
}
