/**
 * The memory of a process, as those see it that map it for devices: pins, accounts, page-table entries, notifiers.
 *
 * Idea: a consumer that keeps pages in place *pins* them; one that follows pages when they move *watches* a range and reads
 * the entries of the CPU's page table. Both are told by number of page, in arrays of the caller's, so that a gigabyte costs no
 * objects. Who may pin how much is the consumer's rule (they differ); here are only the accounts.
 * Promises: a pinned page stays where it is and what it is until the last pin ends, whatever the process does meanwhile; a
 * watcher hears of a change *before* it happens, and a walk that overlapped one is found out by {@link IntervalNotifier.retry}.
 * Not for: how areas come to be (the process does that itself: hosts/simulated/process).
 * Specified by: behaviour of Linux 7.2 mm (get_user_pages, mmu_interval_notifier, hmm); docs/glossary.md.
 */
import type { PhysPage } from "../base/index.ts";
import type { MemoryFile } from "./memory-file.ts";
import type { MigrationRequest, PageMigration } from "./page-migration.ts";
import type { Steps } from "./steps.ts";
import type { MemoryOwner, UserAddr } from "./user-address.ts";

/** Pages that somebody is charged with: against a limit, or for information. Whoever charges takes back. */
export interface PageAccount {
  /** 4 KiB each, charged at present. */
  pages: number;
}

/** An area of an address space: neighbouring pages of one kind and permission. A snapshot; areas merge and split. */
export interface UserArea {
  /** First address, a whole page. */
  readonly start: UserAddr;
  /** The address after the last. */
  readonly end: UserAddr;
  /** The process may read it. */
  readonly readable: boolean;
  /** The process may write it. */
  readonly writable: boolean;
  /** The process may run code of it. */
  readonly executable: boolean;
  /** Writes go to the object and are seen by whoever shares it. */
  readonly shared: boolean;
  /** `io`: registers of a device, mapped by page number: nobody may pin them. Peer memory is a `file` without a name. */
  readonly kind: "anonymous" | "file" | "hugetlb" | "io";
  /** What is mapped, where it is a file. */
  readonly file: MemoryFile | undefined;
  /** Byte of the file that lies at `start`; 0 without a file. */
  readonly fileOffset: number;
}

/** What an entry of the CPU's page table is. */
export type EntryKind =
  /** Nothing is there. */
  | "none"
  /** A page that the CPU can reach. Device-coherent pages are such. */
  | "present"
  /** The page was swapped out. */
  | "swapped"
  /** A page in memory that only its device reaches. */
  | "device-private"
  /** The CPU gave up this page to one device, for atomic access; it takes it back when it touches it. */
  | "exclusive"
  /** The page is moving just now. */
  | "migrating"
  /** The page is broken. */
  | "poisoned"
  /** No page of memory: registers of a device. */
  | "special";

/** One entry, filled in by {@link UserMemory.entryAt}; the caller keeps one object and uses it again. */
export interface PageEntry {
  /** What the entry is: nothing, a page, a page that lies elsewhere, a mark. */
  kind: EntryKind;
  /** The page, where the kind has one; else 0. */
  page: PhysPage;
  /** The process may write without a fault. */
  writable: boolean;
  /** Pages that the entry maps, as a power of two: 0 one, 9 (2 MiB) 512. Also of a hole that only a huge page can fill. */
  order: number;
  /** Pages of the aligned block that this one entry speaks for: 1, 512, or 262144 (nothing at all is in that gigabyte). */
  span: 1 | 512 | 262_144;
  /** Of a device-private page. */
  owner: MemoryOwner | undefined;
}

/** An entry to be filled in, of a hole yet. */
export function newPageEntry(): PageEntry {
  return { kind: "none", page: 0 as PhysPage, writable: false, order: 0, span: 1, owner: undefined };
}

