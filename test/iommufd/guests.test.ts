/** Guests: memory unplugged block by block, one user with two containers, and a storm of maps of a guest with its own IOMMU. */
import { describe, expect, test } from "vitest";
import { type Counters, PAGE_SIZE, Random } from "../../src/base/index.ts";
import {
  ChargedPages,
  type DomainTable,
  type Hwpt,
  Iommufd,
  type TableAccess,
} from "../../src/consumers/iommufd/index.ts";
import { Type1Container } from "../../src/consumers/vfio/index.ts";
import { LONG } from "../effort.ts";
import { MiB, Stand, VA } from "./stand.ts";

const RW: TableAccess = { read: true, write: true, mmio: false };
const PAGE = 4096n;
const BLOCK = BigInt(2 * MiB);
const GROUND = 0x4000_0000n;
const errnoOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    return (error as { errno: string }).errno;
  }
};
const countersOf = (hwpt: Hwpt | undefined): Counters => (hwpt!.paging.table as DomainTable).domain.counters;

describe("a guest's memory in blocks of 2 MiB, of which one is unplugged", () => {
  const BLOCKS = 6;
  const setUp = () => {
    const stand = new Stand({ hugePages: BLOCKS + 2 });
    const process = stand.process();
    const va = stand.memory(process, BLOCKS * 2 * MiB, VA, true);
    return { stand, process, va, device: stand.device() };
  };

  test("one map each: exactly its 2 MiB go, the device faults there alone, 512 pages are given back; plugged again it works", () => {
    for (const way of ["type 1", "iommufd"] as const) {
      const { stand, process, va, device } = setUp();
      const type1 = new Type1Container({ v2: true });
      const iommufd = new Iommufd({ accountMode: "memory" });
      const ioas = iommufd.createIoas();
      if (way === "type 1") type1.attach({ devices: [device] });
      else iommufd.attach(iommufd.bind(device), ioas.id);
      const map = (block: bigint): unknown =>
        way === "type 1"
          ? type1.map(process, va + block * BLOCK, GROUND + block * BLOCK, BLOCK, RW)
          : iommufd.map(ioas, process, va + block * BLOCK, { iova: GROUND + block * BLOCK, length: BLOCK });
      for (let block = 0n; block < BigInt(BLOCKS); block++) map(block);
      expect(process.memory.locked.pages).toBe(BLOCKS * 512);
      const table = way === "type 1" ? type1.tables[0]! : ioas.tables[0]!;
      const leaves = (): (number | undefined)[] =>
        Array.from({ length: BLOCKS }, (_, i) => table.leafAt(Number(GROUND / PAGE) + i * 512)?.leafUnits);
      expect(leaves()).toEqual(new Array(BLOCKS).fill(512));
      const unmap = (iova: bigint, length: bigint): bigint =>
        way === "type 1" ? type1.unmap(iova, length) : ioas.unmap(iova, length);
      expect(unmap(GROUND + 5n * BLOCK, BLOCK)).toBe(BLOCK);
      expect(leaves()).toEqual(Array.from({ length: BLOCKS }, (_, i) => (i === 5 ? undefined : 512)));
      expect(process.memory.locked.pages).toBe(BLOCKS * 512 - 512);
      const reached = Array.from({ length: BLOCKS }, (_, i) => stand.reach(device, Number(GROUND) + i * 2 * MiB) >= 0);
      expect(reached.filter((yes) => !yes)).toHaveLength(1);
      expect(stand.unit.faults).toHaveLength(1);
      map(5n);
      expect(stand.reach(device, Number(GROUND + 5n * BLOCK))).toBe(stand.pageOf(process.memory, VA + 5 * 2 * MiB));
    }
  });

  test("one map for all: nobody takes a block out of it, and type 1 takes all for the first", () => {
    const whole = BLOCK * BigInt(BLOCKS);
    for (const v2 of [true, false]) {
      const { process, va, device } = setUp();
      const type1 = new Type1Container({ v2 });
      type1.attach({ devices: [device] });
      type1.map(process, va, GROUND, whole, RW);
      if (v2) expect(errnoOf(() => type1.unmap(GROUND + 5n * BLOCK, BLOCK))).toBe("EINVAL");
      else {
        expect(type1.unmap(GROUND + 5n * BLOCK, BLOCK)).toBe(0n);
        expect(type1.unmap(GROUND, BLOCK)).toBe(whole);
      }
    }
    const { process, va, device } = setUp();
    const iommufd = new Iommufd();
    const ioas = iommufd.createIoas();
    iommufd.attach(iommufd.bind(device), ioas.id);
    iommufd.map(ioas, process, va, { iova: GROUND, length: whole });
    expect(errnoOf(() => ioas.unmap(GROUND + 5n * BLOCK, BLOCK))).toBe("ENOENT");
  });

  test("a container is full after its entries, an address space is not", () => {
    const stand = new Stand();
    const process = stand.process();
    const va = stand.memory(process, 4096);
    const type1 = new Type1Container({ v2: true, entryLimit: 300 });
    type1.attach({ devices: [stand.device()] });
    const iommufd = new Iommufd();
    const ioas = iommufd.createIoas();
    iommufd.attach(iommufd.bind(stand.device()), ioas.id);
    for (let i = 0n; i < 300n; i++) type1.map(process, va, GROUND + i * BLOCK, PAGE, RW);
    expect(errnoOf(() => type1.map(process, va, GROUND + 300n * BLOCK, PAGE, RW))).toBe("ENOSPC");
    for (let i = 0n; i < 301n; i++) iommufd.map(ioas, process, va, { iova: GROUND + i * BLOCK, length: PAGE });
    expect([type1.mappings.length, ioas.areas.length]).toEqual([300, 301]);
  });
});

