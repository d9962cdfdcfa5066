/** Bounce buffers against a model too simple to be wrong, and what a pool promises besides. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ByteMemory } from "../../test/models/byte-memory.ts";
import { Counters, DIRECTIONS, type Direction, deviceWrites, PhysAddr, PhysPage, Random } from "../base/index.ts";
import type { PageAllocator, PhysicalMemory } from "../platform/index.ts";
import { BOUNCE_SET, BOUNCE_SLOT, BouncePool } from "./index.ts";

const START = 0x1000_0000;
const SLOTS = 512;
const ANY = { minAlignMask: 0, segmentBoundaryMask: 0xffff_ffff };

/** Bytes are equal; deep comparison of large arrays takes far longer. */
const same = (found: Uint8Array, wanted: Uint8Array): void => expect(Buffer.compare(found, wanted)).toBe(0);

/** For tests of the slots alone. */
const NO_MEMORY: PhysicalMemory = { read: () => {}, write: () => {} };

const poolOf = (options: Partial<ConstructorParameters<typeof BouncePool>[0]> = {}): BouncePool =>
  new BouncePool({ memory: NO_MEMORY, start: PhysAddr(START), slots: SLOTS, ...options });

interface Live {
  readonly phys: PhysAddr;
  readonly address: PhysAddr;
  readonly length: number;
  readonly direction: Direction;
  readonly first: number;
  readonly last: number;
}

/** Free slots from each to the end of its set, counted anew from the slots that are taken. */
function freeRunsOf(taken: ReadonlySet<number>): number[] {
  const runs = new Array<number>(SLOTS).fill(0);
  for (let slot = SLOTS - 1; slot >= 0; slot--) {
    const endOfSet = slot % BOUNCE_SET === BOUNCE_SET - 1;
    runs[slot] = taken.has(slot) ? 0 : 1 + (endOfSet ? 0 : runs[slot + 1]!);
  }
  return runs;
}

const operation = fc.record({
  free: fc.boolean(),
  which: fc.nat(),
  page: fc.nat(0xffff),
  offset: fc.nat(4095),
  length: fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 1, max: 270_000 })),
  direction: fc.constantFrom(...DIRECTIONS),
  minAlignMask: fc.constantFrom(0, 0x1ff, 0x7ff, 0xfff, 0x1fff),
  alignMask: fc.constantFrom(0, 0, 0xfff),
  segmentBoundaryMask: fc.constantFrom(0xffff_ffff, 0xffff, 2 ** 64),
});

