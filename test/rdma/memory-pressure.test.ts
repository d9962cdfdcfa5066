/**
 * A region on demand that is about twice as large as the memory there is, while peers read and write it and the system swaps, moves pages, joins
 * and cuts huge ones, and forks.
 *
 * Oracles: every page says what a shadow says; frames that are free hold poison, which nobody must ever read; between two invalidations an
 * entry of the IOMMU is written once; the adapter's list leads to pages that the process has, with no more rights.
 */

import { describe, expect, test } from "vitest";
import { type IovaPage, MiB, PAGE_SIZE, PhysAddr, Random } from "../../src/base/index.ts";
import type { MemoryRegion, OnDemandBacking } from "../../src/consumers/rdma/index.ts";
import type { SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import { ACCESS, MTT } from "../../src/layouts/rdma/index.ts";
import {
  type IntervalNotifier,
  newPageEntry,
  type PageAllocator,
  type PageEntry,
  UserAddr,
} from "../../src/platform/index.ts";
import { LONG } from "../effort.ts";
import { ALL, at, Pair, type Side, type SideOptions, START } from "./stand.ts";

const POISON = 0xdeadbeef;
const HUGE = 512;

/** What a page holds whose pattern is `value`; the first word is enough to tell it. */
const pattern = (value: number): Uint8Array => new Uint8Array(new Uint32Array(PAGE_SIZE / 4).fill(value).buffer);

/** Frames that are given back are poisoned; they are zeroed when they are given out again. */
function poisoning(side: Side): void {
  const { pages, memory } = side.host.machine;
  const bytes = pattern(POISON);
  const freePages = pages.freePages.bind(pages);
  (pages as PageAllocator).freePages = (first, count) => {
    freePages(first, count);
    for (let i = 0; i < count; i++) memory.write(PhysAddr((first + i) * PAGE_SIZE), bytes);
  };
}

interface Pressure {
  readonly mode: "strict" | "lazy" | "direct" | "no address space";
  readonly regionPages: number;
  readonly memoryPages: number;
  readonly steps: number;
  readonly batched?: boolean;
}

interface Outcome {
  readonly faults: number;
  readonly invalidated: number;
  readonly swappedOut: number;
  readonly swappedIn: number;
  readonly collapsed: number;
  readonly moved: number;
  readonly listBytes: number;
}

class Run {
  readonly #pair: Pair;
  readonly #random: Random;
  readonly #pages: number;
  readonly #far: Side;
  readonly #near: Side;
  readonly #shadow: Uint32Array;
  readonly #region: MemoryRegion;
  readonly #local: MemoryRegion;
  readonly #children: { process: SimulatedProcess; shadow: Uint32Array }[] = [];
  readonly #entry: PageEntry = newPageEntry();
  readonly #watch: IntervalNotifier;
  /** Mapped pages that an invalidation took away, counted before the region hears of it. */
  #taken = 0;
  #collapsed = 0;
  #moved = 0;
  #value = 1;

  constructor(seed: number, { mode, regionPages, memoryPages, batched = true }: Pressure) {
    this.#random = Random.fromSeed(seed);
    this.#pages = regionPages;
    this.#shadow = new Uint32Array(regionPages);
    const iommu: SideOptions["host"] =
      mode === "direct" ? { iommu: undefined } : mode === "lazy" ? { iommu: { mode: "lazy" } } : {};
    this.#pair = new Pair({
      b: {
        host: { memoryBytes: memoryPages * PAGE_SIZE + 64 * MiB, ...iommu },
        frames: { limitPages: memoryPages, swapPages: 2 * regionPages },
        device: { batched },
        pages: regionPages,
      },
    });
    [this.#near, this.#far] = [this.#pair.a, this.#pair.b];
    poisoning(this.#far);
    const { dma, process, device, pd } = this.#far;
    this.#watch = process.memory.watch(START, UserAddr(START + regionPages * PAGE_SIZE), ({ start, end }) => {
      const [first, last] = [(start - START) / PAGE_SIZE, (end - START) / PAGE_SIZE];
      for (let i = Math.max(0, first); i < Math.min(regionPages, last); i++) if (this.#known(i) !== 0) this.#taken++;
      return true;
    });
    if (mode === "no address space") dma.tryReserveIova = () => undefined;
    const access = ALL | ACCESS.onDemand;
    this.#region = device.register(pd, { process, address: START, length: regionPages * PAGE_SIZE, access });
    Reflect.deleteProperty(dma, "tryReserveIova");
    const near = this.#near;
    this.#local = near.device.register(near.pd, {
      process: near.process,
      address: START,
      length: 64 * PAGE_SIZE,
      access: ALL,
    });
  }

  go(steps: number, leavesCount: boolean): Outcome {
    const [x, y] = this.#pair.connect();
    const before = this.#far.dma.counters.leavesWritten;
    for (let i = 0; i < steps; i++) {
      const dice = this.#random.below(20);
      const page = this.#random.below(this.#pages);
      const count = Math.min(this.#pages - page, this.#random.between(1, 4));
      if (dice < 14) this.#transfer(x, dice < 8 ? "write" : "read", page, count);
      else this.#system(dice, page);
      expect(this.#far.host.faults).toBe(0);
      if (i % (this.#pages > 4096 ? 4000 : 30) === 0) this.#checkEntries();
    }
    this.#checkEntries();
    const backing = this.#region.backing as OnDemandBacking;
    const { counts, mappedPages, listBytes } = backing.memory;
    // Every write of an entry was the first touch after an invalidation, and no invalidation took what was not there.
    if (leavesCount) expect(this.#far.dma.counters.leavesWritten - before).toBe(this.#taken + mappedPages);
    expect([counts.mapped, counts.invalidated]).toEqual([this.#taken + mappedPages, this.#taken]);
    this.#compare(this.#far.process, this.#shadow);
    for (const { process, shadow } of this.#children) {
      this.#compare(process, shadow);
      process.exit();
    }
    const { swap } = this.#far.frames;
    const outcome = {
      faults: counts.faults,
      invalidated: counts.invalidated,
      swappedOut: swap!.counts.out,
      swappedIn: swap!.counts.in,
      collapsed: this.#collapsed,
      moved: this.#moved,
      listBytes,
    };
    this.#watch.remove();
    this.#pair.close(x, y);
    this.#pair.settle();
    this.#far.process.exit();
    expect([this.#pair.leftOvers(), this.#far.frames.inUse, swap!.inUse]).toEqual([[], 0, 0]);
    return outcome;
  }

  #transfer(end: ReturnType<Pair["connect"]>[0], work: "write" | "read", page: number, count: number): void {
    const near = this.#near.process.memory;
    for (let i = 0; i < count; i++) near.write(at(i), pattern(work === "write" ? this.#value + i : 0));
    const pieces = [{ address: START as number, length: count * PAGE_SIZE, key: this.#local.key }];
    end.pair.send({ work, id: 1, pieces, remoteAddress: at(page), remoteKey: this.#region.key });
    expect(this.#pair.next(end.queue).status).toBe("success");
    const word = new Uint8Array(4);
    const found = Array.from({ length: count }, (_, i) => {
      near.read(UserAddr(at(i) + (i % 2 === 0 ? 0 : PAGE_SIZE - 4)), word);
      return new Uint32Array(word.buffer)[0];
    });
    if (work === "write") for (let i = 0; i < count; i++) this.#shadow[page + i] = this.#value++;
    else expect(found).toEqual([...this.#shadow.subarray(page, page + count)]);
  }

  #system(dice: number, page: number): void {
    const { process, frames } = this.#far;
    const { memory } = process;
    const block = HUGE * Math.floor(page / HUGE);
    const few = Math.min(this.#pages - page, this.#random.between(1, 32));
    if (dice === 14) frames.reclaim(this.#random.between(1, 64));
    else if (dice === 15) this.#moved += memory.relocate(at(page), few * PAGE_SIZE);
    else if (dice === 16 && block + HUGE <= this.#pages) {
      frames.reclaim(2 * HUGE + 76); // the background makes room, as for huge pages it must
      try {
        memory.advise(at(block), HUGE * PAGE_SIZE, "collapse");
        this.#collapsed++;
      } catch (error) {
        expect(["EINVAL", "ENOMEM", "EAGAIN"]).toContain((error as { errno: string }).errno);
      }
    } else if (dice === 17) {
      memory.protect(at(page), few * PAGE_SIZE, "r");
      memory.protect(at(page), few * PAGE_SIZE, "rw");
    } else if (dice === 18) {
      if (this.#children.length < 2) this.#children.push({ process: process.fork(), shadow: this.#shadow.slice() });
      else this.#children.shift()!.process.exit();
    } else {
      memory.advise(at(page), few * PAGE_SIZE, "dontneed");
      this.#shadow.fill(0, page, page + few);
    }
  }

  #known(index: number): number {
    const entry = (this.#region?.backing as OnDemandBacking | undefined)?.entry(index);
    return entry?.flags ?? 0;
  }

  #checkEntries(): void {
    const backing = this.#region.backing as OnDemandBacking;
    const { process, domain } = this.#far;
    for (let i = 0; i < this.#pages; i++) {
      const { address, flags } = backing.entry(i)!;
      if (flags === 0) continue;
      process.memory.entryAt(at(i), this.#entry);
      const { kind, page, writable } = this.#entry;
      const reached = domain ? domain.table.lookup((address / PAGE_SIZE) as IovaPage) : address / PAGE_SIZE;
      if (kind !== "present" || page !== reached)
        throw new Error(`the list leads to ${reached} for page ${i}, where the process has ${kind} ${page}`);
      if ((flags & MTT.write) !== 0 && !writable) throw new Error(`page ${i} may be written, and not by the process`);
    }
  }

  #compare(process: SimulatedProcess, shadow: Uint32Array): void {
    const bytes = new Uint8Array(4);
    const words = new Uint32Array(bytes.buffer);
    for (let i = 0; i < shadow.length; i++) {
      process.memory.read(UserAddr(at(i) + 4 * (i % 1024)), bytes);
      if (words[0] !== shadow[i])
        throw new Error(`page ${i} has ${words[0] === POISON ? "poison" : words[0]}, and not ${shadow[i]}`);
    }
  }
}

/** About half as much memory as the region is large; a huge page and its 512 small ones fit in. */
const SMALL = { regionPages: 2048, memoryPages: 1100, steps: LONG ? 300 : 60 } as const;

describe("a region about twice as large as memory, while the system swaps, moves, joins, cuts and forks", () => {
  for (const mode of ["strict", "lazy", "direct", "no address space"] as const)
    test(`${mode}: data stays right, an entry is written once between two invalidations, and all is given back`, () => {
      for (let seed = 1; seed <= (LONG ? 20 : 1); seed++) {
        const { listBytes, ...counts } = new Run(seed, { ...SMALL, mode }).go(SMALL.steps, mode !== "direct");
        for (const [what, count] of Object.entries(counts)) expect([what, count > 0]).toEqual([what, true]);
        expect(listBytes).toBe(SMALL.regionPages * (mode === "no address space" ? 18 : 10));
      }
    });

  test("page by page, as Linux invalidates, comes to the same", () => {
    const counts = (batched: boolean) => new Run(7, { ...SMALL, mode: "strict", batched }).go(60, true);
    expect(counts(false)).toEqual(counts(true));
  });

  test.skipIf(!LONG)("512 MiB on demand in 256 MiB of memory", { timeout: 600_000 }, () => {
    const size = { regionPages: 131_072, memoryPages: 65_536, steps: 20_000 };
    const { swappedOut } = new Run(1, { ...size, mode: "strict" }).go(size.steps, true);
    expect(swappedOut).toBeGreaterThan(0);
  });
});

test("a fault of more pages than there is memory for gives up after its rounds with nothing mapped; fewer pages come", () => {
  const pair = new Pair({ b: { frames: { limitPages: 6, swapPages: 64 }, pages: 16 } });
  const [x] = pair.connect({ notReadyRetries: 1 });
  const { device, pd, process } = pair.b;
  const region = device.register(pd, {
    process,
    address: START,
    length: 16 * PAGE_SIZE,
    access: ALL | ACCESS.onDemand,
  });
  const bring = (): void => {
    for (const _ of device.bringSteps(region.key, START, 10 * PAGE_SIZE, true));
  };
  expect(bring).toThrow(expect.objectContaining({ code: "ERR_DMA_RDMA_BUSY", errno: "EBUSY" }));
  expect((region.backing as OnDemandBacking).memory.mappedPages).toBe(0);
  const a = pair.a;
  const local = a.device.register(a.pd, { process: a.process, address: START, length: PAGE_SIZE, access: ALL });
  const pieces = [{ address: START as number, length: PAGE_SIZE, key: local.key }];
  const write = (): string => {
    x.pair.send({ work: "write", id: 1, pieces, remoteAddress: at(2), remoteKey: region.key });
    return pair.next(x.queue).status;
  };
  expect(write()).toBe("success"); // one page is not too many
});
