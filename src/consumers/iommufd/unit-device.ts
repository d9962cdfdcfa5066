/**
 * A device behind one of the stack's own translation units, as iommufd and containers attach it.
 *
 * Idea: tables are paging domains of a format; attaching one tells the unit. Devices behind one unit share its domain numbers.
 * Not for: nesting, which only some units can (vtd-device.ts), and virtual IOMMUs, which they leave to their own drivers.
 */
import { PagingDomain } from "../../iommu/index.ts";
import type { TableLayout } from "../../layouts/pagetable/index.ts";
import type { Arena } from "../../pagetable/index.ts";
import type { Requester, TranslationUnit } from "../../platform/index.ts";
import { badAttach, notSupported } from "./errors.ts";
import type {
  IovaSpan,
  IsolationGroup,
  NestedTable,
  PageFault,
  TableRequest,
  UserDevice,
  UserTable,
} from "./hardware.ts";
import { DomainTable } from "./paging-table.ts";

/** An IOMMU with its format and its domain numbers. */
export class UnitIommu {
  /** What is told of attachments and invalidations. */
  readonly unit: TranslationUnit;
  /** Format of the tables. */
  readonly layout: TableLayout;
  /** It can say what devices wrote. */
  readonly canTrackDirty: boolean;
  /** A dirty leaf of several items is reported without its last, as Linux reports it. */
  readonly leavesOutLastItem: boolean;
  readonly #numbers = new Set<number>();
  readonly #tableMemory: Arena | undefined;
  readonly #firstDomain: number;

  /** Takes nothing yet: each table gets a domain of its own. */
  constructor(options: {
    readonly unit: TranslationUnit;
    readonly layout: TableLayout;
    readonly canTrackDirty?: boolean;
    readonly leavesOutLastItem?: boolean;
    /** Its domain numbers begin here, where others use the unit too: 1 unless said. */
    readonly firstDomain?: number;
    /** Where its tables lie, for units that read all of theirs in one memory; each has its own unless said. */
    readonly tableMemory?: Arena;
  }) {
    this.unit = options.unit;
    this.layout = options.layout;
    this.canTrackDirty = options.canTrackDirty ?? false;
    this.leavesOutLastItem = options.leavesOutLastItem ?? false;
    this.#tableMemory = options.tableMemory;
    this.#firstDomain = options.firstDomain ?? 1;
  }

  /** A domain number that is free, the lowest. */
  takeNumber(): number {
    let domainId = this.#firstDomain;
    while (this.#numbers.has(domainId)) domainId++;
    this.#numbers.add(domainId);
    return domainId;
  }

  /** It is free again. */
  giveNumber(domainId: number): void {
    this.#numbers.delete(domainId);
  }

  /** A table with a domain number of its own, the lowest that is free. */
  openTable(tracksDirty: boolean): DomainTable {
    const domainId = this.takeNumber();
    const { layout, unit, leavesOutLastItem } = this;
    const tableMemory = this.#tableMemory;
    const domain = new PagingDomain({ layout, unit, domainId, ...(tableMemory && { tableMemory }) });
    const free = (): void => this.giveNumber(domainId);
    return new (class extends DomainTable {
      override destroy(): void {
        super.destroy();
        free();
      }
    })({ domain, tracksDirty, leavesOutLastItem });
  }
}

/** What is known of a device beside its IOMMU. */
export interface UnitDeviceOptions {
  /** For messages. */
  readonly name: string;
  /** The unit that it is behind. */
  readonly iommu: UnitIommu;
  /** segment × 65536 + bus × 256 + device × 8 + function. */
  readonly requester: Requester;
  /** One of its own unless said. */
  readonly group?: IsolationGroup;
  /** Addresses that it must not use; on a PC those of interrupts, {@link PC_INTERRUPTS}. None unless said. */
  readonly reserved?: readonly IovaSpan[];
  /** True unless said. */
  readonly isCoherent?: boolean;
  /** True unless said. */
  readonly hasIsolatedInterrupts?: boolean;
  /** Bits of the PASIDs that it sends; 0 unless said. */
  readonly pasidBits?: number;
}

/** Addresses at which a PC's devices write to make interrupts. */
export const PC_INTERRUPTS: IovaSpan = { first: 0xfee0_0000n, last: 0xfeef_ffffn };

/** A device behind a {@link UnitIommu}. */
export class UnitDevice implements UserDevice {
  readonly name: string;
  readonly group: IsolationGroup;
  readonly reserved: readonly IovaSpan[];
  readonly capabilities = 0;
  readonly canTrackDirty: boolean;
  readonly pasidBits: number;
  readonly isCoherent: boolean;
  readonly hasIsolatedInterrupts: boolean;
  readonly #iommu: UnitIommu;
  readonly #requester: Requester;

  /** Attaches nothing yet. */
  constructor(options: UnitDeviceOptions) {
    this.name = options.name;
    this.group = options.group ?? { name: options.name };
    this.reserved = options.reserved ?? [];
    this.canTrackDirty = options.iommu.canTrackDirty;
    this.pasidBits = options.pasidBits ?? 0;
    this.isCoherent = options.isCoherent ?? true;
    this.hasIsolatedInterrupts = options.hasIsolatedInterrupts ?? true;
    this.#iommu = options.iommu;
    this.#requester = options.requester;
  }

  hardwareInfo(type: number): ReturnType<UserDevice["hardwareInfo"]> {
    if (type !== 0) throw notSupported(`hardware information of type ${type}`);
    return { type: 0, data: new Uint8Array(0) };
  }

  openTable({ tracksDirty, data, nestParent }: TableRequest): UserTable {
    if (data || nestParent) throw notSupported("tables of a vendor's own kind, or to nest on");
    if (tracksDirty && !this.canTrackDirty) throw notSupported("dirty tracking in this unit");
    return this.#iommu.openTable(tracksDirty);
  }

  attach(pasid: number, table: UserTable | NestedTable): void {
    if (!(table instanceof DomainTable) || table.domain.table.layout !== this.#iommu.layout)
      throw badAttach("EINVAL", `${this.name} does not translate by tables of this kind`);
    const { tables } = table.domain;
    this.#iommu.unit.attach(this.#requester, tables, pasid === 0 ? {} : { pasid, pasidBits: this.pasidBits });
  }

  detach(pasid: number): void {
    if (pasid === 0) this.#iommu.unit.detach(this.#requester);
    else this.#iommu.unit.detachPasid?.(this.#requester, pasid);
  }

  respond(_fault: PageFault, _isRepaired: boolean): void {
    // Its pages are pinned: it asks for none.
  }
}