/** Why an access of the process ends in a signal, or cannot be repaired. */
export type FaultOutcome =
  | "done"
  /** Nothing is mapped there (SIGSEGV, code 1). */
  | "no-area"
  /** The area does not allow it (SIGSEGV, code 2). */
  | "no-permission"
  /** Past the end of the file, or the memory could not be brought back (SIGBUS, code 2). */
  | "no-page"
  | "out-of-memory"
  /** The page is broken (SIGBUS, code 4). */
  | "poisoned";

/** Why a range of the process is about to change. */
export type InvalidationKind =
  /** Areas go, or move away. */
  | "unmap"
  /** Entries are cleared and may be filled anew: copy on write, dropped contents, a split, a page out. */
  | "clear"
  /** The permission of an area changes. */
  | "protection-area"
  /** Entries become read-only: fork. */
  | "protection-page"
  /** Pages move to, or from, the memory of `owner`. */
  | "migrate"
  /** `owner` gets a page for itself. */
  | "exclusive"
  /** The process is gone. */
  | "release";

/** What a watcher hears. */
export interface Invalidation {
  /** What happens to the range. */
  readonly kind: InvalidationKind;
  /** First address that changes; not cut to the watched range. */
  readonly start: UserAddr;
  /** The address after the last; not cut either. */
  readonly end: UserAddr;
  /** Of `migrate` and `exclusive`: who does it. */
  readonly owner: MemoryOwner | undefined;
  /** The watcher may wait. If not, and it would have to, it answers false. */
  readonly mayBlock: boolean;
}

/**
 * The range [start, end) under watch. Protocol of a reader: `seq = readBegin()`; read entries; take the lock that the
 * callback takes; if `retry(seq)`, drop all and begin again; use what was read; only then unlock.
 */
export interface IntervalNotifier {
  /** First address watched, a whole page. */
  readonly start: UserAddr;
  /** The address after the last. */
  readonly end: UserAddr;
  /** True while a change of the range is under way: a reader that begins now will have to begin again. */
  readonly isInvalidating: boolean;
  /** A number that stands for the range as it is now. */
  readBegin(): number;
  /** What was read since `sequence` may be untrue. Cost: a comparison. */
  retry(sequence: number): boolean;
  /** Hears no more. A second time does nothing. */
  remove(): void;
}

/** Hears of a change before it happens; false: cannot wait, come again (only if it may not block). */
export type InvalidationCallback = (invalidation: Invalidation) => boolean;

/** How pages are pinned: for writing, for long, and who is charged. */
export interface PinOptions {
  /** The device will write. */
  readonly write: boolean;
  /** For as long as a program likes: such pages leave memory that must stay movable, and memory of devices. */
  readonly longTerm?: boolean;
  /** Peer memory of devices too: whoever asks knows how to reach it. */
  readonly peers?: boolean;
}

/** Takes runs of physical pages: `count` from `page` on. */
export interface PageRuns {
  add(page: number, count: number): void;
}

/** Pages of memory, whoever maps them: what can be asked of one, and the end of pins. Lives as long as the machine. */
export interface UserPages {
  /**
   * Ends one pin of each of `count` pages from `page` on. Never fails.
   *
   * @param dirty what a device wrote is worth keeping
   */
  unpin(page: PhysPage, count: number, dirty: boolean): void;
  /** What kind of memory it is. `other`: no memory of a process is there. */
  kindOf(page: PhysPage): "ram" | "device-private" | "device-coherent" | "peer" | "other";
  /** Of memory that belongs to a device. */
  ownerOf(page: PhysPage): MemoryOwner | undefined;
  /** The block that `page` is part of, as a power of two of pages: what moves or is freed as one. */
  orderOf(page: PhysPage): number;
  /** Filled with zeros, for all who have read and never written. */
  isZeroPage(page: PhysPage): boolean;
  /** Pins that hold it now, for tests and reports. */
  pinsOf(page: PhysPage): number;
}

