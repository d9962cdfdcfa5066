/** Commands that move their data at once and are told later, and what controller and driver count on the way. */
import { describe, expect, test } from "vitest";
import type { CommandSeen } from "../../src/hosts/simulated/index.ts";
import { TestMachine } from "./machine.ts";

describe("a command whose completion is held", () => {
  test("has moved its data long before it ends, and ends when it was to", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0");
    const disk = await machine.open(plugged, { queues: 1 });
    const buffer = machine.scattered(4).fill((i) => i * 7);
    await machine.run(disk.write(8, buffer.vecs));
    const seen: CommandSeen[] = [];
    plugged.controller.faults = (command) => {
      seen.push(command);
      return { kind: "held", ms: 40 };
    };
    const into = machine.scattered(4);
    const start = machine.clock.nowMs();
    const reading = disk.read(8, into.vecs);
    machine.clock.advance(0);
    expect(into.bytes).toEqual(buffer.bytes);
    expect(disk.inUse.commands).toBe(1);
    await machine.run(reading);
    expect(machine.clock.nowMs() - start).toBe(40);
    expect(seen).toMatchObject([{ queue: 1, opcode: 2, firstBlock: 8, blocks: 32 }]);
    await machine.run(disk.close());
  });

  test("ends once when it is given up meanwhile, or the controller is reset", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0");
    const disk = await machine.open(plugged);
    const buffer = machine.scattered(1);
    let ms = 1000;
    plugged.controller.faults = ({ queue }) => (queue > 0 ? { kind: "held", ms } : undefined);
    const abort = new AbortController();
    const givenUp = disk.read(0, buffer.vecs, { signal: abort.signal });
    machine.clock.advance(1);
    abort.abort(new Error("enough"));
    await expect(machine.run(givenUp)).rejects.toThrow("enough");
    expect(machine.clock.nowMs()).toBeLessThan(500);
    const sentAgain = disk.read(0, buffer.vecs);
    machine.clock.advance(1);
    ms = 5;
    await machine.run(disk.reset());
    await machine.run(sentAgain);
    machine.clock.advance(5000);
    expect(disk.warnings).toMatchObject({ notInFlight: 0, staleGeneration: 0, resets: 1 });
    await machine.run(disk.close());
    expect(plugged.dma.counters.leavesWritten).toBe(plugged.dma.counters.leavesCleared);
  });
});

describe("what is counted of commands", () => {
  test("a doorbell for all that is sent at once, one for all completions taken at once, an interrupt each", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0");
    const disk = await machine.open(plugged, { queues: 1 });
    const { engine } = plugged.controller;
    const before = [engine.submissionDoorbells, engine.completionDoorbells, engine.interrupts];
    const buffer = machine.scattered(96); // 384 KiB: three commands of 128 KiB
    await machine.run(disk.write(0, buffer.vecs));
    const counts = [engine.submissionDoorbells, engine.completionDoorbells, engine.interrupts];
    expect(counts.map((count, i) => count - before[i]!)).toEqual([1, 3, 3]);
    await machine.run(disk.close());
  });

  test("PRPs, descriptors and lists, as the controller reads them", async () => {
    const machine = new TestMachine({ mode: "direct" });
    const disk = await machine.open(machine.plug("0.0"), { sglThreshold: 0 });
    const counted = (): number[] => {
      const { prpEntries, sglDescriptors, lists } = disk.counters;
      return [prpEntries, sglDescriptors, lists];
    };
    await machine.run(disk.write(0, machine.scattered(1).vecs));
    expect(counted()).toEqual([1, 0, 0]);
    await machine.run(disk.write(0, machine.scattered(3).vecs));
    expect(counted()).toEqual([4, 0, 1]);
    const apart = machine.scattered(2).vecs.map(({ phys }) => ({ phys, length: 512 }));
    await machine.run(disk.write(0, apart));
    expect(counted()).toEqual([4, 3, 2]);
    await machine.run(disk.close());
  });
});
