/**
 * What iommufd asks of an IOMMU and of a device behind it: the contract that drivers fulfil.
 *
 * Idea: tables are driven in *units*, the smallest page of the table (4 KiB, or less), so that any address is an exact number.
 * Promises asked of a driver: a refused call changes nothing; `unmap` returns when devices cannot reach the pages any more.
 * Not for: who may map what; that is the address space's.
 */
import type { PhysPage } from "../../base/index.ts";
import type { FrameRuns } from "./frame-runs.ts";

/** Addresses [first, last], bytes; `last` may be 2^64 - 1. */
export interface IovaSpan {
  /** First address. */
  readonly first: bigint;
  /** Last address, itself included. */
  readonly last: bigint;
}

/** Where one unit of a table leads, and the leaf that says so. */
export interface TableLeaf {
  /** Unit of physical memory that the asked one reaches. */
  readonly phys: number;
  /** First unit of the leaf. */
  readonly leafStart: number;
  /** Units that the leaf maps. */
  readonly leafUnits: number;
}

/** A page table that addresses chosen by users are mapped in. */
export interface UserTable {
  /** Bytes of a unit: a power of two up to 4096. */
  readonly unitBytes: number;
  /** Sizes of pages, bytes, as a bitmap. */
  readonly pageSizes: bigint;
  /** Addresses that it can translate. */
  readonly aperture: IovaSpan;
  /** It can say what devices wrote. */
  readonly tracksDirty: boolean;
  /** Devices see the CPU's caches, whatever their requests say. */
  readonly forcesCoherency: boolean;
  /**
   * `count` runs, `units[i]` units from physical unit `phys[i]` on, one after the other from `unit` on. All or nothing.
   *
   * @throws DmaError what the table cannot hold
   */
  mapRuns(unit: number, phys: Float64Array, units: Int32Array, count: number, access: TableAccess): void;
  /** Clears [unit, unit + units), of which all is mapped or nothing; no device reaches it afterwards. Never fails. */
  unmap(unit: number, units: number): void;
  /** Undefined: nothing is mapped there. Makes an object: {@link lookup} does not. */
  leafAt(unit: number): TableLeaf | undefined;
  /** Unit of physical memory that `unit` reaches; -1: none. */
  lookup(unit: number): number;
  /**
   * Adds the pages that [unit, + units) reaches to `into`, up to a hole; how many units. Absent: they are looked up leaf by leaf.
   * For tables whose units are pages of 4 KiB.
   */
  readRuns?(unit: number, units: number, into: FrameRuns): number;
  /**
   * No leaf reaches over the beginning of `unit` any more: one that does becomes smaller ones with the same translations. Absent:
   * leaves stay as they are.
   *
   * @throws DmaError ENOMEM for their tables: all translations are as before
   */
  splitAt?(unit: number): void;
  /** Starts or ends the tracking of writes. @throws DmaError what the unit says */
  setDirtyTracking(on: boolean): void;
  /** Calls `report` for each run of units of [unit, unit + units) that devices wrote to; with `clear` they are clean then. */
  readDirty(unit: number, units: number, clear: boolean, report: (unit: number, units: number) => void): void;
  /** Gives its pages back; whatever is mapped ends with it. Never fails. */
  destroy(): void;
}

/** Bytes of the smallest page of a table: what its addresses are multiples of. */
export const smallestPageOf = (table: UserTable): number => Number(table.pageSizes & -table.pageSizes);

/** What devices may do in a mapping. */
export interface TableAccess {
  /** Devices may read. */
  readonly read: boolean;
  /** Devices may write. */
  readonly write: boolean;
  /** Registers of a device, not memory. */
  readonly mmio: boolean;
}

/** A table of a guest, whose addresses a parent translates. */
export interface NestedTable {
  /** The types of invalidation requests that it takes. */
  readonly invalidation: InvalidationTarget;
  /** Nothing translates by it any more. Never fails. */
  destroy(): void;
}

