/** What a device can do to whoever drives it: nothing beyond its own buffers, and only while they are mapped. */
import { describe, expect, test } from "vitest";
import { type DmaAddr, PAGE_SIZE, type PhysAddr } from "../../src/base/index.ts";
import { TestMachine } from "./machine.ts";
import { expectNothingLeft, pattern } from "./stand.ts";

describe("a device", () => {
  const shapes: [name: string, parts: [offset: number, length: number][]][] = [
    [
      "begins inside a page, and ends inside one",
      [
        [512, 3584],
        [0, 4096],
        [0, 512],
      ],
    ],
    [
      "has a head and a tail, and nothing in between",
      [
        [512, 3584],
        [0, 512],
      ],
    ],
    [
      "is whole pages",
      [
        [0, 4096],
        [0, 4096],
      ],
    ],
    ["is a part of one page", [[1024, 512]]],
    [
      "does not fit one range",
      [
        [512, 1024],
        [512, 1024],
      ],
    ],
  ];
  for (const [name, parts] of shapes)
    test(`an untrusted device sees and writes nothing around a buffer that ${name}`, async () => {
      const machine = new TestMachine({ untrusted: true });
      const plugged = machine.plug();
      const before = machine.machine.snapshot();
      const nvme = await machine.open(plugged);
      const buffer = machine.scattered(parts.length).fill(() => 0x11);
      const vecs = parts.map(([offset, length], i) => {
        const { phys } = buffer.vecs[i]!;
        return { phys: (phys + offset) as typeof phys, length };
      });
      // What the device could have read: everything behind the addresses that it read from, whole pages.
      const seen = new Set<number>();
      const { memory } = machine.machine;
      const { translate } = machine.unit;
      machine.unit.translate = (...asked) => {
        const page = translate.apply(machine.unit, asked);
        if (asked[2] === "read" && page >= 0) {
          const bytes = new Uint8Array(PAGE_SIZE);
          memory.read((page * PAGE_SIZE) as PhysAddr, bytes);
          for (const byte of bytes) seen.add(byte);
        }
        return page;
      };
      const own = machine.scattered(parts.length).fill(() => 0x22);
      parts.forEach(([offset, length], i) => {
        const secret = new Uint8Array(PAGE_SIZE).fill(0x5e);
        secret.fill(0x22, offset, offset + length);
        memory.write(own.vecs[i]!.phys, secret);
      });
      const mine = parts.map(([offset, length], i) => {
        const { phys } = own.vecs[i]!;
        return { phys: (phys + offset) as typeof phys, length };
      });
      await machine.run(nvme.write(0, mine));
      expect(seen.has(0x5e)).toBe(false);
      await machine.run(nvme.read(0, vecs));
      const { bytes } = buffer;
      parts.forEach(([offset, length], i) => {
        const page = bytes.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE);
        expect(page.every((byte, at) => byte === (at >= offset && at < offset + length ? 0x22 : 0x11))).toBe(true);
      });
      machine.unit.translate = translate;
      buffer.free();
      own.free();
      await expectNothingLeft(machine, plugged, nvme, before);
    });

  test("a completion that is told twice, too late, or for nobody is counted, and unmaps nothing", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const before = machine.machine.snapshot();
    const nvme = await machine.open(plugged, { queues: 1, queueDepth: 16 });
    const buffer = machine.scattered(1);
    const ids: number[] = [];
    plugged.controller.faults = ({ queue, id }) => {
      if (queue > 0) ids.push(id);
      return undefined;
    };
    await machine.run(nvme.read(0, buffer.vecs));
    const io = plugged.controller.engine.submissionQueues.get(1)!;
    const counters = plugged.dma.counters.snapshot();
    plugged.controller.engine.complete(io, ids[0]!, 0, 0); // once more
    expect(nvme.warnings).toMatchObject({ notInFlight: 1, staleGeneration: 0, unknownTag: 0 });
    plugged.controller.engine.complete(io, 0xfff, 0, 0);
    expect(nvme.warnings).toMatchObject({ notInFlight: 1, staleGeneration: 0, unknownTag: 1 });
    const read = nvme.read(0, buffer.vecs);
    machine.clock.advance(0.001);
    plugged.controller.engine.complete(io, ids[1]! ^ 0x1000, 0, 0);
    expect(nvme.warnings).toMatchObject({ notInFlight: 1, staleGeneration: 1, unknownTag: 1 });
    expect(nvme.inUse.commands).toBe(1);
    await machine.run(read);
    expect(plugged.dma.counters.since(counters).iovaFrees).toBe(1);
    buffer.free();
    await expectNothingLeft(machine, plugged, nvme, before);
  });

  for (const mode of ["strict", "lazy", "VT-d to the bit, strict", "VT-d to the bit, lazy"] as const)
    test(`after its end a request's memory is out of reach at once, or at the flush: ${mode}`, async () => {
      const machine = new TestMachine({ mode });
      const plugged = machine.plug();
      const nvme = await machine.open(plugged);
      const { fabric } = machine.machine;
      const { node } = plugged.device;
      // The addresses of the data: what the controller reads that is neither a command nor in the queues.
      const read = new Set<number>();
      const { read: readAs } = fabric;
      fabric.read = (from, address, into, pasid) => {
        if (into.length >= PAGE_SIZE) read.add(address);
        return readAs.call(fabric, from, address, into, pasid);
      };
      const buffer = machine.scattered(4).fill(pattern(1));
      const before = plugged.dma.counters.snapshot();
      await machine.run(nvme.write(0, buffer.vecs));
      fabric.read = readAs;
      expect(read.size).toBeGreaterThan(0);
      const [address] = read as Set<DmaAddr>;
      const reaches = (): boolean => fabric.read(node, address!, new Uint8Array(64));
      const { flushQueueEntries, rangeInvalidations, domainInvalidations } = plugged.dma.counters.since(before);
      if (mode.endsWith("strict")) {
        expect([flushQueueEntries, rangeInvalidations, domainInvalidations, reaches()]).toEqual([0, 1, 0, false]);
      } else {
        expect([flushQueueEntries, rangeInvalidations, domainInvalidations, reaches()]).toEqual([1, 0, 0, true]);
        // Nobody gets the address while a stale translation may lead there.
        const others = Array.from({ length: 20 }, () => plugged.dma.tryReserveIova({ length: 4 * PAGE_SIZE })!);
        expect(others.some((range) => range.address <= address! && address! < range.address + range.length)).toBe(
          false,
        );
        machine.clock.advance(1000);
        expect([plugged.dma.counters.since(before).domainInvalidations, reaches()]).toEqual([1, false]);
        for (const range of others) range.destroy();
      }
      await machine.run(nvme.close());
    });
});
