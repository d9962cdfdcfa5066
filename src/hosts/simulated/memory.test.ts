/** Memory and RAM: sparse, in one piece for who holds it, and with devices' regions in it. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { GiB, MiB, PhysAddr, PhysPage, Random, TiB } from "../../base/index.ts";
import { Extents } from "./extents.ts";
import { isRam, memoryTarget, ramEnd, SimulatedMemory, SimulatedRam } from "./index.ts";

const bytesAt = (memory: { read(address: PhysAddr, into: Uint8Array): void }, address: number, length: number) => {
  const bytes = new Uint8Array(length);
  memory.read(PhysAddr(address), bytes);
  return bytes;
};

/** Bytes are equal; deep comparison of large arrays takes far longer. */
const same = (found: Uint8Array, wanted: Uint8Array): void => expect(Buffer.compare(found, wanted)).toBe(0);

describe("memory", () => {
  const step = fc.record({
    what: fc.constantFrom("write", "write", "read", "view", "view", "view", "forget", "scrub"),
    address: fc.nat(40_000),
    length: fc.integer({ min: 1, max: 9000 }),
    value: fc.nat(255),
  });

  test("is the bytes that were written, whatever lies in which array", () =>
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 40 }), (steps) => {
        const memory = new SimulatedMemory();
        const base = 2 ** 45;
        const model = new Uint8Array(64 * 1024); // the bytes from `base` on
        const views: { at: number; bytes: Uint8Array }[] = [];
        for (const { what, address, length, value } of steps) {
          const at = PhysAddr(base + address);
          if (what === "write") {
            memory.write(at, new Uint8Array(length).fill(value));
            model.fill(value, address, address + length);
          } else if (what === "view") {
            const bytes = memory.view(at, length);
            if (bytes) {
              views.push({ at: address, bytes });
              bytes[0] = value;
              model[address] = value;
            }
          } else if (what === "read") same(bytesAt(memory, at, length), model.subarray(address, address + length));
          else {
            const first = Math.floor(address / 4096);
            const end = Math.ceil((address + length) / 4096);
            if (what === "scrub") memory.scrub((base / 4096 + first) as PhysPage, end - first);
            else {
              memory.forget(at, length);
              views.length = 0; // the views are nobody's from here on
            }
            model.fill(0, first * 4096, end * 4096);
          }
          for (const view of views) same(view.bytes, model.subarray(view.at, view.at + view.bytes.length));
        }
        same(bytesAt(memory, base, model.length), model);
      }),
      { numRuns: 40 },
    ));

  test("costs nothing until it is touched, and reads touch nothing", () => {
    const memory = new SimulatedMemory();
    bytesAt(memory, 2 ** 50, 2 * MiB);
    expect(memory.touchedPages).toBe(0);
    memory.write(PhysAddr(2 ** 51 - 1), Uint8Array.of(1, 2));
    expect(memory.touchedPages).toBe(2);
  });

  test("where nothing is, reads give all ones and writes do nothing", () => {
    const memory = new SimulatedMemory({ isRam: (page) => page < 16 });
    memory.write(PhysAddr(0xf000), new Uint8Array(8192).fill(5));
    expect([...bytesAt(memory, 0xffff, 2)]).toEqual([5, 0xff]);
    expect(memory.view(PhysAddr(0xf000), 8192)).toBeUndefined();
  });

  test("regions answer for themselves, also page by page and beside each other, until they are taken away", () => {
    const memory = new SimulatedMemory({ isRam: (page) => page < 16 });
    const [first, second] = [memoryTarget(8192), memoryTarget(4096)];
    const remove = memory.addRegion(PhysAddr(0x10_0000), 8192, first);
    memory.addRegion(PhysAddr(0x10_2000), 4096, second);
    memory.write(PhysAddr(0x10_0ffe), Uint8Array.of(1, 2, 3, 4));
    memory.write(PhysAddr(0x10_1fff), Uint8Array.of(5, 6));
    expect([...first.bytes.subarray(0xffe, 0x1002), first.bytes[0x1fff], second.bytes[0]]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...bytesAt(memory, 0x10_1fff, 2)]).toEqual([5, 6]);
    for (const [start, length] of [
      [0x10_1000, 4096],
      [0x10_3000, 0],
      [0x10_3800, 4096],
      [0x0f_f000, 8192],
    ] as const)
      expect(() => memory.addRegion(PhysAddr(start), length, first)).toThrow(
        expect.objectContaining({ code: "ERR_DMA_SIM_REGION" }),
      );
    remove();
    remove();
    expect([...bytesAt(memory, 0x10_1fff, 2)]).toEqual([0xff, 6]);
  });
});