describe("the same memory of one user, twice", () => {
  const G = 512; // pages
  const setUp = (limitPages: number, chargedPages?: ChargedPages) => {
    const stand = new Stand({ hugePages: 6 });
    const process = stand.process({ memlockBytes: limitPages * PAGE_SIZE });
    const va = stand.memory(process, G * PAGE_SIZE, VA, true);
    const iommufd = new Iommufd(chargedPages ? { chargedPages } : {});
    const [one, other] = [iommufd.createIoas(), iommufd.createIoas()];
    for (const ioas of [one, other]) iommufd.attach(iommufd.bind(stand.device()), ioas.id);
    const request = { iova: GROUND, length: BigInt(G) * PAGE };
    const containers = [0, 1].map(() => {
      const type1 = new Type1Container({ v2: true });
      type1.attach({ devices: [stand.device()] });
      return type1;
    });
    return { stand, process, va, iommufd, one, other, request, containers };
  };

  test.each([
    ["two containers", "containers", 2, "ENOMEM"],
    ["two maps", "maps", 2, "ENOMEM"],
    ["two tables of one space", "tables", 1, "none"],
    ["a map and a copy", "copy", 1, "none"],
    ["two maps, each page charged once", "once", 1, "none"],
  ] as const)("%s", (_name, way, times, withLimit) => {
    for (const limitPages of [4 * G, 1.5 * G]) {
      const { stand, process, va, iommufd, one, other, request, containers } = setUp(
        limitPages,
        way === "once" ? new ChargedPages() : undefined,
      );
      const first = (): unknown =>
        way === "containers"
          ? containers[0]!.map(process, va, GROUND, request.length, RW)
          : iommufd.map(one, process, va, request);
      const second = (): unknown => {
        if (way === "containers") return containers[1]!.map(process, va, GROUND, request.length, RW);
        if (way === "copy") return iommufd.copy(one, GROUND, other, request);
        if (way === "tables") return iommufd.createHwpt({ device: iommufd.bind(stand.device()).id, parent: one.id });
        return iommufd.map(other, process, va, request);
      };
      const charged = (): number => process.user.locked.pages + process.memory.locked.pages;
      first();
      expect(charged()).toBe(G);
      expect(errnoOf(second)).toBe(limitPages < 2 * G ? withLimit : "none");
      expect(charged()).toBe(limitPages < 2 * G && withLimit !== "none" ? G : times * G);
      for (const type1 of containers) type1.unmapAll();
      one.unmapAll();
      other.unmapAll();
      expect([charged(), process.memory.pinned.pages]).toEqual([0, 0]);
    }
  });
});

