/**
 * Random histories of processes, files and devices' memory, with what must be true after each step counted from scratch.
 *
 * Idea: the counts that folios keep (who maps them, who has them alone) are compared with what all page tables say; nothing else knows
 * both. At the end every process exits, and not one page may be left.
 */

import { DmaError, PAGE_SIZE, type PhysPage, Random } from "../../src/base/index.ts";
import { SimulatedMachine } from "../../src/hosts/simulated/index.ts";
import {
  type Access,
  type Advice,
  Frames,
  type ProcessMemory,
  SimulatedDeviceMemory,
  SimulatedFile,
  SimulatedProcess,
} from "../../src/hosts/simulated/process/index.ts";
import { finish, type MigrationRequest, newPageEntry, type PageEntry, UserAddr } from "../../src/platform/index.ts";

/** Pages of the part of each address space that is used: five times 2 MiB. */
const ARENA_PAGES = 2560;
const ARENA = 2 ** 40 / PAGE_SIZE;
const MOST_PROCESSES = 5;
const ACCESSES: readonly Access[] = ["none", "r", "rw", "rw", "rwx"];
const ADVICE: readonly Advice[] = [
  "dontneed",
  "free",
  "remove",
  "populateRead",
  "populateWrite",
  "hugepage",
  "nohugepage",
  "dofork",
  "dontfork",
  "keeponfork",
  "wipeonfork",
];

/** What a step did, for the story of a failure. */
export type Step = readonly (string | number)[];

/** What makes a history hard. */
export interface HistoryOptions {
  /** One allocation in forty fails. */
  readonly shortOfMemory?: boolean;
  /** There is less memory than the processes want, and swap for the rest; pages move and are joined behind their back. */
  readonly pressed?: boolean;
}

export class ProcessHistory {
  readonly steps: Step[] = [];
  readonly #random: Random;
  readonly #machine = new SimulatedMachine({ memoryBytes: 2 ** 31 });
  readonly #frames: Frames;
  readonly #processes: SimulatedProcess[] = [];
  readonly #files: SimulatedFile[] = [];
  readonly #devices: SimulatedDeviceMemory[] = [];
  /** Frames that a device holds, with their process's page. */
  readonly #pins: PhysPage[] = [];
  readonly #failures: Random;
  readonly #before: number;
  readonly #pressed: boolean;