/** Who takes invalidation requests, in the vendor's words. */
export interface InvalidationTarget {
  /** The type of its requests. */
  readonly type: number;
  /** Bytes of the shortest entry: only so many are needed. */
  readonly leastBytes: number;
  /** Bytes of the longest entry. */
  readonly mostBytes: number;
  /** The array is taken whole: a short entry is filled up with zeros, a longer one must end in zeros. */
  readonly takesWhole?: boolean;
  /**
   * Does what the entries say, in order. How many were done; `refused` says why no more were.
   */
  invalidate(entries: readonly Uint8Array[]): {
    /** Entries that were done. */
    readonly done: number;
    /** Why no more were; absent: all were. */
    readonly refused?: Error;
  };
}

/** What a table is to be. */
export interface TableRequest {
  /** Guests' tables will stand on it. */
  readonly nestParent: boolean;
  /** It must be able to say what devices wrote. */
  readonly tracksDirty: boolean;
  /** It may be attached with a PASID, or beside tables that are. */
  readonly pasid: boolean;
  /** In the vendor's words; undefined: nothing was said. */
  readonly data: VendorData | undefined;
}

/** Words of a vendor, passed through: their type and a reader of their bytes. */
export interface VendorData {
  /** What the bytes are. */
  readonly type: number;
  /** How many there are, as the caller says. */
  readonly length: number;
  /**
   * The bytes: at least `least` must be there, and at most `most`; what is missing is zero.
   *
   * @throws DmaError EINVAL, EFAULT
   */
  read(least: number, most: number): Uint8Array;
  /** Writes an answer over them. @throws DmaError EFAULT */
  answer(bytes: Uint8Array): void;
}

/** Devices that only move together: they cannot be kept apart. Compared by identity. */
export interface IsolationGroup {
  /** For messages. */
  readonly name: string;
  /** Who has their DMA in hand; undefined: the kernel's drivers. Kept by `claimGroup`. */
  owner?: object | undefined;
  /** Devices that the owner claimed; absent: none. */
  claims?: number;
}

/** `owner` takes the DMA of the group in hand, once more. False: somebody else has it. */
export function claimGroup(group: IsolationGroup, owner: object): boolean {
  if (group.owner !== undefined && group.owner !== owner) return false;
  group.owner = owner;
  group.claims = (group.claims ?? 0) + 1;
  return true;
}

/** One claim ends; with the last the group is nobody's. */
export function releaseGroup(group: IsolationGroup): void {
  group.claims = (group.claims ?? 1) - 1;
  if (group.claims === 0) group.owner = undefined;
}

/** A fault that a device has asked to be repaired. */
export interface PageFault {
  /** The device's number for the group that it is of. */
  readonly group: number;
  /** Which of the device's address spaces; absent: that of requests without one. */
  readonly pasid?: number | undefined;
  /** 1 read, 2 write, 4 execute, 8 privileged. */
  readonly permissions: number;
  /** Where, bytes. */
  readonly address: bigint;
  /** No more of the group follow: the device waits for the answer. */
  readonly isLast: boolean;
}

