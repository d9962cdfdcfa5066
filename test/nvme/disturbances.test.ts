/** The driver when something is in its way: commands that are given up or lost, resets, memory that runs out. */
import { describe, expect, test, vi } from "vitest";
import type { DmaError } from "../../src/base/index.ts";
import type { NvmeFault } from "../../src/hosts/simulated/index.ts";
import { TestMachine } from "./machine.ts";
import { expectNothingLeft, IDLE, pattern } from "./stand.ts";

describe("waiting", () => {
  /** Opens a disk whose next I/O command meets `fault`, once. */
  async function withFault(fault: NvmeFault, options = {}) {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const before = machine.machine.snapshot();
    const nvme = await machine.open(plugged, { timeoutMs: 100, ...options });
    let pending: NvmeFault | undefined = fault;
    plugged.controller.faults = ({ queue }) => {
      if (queue === 0) return undefined;
      const now = pending;
      pending = undefined;
      return now;
    };
    return { machine, plugged, before, nvme, buffer: machine.scattered(1) };
  }

  test("for a command whose completion is lost ends with a reset, and the command is sent again", async () => {
    const { machine, nvme, buffer, plugged, before } = await withFault({ kind: "lost" });
    await machine.run(nvme.write(0, buffer.fill(pattern(1)).vecs));
    expect(nvme.warnings).toMatchObject({ timeouts: 2, resets: 1, retries: 1 });
    expect(machine.clock.nowMs()).toBeGreaterThan(200);
    buffer.free();
    await expectNothingLeft(machine, plugged, nvme, before);
  });

  test("a device that comes back from a reset finds its queues at no address that it had for data", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const nvme = await machine.open(plugged, { timeoutMs: 100, queues: 1, queueDepth: 255 });
    // A completion queue of 256 takes a page, as the data does: freed first, its address would be the next to be given.
    let fault: { kind: "lost" } | undefined = { kind: "lost" };
    plugged.controller.faults = ({ queue }) => {
      const now = queue > 0 ? fault : undefined;
      if (now) fault = undefined;
      return now;
    };
    const mapPhys = vi.spyOn(plugged.dma, "mapPhys");
    const buffer = machine.scattered(1);
    await machine.run(nvme.write(0, buffer.vecs));
    expect(nvme.warnings.resets).toBe(1);
    const data = mapPhys.mock.results[0]!.value as number;
    const bases = [...plugged.controller.engine.completionQueues.values()].map(({ base }) => base);
    expect(bases).toHaveLength(2);
    for (const base of bases) expect(Math.floor(base / 4096)).not.toBe(Math.floor(data / 4096));
    buffer.free();
    await machine.run(nvme.close());
  });

  test("for an interrupt that is lost ends by looking: the command is done, and nothing is reset", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const listen = plugged.device.onInterrupt.bind(plugged.device);
    let lost = 0;
    plugged.device.onInterrupt = (vector, callback) =>
      listen(vector, () => {
        if (vector > 0 && lost++ < 1) return;
        callback();
      });
    const nvme = await machine.open(plugged, { timeoutMs: 100 });
    const buffer = machine.scattered(1).fill(pattern(2));
    await machine.run(nvme.write(0, buffer.vecs));
    expect(machine.clock.nowMs()).toBeGreaterThan(100);
    expect(nvme.warnings).toMatchObject({ timeouts: 0, resets: 0, retries: 0 });
    await machine.run(nvme.close());
  });

  test("does not take the next command of a slot for the one that was late", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { serviceMs: 60 });
    const nvme = await machine.open(plugged, { timeoutMs: 100, queues: 1, queueDepth: 1 });
    const buffer = machine.scattered(1);
    for (let i = 0; i < 6; i++) await machine.run(nvme.write(0, buffer.vecs));
    expect(nvme.warnings).toMatchObject({ timeouts: 0, resets: 0 });
    await machine.run(nvme.close());
  });

  test("for a slow command ends with an abort, and it is sent again", async () => {
    const { machine, nvme, buffer } = await withFault({ kind: "slow", ms: 1000 });
    await machine.run(nvme.write(0, buffer.vecs));
    expect(nvme.warnings).toMatchObject({ timeouts: 1, resets: 0, retries: 1 });
    await machine.run(nvme.close());
  });

  test("for a command that is a little slow is just that", async () => {
    const { machine, nvme, buffer } = await withFault({ kind: "slow", ms: 60 });
    await machine.run(nvme.write(0, buffer.vecs));
    expect(nvme.warnings).toMatchObject({ timeouts: 0, resets: 0, retries: 0 });
    await machine.run(nvme.close());
  });

  test("ends early when it is given up, but not before the device has let go", async () => {
    const { machine, nvme, buffer } = await withFault({ kind: "slow", ms: 5000 }, { timeoutMs: 60_000 });
    const giveUp = new AbortController();
    const read = nvme.read(0, buffer.vecs, { signal: giveUp.signal });
    machine.clock.advance(1);
    const reason = new Error("not needed any more");
    giveUp.abort(reason);
    let settled = false;
    read.catch(() => {
      settled = true;
    });
    await Promise.resolve();
    expect([settled, nvme.inUse.commands]).toEqual([false, 1]);
    await expect(machine.run(read)).rejects.toBe(reason);
    expect(machine.clock.nowMs()).toBeLessThan(100);
    expect(nvme.inUse).toEqual(IDLE);
    await expect(machine.run(nvme.read(0, buffer.vecs, { signal: giveUp.signal }))).rejects.toBe(reason);
    await machine.run(nvme.close());
  });

  test("for a place in the queue can be given up at once", async () => {
    const machine = new TestMachine();
    const nvme = await machine.open(machine.plug("0.0", { serviceMs: 10 }), { queues: 1, queueDepth: 1 });
    const [first, second] = [machine.scattered(1), machine.scattered(1)];
    const running = nvme.read(0, first.vecs);
    const giveUp = new AbortController();
    const waiting = nvme.read(8, second.vecs, { signal: giveUp.signal });
    giveUp.abort();
    await expect(machine.run(waiting)).rejects.toThrow();
    expect(nvme.inUse.commands).toBe(1);
    await machine.run(running);
    await machine.run(nvme.close());
  });

  test("sees a device without interrupts by looking", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { vectors: 0 });
    const before = machine.machine.snapshot();
    const nvme = await machine.open(plugged);
    const buffer = machine.scattered(8).fill(pattern(1));
    await machine.run(nvme.write(0, buffer.vecs));
    expect(await machine.run(nvme.disk.compare(0, buffer.vecs))).toBe(true);
    buffer.free();
    await expectNothingLeft(machine, plugged, nvme, before);
  });

  test("works with one vector for all queues", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { vectors: 1 });
    const nvme = await machine.open(plugged, { queues: 3 });
    const buffer = machine.scattered(8);
    await machine.run(Promise.all([0, 1, 2, 3, 4].map((i) => nvme.write(i * 64, buffer.vecs))));
    expect(nvme.warnings.timeouts).toBe(0);
    await machine.run(nvme.close());
  });
});

