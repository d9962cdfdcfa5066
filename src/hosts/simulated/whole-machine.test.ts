/** A whole machine from one description and one seed. */
import { describe, expect, test } from "vitest";
import { DmaAddr, GiB, MiB, PhysAddr, TiB } from "../../base/index.ts";
import { DmaEngine, type MachineOptions, SimulatedHost, type SimulatedHostOptions, SimulatedMachine } from "./index.ts";

const fill = (value: number, length: number): Uint8Array => new Uint8Array(length).fill(value);

describe("a simulated machine", () => {
  test("with 64 TiB, 2 root complexes and 8 slots costs nothing until touched", () => {
    const machine = new SimulatedMachine({
      memoryBytes: 64 * TiB,
      bridges: [{ rootPorts: [{}, {}, {}, {}] }, { segment: 1, rootPorts: [{}, {}, {}, {}] }],
    });
    machine.plug("1.3", new DmaEngine({ memoryBytes: MiB }));
    expect(machine.dram.touchedPages).toBe(0);
    expect(machine.devices[0]!.node.bars[0]!.phys).toBeGreaterThan(machine.ramEnd);
  });

  test("behaves alike for the same seed, and otherwise for another", () => {
    const run = (seed: number): unknown => {
      const machine = new SimulatedMachine({
        seed,
        memoryBytes: 32 * GiB,
        scattered: true,
        confidential: "ciphertext",
      });
      const engine = new DmaEngine();
      const [device] = machine.plug("0.2", engine);
      device!.setBusMaster(true);
      const buffers = Array.from({ length: 8 }, () => machine.ram.allocate(4096));
      const into = fill(0, 64);
      engine.read(DmaAddr(buffers[0]!.phys), into);
      return [buffers.map(({ phys }) => phys), [...into]];
    };
    expect(run(7)).toEqual(run(7));
    expect(run(7)).not.toEqual(run(8));
  });

  test("has memory where it is told to: the hole of PCs too, for loads that were recorded elsewhere", () => {
    const inHole = 3.5 * GiB;
    const moved = (options: MachineOptions): unknown[] => {
      const machine = new SimulatedMachine({ memoryBytes: GiB, ...options });
      const engine = new DmaEngine();
      machine.plug("0.0", engine)[0]!.setBusMaster(true);
      const into = fill(0, 4);
      return [engine.write(DmaAddr(inHole), fill(7, 4)), engine.read(DmaAddr(inHole), into), into[0]];
    };
    expect(moved({})).toEqual([false, false, 0]);
    expect(moved({ isRam: (page) => page * 4096 < 8 * GiB })).toEqual([true, true, 7]);
  });

  test("is what mapping asks of a machine, each part there or absent as described", () => {
    const parts = (options: SimulatedHostOptions): unknown[] => {
      const { machine, dmaMachine } = new SimulatedHost({ memoryBytes: 64 * MiB, ...options });
      const { memory, pool, caches } = dmaMachine;
      return [memory === machine.dram, pool?.slots, caches !== undefined, machine.encryption?.outside];
    };
    expect(parts({})).toEqual([true, undefined, false, undefined]);
    expect(parts({ coherent: false, pool: { slots: 512 }, confidential: "refused" })).toEqual([
      false,
      512,
      true,
      "refused",
    ]);
  });

  test("a bounce pool of a confidential guest is shared, below 3 GiB, and grows by shared memory", () => {
    const host = new SimulatedHost({
      memoryBytes: 8 * GiB,
      scattered: true,
      confidential: "refused",
      pool: { slots: 128, grows: true },
    });
    const { machine } = host;
    const pool = host.pool!;
    const engine = new DmaEngine();
    machine.plug("0.0", engine)[0]!.setBusMaster(true);
    expect(pool.start + 262_144).toBeLessThanOrEqual(3 * GiB);
    const source = machine.ram.allocate(4096);
    source.bytes.fill(0x42);
    const limits = { minAlignMask: 0, segmentBoundaryMask: 2 ** 64 };
    const inPool = pool.map(PhysAddr(source.phys), 4096, 0, limits)!;
    const held = pool.map(PhysAddr(source.phys), 4096 * 62, 0, limits)!;
    const alone = pool.map(PhysAddr(source.phys), 4096 * 4, 0, limits)!;
    for (const address of [inPool, alone]) {
      const into = fill(0, 4096);
      expect([engine.read(DmaAddr(address), into), into]).toEqual([true, fill(0x42, 4096)]);
    }
    for (const address of [inPool, held, alone]) pool.unmap(address, 1, "to-device", true);
    source.free();
    machine.clock.advance(0);
    pool[Symbol.dispose]();
    expect(machine.leaks()).toEqual([]);
  });

  test("says what leaked, by name", () => {
    const { machine, pool } = new SimulatedHost({ memoryBytes: 64 * MiB, pool: { slots: 128 }, coherent: false });
    let frames = 5;
    machine.watch("table frames", () => frames);
    expect(machine.leaks()).toEqual([]);
    const before = machine.snapshot();
    const buffer = machine.ram.allocate(8192);
    machine.clock.after(1, () => {});
    machine.caches!.forDevice(buffer.phys, 64, "to-device");
    pool!.map(buffer.phys, 100, 0, { minAlignMask: 0, segmentBoundaryMask: 2 ** 64 });
    frames = 6;
    const pages = before["pages of RAM"]!;
    expect(machine.leaks()).toEqual([
      `pages of RAM: ${pages + 2}, at the start ${pages}`,
      "timers: 1, at the start 0",
      "maintenance without a barrier: 1, at the start 0",
      "bounce slots: 1, at the start 0",
      "table frames: 6, at the start 5",
    ]);
    expect(machine.leaks(machine.snapshot())).toEqual([]);
  });

  test("a device that is refused leaves nothing behind", () => {
    const machine = new SimulatedMachine({ memoryBytes: 64 * MiB });
    const bars = (...lengths: number[]) => {
      const engine = new DmaEngine();
      const target = { read: () => {}, write: () => {} };
      return Object.assign(engine, { bars: lengths.map((length, index) => ({ index, length, target })) });
    };
    for (const length of [0, 2048, 5000])
      expect(() => machine.plug("0.0", bars(length))).toThrow(expect.objectContaining({ code: "ERR_DMA_SIM_BAR" }));
    expect(() => machine.plug("0.0", bars(2 ** 37), bars(2 ** 37, 2 ** 37))).toThrow(
      expect.objectContaining({ code: "ERR_DMA_SIM_MEMORY" }),
    );
    expect(machine.devices).toEqual([]);
    machine.plug("0.0", bars(2 ** 37), bars(2 ** 37));
    expect(machine.devices.map(({ name }) => name)).toEqual(["0000:01:00.0", "0000:01:00.1"]);
    machine.unplug(machine.devices[0]!.node);
    machine.plug("0.0", bars(2 ** 38));
  });

  test("pulls out everything below a port, and tells each driver when all of it is gone", () => {
    const machine = new SimulatedMachine({ memoryBytes: 64 * MiB, bridges: [{ rootPorts: [{ switch: [{}, {}] }] }] });
    const [first] = machine.plug("0.0.0", new DmaEngine());
    const [second] = machine.plug("0.0.1", new DmaEngine());
    const seen: boolean[][] = [];
    for (const device of [first!, second!]) device.onRemoved(() => void seen.push([first!.removed, second!.removed]));
    machine.unplug(first!.node.parent!.parent!);
    expect([seen, machine.devices]).toEqual([
      [
        [true, true],
        [true, true],
      ],
      [],
    ]);
  });
});
