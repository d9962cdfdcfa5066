/** CPU caches that devices do not look into: what is stale, and what a sync does about it. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ByteMemory } from "../../../test/models/byte-memory.ts";
import { type Direction, GiB, PhysAddr, PhysPage, Random } from "../../base/index.ts";
import { CpuCaches, SimulatedMemory, SimulatedRam } from "./index.ts";

const AT = PhysAddr(0x10_0000);
const fill = (value: number, length = 256): Uint8Array => new Uint8Array(length).fill(value);

function machine() {
  const memory = new SimulatedMemory({ isRam: (page) => page < 2 ** 20 });
  const caches = new CpuCaches({ memory, isCached: (page) => page < 2 ** 20 });
  const ram = new SimulatedRam({ memory, bytes: GiB, views: caches });
  const seen = (by: "cpu" | "device", address: number, length = 256): Uint8Array => {
    const bytes = new Uint8Array(length);
    (by === "cpu" ? caches : memory).read(PhysAddr(address), bytes);
    return bytes;
  };
  return { memory, caches, ram, seen };
}

describe("a device that does not look into the caches", () => {
  test("reads old bytes until the CPU's are cleaned, and the barrier says it is done", () => {
    const { memory, caches, seen } = machine();
    memory.write(AT, fill(1));
    caches.write(AT, fill(2));
    expect(seen("device", AT)).toEqual(fill(1));
    caches.forDevice(AT, 256, "to-device");
    expect([seen("device", AT), caches.pending]).toEqual([fill(1), 1]);
    caches.barrier();
    expect([seen("device", AT), caches.pending]).toEqual([fill(2), 0]);
  });

  test("writes what the CPU does not see until its lines are invalidated", () => {
    const { memory, caches, seen } = machine();
    seen("cpu", AT);
    caches.forDevice(AT, 256, "from-device");
    caches.barrier();
    caches.prefetch(AT, 256); // while the device owns it: hardware may
    memory.write(AT, fill(3));
    expect(seen("cpu", AT)).toEqual(fill(0));
    caches.forCpu(AT, 256, "from-device");
    expect(seen("cpu", AT)).toEqual(fill(0));
    caches.barrier();
    expect(seen("cpu", AT)).toEqual(fill(3));
  });

  test("loses what it wrote to a dirty line, when that is evicted", () => {
    const { memory, caches, seen } = machine();
    caches.write(AT, fill(1));
    expect(caches.dirtyLines(AT, 256)).toBe(4);
    memory.write(AT, fill(2));
    caches.evict(AT, 256);
    expect(seen("device", AT)).toEqual(fill(1));
  });

  test("keeps what it wrote, if the line was given up before: the rule that sync-for-device keeps", () => {
    const { memory, caches, seen } = machine();
    for (const direction of ["from-device", "bidirectional"] as const) {
      caches.write(AT, fill(1));
      caches.forDevice(AT, 256, direction);
      caches.barrier();
      expect(caches.dirtyLines(AT, 256)).toBe(0);
      memory.write(AT, fill(2));
      caches.evict(AT, 256);
      expect(seen("device", AT)).toEqual(fill(2));
    }
  });

  test("a line that is shared with a neighbour is written back whole, and the neighbour keeps its bytes", () => {
    const { caches, seen } = machine();
    caches.write(PhysAddr(AT + 60), fill(7, 8)); // 4 bytes of the first line, 4 of the second
    caches.forDevice(PhysAddr(AT + 64), 64, "from-device");
    caches.barrier();
    expect([...seen("cpu", AT + 60, 8)]).toEqual([7, 7, 7, 7, 0, 0, 0, 0]);
    caches.write(PhysAddr(AT + 60), fill(8, 8));
    caches.forDevice(PhysAddr(AT + 66), 62, "from-device");
    caches.barrier();
    expect([...seen("cpu", AT + 60, 8)]).toEqual(new Array(8).fill(8));
  });

  test("syncs to the device's own direction move nothing: reading devices are not waited for", () => {
    const { memory, caches, seen } = machine();
    caches.write(AT, fill(1));
    caches.forCpu(AT, 256, "to-device");
    caches.barrier();
    memory.write(AT, fill(2));
    expect(seen("cpu", AT)).toEqual(fill(1));
    expect([caches.operations, caches.barriers]).toEqual([0, 1]);
  });
});

describe("bytes that a program holds", () => {
  test("are the CPU's: the device sees them after a sync, and they see the device's after a sync", () => {
    const { memory, caches, ram, seen } = machine();
    const buffer = ram.allocate(8192);
    buffer.bytes.fill(5);
    expect(seen("device", buffer.phys)).toEqual(fill(0));
    expect(caches.dirtyLines(buffer.phys, 8192)).toBe(128);
    caches.forDevice(buffer.phys, 8192, "bidirectional");
    caches.barrier();
    expect(seen("device", buffer.phys + 8191, 1)).toEqual(fill(5, 1));
    memory.write(PhysAddr(buffer.phys + 100), fill(6));
    expect(buffer.bytes[100]).toBe(5);
    caches.forCpu(buffer.phys, 8192, "from-device");
    caches.barrier();
    expect([buffer.bytes[99], buffer.bytes[100], buffer.bytes[355], buffer.bytes[356]]).toEqual([5, 6, 6, 5]);
    expect(seen("cpu", buffer.phys + 100)).toEqual(fill(6));
    caches.write(PhysAddr(buffer.phys + 5000), fill(9));
    expect(buffer.bytes[5255]).toBe(9);
  });

  test("of memory that both sides share are not cached at all", () => {
    const { memory, caches, ram, seen } = machine();
    const page = ram.allocatePages(2)!;
    caches.write(PhysPage.start(page), fill(1));
    const bytes = caches.view(PhysPage.start(page), 8192)!;
    expect(bytes[0]).toBe(1);
    bytes[4096] = 2;
    expect(seen("device", page * 4096 + 4096, 1)).toEqual(fill(2, 1));
    memory.write(PhysPage.start(page), fill(3));
    expect([bytes[0], seen("cpu", page * 4096, 1)[0]]).toEqual([3, 3]);
    ram.freePages(page, 2);
    caches.write(PhysPage.start(page), fill(4));
    expect(seen("device", page * 4096, 1)).toEqual(fill(0, 1));
  });
});

describe("any program that syncs as it should", () => {
  const step = fc.record({
    direction: fc.constantFrom<Direction>("to-device", "from-device", "bidirectional"),
    line: fc.nat(60),
    lines: fc.integer({ min: 1, max: 8 }),
    value: fc.nat(255),
    held: fc.boolean(),
    noise: fc.nat(20),
  });

  test("sees on both sides what a machine without caches shows, whatever the cache does by itself", () =>
    fc.assert(
      fc.property(fc.array(step, { minLength: 8, maxLength: 25 }), fc.nat(), (steps, seed) => {
        const { memory, caches, ram, seen } = machine();
        const random = Random.fromSeed(seed);
        const model = new ByteMemory();
        const buffer = ram.allocate(4096);
        const loose = ram.allocatePages(1)! * 4096;
        for (const { direction, line, lines, value, held, noise } of steps) {
          const offset = line * 64;
          const length = Math.min(lines, 64 - line) * 64;
          const at = PhysAddr((held ? buffer.phys : loose) + offset);
          // The CPU fills the buffer, hands it over, the device works, the CPU takes it back.
          if (held) buffer.bytes.fill(value, offset, offset + length);
          else caches.write(at, fill(value, length));
          model.write(at, fill(value, length));
          caches.forDevice(at, length, direction);
          caches.barrier();
          caches.disturb(random, noise);
          expect(caches.dirtyLines(at, length)).toBe(0);
          const before = new Uint8Array(length);
          model.read(at, before);
          if (direction !== "from-device") expect(seen("device", at, length)).toEqual(before);
          if (direction !== "to-device") {
            memory.write(at, fill(value ^ 0x55, length));
            model.write(at, fill(value ^ 0x55, length));
          }
          caches.disturb(random, noise);
          caches.forCpu(at, length, direction);
          caches.barrier();
          caches.disturb(random, noise);
          const after = new Uint8Array(length);
          model.read(at, after);
          expect(seen("cpu", at, length)).toEqual(after);
          if (held) expect(buffer.bytes.slice(offset, offset + length)).toEqual(after);
        }
      }),
      { numRuns: 30 },
    ));
});