describe("a reset", () => {
  test("with requests in flight sends each of them again, and ends each once", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { serviceMs: 5 });
    const before = machine.machine.snapshot();
    const nvme = await machine.open(plugged, { queueDepth: 32 });
    const buffers = Array.from({ length: 40 }, (_, i) => machine.scattered(2).fill(pattern(i)));
    let ended = 0;
    const writes = buffers.map((buffer, i) =>
      nvme.write(i * 16, buffer.vecs).then(() => {
        ended++;
      }),
    );
    machine.clock.advance(1);
    const inFlight = nvme.inUse.commands;
    expect(inFlight).toBe(40);
    await machine.run(nvme.reset());
    await machine.run(Promise.all(writes));
    expect([ended, nvme.warnings.retries, nvme.warnings.resets]).toEqual([40, 40, 1]);
    for (const [i, buffer] of buffers.entries())
      expect(await machine.run(nvme.disk.compare(i * 16, buffer.vecs))).toBe(true);
    for (const buffer of buffers) buffer.free();
    await expectNothingLeft(machine, plugged, nvme, before);
  });

  test("does not let a completion of before through: it meets no memory", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const nvme = await machine.open(plugged, { retries: 0 });
    plugged.controller.faults = ({ queue }) => (queue > 0 ? { kind: "late", ms: 50 } : undefined);
    const buffer = machine.scattered(1).fill(() => 0x55);
    const read = nvme.read(0, buffer.vecs).catch((error: DmaError) => error.details.status);
    machine.clock.advance(1);
    await machine.run(nvme.reset());
    expect(await read).toBe("timeout");
    plugged.controller.faults = undefined;
    machine.clock.advance(100); // now it writes, to where it was told before the reset
    expect([...new Set(buffer.bytes)]).toEqual([0x55]);
    expect(machine.unit.faults.length).toBeGreaterThan(0);
    await machine.run(nvme.reset());
    await machine.run(nvme.flush());
    await machine.run(nvme.close());
  });

  test("of a controller that does not come back ends everything, offline", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { serviceMs: 5 });
    const nvme = await machine.open(plugged);
    const buffer = machine.scattered(1);
    const read = nvme.read(0, buffer.vecs).catch((error: DmaError) => error.errno);
    machine.clock.advance(1);
    const write = plugged.controller.writeRegister.bind(plugged.controller);
    plugged.controller.writeRegister = (offset, value) => {
      if (offset !== 0x14 || (value & 1) === 0) write(offset, value);
    };
    await expect(machine.run(nvme.reset())).rejects.toMatchObject({ code: "ERR_DMA_NVME_CLOSED" });
    expect([await read, nvme.state, nvme.inUse]).toEqual(["ENODEV", "dead", IDLE]);
    await machine.run(nvme.close());
  });
});

describe("memory pressure", () => {
  test("makes requests wait for descriptors, and all of them end", async () => {
    const machine = new TestMachine({ mode: "direct" });
    const plugged = machine.plug("0.0", { sgls: 0 });
    const before = machine.machine.snapshot();
    const nvme = await machine.open(plugged, { descriptorLimit: 2 });
    const buffers = Array.from({ length: 20 }, (_, i) => machine.scattered(8).fill(pattern(i)));
    await machine.run(Promise.all(buffers.map((buffer, i) => nvme.write(i * 64, buffer.vecs))));
    expect(nvme.warnings.requeued).toBeGreaterThan(0);
    for (const [i, buffer] of buffers.entries())
      expect(await machine.run(nvme.disk.compare(i * 64, buffer.vecs))).toBe(true);
    for (const buffer of buffers) buffer.free();
    await expectNothingLeft(machine, plugged, nvme, before);
  });

  test("that never ends is an error in the end", async () => {
    const machine = new TestMachine({ mode: "direct" });
    const nvme = await machine.open(machine.plug("0.0", { sgls: 0 }), { descriptorLimit: 0 });
    const buffer = machine.scattered(8);
    await expect(machine.run(nvme.write(0, buffer.vecs))).rejects.toMatchObject({ errno: "ENOMEM" });
    expect(nvme.inUse).toEqual(IDLE);
    await machine.run(nvme.close());
  });
});