/** An address space. It may outlive its process, and be shared by several. */
export interface UserMemory {
  /** The last process of it has ended: nothing is mapped, and nothing will be. */
  readonly isGone: boolean;
  /** Pages locked for devices, counted against the limit of this address space (VFIO type1, and iommufd in that mode). */
  readonly locked: PageAccount;
  /** Pages pinned for devices (RDMA counts these against the limit, iommufd for information). Not part of `locked`. */
  readonly pinned: PageAccount;
  /** The frames of the machine: what a page number read from an entry stands for. */
  readonly pages: UserPages;

  /** The area that holds `address`. The same object as before, as long as the area is what it was. */
  areaAt(address: UserAddr): UserArea | undefined;
  /** The first area that ends above `address`. */
  areaFrom(address: UserAddr): UserArea | undefined;

  /**
   * Copies memory of the process, as a system call does: page by page, with faults.
   *
   * @returns bytes done; fewer than asked if an access was refused
   */
  read(address: UserAddr, into: Uint8Array): number;
  /** @see read */
  write(address: UserAddr, from: Uint8Array): number;

  /**
   * Pins up to `count` pages from the page of `address` on, one pin each, and writes their numbers to `into` from `at` on.
   *
   * @returns pages pinned: fewer than asked if one further on cannot be
   * @throws DmaError ERR_DMA_USER_FAULT (EFAULT) if the first cannot be; ERR_DMA_USER_MEMORY (ENOMEM); nothing is pinned then
   */
  pin(address: UserAddr, count: number, into: Float64Array, at: number, options: PinOptions): number;

  /**
   * The same, told as runs of neighbouring pages: a huge page is one run, and costs what one page does. Absent: {@link pin} is all
   * there is.
   */
  pinRuns?(address: UserAddr, count: number, into: PageRuns, options: PinOptions): number;

  /**
   * From now on `callback` hears of changes of [start, end), whole pages.
   *
   * @param own migrations by this owner are the watcher's own doing: it neither hears of them nor has to begin again
   * @throws DmaError ERR_DMA_USER_RANGE (EINVAL, EOVERFLOW) for an empty or impossible range; ERR_DMA_USER_GONE (EFAULT)
   */
  watch(start: UserAddr, end: UserAddr, callback: InvalidationCallback, own?: MemoryOwner): IntervalNotifier;

  /** Nobody changes the areas just now: a walk that does not stop on its way needs no {@link holdAreas}. */
  readonly areasAreStill: boolean;

  /**
   * Waits until the areas can be held still, and holds them: they are not changed until the returned function is called, though
   * pages may still come, move and go.
   */
  holdAreas(): Steps<() => void>;

  /** The entry of the CPU's page table for the page of `address`, as it is. Costs no garbage. */
  entryAt(address: UserAddr, into: PageEntry): void;

  /**
   * What an access of the process at `address` would do: bring the page, copy it, take it back from a device. One step of that; the
   * caller holds the areas and looks again.
   */
  fault(address: UserAddr, write: boolean): Steps<FaultOutcome>;

  /**
   * Takes the pages of a range out, to move them to or from a device. The caller holds the areas until it has finished.
   *
   * @throws DmaError ERR_DMA_USER_CALL (EINVAL) if the range is not in one area, or its pages cannot move at all
   */
  collect(request: MigrationRequest): Steps<PageMigration>;

  /**
   * Gives the page of `address` to one device alone, for atomic access: the process takes it back when it touches it. The caller
   * holds the areas.
   *
   * @param owner watchers hear who it is
   * @returns the page
   * @throws DmaError ERR_DMA_USER_FAULT (EFAULT) if the process could not write it; ERR_DMA_USER_CALL (EOPNOTSUPP) if it is not the
   *   process's own kind of memory (files, shared, hugetlb)
   */
  makeExclusive(address: UserAddr, owner?: MemoryOwner): Steps<PhysPage>;
}
