/**
 * What is seen of a machine at one moment: plain values, which go from the worker to the page and into tables.
 *
 * Addresses of pages are page numbers, others bytes. Lists are cut where they would be longer than a picture can show; what was left out is
 * counted beside them.
 */
import type { CounterName } from "../../../../base/index.ts";

/** A place in the PCI tree. */
export interface NodePicture {
  readonly name: string;
  readonly kind: "host-bridge" | "root-port" | "upstream-port" | "downstream-port" | "endpoint" | "root-endpoint";
  /** Name of what it is below; a host bridge is below nothing. */
  readonly parent: string | undefined;
  /** It redirects what peers send each other up to the root complex. */
  readonly redirects: boolean;
  readonly bars: readonly { readonly index: number; readonly phys: number; readonly lengthBytes: number }[];
}

/** What a device's address, or a run of them, leads to. */
export interface CellPicture {
  readonly page: number;
  readonly pages: number;
  /**
   * `empty`: reserved at most. `unsynced`: linked, not yet promised. `mapped`: by the table. `stale`: the table says nothing or something
   * else, and the IOTLB still leads somewhere.
   */
  readonly state: "empty" | "unsynced" | "mapped" | "stale";
  /** First page of memory behind it; -1: none. Of a stale cell: where the IOTLB leads. */
  readonly target: number;
  /** r, w: what the entry allows. */
  readonly rights: string;
  readonly dirty: boolean;
  /** The IOTLB holds it too. */
  readonly cached: boolean;
}

/** Addresses that belong together: a reservation, a mapping, or neighbours. */
export interface RangePicture {
  readonly page: number;
  readonly pages: number;
  /** `waiting`: in the flush queue. `mapped`: without a reservation of the allocator's. */
  readonly state: "reserved" | "waiting" | "mapped";
  readonly cells: readonly CellPicture[];
  /** Pages of it that no cell shows. */
  readonly left: number;
}

/** An entry of a table that is present. */
export interface EntryPicture {
  readonly index: number;
  /** As hex, 64 bits. */
  readonly value: string;
  /** First address that it answers for, and pages. */
  readonly page: number;
  readonly pages: number;
  /** Page of the table below it, or of memory. */
  readonly target: number;
  readonly leaf: boolean;
  readonly rights: string;
  readonly dirty: boolean;
}

/** One table: a page of entries. */
export interface TablePicture {
  readonly page: number;
  readonly level: number;
  readonly entries: readonly EntryPicture[];
  /** Entries that are present and not shown. */
  readonly left: number;
}

/** An address space, and who is in it. */
export interface SpacePicture {
  readonly devices: readonly string[];
  /** Of the tables; undefined: no translation, addresses are physical. */
  readonly format: string | undefined;
  readonly ranges: readonly RangePicture[];
  /** The root first. */
  readonly tables: readonly TablePicture[];
  /** Tables that are not shown. */
  readonly tablesLeft: number;
  readonly cached: readonly {
    readonly page: number;
    readonly target: number;
    readonly rights: string;
    readonly stale: boolean;
  }[];
}

/** A page of memory. */
export interface FramePicture {
  readonly page: number;
  /** RAM, the bounce pool, or whose BAR. */
  readonly kind: "ram" | "pool" | "bar";
  readonly owner: string | undefined;
  /** Its first bytes. */
  readonly bytes: readonly number[];
}

/** An access of a device. */
export interface AccessPicture {
  readonly device: string;
  readonly address: number;
  readonly lengthBytes: number;
  readonly access: "read" | "write";
  /** How it went: by the IOTLB, by a walk of the tables, turned around below the root, passed on between root ports, or without an IOMMU. */
  readonly way: "iotlb" | "walk" | "switch" | "bridge" | "physical" | "refused";
  /** Why it was refused. */
  readonly reason: string | undefined;
}

/** A line about what happened. */
export interface EventPicture {
  readonly kind: "call" | "table" | "iotlb" | "iova" | "copy" | "device" | "fault" | "said";
  readonly device: string | undefined;
  readonly text: string;
}

/** What was counted for a device, and what it comes to. */
export interface CountPicture {
  readonly device: string;
  readonly counts: Readonly<Record<CounterName, number>>;
  /** By the published prices. */
  readonly priceNs: number;
}

/** The whole machine. */
export interface MachinePicture {
  readonly nodes: readonly NodePicture[];
  readonly spaces: readonly SpacePicture[];
  readonly frames: readonly FramePicture[];
  /** Frames that are not shown. */
  readonly framesLeft: number;
  /** What stands in for what: a page of the pool for a page of memory. */
  readonly bounces: readonly { readonly frame: number; readonly pool: number }[];
  /** Since the step before. */
  readonly accesses: readonly AccessPicture[];
  readonly events: readonly EventPicture[];
  /** Events that are not shown. */
  readonly eventsLeft: number;
  readonly counts: readonly CountPicture[];
  readonly clockMs: number;
  /** What buttons can act on. */
  readonly handles: HandlesPicture;
}

/** What is there to act on. */
interface HandlesPicture {
  readonly devices: readonly string[];
  readonly ranges: readonly {
    readonly id: number;
    readonly device: string;
    readonly page: number;
    readonly pages: number;
  }[];
  readonly mappings: readonly {
    readonly id: number;
    readonly device: string;
    readonly address: number;
    readonly lengthBytes: number;
  }[];
}
