/**
 * Pages that move between the memory of a process and that of a device.
 *
 * Idea: three steps, so that the driver copies in between: collect takes the pages of a range out of the process's table, what can be
 * taken; the driver gives each a new place and copies; move makes the new places the pages, and finish puts everything back into
 * the table, moved or not. A hole, or a page of zeros, moves too: it gets a place and no contents.
 * Promises: what cannot move stays, and the process never sees half of it: it waits while pages are out.
 * Specified by: behaviour of Linux 7.2 migrate_vma.
 */
import type { PhysPage } from "../base/index.ts";
import type { Steps } from "./steps.ts";
import type { MemoryOwner, UserAddr } from "./user-address.ts";

/** What to take out. */
export interface MigrationRequest {
  /** First address, a whole page. */
  readonly start: UserAddr;
  /** In the same area as `start`. */
  readonly end: UserAddr;
  /** Memory of the system, or that of the device of `owner`. */
  readonly from: "system" | "device";
  /** Whose device: watchers hear it, and those of this owner are left in peace. */
  readonly owner: MemoryOwner;
  /** Huge pages may move whole: where they lie whole in the range. */
  readonly huge?: boolean;
  /** The page of the device for which the CPU waits, as the device's driver was told it. */
  readonly faultPage?: PhysPage;
}

/** Pages that are out. By index from the start of the range. */
export interface PageMigration {
  /** Address of the page with index 0. */
  readonly start: UserAddr;
  /** Pages of the range. */
  readonly count: number;
  /** Can be moved: a page that was taken, or a hole. */
  canMove(index: number): boolean;
  /** The page that was taken; undefined for a hole. */
  source(index: number): PhysPage | undefined;
  /** The process may write it. */
  isWritable(index: number): boolean;
  /** 9 if 512 pages from here on move as one. */
  order(index: number): number;
  /** A page of the system, or 512, for a destination; undefined for lack of memory. */
  allocateSystem(order: 0 | 9): PhysPage | undefined;
  /** The new place of the page (or of 512, by `order`), which the driver has allocated. Without one it stays. */
  setDestination(index: number, page: PhysPage, order: number): void;
  /** The new places become the pages. Afterwards {@link canMove} says which did. */
  move(): Steps<void>;
  /** Back into the table. Destinations that were not used are freed. */
  finish(): void;
}