describe("a pool of slots", () => {
  test("keeps its books for every sequence: free runs, slots in use, owners, alignment and boundaries", () =>
    fc.assert(
      fc.property(
        fc.array(operation, { minLength: 20, maxLength: 60 }),
        fc.constantFrom(1, 2, 4),
        (operations, areas) => {
          let cpu = 0;
          const pool = poolOf({ areas, currentCpu: () => cpu });
          const live: Live[] = [];
          for (const step of operations) {
            cpu = step.which % 7;
            if (step.free && live.length > 0) {
              const [gone] = live.splice(step.which % live.length, 1);
              pool.unmap(gone!.address, gone!.length, gone!.direction, false);
            } else {
              const phys = PhysAddr(step.page * 4096 + step.offset);
              const address = pool.map(phys, step.length, step.alignMask, step);
              const kept = step.minAlignMask & (step.alignMask | 0x7ff) & step.offset;
              if (address !== undefined) {
                // Exactly the bits of the mask are those of the memory; at physical 0 none are kept, as in Linux.
                if (phys !== 0) {
                  expect(address % (step.minAlignMask + 1)).toBe(phys % (step.minAlignMask + 1));
                }
                const begin = address - kept;
                const size = Math.ceil((step.length + kept) / (step.alignMask + 1)) * (step.alignMask + 1);
                const first = Math.floor((begin - START) / BOUNCE_SLOT);
                const last = first + Math.ceil(size / BOUNCE_SLOT) - 1;
                expect(Math.floor(first / BOUNCE_SET)).toBe(Math.floor(last / BOUNCE_SET));
                expect(Math.floor(begin / (step.segmentBoundaryMask + 1))).toBe(
                  Math.floor((address + step.length - 1) / (step.segmentBoundaryMask + 1)),
                );
                expect(begin % (step.alignMask + 1)).toBe(0);
                expect(pool.original(address)).toBe(phys);
                live.push({ phys, address, length: step.length, direction: step.direction, first, last });
              }
            }
            const taken = new Set<number>();
            for (const { first, last } of live) for (let slot = first; slot <= last; slot++) taken.add(slot);
            const slots = live.reduce((sum, { first, last }) => sum + last - first + 1, 0);
            expect(taken.size).toBe(slots); // none is taken twice
            expect(pool.used).toBe(taken.size);
            const states = Array.from({ length: SLOTS }, (_, slot) => pool.slotState(slot));
            expect(states.map(({ freeRun }) => freeRun).join()).toBe(freeRunsOf(taken).join());
            const dirty = states.filter(
              ({ padSlots, allocSize, used }, slot) => !taken.has(slot) && (padSlots > 0 || allocSize > 0 || used),
            );
            expect(dirty).toEqual([]);
          }
        },
      ),
      { numRuns: 60 },
    ));

  test("a request that fails anywhere finds room nowhere: the model looks at every place", () =>
    fc.assert(
      fc.property(fc.array(operation, { minLength: 30, maxLength: 80 }), (operations) => {
        const pool = poolOf();
        for (const { page, offset, length, minAlignMask } of operations) {
          const phys = PhysAddr(page * 4096 + offset);
          const size = length + (offset & minAlignMask & 0x7ff);
          const count = Math.ceil(size / BOUNCE_SLOT);
          const roundToPage = minAlignMask === 0 && size >= 4096;
          let room = false;
          for (let slot = 0; slot < SLOTS && count <= BOUNCE_SET; slot++) {
            const at = START + slot * BOUNCE_SLOT;
            const alike =
              phys === 0 ||
              Math.floor(at / 2048) % Math.ceil((minAlignMask + 1) / 2048) ===
                Math.floor(phys / 2048) % Math.ceil((minAlignMask + 1) / 2048);
            if (alike && (!roundToPage || at % 4096 === 0) && pool.slotState(slot).freeRun >= count) room = true;
          }
          expect(pool.map(phys, length, 0, { minAlignMask, segmentBoundaryMask: 2 ** 64 }) !== undefined).toBe(room);
        }
      }),
      { numRuns: 60 },
    ));

  test("a full pool says so, takes nothing, and goes on where something is given back", () => {
    const seen: (number | undefined)[] = [];
    const pool = poolOf({ observer: { slotsTaken: (_phys, _size, _mask, offset) => void seen.push(offset) } });
    const addresses = [0, 1, 2, 3].map((set) => pool.map(PhysAddr(set * 0x10_0000), 262_144, 0, ANY)!);
    expect(pool.map(PhysAddr(0x5000), 1, 0, ANY)).toBeUndefined();
    expect(pool.used).toBe(SLOTS);
    pool.unmap(addresses[2]!, 262_144, "to-device", false);
    expect(pool.map(PhysAddr(0x5000), 1, 0, ANY)).toBe(addresses[2]);
    expect(seen).toEqual([0, 0x40000, 0x80000, 0xc0000, undefined, 0x80000]);
  });

  test("areas: the search begins in that of the CPU and goes through all the others", () => {
    let cpu = 2;
    const pool = poolOf({ areas: 4, currentCpu: () => cpu });
    const area = (address: PhysAddr | undefined): number => (address! - START) / 262_144;
    expect([1, 2, 3, 4].map(() => area(pool.map(PhysAddr(0), 262_144, 0, ANY)))).toEqual([2, 3, 0, 1]);
    cpu = 1;
    expect(pool.map(PhysAddr(0), 1, 0, ANY)).toBeUndefined();
  });

  test("refuses what is no pool, no length, and no place to search from", () => {
    expect(() => poolOf({ slots: 100 })).toThrow(expect.objectContaining({ code: "ERR_DMA_BOUNCE_SLOTS" }));
    expect(() => poolOf({ areas: 3 })).toThrow(expect.objectContaining({ code: "ERR_DMA_BOUNCE_SLOTS" }));
    expect(() => poolOf({ areas: 8 })).toThrow(expect.objectContaining({ code: "ERR_DMA_BOUNCE_SLOTS" }));
    expect(() => poolOf({ start: PhysAddr(0x800) })).toThrow(expect.objectContaining({ code: "ERR_DMA_BOUNCE_START" }));
    for (const length of [0, -1, 1.5, Number.NaN])
      expect(() => poolOf().map(PhysAddr(0x1000), length, 0, ANY)).toThrow(
        expect.objectContaining({ code: "ERR_DMA_BOUNCE_LENGTH", errno: "EINVAL" }),
      );
    expect(() => {
      poolOf().nextIndex = SLOTS;
    }).toThrow(expect.objectContaining({ code: "ERR_DMA_BOUNCE_INDEX" }));
  });
});