  constructor(seed: number, options: HistoryOptions = {}) {
    this.#random = Random.fromSeed(seed).fork("steps");
    this.#failures = Random.fromSeed(seed).fork("failures");
    this.#pressed = options.pressed ?? false;
    this.#before = this.#machine.ram.pagesInUse;
    const mayAllocate = options.shortOfMemory ? () => !this.#failures.chance(1, 40) : undefined;
    let ready = false;
    this.#frames = new Frames({
      pages: this.#machine.pages,
      memory: this.#machine.memory,
      hugetlbPages: 12,
      ...(this.#pressed && { swapPages: 6000, limitPages: 1400 }),
      settings: { hugePages: seed % 2 === 0 ? "always" : "madvise" },
      ...(mayAllocate && { mayAllocate: () => !ready || mayAllocate() }),
    });
    this.#frames.zero();
    this.#frames.hugeZero();
    for (let i = 0; i < 3; i++) {
      const file = new SimulatedFile({ frames: this.#frames, name: `f${i}`, length: 64 * PAGE_SIZE });
      this.#files.push(file);
    }
    const owners = ["private", "private", "coherent"].map((name, i) => ({ name: `${name} ${i}` }));
    owners.forEach((owner, i) => {
      const isCoherent = owner.name.startsWith("coherent");
      const pages = 2 ** 13;
      const firstPage = isCoherent
        ? ((Math.ceil(this.#machine.pages.allocatePages(pages + 511)! / 512) * 512) as PhysPage)
        : ((2 ** 30 + i * pages) as PhysPage);
      const kind = isCoherent ? "device-coherent" : "device-private";
      this.#devices.push(new SimulatedDeviceMemory({ frames: this.#frames, kind, owner, firstPage, pages }));
    });
    this.#before = this.#machine.ram.pagesInUse;
    this.#processes.push(new SimulatedProcess(this.#frames));
    ready = true;
  }

  /** Does one random step, and throws if anything is not as it must be. */
  step(): void {
    const process = this.#random.pick(this.#processes);
    const { memory } = process;
    const kind = this.#random.below(100);
    try {
      if (this.#pressed && this.#random.chance(1, 4)) this.#press(memory);
      else if (kind < 18) this.#mapSomething(memory);
      else if (kind < 28) this.#touch(memory, this.#random.chance(1, 2));
      else if (kind < 38)
        this.#call(
          "write",
          memory,
          (at, pages) => void memory.write(at, new Uint8Array(pages * PAGE_SIZE).fill(1 + this.#random.below(255))),
        );
      else if (kind < 44) this.#call("unmap", memory, (at, pages) => memory.unmap(at, pages * PAGE_SIZE));
      else if (kind < 50)
        this.#call("protect", memory, (at, pages) =>
          memory.protect(at, pages * PAGE_SIZE, this.#random.pick(ACCESSES)),
        );
      else if (kind < 60) this.#advise(memory);
      else if (kind < 65) this.#remap(memory);
      else if (kind < 69) this.#forkOrExit(process);
      else if (kind < 83) this.#migrate(memory);
      else if (kind < 87) this.#exclusive(memory);
      else if (kind < 92) this.#pin(memory);
      else if (kind < 94) this.#evict();
      else this.#useFile();
    } catch (error) {
      if (!(error instanceof DmaError)) throw error;
      this.steps[this.steps.length - 1] = [...this.steps.at(-1)!, `-${error.errno}`];
    }
    this.check();
  }

  /** Ends everything; throws if something is left. */
  end(): void {
    for (const page of this.#pins.splice(0)) this.#frames.unpin(page, 1, true);
    for (const process of this.#processes.splice(0)) process.exit();
    for (const file of this.#files.splice(0)) file.release();
    this.check();
    if (this.#frames.inUse !== 0) throw new Error(`${this.#frames.inUse} folios are left`);
    for (const device of this.#devices)
      if (device.pagesInUse !== 0) throw new Error(`${device.pagesInUse} pages of ${device.owner.name} are left`);
    if (this.#frames.swap && this.#frames.swap.inUse !== 0)
      throw new Error(`${this.#frames.swap.inUse} pages of swap are left`);
    if (this.#frames.pagesInUse !== 0) throw new Error(`${this.#frames.pagesInUse} pages are still counted`);
    if (this.#machine.ram.pagesInUse !== this.#before)
      throw new Error(`${this.#machine.ram.pagesInUse - this.#before} pages of RAM are left`);
  }

  /** Compares what folios count with what tables say. */
  check(): void {
    const maps = new Map<PhysPage, { pages: number; huge: number; writers: number }>();
    const entry: PageEntry = newPageEntry();
    for (const { memory } of this.#processes) {
      let end = 0;
      for (const area of memory.areas) {
        if (area.start < end) throw new Error("areas overlap, or are not in order");
        if (area.start >= area.end) throw new Error("an area is empty");
        end = area.end;
      }
      for (let page = 0; page < ARENA_PAGES; page++) {
        memory.entryAt(UserAddr((ARENA + page) * PAGE_SIZE), entry);
        if (entry.kind === "none" || entry.kind === "swapped") continue;
        if (entry.kind === "migrating") throw new Error(`page ${page} is still moving`);
        const folio = this.#frames.folio(entry.page);
        if (!folio) throw new Error(`page ${page} maps ${entry.page}, which is nobody's`);
        if (folio.kind === "free") throw new Error(`page ${page} maps ${entry.page}, which is free`);
        if (folio.kind === "zero") {
          if (entry.writable) throw new Error(`page ${page} may write zeros that all share`);
          continue;
        }
        const counted = maps.get(entry.page) ?? { pages: 0, huge: 0, writers: 0 };
        if (entry.order > 0) counted.huge++;
        else counted.pages++;
        if (entry.writable) counted.writers++;
        maps.set(entry.page, counted);
        if (
          entry.writable &&
          folio.anonVma &&
          !folio.isExclusive(folio.isLarge && entry.order > 0 ? folio.frame : entry.page)
        )
          throw new Error(`page ${page} may write ${entry.page}, which is not its own`);
        if (!memory.areaAt(UserAddr((ARENA + page) * PAGE_SIZE)))
          throw new Error(`page ${page} is mapped outside of areas`);
      }
    }
    for (const [frame, { pages, huge }] of maps) {
      const folio = this.#frames.folio(frame)!;
      if (folio.mapCountOf(frame) !== pages + huge)
        throw new Error(`page ${frame} counts ${folio.mapCountOf(frame)} mappings, tables have ${pages + huge}`);
      if (folio.anonVma && folio.isExclusive(frame) && pages + huge > 1)
        throw new Error(`page ${frame} is one process's own, and mapped ${pages + huge} times`);
      const cached = folio.swapSlot === undefined ? 0 : 1;
      if (folio.locked || folio.held !== cached) throw new Error(`page ${frame} is still held`);
    }
  }

  #range(most: number): [UserAddr, number, number] {
    const pages = this.#random.chance(1, 6) ? 512 * this.#random.between(1, 2) : this.#random.between(1, most);
    const aligned = pages % 512 === 0 && this.#random.chance(3, 4);
    const last = ARENA_PAGES - pages;
    const page = aligned ? 512 * this.#random.below(Math.floor(last / 512) + 1) : this.#random.below(last + 1);
    return [UserAddr((ARENA + page) * PAGE_SIZE), pages, page];
  }

  /** Somewhere that is likely mapped. */
  #likely(memory: ProcessMemory, most: number): [UserAddr, number, number] {
    const { areas } = memory;
    if (areas.length === 0 || this.#random.chance(1, 8)) return this.#range(most);
    const area = this.#random.pick(areas);
    const size = (area.end - area.start) / PAGE_SIZE;
    const first = area.start / PAGE_SIZE - ARENA;
    if (this.#random.chance(1, 4)) return [area.start, size, first];
    const offset = this.#random.below(size);
    const page = first + offset;
    const pages = Math.min(this.#random.between(1, most), ARENA_PAGES - page);
    return [UserAddr((ARENA + page) * PAGE_SIZE), pages, page];
  }

  #call(name: string, memory: ProcessMemory, call: (at: UserAddr, pages: number) => void): void {
    const [at, pages, page] = this.#likely(memory, 60);
    this.steps.push([name, this.#nameOf(memory), page, pages]);
    call(at, pages);
  }

  #nameOf(memory: ProcessMemory): number {
    return this.#processes.findIndex((each) => each.memory === memory);
  }

  #mapSomething(memory: ProcessMemory): void {
    const [address, pages, page] = this.#range(120);
    const kind = this.#random.below(10);
    const length = pages * PAGE_SIZE;
    const access = this.#random.pick(ACCESSES);
    const replace = this.#random.chance(1, 2);
    this.steps.push(["map", this.#nameOf(memory), page, pages, kind, access, String(replace)]);
    const shared = this.#random.chance(1, 2);
    const file = this.#random.pick(this.#files);
    const offset = this.#random.below(64) * PAGE_SIZE;
    if (kind < 5) memory.map({ address, length, access, replace });
    else if (kind === 5) memory.map({ address, length, access, replace, shared: true });
    else if (kind < 9) memory.map({ address, length, access, replace, shared, file, offset });
    else memory.map({ address, length, access, replace, shared, hugetlb: true });
  }

  #touch(memory: ProcessMemory, write: boolean): void {
    this.#call(write ? "touch w" : "touch r", memory, (at, pages) => {
      for (let i = 0; i < pages; i++) memory.touch(UserAddr(at + i * PAGE_SIZE), write);
    });
  }

  #advise(memory: ProcessMemory): void {
    const advice = this.#random.pick(ADVICE);
    this.#call(advice, memory, (at, pages) => memory.advise(at, pages * PAGE_SIZE, advice));
  }

  #remap(memory: ProcessMemory): void {
    const [to, , place] = this.#range(60);
    const keepOld = this.#random.chance(1, 4);
    const grow = this.#random.chance(1, 3) ? this.#random.below(9) - 4 : 0;
    const inPlace = this.#random.chance(1, 3);
    this.#call(`remap ${inPlace ? "here" : place} ${grow}`, memory, (at, pages) => {
      const newPages = Math.min(Math.max(1, pages + grow), ARENA_PAGES - (inPlace ? at / PAGE_SIZE - ARENA : place));
      memory.remap(at, pages * PAGE_SIZE, newPages * PAGE_SIZE, inPlace ? undefined : to, keepOld);
    });
  }

  #forkOrExit(process: SimulatedProcess): void {
    if (this.#processes.length > 1 && (this.#processes.length >= MOST_PROCESSES || this.#random.chance(1, 2))) {
      const at = this.#random.below(this.#processes.length);
      this.steps.push(["exit", at]);
      this.#processes.splice(at, 1)[0]!.exit();
    } else {
      this.steps.push(["fork", this.#nameOf(process.memory)]);
      this.#processes.push(process.fork());
    }
  }

  #migrate(memory: ProcessMemory): void {
    const device = this.#random.pick(this.#devices);
    const inward = this.#random.chance(2, 3);
    const someLeftOut = this.#random.chance(1, 5);
    this.#call(`migrate ${inward ? "to" : "from"} ${device.owner.name}`, memory, (at, pages) => {
      for (let done = 0; done < pages; ) {
        const start = UserAddr(at + done * PAGE_SIZE);
        const area = memory.areaAt(start);
        if (!area) return;
        const count = Math.min(512, pages - done, (area.end - start) / PAGE_SIZE);
        this.#migratePart(memory, device, inward, someLeftOut, {
          start,
          end: UserAddr(start + count * PAGE_SIZE),
          from: inward ? "system" : "device",
          owner: device.owner,
          huge: this.#random.chance(3, 4),
        });
        done += count;
      }
    });
  }

  #migratePart(
    memory: ProcessMemory,
    device: SimulatedDeviceMemory,
    inward: boolean,
    someLeftOut: boolean,
    request: MigrationRequest,
  ): void {
    const migration = finish(memory.collect(request));
    if (!inward) device.copyOut(migration);
    else
      for (let i = 0; i < migration.count; i++) {
        if (!migration.canMove(i) || (someLeftOut && this.#random.chance(1, 3))) continue;
        const order = migration.order(i) > 0 && this.#random.chance(3, 4) ? 9 : 0;
        const pages = migration.order(i) > 0 ? 512 : 1;
        for (let j = 0; j < pages; j += 2 ** order) {
          const frame = device.allocate(order);
          if (frame === undefined) break;
          const source = migration.source(i);
          const bytes = new Uint8Array(PAGE_SIZE);
          for (let k = 0; k < 2 ** order && source !== undefined; k++) {
            this.#frames.memory.read(((source + j + k) * PAGE_SIZE) as never, bytes);
            device.write((frame + k) as PhysPage, 0, bytes);
          }
          migration.setDestination(i + j, frame, order);
        }
        i += pages - 1;
      }
    finish(migration.move());
    migration.finish();
  }

  #exclusive(memory: ProcessMemory): void {
    this.#call("exclusive", memory, (at, pages) => {
      for (let i = 0; i < Math.min(8, pages); i++) finish(memory.makeExclusive(UserAddr(at + i * PAGE_SIZE)));
    });
  }

  #pin(memory: ProcessMemory): void {
    if (this.#pins.length > 0 && this.#random.chance(1, 2)) {
      this.steps.push(["unpin", this.#pins.length]);
      for (const page of this.#pins.splice(0)) this.#frames.unpin(page, 1, true);
      return;
    }
    const write = this.#random.chance(1, 2);
    const longTerm = this.#random.chance(1, 2);
    this.#call(`pin ${write} ${longTerm}`, memory, (at, pages) => {
      const into = new Float64Array(Math.min(16, pages));
      const done = memory.pin(at, into.length, into, 0, { write, longTerm });
      for (let i = 0; i < done; i++) this.#pins.push(into[i]! as PhysPage);
    });
  }

  /** What the system does to a process that asks for nothing. */
  #press(memory: ProcessMemory): void {
    const kind = this.#random.below(4);
    if (kind === 0) {
      const pages = this.#random.between(1, 300);
      this.steps.push(["reclaim", pages]);
      this.#frames.reclaim(pages);
    } else if (kind === 1)
      this.#call("pageout", memory, (at, pages) => memory.advise(at, pages * PAGE_SIZE, "pageout"));
    else if (kind === 2) this.#call("relocate", memory, (at, pages) => void memory.relocate(at, pages * PAGE_SIZE));
    else {
      const [at, pages, page] = this.#range(60);
      this.steps.push(["collapse", this.#nameOf(memory), page, pages]);
      memory.advise(at, pages * PAGE_SIZE, "collapse");
    }
  }

  #evict(): void {
    const device = this.#random.pick(this.#devices);
    this.steps.push(["evict", device.owner.name]);
    device.evict();
  }

  #useFile(): void {
    const at = this.#random.below(this.#files.length);
    const file = this.#files[at]!;
    const page = this.#random.below(64);
    const kind = this.#random.below(3);
    this.steps.push(["file", at, page, kind]);
    if (kind === 0) file.write(page * PAGE_SIZE, new Uint8Array(PAGE_SIZE).fill(7));
    else if (kind === 1) file.punch(page * PAGE_SIZE, (page + 1 + this.#random.below(4)) * PAGE_SIZE);
    else file.truncate(page * PAGE_SIZE);
  }
}