/** A device that can be given to a user, with the IOMMU before it. */
export interface UserDevice {
  /** For messages. */
  readonly name: string;
  /** Devices that it cannot be kept apart from. */
  readonly group: IsolationGroup;
  /** Addresses that its table must not use: interrupts, firmware. */
  readonly reserved: readonly IovaSpan[];
  /** Bits of {@link HW_CAPABILITIES} of GET_HW_INFO, but for dirty tracking. */
  readonly capabilities: number;
  /** Its tables can say what devices wrote. */
  readonly canTrackDirty: boolean;
  /** Bits of the PASIDs that it sends; 0: none. */
  readonly pasidBits: number;
  /** False: its DMA would not see the CPU's caches, and it is refused. */
  readonly isCoherent: boolean;
  /** False: its interrupts could be forged by others. */
  readonly hasIsolatedInterrupts: boolean;
  /** What the IOMMU is, in the vendor's words. @throws DmaError EOPNOTSUPP for a type that it is not */
  hardwareInfo(type: number): {
    /** What the IOMMU is (IOMMU_HW_INFO_TYPE of the kernel's interface); 0: it does not say. */
    readonly type: number;
    /** The structure of that type. */
    readonly data: Uint8Array;
  };
  /** @throws DmaError EOPNOTSUPP, EINVAL */
  openTable(request: TableRequest): UserTable;
  /** Absent: its IOMMU does not nest. @throws DmaError EOPNOTSUPP, EINVAL */
  openNested?(parent: UserTable, data: VendorData): NestedTable;
  /** Types of virtual IOMMUs that can be made. */
  readonly viommuTypes?: readonly number[];
  /** Absent: no virtual IOMMU is known. @throws DmaError EOPNOTSUPP, EINVAL */
  openViommu?(
    type: number,
    parent: UserTable,
    data: VendorData | undefined,
    /** The device that the guest knows by a number. */
    devices: (virtualId: bigint) => UserDevice | undefined,
  ): ViommuDriver;
  /**
   * From now on requests, with `pasid` if it is not 0, are translated by `table`. Of a nested table `viommu` is the one
   * that it belongs to.
   *
   * @throws DmaError EINVAL if they do not go together; all is as before then
   */
  attach(pasid: number, table: UserTable | NestedTable, viommu: ViommuBond | undefined): void;
  /** From now on such requests are refused. Never fails. */
  detach(pasid: number): void;
  /** An answer to its page fault. */
  respond(fault: PageFault, isRepaired: boolean): void;
}

/** A device as a virtual IOMMU knows it. */
export interface ViommuBond {
  /** The virtual IOMMU. */
  readonly driver: ViommuDriver;
  /** The guest's number for the device; undefined: it has none there. */
  readonly virtualId: bigint | undefined;
}

/** The vendor's part of a virtual IOMMU. */
export interface ViommuDriver {
  /** Answer to the data it was made with. */
  readonly answer?: Uint8Array;
  /** Who takes invalidations of the guest; absent: nobody. */
  readonly invalidation?: InvalidationTarget;
  /** A table of the guest below this IOMMU. @throws DmaError EOPNOTSUPP, EINVAL: what the driver refuses */
  openNested(data: VendorData): NestedTable;
  /** Types of events that it reports. */
  readonly eventTypes: readonly number[];
  /** Types of hardware queues; undefined: none. */
  readonly queues?: ViommuQueues;
  /** The virtual IOMMU is gone; its tables and queues went before it. Never fails. */
  destroy(): void;
}

/** A queue that hardware reads. */
export interface OpenQueue {
  /** Index of the queue that must not end before this one. */
  readonly needs?: number;
  /** The hardware reads it no more. Never fails. */
  close(): void;
}

/** Queues of a guest that hardware reads by itself. */
export interface ViommuQueues {
  /** The type of queue that can be made. */
  readonly type: number;
  /**
   * @param phys first byte, in physical memory
   * @returns what to do when it ends
   * @throws DmaError what the driver refuses
   */
  open(index: number, phys: number, length: bigint): OpenQueue;
}

/** A dma-buf that iommufd can map: one range of a device's memory. */
export interface RangeBuffer {
  /** Marks it among open files. */
  readonly kind: "dma-buf";
  /** Bytes. */
  readonly length: number;
  /** Where it begins; undefined: it was taken back, or has more than one range. */
  readonly range:
    | {
        /** Its first page in physical memory. */
        readonly page: PhysPage;
      }
    | undefined;
  /** `moved` is called whenever the range is taken back, or may have moved. Ends with the returned function. */
  watch(moved: () => void): () => void;
  /** It gives out physical ranges. False: other exporters. */
  readonly givesRanges: boolean;
  /** One more holder of the buffer. */
  acquire(): void;
  /** One holder less; with the last the buffer ends. Never fails. */
  release(): void;
}