describe("copies", () => {
  test("move exactly the bytes of the mapping, for every part, direction and alignment", () =>
    fc.assert(
      fc.property(
        fc.nat(4095),
        fc.integer({ min: 1, max: 9000 }),
        fc.constantFrom(0, 0x1ff, 0xfff),
        fc.constantFrom(0, 0xfff),
        fc.constantFrom(...DIRECTIONS),
        fc.array(fc.tuple(fc.nat(9000), fc.nat(12_000), fc.boolean()), { maxLength: 4 }),
        fc.nat(),
        (offset, length, minAlignMask, alignMask, direction, syncs, seed) => {
          const random = Random.fromSeed(seed);
          const memory = new ByteMemory();
          const counters = new Counters();
          const pool = poolOf({ memory, counters });
          const phys = PhysAddr(0x40_0000 + offset);
          const noise = (size: number): Uint8Array => Uint8Array.from({ length: size }, () => random.below(256));
          const around = 4096;
          memory.write(PhysAddr(phys - around), noise(length + 2 * around));
          const at = (address: number, size: number): Uint8Array => {
            const bytes = new Uint8Array(size);
            memory.read(PhysAddr(address), bytes);
            return bytes;
          };
          const address = pool.map(phys, length, alignMask, { minAlignMask, segmentBoundaryMask: 2 ** 64 })!;
          let original = at(phys - around, length + 2 * around);
          let bounced = at(address, length);
          let copied = length;
          same(bounced, original.subarray(around, around + length));
          for (const [start, size, forCpu] of syncs) {
            if (start >= length) continue;
            bounced = noise(length);
            memory.write(address, bounced);
            original = original.slice();
            original.set(noise(length), around);
            memory.write(PhysAddr(phys - around), original);
            const end = Math.min(length, start + size);
            if (forCpu) pool.syncForCpu(PhysAddr(address + start), size, direction);
            else pool.syncForDevice(PhysAddr(address + start), size, direction);
            if (forCpu && deviceWrites(direction)) original.set(bounced.subarray(start, end), around + start);
            if (!forCpu && direction !== "from-device")
              bounced.set(original.subarray(around + start, around + end), start);
            if (forCpu ? deviceWrites(direction) : direction !== "from-device") copied += end - start;
            same(at(phys - around, length + 2 * around), original);
            same(at(address, length), bounced);
          }
          pool.unmap(address, length, direction, false);
          if (deviceWrites(direction)) {
            original.set(bounced, around);
            copied += length;
          }
          same(at(phys - around, length + 2 * around), original);
          expect(counters.bouncedBytes).toBe(copied);
          expect(pool.used).toBe(0);
        },
      ),
      { numRuns: 30 },
    ));

  test("an unmap may skip the copy; a second one copies and frees nothing, and is announced as the first", () => {
    const memory = new ByteMemory();
    const events: unknown[] = [];
    const pool = poolOf({
      memory,
      observer: {
        bounceCopied: (offset, size, way) => void events.push([way, offset, size]),
        slotsTaken: (_phys, _size, _mask, offset) => void events.push(["taken", offset]),
        slotsFreed: (offset) => void events.push(["freed", offset]),
      },
    });
    const address = pool.map(PhysAddr(0x5000), 100, 0, ANY)!;
    memory.write(address, new Uint8Array(100).fill(9));
    pool.unmap(address, 100, "from-device", true);
    pool.unmap(address, 100, "from-device", false);
    const bytes = new Uint8Array(100);
    memory.read(PhysAddr(0x5000), bytes);
    expect(bytes).toEqual(new Uint8Array(100));
    expect(pool.used).toBe(0);
    expect(events).toEqual([
      ["in", 0, 100],
      ["taken", 0],
      ["freed", 0],
      ["out", 0, 100],
      ["freed", 0],
    ]);
  });

  test("an address outside, or inside of a mapping, gives nothing back", () => {
    const pool = poolOf();
    const address = pool.map(PhysAddr(0x5000), 5000, 0, ANY)!;
    pool.unmap(PhysAddr(address + 2048), 100, "bidirectional", false);
    pool.unmap(PhysAddr(0x5000), 100, "bidirectional", false);
    expect(pool.used).toBe(3);
    expect([pool.holds(address), pool.holds(PhysAddr(START - 1)), pool.holds(PhysAddr(START + SLOTS * 2048))]).toEqual([
      true,
      false,
      false,
    ]);
    expect(pool.original(PhysAddr(address + 4999))).toBe(0x5000 + 4999);
    expect(pool.original(PhysAddr(START + 0x8000))).toBeUndefined();
    expect(pool.original(PhysAddr(0x5000))).toBeUndefined();
  });
});

