/** Opening a controller: what the driver asks of it, what it refuses, and what a failed opening leaves. */
import { describe, expect, test } from "vitest";
import type { DmaError } from "../../src/base/index.ts";
import { Nvme, type NvmeOptions } from "../../src/consumers/nvme/index.ts";
import { ADMIN } from "../../src/layouts/nvme/index.ts";
import { TestMachine } from "./machine.ts";

describe("opening", () => {
  test.each<[keyof NvmeOptions, unknown[]]>([
    ["queues", [Number.NaN, -1, 0, 1.5, 1e9, "2", null, 2n]],
    ["queueDepth", [Number.NaN, 0, 1024, "8"]],
    ["timeoutMs", [Number.NaN, 0, -1, Number.POSITIVE_INFINITY, "30"]],
    ["retries", [Number.NaN, -1, 0.5]],
    ["sglThreshold", [Number.NaN, -1]],
    ["pollMs", [Number.NaN, 0, -1]],
    ["onEvent", ["print", {}]],
    ["clock", [undefined, null, {}, 5]],
  ])("refuses %s that are none, before it touches the device", async (name, values) => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const before = machine.machine.snapshot();
    for (const value of values)
      await expect(
        Nvme.open(plugged.device, plugged.dma, { clock: machine.clock, [name]: value } as NvmeOptions),
      ).rejects.toMatchObject({ code: "ERR_DMA_NVME_OPTION", errno: "EINVAL" });
    expect(machine.machine.leaks(before)).toEqual([]);
  });

  test("a callback that throws is counted, and events are heard all the same", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    let heard = 0;
    const nvme = await machine.open(plugged, {
      onEvent: () => {
        heard++;
        throw new Error("the caller's own");
      },
    });
    for (let i = 0; i < 3; i++) {
      plugged.controller.engine.raiseEvent(1, i, 2);
      machine.clock.advance(5);
      await machine.run(nvme.flush());
    }
    for (let i = 0; i < 3; i++) {
      machine.clock.advance(5);
      await machine.run(nvme.flush());
    }
    expect([heard, nvme.warnings.callbacks]).toEqual([3, 3]);
    await machine.run(nvme.close());
  });

  test("a device that is not there, or never becomes ready, is refused, and nothing is held", async () => {
    const machine = new TestMachine();
    const gone = machine.plug("0.0");
    machine.machine.unplug(gone.device.node);
    await expect(machine.open(gone)).rejects.toMatchObject({ code: "ERR_DMA_NVME_ABSENT" });
    const before = machine.machine.snapshot();
    const dead = machine.plug("0.1", { readyMs: 1e9 });
    await expect(machine.open(dead)).rejects.toMatchObject({ code: "ERR_DMA_NVME_NOT_READY", errno: "ENODEV" });
    const large = machine.plug("0.2", { minPageShift: 1 });
    await expect(machine.open(large)).rejects.toMatchObject({ code: "ERR_DMA_NVME_ABSENT" });
    expect(machine.machine.leaks(before).filter((leak) => !leak.startsWith("timers"))).toEqual([]);
  });

  test("fails cleanly whichever admin command is never answered", async () => {
    for (let failing = 0; ; failing++) {
      const machine = new TestMachine();
      const plugged = machine.plug();
      const before = machine.machine.snapshot();
      let seen = 0;
      plugged.controller.faults = ({ queue, opcode }) =>
        queue === 0 && opcode !== ADMIN.asyncEvent && seen++ === failing ? { kind: "late", ms: 400 } : undefined;
      const result = await machine.open(plugged, { timeoutMs: 100 }).catch((error: DmaError) => error);
      if (!(result instanceof Error)) {
        expect(failing).toBeGreaterThan(10);
        await machine.run(result.close());
        break;
      }
      expect((result as DmaError).errno).toBe("ETIMEDOUT");
      machine.clock.advance(1000); // what it was asked for comes in the end, to nobody
      plugged.domain?.destroy();
      expect(machine.machine.leaks(before)).toEqual([]);
      expect(machine.unit.faults).toEqual([]);
      expect(plugged.dma.counters.leavesWritten).toBe(plugged.dma.counters.leavesCleared);
    }
  });

  test("fails cleanly whichever admin command fails", async () => {
    for (let failing = 0; ; failing++) {
      const machine = new TestMachine();
      const plugged = machine.plug();
      const before = machine.machine.snapshot();
      let seen = 0;
      plugged.controller.faults = ({ queue, opcode }) =>
        queue === 0 && opcode !== ADMIN.asyncEvent && seen++ === failing
          ? { kind: "status", status: 0x006 }
          : undefined;
      const result = await machine.open(plugged).catch((error: DmaError) => error);
      if (!(result instanceof Error)) {
        expect(failing).toBeGreaterThan(10);
        await machine.run(result.close());
        break;
      }
      expect((result as DmaError).code).toBe("ERR_DMA_NVME_STATUS");
      plugged.domain?.destroy();
      expect(machine.machine.leaks(before)).toEqual([]);
      expect(plugged.dma.counters.leavesWritten).toBe(plugged.dma.counters.leavesCleared);
    }
  });

  test("can be done again after closing", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    for (let i = 0; i < 3; i++) {
      const nvme = await machine.open(plugged);
      await machine.run(nvme.disk.writeBytes(i, Uint8Array.of(i + 1)));
      await machine.run(nvme.close());
      await machine.run(nvme.close());
    }
    const nvme = await machine.open(plugged);
    expect([...(await machine.run(nvme.disk.readBytes(0, 3)))]).toEqual([1, 2, 3]);
    await machine.run(nvme.close());
  });
});

describe("a controller that is stopped", () => {
  test.each(["reset", "unplugged"])("(%s) may move no memory any more before its commands end", async (how) => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { serviceMs: 1 });
    const nvme = await machine.open(plugged);
    const seen: number[] = [];
    const set = plugged.device.setBusMaster.bind(plugged.device);
    plugged.device.setBusMaster = (on) => {
      if (!on) seen.push(nvme.inUse.commands);
      set(on);
    };
    const buffer = machine.scattered(4);
    const work = nvme.read(0, buffer.vecs).catch((error: unknown) => error);
    for (let turn = 0; turn < 8; turn++) await undefined;
    expect(nvme.inUse.commands).toBeGreaterThan(0);
    if (how === "reset") await machine.run(nvme.reset());
    else {
      machine.machine.unplug(plugged.device.node);
      await machine.run(work);
    }
    expect(seen[0]).toBeGreaterThan(0); // when it was forbidden the command was still the device's
    await machine.run(work);
    await machine.run(nvme.close());
    buffer.free();
  });
});
