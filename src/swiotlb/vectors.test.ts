/** The twelve named cases of bounce buffers, as the running kernel answered them. */
import { beforeEach, describe, expect, test } from "vitest";
import { ByteMemory } from "../../test/models/byte-memory.ts";
import { type Direction, PhysAddr } from "../base/index.ts";
import { BOUNCE_LIMIT, BouncePool, maxBounceSize } from "./index.ts";

const START = 0x1000_0000;

let memory: ByteMemory;
let pool: BouncePool;
beforeEach(() => {
  memory = new ByteMemory();
  pool = new BouncePool({ memory, start: PhysAddr(START), slots: 1024 });
});

const map = (phys: number, length: number, minAlignMask = 0, alignMask = 0): number | undefined =>
  pool.map(PhysAddr(phys), length, alignMask, { minAlignMask, segmentBoundaryMask: 0xffff_ffff });
const unmap = (address: number, length: number, direction: Direction = "bidirectional"): void =>
  pool.unmap(PhysAddr(address), length, direction, false);
const usedSlots = (): number[] =>
  Array.from({ length: 256 }, (_, slot) => slot).filter((slot) => pool.slotState(slot).freeRun === 0);
const from = (first: number, last: number): number[] => Array.from({ length: last - first + 1 }, (_, i) => first + i);
const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);
const bytesAt = (address: number, length: number): Uint8Array => {
  const bytes = new Uint8Array(length);
  memory.read(PhysAddr(address), bytes);
  return bytes;
};

describe("vectors 1 to 4: small mappings after each other", () => {
  test("1: 100 bytes go into slot 0, without the offset in the page", () => {
    expect(map(0x500_0123, 100)).toBe(START);
    expect(usedSlots()).toEqual([0]);
  });

  test("2, 3, 4: 3000 bytes, then 4096 at a page boundary, then 100 right after", () => {
    map(0x500_0123, 100);
    expect(map(0x501_0123, 3000)).toBe(START + 0x800);
    expect(usedSlots()).toEqual(from(0, 2));
    expect(map(0x502_0123, 4096)).toBe(START + 0x2000);
    expect(usedSlots()).toEqual([0, 1, 2, 4, 5]);
    expect(pool.slotState(3).freeRun).toBe(1);
    expect(map(0x503_0123, 100)).toBe(START + 0x3000);
    expect(usedSlots()).toEqual([0, 1, 2, 4, 5, 6]);
  });
});

describe("vectors 5 to 7: low address bits", () => {
  test("5: with minAlignMask 0xfff the low 12 bits are those of the memory", () => {
    expect(map(0x500_0a00, 0x200, 0xfff)).toBe(START + 0xa00);
    expect(usedSlots()).toEqual([1]);
  });

  test("6: behind an IOMMU a granule is taken whole, and the offset in it is lost", () => {
    expect(map(0x1800, 0x800, 0, 0xfff)).toBe(START);
    expect(usedSlots()).toEqual([0, 1]);
  });

  test("7: the same with minAlignMask 0xfff: the slot before the data is a pad", () => {
    expect(map(0x1800, 0x800, 0xfff, 0xfff)).toBe(START + 0x800);
    expect(usedSlots()).toEqual([0, 1]);
    expect([pool.slotState(0), pool.slotState(1)]).toEqual([
      { freeRun: 0, padSlots: 0, allocSize: 4096, used: false },
      { freeRun: 0, padSlots: 1, allocSize: 2048, used: true },
    ]);
  });

  test("memory at address 0 has no low bits to keep", () => {
    map(0x1000, 100);
    expect(map(0, 100, 0xfff)).toBe(START + 0x800);
    expect(map(0x2000, 100, 0xfff)).toBe(START + 0x1000);
  });

  test("beyond Linux, keepMask keeps the offset in the granule without a minAlignMask", () => {
    expect(pool.map(PhysAddr(0x1abc), 0x100, 0xfff, { minAlignMask: 0, segmentBoundaryMask: 2 ** 64 }, 0xfff)).toBe(
      START + 0xabc,
    );
    expect(usedSlots()).toEqual([0, 1]);
  });
});

describe("vectors 8 to 10: the largest mappings", () => {
  test("8: 256 KiB fill a set, the next ones the next", () => {
    expect(map(0x2000_0000, 262_144)).toBe(START);
    expect(map(0x2004_0000, 262_144)).toBe(START + 0x4_0000);
  });

  test("9: one byte more does not fit, and nothing is taken", () => {
    expect(map(0x2000_0000, 262_145)).toBeUndefined();
    expect([pool.used, pool.nextIndex]).toEqual([0, 0]);
  });

  test("10: 252 KiB is the most that always fits with minAlignMask 0xfff", () => {
    expect(map(0x500_0fff, 258_048, 0xfff)).toBe(START + 0xfff);
    expect(usedSlots()).toEqual(from(1, 127));
    expect([0, 0x1ff, 0x7ff, 0xfff, 0x1fff, 0xffff].map(maxBounceSize)).toEqual([
      0x40000, 0x3f800, 0x3f800, 0x3f000, 0x3e000, 0x30000,
    ]);
  });

  test("10: a little more fits where the address allows it", () => {
    expect(map(0x500_0fff, 258_049, 0xfff)).toBe(START + 0xfff);
    expect(map(0x500_07ff, 260_096, 0xfff)).toBe(START + 0x407ff);
    expect(map(0x500_07ff, 260_098, 0xfff)).toBeUndefined();
  });
});

describe("vectors 11 and 12: what is copied when", () => {
  test("11: what a device that only writes left untouched is what was there before", () => {
    memory.write(PhysAddr(0x5000), filled(2048, 0xaa));
    const address = map(0x5000, 2048)!;
    memory.write(PhysAddr(address), filled(512, 0x11));
    unmap(address, 2048, "from-device");
    expect(bytesAt(0x5000, 2048)).toEqual(Uint8Array.from([...filled(512, 0x11), ...filled(1536, 0xaa)]));
  });

  test("12: what the CPU writes later reaches the device only by a sync", () => {
    memory.write(PhysAddr(0x5000), filled(2048, 1));
    const address = PhysAddr(map(0x5000, 2048)!);
    memory.write(PhysAddr(0x5000), filled(2048, 2));
    expect(bytesAt(address, 2048)).toEqual(filled(2048, 1));
    pool.syncForDevice(address, 2048, "to-device");
    expect(bytesAt(address, 2048)).toEqual(filled(2048, 2));
  });
});

describe("the limit", () => {
  test("is a set of 128 slots", () => expect(BOUNCE_LIMIT).toBe(262_144));
});
