/**
 * The memory of a process: its system calls, and what consumers ask of it, in bytes and addresses.
 *
 * Idea: a thin face over the modules that do the work in pages. Each call runs at one go; those whose name ends in `Steps` can be
 * stopped in between, so that a scheduler lets others come first.
 * Promises: as {@link UserMemory}; a system call that fails throws with Linux's number and leaves what Linux leaves.
 */
import { PAGE_SIZE, PhysAddr, type PhysPage } from "../../../base/index.ts";
import {
  type FaultOutcome,
  finish,
  type IntervalNotifier,
  type InvalidationCallback,
  type MemoryOwner,
  type MigrationRequest,
  type PageAccount,
  type PageEntry,
  type PageMigration,
  type PageRuns,
  type PinOptions,
  type Steps,
  USER_END,
  UserAddr,
  type UserArea,
  type UserMemory,
  type UserPages,
  WAITING,
} from "../../../platform/index.ts";
import { AddressSpace } from "./address-space.ts";
import { type Advice, adviseSteps } from "./advise.ts";
import { badRange, rangeTooHigh, refused, userGone, userMemory } from "./errors.ts";
import { faultIn, refusal } from "./fault.ts";
import { SimulatedFile } from "./file.ts";
import { forkSpace } from "./fork.ts";
import type { Frames } from "./frames.ts";
import { giveAway } from "./give-away.ts";
import { endSteps, mapSteps, unmapSteps } from "./map.ts";
import type { Access, MapOptions } from "./map-options.ts";
import { collect } from "./migrate.ts";
import { ENTRY, HUGE_ORDER, HUGE_PAGES, HugeEntry, kindOf, MIDDLE_PAGES, WRITABLE } from "./page-table.ts";
import { pinRunSteps } from "./pin-runs.ts";
import { pinSteps } from "./pins.ts";
import { protectSteps } from "./protect.ts";
import { relocateSteps } from "./relocate.ts";
import { remapSteps } from "./remap.ts";
import { AREA, type Area } from "./structures.ts";

/** What can be said of a page from outside. */
export interface PagemapEntry {
  /** An entry maps memory that the CPU reaches. */
  readonly present: boolean;
  /** In swap, or in memory that only a device reaches. */
  readonly swapped: boolean;
  /** Of a file, or shared. */
  readonly file: boolean;
  /** By one entry in all processes. */
  readonly mappedOnce: boolean;
}

/** An area as it was when it was last asked for. Pages. */
interface KnownArea {
  readonly flags: number;
  readonly from: number;
  readonly to: number;
  readonly at: number;
  readonly shown: UserArea;
}

const NOTHING: PagemapEntry = { present: false, swapped: false, file: false, mappedOnce: false };

/** Faults that one access of the process may take: it gives up where memory stays short. */
const TRIES = 64;

const ENTRY_KINDS: readonly PageEntry["kind"][] = [
  "none",
  "present",
  "swapped",
  "device-private",
  "exclusive",
  "migrating",
  "poisoned",
  "special",
];

/**
 * The memory of one process: areas, page tables, faults, and every call that changes them. Behaves as Linux 7.2's,
 * judged by recordings of a real process.
 */
export class ProcessMemory implements UserMemory {
  readonly #space: AddressSpace;
  readonly #frames: Frames;
  readonly #known = new WeakMap<Area, KnownArea>();

  /** Nothing is mapped; one process is in it. */
  constructor(frames: Frames) {
    this.#frames = frames;
    this.#space = new AddressSpace(frames, this);
  }

  get isGone(): boolean {
    return this.#space.isGone;
  }

  get locked(): PageAccount {
    return this.#space.locked;
  }

  get pinned(): PageAccount {
    return this.#space.pinned;
  }

  get pages(): UserPages {
    return this.#frames;
  }