describe("free runs", () => {
  test("give out what is free, aligned and below the limit, and are one run again in the end", () =>
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            count: fc.integer({ min: 1, max: 9 }),
            lg: fc.nat(3),
            last: fc.nat(120),
            give: fc.boolean(),
            which: fc.nat(),
          }),
          { minLength: 20, maxLength: 80 },
        ),
        fc.option(fc.nat()),
        (steps, seed) => {
          const runs = new Extents([
            [3, 40],
            [50, 100],
          ]);
          const random = seed === null ? undefined : Random.fromSeed(seed);
          const taken = new Set<number>();
          const live: [number, number][] = [];
          const isFree = (at: number): boolean => ((at >= 3 && at < 40) || (at >= 50 && at < 100)) && !taken.has(at);
          for (const { count, lg, last, give, which } of steps) {
            if (give && live.length > 0) {
              const [[at, size]] = live.splice(which % live.length, 1) as [[number, number]];
              runs.give(at, size);
              for (let i = 0; i < size; i++) taken.delete(at + i);
            } else {
              const fits: number[] = [];
              for (let at = 0; at + count - 1 <= Math.min(last, 99); at += 2 ** lg)
                if (Array.from({ length: count }, (_, i) => at + i).every(isFree)) fits.push(at);
              const at = runs.take(count, 2 ** lg, last, random);
              if (fits.length === 0) expect(at).toBe(-1);
              else if (random) expect(fits).toContain(at);
              else expect(at).toBe(fits[0]);
              if (at >= 0) {
                for (let i = 0; i < count; i++) taken.add(at + i);
                live.push([at, count]);
              }
            }
            expect(runs.free).toBe(87 - taken.size);
          }
          for (const [at, size] of live) runs.give(at, size);
          expect([runs.free, runs.largest]).toEqual([87, 50]);
        },
      ),
      { numRuns: 100 },
    ));
});

describe("RAM", () => {
  const machine = (bytes: number, random?: Random) => {
    const memory = new SimulatedMemory({ isRam: (page) => isRam(page, bytes) });
    return { memory, ram: new SimulatedRam({ memory, bytes, ...(random && { random }) }) };
  };

  test("lies below 3 GiB and from 4 GiB on, and terabytes of it cost nothing", () => {
    expect([ramEnd(GiB), ramEnd(3 * GiB), ramEnd(4 * GiB), ramEnd(64 * TiB)]).toEqual([
      GiB,
      3 * GiB,
      5 * GiB,
      64 * TiB + GiB,
    ]);
    const at = (address: number, bytes: number): boolean => isRam(PhysPage.of(PhysAddr(address)), bytes);
    expect([at(GiB, GiB), at(GiB - 1, GiB), at(3 * GiB, 8 * GiB), at(4 * GiB, 8 * GiB), at(9 * GiB, 8 * GiB)]).toEqual([
      false,
      true,
      false,
      true,
      false,
    ]);
    const { ram, memory } = machine(64 * TiB);
    expect(ram.allocatePages(2 ** 30)).toBe((4 * GiB) / 4096);
    expect(memory.touchedPages).toBe(0);
  });

  test("gives out pages below a limit, zeroed, and takes them back", () => {
    const { memory, ram } = machine(8 * GiB);
    const page = ram.allocatePages(2, 1000)!;
    expect(page).toBeLessThan(1000);
    memory.write(PhysPage.start(page), new Uint8Array(8192).fill(7));
    ram.freePages(page, 2);
    expect(memory.touchedPages).toBe(0);
    expect(ram.allocatePages(2)).toBe(page);
    expect(bytesAt(memory, page * 4096, 8192)).toEqual(new Uint8Array(8192));
    expect(ram.allocatePages(1000, 900)).toBeUndefined();
    expect(ram.pagesInUse).toBe(2);
  });

  test("a buffer's bytes are the memory, both ways, until it is freed; freeing twice does nothing", () => {
    const { memory, ram } = machine(16 * MiB);
    const buffer = ram.allocate(10_000);
    buffer.bytes[9999] = 3;
    expect([...bytesAt(memory, buffer.phys + 9999, 1)]).toEqual([3]);
    memory.write(PhysAddr(buffer.phys + 4096), Uint8Array.of(8));
    expect([buffer.bytes[4096], buffer.bytes.length, buffer.phys % 4096]).toEqual([8, 10_000, 0]);
    buffer.free();
    const next = ram.allocate(4096);
    buffer.free();
    expect([next.phys, ram.pagesInUse, next.bytes[0]]).toEqual([buffer.phys, 1, 0]);
    expect(() => ram.allocate(17 * MiB)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_SIM_MEMORY", errno: "ENOMEM" }),
    );
  });

  test("by chance, places are anywhere, and the same for the same seed", () => {
    const places = (seed: number): number[] => {
      const { ram } = machine(64 * GiB, Random.fromSeed(seed));
      return Array.from({ length: 20 }, () => ram.allocatePages(1)!);
    };
    expect(places(1)).toEqual(places(1));
    expect(places(1)).not.toEqual(places(2));
    expect(places(1).some((page) => page > 2 ** 20)).toBe(true);
  });

  test("refuses sizes that are no memory", () => {
    for (const bytes of [0, 4096, MiB + 1, 2 ** 52, Number.NaN])
      expect(() => machine(bytes)).toThrow(expect.objectContaining({ code: "ERR_DMA_SIM_MEMORY_SIZE" }));
  });
});