describe("a guest with an IOMMU of its own maps and unmaps single pages, at most 64 at once", () => {
  const PAIRS = 800;
  const RAM = 256;

  /** Pins, table writes, invalidations and charged pages of the storm, by way of `map` and `unmap`. */
  function storm(way: "type 1" | "map" | "copy") {
    const stand = new Stand();
    const process = stand.process();
    const va = stand.memory(process, RAM * 4096);
    const iommufd = new Iommufd({ accountMode: "memory" });
    const ram = iommufd.createIoas();
    const guest = iommufd.createIoas();
    const device = stand.device();
    const type1 = new Type1Container({ v2: true });
    let counters: () => Counters;
    if (way === "type 1") {
      type1.attach({ devices: [device] });
      counters = () => (type1.tables[0] as DomainTable).domain.counters;
    } else {
      const bound = iommufd.bind(device);
      iommufd.attach(bound, guest.id);
      counters = () => countersOf(bound.hwptOf());
      if (way === "copy") {
        iommufd.attach(iommufd.bind(stand.device()), ram.id);
        iommufd.map(ram, process, va, { iova: 0n, length: BigInt(RAM) * PAGE });
      }
    }
    let pins = 0;
    const count = (pages: number): number => {
      pins += pages;
      return pages;
    };
    const { memory } = process;
    const { pin, pinRuns } = memory;
    memory.pin = (...args) => count(pin.apply(memory, args));
    memory.pinRuns = (...args) => count(pinRuns.apply(memory, args));
    const charged = new Set<number>();
    const random = Random.fromSeed(15);
    const live: number[] = [];
    const before = { ...counters() };
    const unmap = (slot: number): void => {
      const iova = GROUND + BigInt(slot) * PAGE;
      expect(way === "type 1" ? type1.unmap(iova, PAGE) : guest.unmap(iova, PAGE)).toBe(PAGE);
      expect(stand.reach(device, Number(iova))).toBe(-1);
      stand.unit.faults.length = 0;
    };
    for (let slot = 0; slot < PAIRS; slot++) {
      const page = BigInt(random.below(RAM));
      const iova = GROUND + BigInt(slot) * PAGE;
      if (way === "type 1") type1.map(process, va + page * PAGE, iova, PAGE, RW);
      else if (way === "map") iommufd.map(guest, process, va + page * PAGE, { iova, length: PAGE });
      else iommufd.copy(ram, page * PAGE, guest, { iova, length: PAGE });
      live.push(slot);
      if (live.length > 64) unmap(live.shift()!);
      charged.add(memory.locked.pages);
    }
    while (live.length > 0) unmap(live.shift()!);
    return {
      pinsPerPair: pins / PAIRS,
      invalidationsPerPair: (counters().rangeInvalidations - before.rangeInvalidations) / PAIRS,
      writesPerPair:
        (counters().leavesWritten + counters().leavesCleared - before.leavesWritten - before.leavesCleared) / PAIRS,
      chargedIsConstant: charged.size === 1,
      left: memory.locked.pages,
    };
  }

  test.each([
    ["type 1", { pinsPerPair: 1, invalidationsPerPair: 1, writesPerPair: 2, chargedIsConstant: false, left: 0 }],
    ["map", { pinsPerPair: 1, invalidationsPerPair: 1, writesPerPair: 2, chargedIsConstant: false, left: 0 }],
    ["copy", { pinsPerPair: 0, invalidationsPerPair: 1, writesPerPair: 2, chargedIsConstant: true, left: RAM }],
  ] as const)("by %s", (way, expected) => expect(storm(way)).toEqual(expected));
});

test.runIf(LONG)("seventy thousand maps at once: a container refuses the 65,536th, and iommufd takes all", () => {
  const stand = new Stand();
  const process = stand.process();
  const va = stand.memory(process, 4096);
  const type1 = new Type1Container({ v2: true });
  type1.attach({ devices: [stand.device()] });
  const iommufd = new Iommufd();
  const ioas = iommufd.createIoas();
  iommufd.attach(iommufd.bind(stand.device()), ioas.id);
  const iova = (i: number): bigint => GROUND + BigInt(i) * PAGE;
  for (let i = 0; i < 65_535; i++) type1.map(process, va, iova(i), PAGE, RW);
  expect(errnoOf(() => type1.map(process, va, iova(65_535), PAGE, RW))).toBe("ENOSPC");
  for (let i = 0; i < 70_000; i++) iommufd.map(ioas, process, va, { iova: iova(i), length: PAGE });
  expect([type1.mappings.length, ioas.areas.length]).toEqual([65_535, 70_000]);
  expect([process.memory.locked.pages, process.user.locked.pages]).toEqual([65_535, 70_000]);
  expect(type1.unmapAll()).toBe(65_535n * PAGE);
  expect(ioas.unmapAll()).toBe(70_000n * PAGE);
  expect(stand.pins(process.memory, 1)).toEqual([0]);
});