  /** All areas, by address. */
  get areas(): UserArea[] {
    return [...this.#space.areas].map(asUserArea);
  }

  /** Flags of the area at `address` (see AREA), and the name of the object behind it, for reports. */
  areaInfo(address: UserAddr):
    | {
        /** See AREA. */
        readonly flags: number;
        /** Name of the object behind it; undefined: it is anonymous. */
        readonly object: string | undefined;
      }
    | undefined {
    const area = this.#space.areas.at(Math.floor(address / PAGE_SIZE));
    return area && { flags: area.flags, object: area.object?.name };
  }

  /**
   * What /proc/<pid>/pagemap says of the page of `address`, for reports. Of a huge entry all pages are said to be as the first.
   */
  pagemap(address: UserAddr): PagemapEntry {
    const page = Math.floor(address / PAGE_SIZE);
    const { table } = this.#space;
    const entry = table.slot(page);
    const kind = kindOf(table.state(page));
    if (kind === ENTRY.none) return NOTHING;
    if (kind !== ENTRY.present)
      return { present: kind === ENTRY.special, swapped: kind !== ENTRY.special, file: false, mappedOnce: false };
    const isHuge = entry instanceof HugeEntry;
    const frame = isHuge ? entry.frame : table.frame(page);
    const folio = this.#frames.folio(frame)!;
    if (folio.kind === "zero") return { present: true, swapped: false, file: isHuge, mappedOnce: false };
    const mappedOnce = (folio.kind === "hugetlb" ? folio.mapCount : folio.mapCountOf(frame)) === 1;
    return { present: true, swapped: false, file: folio.anonVma === undefined, mappedOnce };
  }

  areaAt(address: UserAddr): UserArea | undefined {
    const area = this.#space.areas.at(Math.floor(address / PAGE_SIZE));
    return area && this.#shown(area);
  }

  areaFrom(address: UserAddr): UserArea | undefined {
    const area = this.#space.areas.from(Math.floor(address / PAGE_SIZE));
    return area && this.#shown(area);
  }

  get areasAreStill(): boolean {
    return !this.#space.isChanging;
  }

  /** What is known of the area outside: made once for each state of it, since walks ask for every fault of a device. */
  #shown(area: Area): UserArea {
    const known = this.#known.get(area);
    if (known?.flags === area.flags && known.from === area.start && known.to === area.end && known.at === area.offset)
      return known.shown;
    const shown = asUserArea(area);
    this.#known.set(area, { flags: area.flags, from: area.start, to: area.end, at: area.offset, shown });
    return shown;
  }

  /**
   * Maps memory. Where it is.
   *
   * @throws DmaError ERR_DMA_USER_RANGE (EINVAL), ERR_DMA_USER_TAKEN (EEXIST), ERR_DMA_USER_MEMORY (ENOMEM), ERR_DMA_USER_GONE (EFAULT)
   */
  map(options: MapOptions): UserAddr {
    return finish(this.mapSteps(options));
  }