describe("a pool that may grow", () => {
  const pagesFrom = (first: number, budget: number): PageAllocator & { inUse: number } => ({
    inUse: 0,
    allocatePages(pages: number) {
      if (this.inUse + pages > budget) return undefined;
      this.inUse += pages;
      first += 0x10000;
      return PhysPage.of(PhysAddr((first - 0x10000) * 4096));
    },
    freePages(_page: number, pages: number) {
      this.inUse -= pages;
    },
  });

  test("gives a mapping a buffer of its own at once, and adds a pool later, once", () => {
    const pages = pagesFrom(0x40_0000, 100_000);
    const later: (() => void)[] = [];
    const memory = new ByteMemory();
    const pool = poolOf({ memory, slots: 128, grow: { pages, later: (work) => void later.push(work), slots: 256 } });
    const first = pool.map(PhysAddr(0x5000), 262_144, 0, ANY)!;
    memory.write(PhysAddr(0x9_0fff), Uint8Array.of(7));
    const alone = pool.map(PhysAddr(0x9_0fff), 5000, 0xfff, { ...ANY, minAlignMask: 0xfff })!;
    const another = pool.map(PhysAddr(0xa_0000), 100, 0, ANY)!;
    expect([pool.extraBuffers, later.length]).toEqual([2, 1]);
    expect([pool.holds(alone), alone % 4096, pool.original(alone)]).toEqual([true, 0xfff, 0x9_0fff]);
    memory.write(alone, Uint8Array.of(8));
    pool.unmap(alone, 5000, "from-device", false);
    const byte = new Uint8Array(1);
    memory.read(PhysAddr(0x9_0fff), byte);
    expect([byte[0], pool.holds(alone), pool.extraBuffers]).toEqual([8, false, 1]);
    later[0]!();
    expect(pool.extraBuffers).toBe(2);
    const inAdded = pool.map(PhysAddr(0x5000), 262_144, 0, ANY)!;
    expect([later.length, pool.extraBuffers]).toEqual([1, 2]);
    for (const address of [first, another, inAdded]) pool.unmap(address, 1, "to-device", false);
    expect([pool.used, pool.extraBuffers]).toEqual([0, 1]);
    pool[Symbol.dispose]();
    expect([pool.extraBuffers, pages.inUse]).toEqual([0, 0]);
  });

  test("keeps no buffer for a mapping that fits in none: one that a boundary always cuts", () => {
    const pages = pagesFrom(0x40_0000, 100_000);
    const pool = poolOf({ slots: 128, grow: { pages, later: () => {} } });
    for (let i = 0; i < 3; i++)
      expect(pool.map(PhysAddr(0x5000), 8192, 0, { ...ANY, segmentBoundaryMask: 0xfff })).toBeUndefined();
    expect([pool.extraBuffers, pages.inUse, pool.used]).toEqual([0, 0, 0]);
  });

  test("is full when there are no pages either, and takes none", () => {
    const pages = pagesFrom(0x40_0000, 0);
    const pool = poolOf({ slots: 128, grow: { pages, later: (work) => work() } });
    pool.map(PhysAddr(0x5000), 262_144, 0, ANY);
    expect(pool.map(PhysAddr(0x5000), 1, 0, ANY)).toBeUndefined();
    expect([pool.extraBuffers, pages.inUse, pool.used]).toEqual([0, 0, 128]);
  });
});
