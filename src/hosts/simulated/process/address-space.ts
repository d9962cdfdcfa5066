/**
 * An address space: its areas in order, its page table, its watchers, and the lock that keeps the areas still.
 *
 * Idea: this is the state alone; system calls, faults and migrations are functions on it in modules of their own. Work that changes
 * areas has the space for itself, other work shares it; both are steps, so one waits while another has stopped in between.
 */
import { type PageAccount, type Steps, type UserMemory, WAITING } from "../../../platform/index.ts";
import type { Frames } from "./frames.ts";
import { Notifiers } from "./notifiers.ts";
import { PageTable } from "./page-table.ts";
import type { Area, AreaIndex, Space } from "./structures.ts";

export class AddressSpace implements Space {
  readonly id: number;
  readonly frames: Frames;
  readonly table: PageTable = new PageTable();
  readonly notifiers: Notifiers = new Notifiers();
  readonly areas: AreaList = new AreaList();
  readonly locked: PageAccount = { pages: 0 };
  readonly pinned: PageAccount = { pages: 0 };
  /** Somebody has pinned pages here: from then on a fork looks. */
  hasPinned = false;
  isGone = false;
  /** Processes that run in it. */
  users = 1;
  #readers = 0;
  #writer = false;

  readonly memory: UserMemory;

  constructor(frames: Frames, memory: UserMemory) {
    this.frames = frames;
    this.memory = memory;
    this.id = frames.nextSpace();
  }

  /** Somebody changes the areas, and has stopped in between. */
  get isChanging(): boolean {
    return this.#writer;
  }

  /** Waits until nobody changes the areas, and keeps them still until {@link endRead}. */
  *beginRead(): Steps<void> {
    while (this.#writer) yield WAITING;
    this.#readers++;
  }

  endRead(): void {
    this.#readers--;
  }

  /** Waits until nobody looks at the areas, and has them alone until {@link endWrite}. */
  *beginWrite(): Steps<void> {
    while (this.#writer || this.#readers > 0) yield WAITING;
    this.#writer = true;
  }

  endWrite(): void {
    this.#writer = false;
  }
}

/** The areas of a space by address. */
class AreaList implements AreaIndex {
  readonly #areas: Area[] = [];

  get count(): number {
    return this.#areas.length;
  }

  [Symbol.iterator](): Iterator<Area> {
    return this.#areas[Symbol.iterator]();
  }

  at(page: number): Area | undefined {
    const area = this.from(page);
    return area && area.start <= page ? area : undefined;
  }

  from(page: number): Area | undefined {
    return this.#areas[this.#indexFrom(page)];
  }

  before(page: number): Area | undefined {
    const index = this.#indexFrom(page);
    const area = this.#areas[index];
    return area && area.start < page ? area : this.#areas[index - 1];
  }

  within(start: number, end: number): Area[] {
    const first = this.#indexFrom(start);
    let last = first;
    while (last < this.#areas.length && this.#areas[last]!.start < end) last++;
    return this.#areas.slice(first, last);
  }

  next(area: Area): Area | undefined {
    return this.#areas[this.#indexOf(area) + 1];
  }

  previous(area: Area): Area | undefined {
    return this.#areas[this.#indexOf(area) - 1];
  }

  insert(area: Area): void {
    this.#areas.splice(this.#indexFrom(area.start), 0, area);
  }

  remove(area: Area): void {
    this.#areas.splice(this.#indexOf(area), 1);
  }

  #indexOf(area: Area): number {
    const index = this.#indexFrom(area.start);
    return this.#areas[index] === area ? index : this.#areas.indexOf(area);
  }

  #indexFrom(page: number): number {
    let low = 0;
    let high = this.#areas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#areas[middle]!.end <= page) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