  /** As {@link ProcessMemory.map}, in steps: other steps of the machine may run between them. */
  *mapSteps(options: MapOptions): Steps<UserAddr> {
    if (this.isGone) throw userGone();
    const { length, access = "rw", file, offset = 0 } = options;
    if (!(length > 0 && Number.isSafeInteger(length)) || offset % PAGE_SIZE !== 0)
      throw badRange(options.address, length);
    if (file && !(file instanceof SimulatedFile))
      throw refused("mmap", "ENODEV", "files of this kind cannot be mapped");
    const isSealed = file !== undefined && (file.seals.has("write") || file.seals.has("future-write"));
    if (isSealed && options.shared && access.includes("w"))
      throw refused("mmap", "EPERM", `${file.name} is sealed against writing`);
    const pages = Math.ceil(length / PAGE_SIZE);
    const page = options.address === undefined ? this.#choose(pages, options.hugetlb) : options.address / PAGE_SIZE;
    yield* mapSteps(this.#space, {
      page,
      pages,
      access: accessBits(access),
      shared: options.shared ?? false,
      ...(file && { object: file }),
      offset: offset / PAGE_SIZE,
      hugetlb: options.hugetlb ?? false,
      ...(options.io !== undefined && { ioFrame: options.io }),
      ...(options.peer !== undefined && { peerFrame: options.peer }),
      replace: options.replace ?? false,
    });
    return UserAddr(page * PAGE_SIZE);
  }

  /** @throws DmaError ERR_DMA_USER_RANGE (EINVAL), also where it would cut a huge page of hugetlb */
  unmap(address: UserAddr, length: number): void {
    finish(this.unmapSteps(address, length));
  }

  /** As {@link ProcessMemory.unmap}, in steps: other steps of the machine may run between them. */
  *unmapSteps(address: UserAddr, length: number): Steps<void> {
    yield* unmapSteps(this.#space, address / PAGE_SIZE, Math.ceil(length / PAGE_SIZE));
  }

  /** @throws DmaError ERR_DMA_USER_HOLE (ENOMEM), ERR_DMA_USER_RANGE (EINVAL) */
  protect(address: UserAddr, length: number, access: Access): void {
    finish(this.protectSteps(address, length, access));
  }

  /** As {@link ProcessMemory.protect}, in steps: other steps of the machine may run between them. */
  *protectSteps(address: UserAddr, length: number, access: Access): Steps<void> {
    yield* protectSteps(this.#space, address / PAGE_SIZE, Math.ceil(length / PAGE_SIZE), accessBits(access));
  }

  /** @throws DmaError ERR_DMA_USER_HOLE (ENOMEM), ERR_DMA_USER_CALL (EINVAL, EACCES, EFAULT, ENOMEM), ERR_DMA_USER_RANGE (EINVAL) */
  advise(address: UserAddr, length: number, advice: Advice): void {
    finish(this.adviseSteps(address, length, advice));
  }

  /** As {@link ProcessMemory.advise}, in steps: other steps of the machine may run between them. */
  *adviseSteps(address: UserAddr, length: number, advice: Advice): Steps<void> {
    yield* adviseSteps(this.#space, address / PAGE_SIZE, Math.ceil(length / PAGE_SIZE), advice);
  }

  /**
   * Moves a mapping, or changes its size.
   *
   * @param to where it shall be; in its place, unless said
   * @param keepOld the old place stays mapped, and empty
   * @throws DmaError ERR_DMA_USER_CALL (EINVAL, EFAULT, ENOMEM), ERR_DMA_USER_RANGE (EINVAL)
   */
  remap(address: UserAddr, length: number, newLength: number, to?: UserAddr, keepOld = false): void {
    finish(this.remapSteps(address, length, newLength, to, keepOld));
  }

  /** As {@link ProcessMemory.remap}, in steps: other steps of the machine may run between them. */
  *remapSteps(address: UserAddr, length: number, newLength: number, to?: UserAddr, keepOld = false): Steps<void> {
    yield* remapSteps(this.#space, {
      page: address / PAGE_SIZE,
      pages: Math.ceil(length / PAGE_SIZE),
      newPages: Math.ceil(newLength / PAGE_SIZE),
      keepOld,
      ...(to !== undefined && { to: to / PAGE_SIZE }),
    });
  }

  /**
   * Moves the pages of a range to other frames of memory, as compaction and NUMA balancing do. How many moved: those that are pinned,
   * in use, or not the system's stay.
   *
   * @throws DmaError ERR_DMA_USER_RANGE (EINVAL)
   */
  relocate(address: UserAddr, length: number): number {
    return finish(this.relocateSteps(address, length));
  }

  /** As {@link ProcessMemory.relocate}, in steps: other steps of the machine may run between them. */
  *relocateSteps(address: UserAddr, length: number): Steps<number> {
    return yield* relocateSteps(this.#space, address / PAGE_SIZE, Math.ceil(length / PAGE_SIZE));
  }

  /** A copy of all of it for a child. @throws DmaError ERR_DMA_USER_MEMORY (ENOMEM) */
  *forkSteps(): Steps<ProcessMemory> {
    const child = new ProcessMemory(this.#frames);
    try {
      yield* forkSpace(this.#space, child.#space);
    } catch (error) {
      finish(endSteps(child.#space));
      throw error;
    }
    return child;
  }

  /** One more process runs in it. */
  share(): void {
    this.#space.users++;
  }

  /** A process of it has ended; the last takes everything with it. */
  *leaveSteps(): Steps<void> {
    this.#space.users--;
    if (this.#space.users === 0) yield* endSteps(this.#space);
  }

  /**
   * Touches the page of `address` as the process itself does, until it may, or gets a signal.
   *
   * @returns `done`, or the reason of the signal
   */
  *touchSteps(address: UserAddr, write: boolean): Steps<FaultOutcome> {
    const page = Math.floor(address / PAGE_SIZE);
    for (let tries = 0; tries < TRIES; tries++) {
      const state = this.#space.table.state(page);
      const area = this.#space.areas.at(page);
      const why = refusal(area, write);
      if (why !== undefined) return why;
      const kind = kindOf(state);
      if ((kind === ENTRY.present || kind === ENTRY.special) && (!write || (state & WRITABLE) !== 0)) return "done";
      yield* this.#space.beginRead();
      try {
        const outcome = yield* this.#faultPage(page, write);
        if (outcome !== "done" && outcome !== "out-of-memory") return outcome;
      } finally {
        this.#space.endRead();
      }
      if (kindOf(this.#space.table.state(page)) === ENTRY.migrating) yield WAITING;
    }
    return "out-of-memory";
  }

  /** As {@link ProcessMemory.touchSteps}, at once. */
  touch(address: UserAddr, write: boolean): FaultOutcome {
    return finish(this.touchSteps(address, write));
  }

  read(address: UserAddr, into: Uint8Array): number {
    return this.#copy(address, into.length, false, (phys, at, count) => {
      this.#frames.memory.read(phys, into.subarray(at, at + count));
    });
  }

  write(address: UserAddr, from: Uint8Array): number {
    return this.#copy(address, from.length, true, (phys, at, count) => {
      this.#frames.memory.write(phys, from.subarray(at, at + count));
    });
  }

  pin(address: UserAddr, count: number, into: Float64Array, at: number, options: PinOptions): number {
    return finish(this.pinSteps(address, count, into, at, options));
  }

  /** As {@link ProcessMemory.pin}, in steps: other steps of the machine may run between them. */
  *pinSteps(address: UserAddr, count: number, into: Float64Array, at: number, options: PinOptions): Steps<number> {
    if (this.isGone) throw userGone();
    return yield* pinSteps(this.#space, Math.floor(address / PAGE_SIZE), count, into, at, options);
  }

  pinRuns(address: UserAddr, count: number, into: PageRuns, options: PinOptions): number {
    if (this.isGone) throw userGone();
    return finish(pinRunSteps(this.#space, Math.floor(address / PAGE_SIZE), count, into, options));
  }

  watch(start: UserAddr, end: UserAddr, callback: InvalidationCallback, own?: MemoryOwner): IntervalNotifier {
    if (this.isGone) throw userGone();
    if (!(start >= 0 && end > start) || start % PAGE_SIZE !== 0 || end % PAGE_SIZE !== 0)
      throw badRange(start, end - start);
    if (end > USER_END) throw rangeTooHigh(start, end - start);
    return this.#space.notifiers.watch(start, end, callback, own);
  }

  *holdAreas(): Steps<() => void> {
    yield* this.#space.beginRead();
    return () => this.#space.endRead();
  }

  entryAt(address: UserAddr, into: PageEntry): void {
    const page = Math.floor(address / PAGE_SIZE);
    const { table } = this.#space;
    const slot = table.slot(page);
    into.writable = false;
    into.owner = undefined;
    into.page = 0 as PhysPage;
    into.order = 0;
    if (slot === undefined) {
      into.kind = "none";
      into.span = table.hasMiddle(page) ? HUGE_PAGES : MIDDLE_PAGES;
      if (into.span === HUGE_PAGES && this.#space.areas.at(page)?.has(AREA.hugetlb)) into.order = HUGE_ORDER;
      return;
    }
    const isHuge = slot instanceof HugeEntry;
    const state = isHuge ? slot.state : slot.states[page % HUGE_PAGES]!;
    into.kind = ENTRY_KINDS[kindOf(state)]!;
    into.span = isHuge ? HUGE_PAGES : 1;
    into.order = isHuge ? HUGE_ORDER : 0;
    into.writable = (state & WRITABLE) !== 0;
    if (into.kind === "none" || into.kind === "swapped") return;
    into.page = table.frame(page);
    if (into.kind === "device-private") into.owner = this.#frames.ownerOf(into.page);
  }

  *fault(address: UserAddr, write: boolean): Steps<FaultOutcome> {
    return yield* this.#faultPage(Math.floor(address / PAGE_SIZE), write);
  }

  *collect(request: MigrationRequest): Steps<PageMigration> {
    return yield* collect(this.#space, request);
  }

  *makeExclusive(address: UserAddr, owner?: MemoryOwner): Steps<PhysPage> {
    return yield* giveAway(this.#space, Math.floor(address / PAGE_SIZE), owner);
  }

  *#faultPage(page: number, write: boolean): Steps<FaultOutcome> {
    const area = this.#space.areas.at(page);
    const why = refusal(area, write);
    if (why !== undefined) return why;
    return yield* faultIn(this.#space, area!, page, write ? "write" : "read");
  }

  #copy(
    address: number,
    length: number,
    write: boolean,
    move: (phys: PhysAddr, at: number, count: number) => void,
  ): number {
    for (let done = 0; done < length; ) {
      const inside = (address + done) % PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - inside, length - done);
      if (this.touch(UserAddr(address + done), write) !== "done") return done;
      const frame = this.#space.table.frame(Math.floor((address + done) / PAGE_SIZE));
      move(PhysAddr(frame * PAGE_SIZE + inside), done, count);
      done += count;
    }
    return length;
  }

  /** The highest gap that is large enough, below the top of the address space. */
  #choose(pages: number, hugetlb = false): number {
    const align = hugetlb || pages >= HUGE_PAGES ? HUGE_PAGES : 1;
    let top = USER_END / PAGE_SIZE - 1;
    for (const area of [...this.#space.areas].reverse()) {
      const start = Math.floor((top - pages) / align) * align;
      if (start >= area.end) return start;
      top = Math.min(top, area.start);
    }
    const start = Math.floor((top - pages) / align) * align;
    if (start < 1) throw userMemory(pages);
    return start;
  }
}

const accessBits = (access: Access): number =>
  (access.includes("r") ? AREA.read : 0) |
  (access.includes("w") ? AREA.write : 0) |
  (access.includes("x") ? AREA.execute : 0);

function asUserArea(area: Area): UserArea {
  const kind = area.has(AREA.io) ? "io" : area.has(AREA.hugetlb) ? "hugetlb" : area.object ? "file" : "anonymous";
  return {
    start: UserAddr(area.start * PAGE_SIZE),
    end: UserAddr(area.end * PAGE_SIZE),
    readable: area.has(AREA.read),
    writable: area.has(AREA.write),
    executable: area.has(AREA.execute),
    shared: area.has(AREA.shared),
    kind,
    file: area.object instanceof SimulatedFile ? area.object : undefined,
    fileOffset: area.object ? area.offset * PAGE_SIZE : 0,
  };
}
