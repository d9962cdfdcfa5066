/**
 * Page tables as objects: a paging table with all areas of its space in it, and a guest's table nested on one.
 *
 * Promises: a table is complete before anybody can find it; it ends with everything unmapped.
 */
import type { FaultQueue } from "./fault-queue.ts";
import type { InvalidationTarget, NestedTable, UserTable } from "./hardware.ts";
import type { Ioas } from "./ioas.ts";
import type { IommufdObject } from "./objects.ts";
import type { Viommu } from "./viommu.ts";

/** A table that holds an address space. */
export class PagingHwpt implements IommufdObject {
  readonly kind = "hwpt";
  id = 0;
  users = 0;
  /** The space that it holds. */
  readonly ioas: Ioas;
  /** The driver's part of it. */
  readonly table: UserTable;
  /** Guests' tables may stand on it. */
  readonly isNestParent: boolean;
  /** It may stand beside tables for PASIDs. */
  readonly takesPasids: boolean;
  /** Made because a device was attached to the space; goes with the last one. */
  readonly isAutomatic: boolean;
  /** Where page faults of its devices go; undefined: they are answered `invalid`. */
  faults: FaultQueue | undefined;

  /** Made by the iommufd; takes over `table`, and uses `ioas`. */
  constructor(ioas: Ioas, table: UserTable, traits: { nestParent: boolean; pasid: boolean; automatic: boolean }) {
    this.ioas = ioas;
    this.table = table;
    this.isNestParent = traits.nestParent;
    this.takesPasids = traits.pasid;
    this.isAutomatic = traits.automatic;
    ioas.users++;
  }

  /** The table whose addresses are the space's. */
  get paging(): PagingHwpt {
    return this;
  }

  end(): void {
    if (this.ioas.tables.includes(this.table)) this.ioas.removeTable(this.table);
    this.table.destroy();
    this.ioas.users--;
    if (this.faults) this.faults.users--;
  }
}

/** A guest's table, translated by a parent. */
export class NestedHwpt implements IommufdObject {
  readonly kind = "nested";
  id = 0;
  users = 0;
  /** The table that it stands on. */
  readonly paging: PagingHwpt;
  /** The vendor's part of it. */
  readonly table: NestedTable;
  /** It may be attached with a PASID, or beside tables that are. */
  readonly takesPasids: boolean;
  /** False: a program made it, and destroys it. */
  readonly isAutomatic = false;
  /** The virtual IOMMU that it was made in; undefined: none. */
  readonly viommu: Viommu | undefined;
  /** Where page faults of its devices go; undefined: they are answered `invalid`. */
  faults: FaultQueue | undefined;

  /** Made by the iommufd; takes over `table`, and uses the parent or the virtual IOMMU. */
  constructor(parent: PagingHwpt, table: NestedTable, pasid: boolean, viommu?: Viommu) {
    this.paging = parent;
    this.table = table;
    this.takesPasids = pasid;
    this.viommu = viommu;
    if (viommu) viommu.users++;
    else parent.users++;
  }

  /** Who takes its invalidations. */
  get invalidation(): InvalidationTarget {
    return this.table.invalidation;
  }

  end(): void {
    this.table.destroy();
    if (this.viommu) this.viommu.users--;
    else this.paging.users--;
    if (this.faults) this.faults.users--;
  }
}

/** What a device can be attached to. */
export type Hwpt = PagingHwpt | NestedHwpt;
