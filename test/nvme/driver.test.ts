/** The driver and the controller together: data come back, commands end once, and nothing is left when it is closed. */
import { describe, expect, test } from "vitest";
import { type DmaAddr, DmaError, KiB, MiB, PAGE_SIZE, type PhysAddr, Random } from "../../src/base/index.ts";
import type { Nvme } from "../../src/consumers/nvme/index.ts";
import type { NvmeFault } from "../../src/hosts/simulated/index.ts";
import { randomFaults } from "../../src/hosts/simulated/index.ts";
import { ADMIN, IO } from "../../src/layouts/nvme/index.ts";
import { MODES, type Plugged, TestMachine } from "./machine.ts";

const IDLE = { commands: 0, descriptors: 0, records: 0 };
/** One seed each; more by hand: `DMALINK_NVME=20000 npx vitest run test/nvme`. */
const SEEDS = Array.from({ length: Math.max(1, Number(process.env.DMALINK_NVME ?? 0) / 1000) }, (_, i) => i + 1);
const pattern = (salt: number) => (i: number) => (i * 7 + (i >> 8) * 13 + salt) & 0xff;

/** Everything is as it was: no entry in the page table, no page, no slot of a bounce pool. */
async function expectNothingLeft(machine: TestMachine, plugged: Plugged, nvme: Nvme, before: Record<string, number>) {
  await machine.run(nvme.close());
  plugged.domain?.destroy();
  expect(machine.machine.leaks(before)).toEqual([]);
  expect(machine.faults).toBe(0);
  const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = plugged.dma.counters;
  expect(leavesWritten - leavesCleared).toBe(0);
  if (machine.mode.endsWith("strict")) expect(iovaAllocations).toBe(iovaFrees);
}

for (const mode of MODES)
  describe(`a disk, ${mode}`, () => {
    test("gives back what was written, through any memory, and leaves nothing", async () => {
      const machine = new TestMachine({ mode });
      const plugged = machine.plug();
      const before = machine.machine.snapshot();
      const nvme = await machine.open(plugged);
      const random = Random.fromSeed(5);
      const shadow = new Uint8Array(2 * MiB);
      for (let round = 0; round < 40; round++) {
        const pages = 1 + random.below(64);
        const firstBlock = 8 * random.below(512 - pages);
        const buffer = machine.scattered(pages).fill(pattern(round));
        await machine.run(nvme.write(firstBlock, buffer.vecs));
        shadow.set(buffer.bytes, firstBlock * 512);
        const back = machine.scattered(pages);
        const from = 8 * random.below(512 - pages);
        await machine.run(nvme.read(from, back.vecs));
        expect(Buffer.compare(back.bytes, shadow.subarray(from * 512, from * 512 + pages * PAGE_SIZE))).toBe(0);
        buffer.free();
        back.free();
      }
      expect(nvme.inUse).toEqual(IDLE);
      await expectNothingLeft(machine, plugged, nvme, before);
    });

    test("takes any bytes at any place", async () => {
      const machine = new TestMachine({ mode });
      const plugged = machine.plug("0.0", { sgls: 0 });
      const before = machine.machine.snapshot();
      const nvme = await machine.open(plugged);
      const shadow = new Uint8Array(64 * KiB);
      const random = Random.fromSeed(9);
      for (let round = 0; round < 25; round++) {
        const offset = random.below(60 * KiB);
        const bytes = Uint8Array.from({ length: 1 + random.below(4000) }, () => random.below(256));
        await machine.run(nvme.disk.writeBytes(offset, bytes));
        shadow.set(bytes, offset);
      }
      expect(
        Buffer.compare(await machine.run(nvme.disk.readBytes(3, 60 * KiB)), shadow.subarray(3, 3 + 60 * KiB)),
      ).toBe(0);
      await expectNothingLeft(machine, plugged, nvme, before);
    });

    test("with many requests at once on several queues ends each of them once", async () => {
      const machine = new TestMachine({ mode });
      const plugged = machine.plug("0.0", { serviceMs: 0.1 });
      const before = machine.machine.snapshot();
      const nvme = await machine.open(plugged, { queues: 3, queueDepth: 16 });
      const buffers = Array.from({ length: 120 }, (_, i) => machine.scattered(3).fill(pattern(i)));
      let ended = 0;
      const count = () => {
        ended++;
      };
      await machine.run(Promise.all(buffers.map((buffer, i) => nvme.write(i * 24, buffer.vecs).then(count))));
      const back = buffers.map(() => machine.scattered(3));
      await machine.run(Promise.all(back.map((buffer, i) => nvme.read(i * 24, buffer.vecs).then(count))));
      expect(ended).toBe(240);
      back.forEach((buffer, i) => {
        expect(Buffer.compare(buffer.bytes, buffers[i]!.bytes)).toBe(0);
      });
      for (const buffer of [...buffers, ...back]) buffer.free();
      await expectNothingLeft(machine, plugged, nvme, before);
    });

    test("with metadata keeps those, too, in one piece or in several", async () => {
      const machine = new TestMachine({ mode });
      const plugged = machine.plug("0.0", { namespaces: [{ blocks: 4096, metadataBytes: 8 }] });
      const before = machine.machine.snapshot();
      const nvme = await machine.open(plugged);
      const data = machine.scattered(8).fill(pattern(1));
      const metadata = machine.scattered(1).fill(pattern(2));
      const { phys } = metadata.vecs[0]!;
      const three = [0, 200, 400].map((at, i) => ({ phys: (phys + at) as typeof phys, length: [200, 200, 112][i]! }));
      await machine.run(nvme.write(0, data.vecs, { metadata: three }));
      const [back, metadataBack] = [machine.scattered(8), machine.scattered(1)];
      const one = [{ phys: metadataBack.vecs[0]!.phys, length: 512 }];
      await machine.run(nvme.read(0, back.vecs, { metadata: one }));
      expect(Buffer.compare(back.bytes, data.bytes)).toBe(0);
      expect(Buffer.compare(metadataBack.bytes.subarray(0, 512), metadata.bytes.subarray(0, 512))).toBe(0);
      await expect(machine.run(nvme.read(0, back.vecs))).rejects.toMatchObject({ code: "ERR_DMA_BLOCK_INTEGRITY" });
      for (const buffer of [data, metadata, back, metadataBack]) buffer.free();
      await expectNothingLeft(machine, plugged, nvme, before);
    });

    for (const seed of SEEDS)
      test(`under random faults of the controller, never shows wrong data and leaves nothing (seed ${seed})`, async () => {
        const machine = new TestMachine({ mode, seed });
        const plugged = machine.plug("0.0", { serviceMs: 0.1 });
        const before = machine.machine.snapshot();
        const nvme = await machine.open(plugged, { queues: 2, queueDepth: 8, timeoutMs: 50 });
        plugged.controller.faults = randomFaults(Random.fromSeed(77 * seed), {
          lost: 15,
          slow: 60,
          status: 60,
          "transfer-error": 40,
          duplicate: 60,
          "wrong-id": 30,
        });
        const shadow = new Map<number, number>();
        const random = Random.fromSeed(3 * seed);
        for (let round = 0; round < 30; round++) {
          const work = Array.from({ length: 12 }, async (_, i) => {
            const slot = round % 2 === 0 ? i : random.below(12);
            const buffer = machine.scattered(2);
            try {
              if (round % 2 === 0) {
                shadow.delete(slot); // until it is known to have been written, anything may be there
                await nvme.write(slot * 16, buffer.fill(pattern(round * 16 + i)).vecs);
                shadow.set(slot, round * 16 + i);
              } else {
                await nvme.read(slot * 16, buffer.vecs);
                const salt = shadow.get(slot);
                if (salt !== undefined)
                  expect(Array.from(buffer.bytes.subarray(0, 64))).toEqual(
                    Array.from({ length: 64 }, (_, at) => pattern(salt)(at)),
                  );
              }
            } catch (error) {
              expect(error).toBeInstanceOf(DmaError);
            }
            buffer.free();
          });
          await machine.run(Promise.all(work));
        }
        expect(nvme.state).toBe("live");
        expect(nvme.warnings.retries).toBeGreaterThan(0);
        expect(nvme.warnings.notInFlight + nvme.warnings.staleGeneration).toBeGreaterThan(0);
        expect(nvme.inUse).toEqual(IDLE);
        plugged.controller.faults = undefined;
        await expectNothingLeft(machine, plugged, nvme, before);
      });

    test("pulled out with 256 requests in flight ends each of them once, offline, and nothing is mapped", async () => {
      const machine = new TestMachine({ mode });
      const before = machine.machine.snapshot();
      const plugged = machine.plug("0.0", { serviceMs: 5 });
      plugged.controller.faults = ({ id, queue }) =>
        queue > 0 && id % 3 === 0 ? { kind: "late", ms: 100 } : undefined;
      const nvme = await machine.open(plugged, { queues: 2, queueDepth: 200 });
      const buffers = Array.from({ length: 256 }, () => machine.scattered(2));
      const ends = Array.from({ length: 256 }, () => 0);
      const reads = buffers.map((buffer, i) =>
        nvme.read(i * 16, buffer.vecs).then(
          () => "read",
          (error: DmaError) => {
            ends[i]!++;
            return error.code;
          },
        ),
      );
      machine.clock.advance(1);
      expect(nvme.inUse.commands).toBe(256);
      machine.machine.unplug(plugged.device.node);
      const results = await machine.run(Promise.all(reads));
      expect(new Set(results)).toEqual(new Set(["ERR_DMA_NVME_REQUEST"]));
      expect([nvme.state, nvme.inUse]).toEqual(["dead", IDLE]);
      machine.clock.advance(200); // what the device did not let go of comes to nothing
      expect(ends.every((count) => count === 1)).toBe(true);
      for (const buffer of buffers) buffer.free();
      await expect(machine.run(nvme.read(0, []))).rejects.toMatchObject({ code: "ERR_DMA_NVME_CLOSED" });
      await expectNothingLeft(machine, plugged, nvme, before);
      const again = await machine.open(machine.plug("0.0"));
      await machine.run(again.flush());
      await machine.run(again.close());
    });
  });

describe("commands", () => {
  test("flush, write zeroes, discard and compare do what they say", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const nvme = await machine.open(plugged);
    const buffer = machine.scattered(4).fill(pattern(3));
    await machine.run(nvme.write(0, buffer.vecs, { forceUnitAccess: true }));
    await machine.run(nvme.flush());
    expect(await machine.run(nvme.disk.compare(0, buffer.vecs))).toBe(true);
    await machine.run(nvme.disk.writeZeroes(8, 8));
    expect(await machine.run(nvme.disk.compare(0, buffer.vecs))).toBe(false);
    await machine.run(
      nvme.disk.discard([
        { firstBlock: 0, blocks: 8 },
        { firstBlock: 16, blocks: 8 },
      ]),
    );
    await machine.run(nvme.read(0, buffer.vecs));
    expect([...new Set(buffer.bytes.subarray(0, 3 * PAGE_SIZE))]).toEqual([0]);
    expect(buffer.bytes[3 * PAGE_SIZE + 1]).toBe(pattern(3)(3 * PAGE_SIZE + 1));
    await machine.run(nvme.disk.writeZeroes(0, 200_000)); // more than one command can say
    await machine.run(nvme.disk.discard(Array.from({ length: 600 }, (_, i) => ({ firstBlock: i * 8, blocks: 8 }))));
    await machine.run(nvme.close());
  });

  test("are refused before they are sent if they cannot be right", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { namespaces: [{ blocks: 64 }] });
    const nvme = await machine.open(plugged);
    const { commands } = plugged.controller;
    const buffer = machine.scattered(1);
    const refused = (promise: Promise<unknown>, code: string) =>
      expect(machine.run(promise)).rejects.toMatchObject({ code });
    await refused(nvme.read(60, buffer.vecs), "ERR_DMA_NVME_RANGE");
    await refused(nvme.read(-1, buffer.vecs), "ERR_DMA_NVME_RANGE");
    await refused(nvme.read(0.5, buffer.vecs), "ERR_DMA_NVME_RANGE");
    await refused(nvme.read(0, []), "ERR_DMA_BLOCK_ALIGNMENT");
    await refused(nvme.read(0, [{ ...buffer.vecs[0]!, length: 100 }]), "ERR_DMA_BLOCK_ALIGNMENT");
    await refused(nvme.disk.writeZeroes(0, 65), "ERR_DMA_NVME_RANGE");
    await refused(nvme.disk.readBytes(-1, 4), "ERR_DMA_NVME_RANGE");
    await refused(nvme.disk.writeBytes(32_767, Uint8Array.of(1, 2)), "ERR_DMA_NVME_RANGE");
    expect((await machine.run(nvme.disk.readBytes(7, 0))).length).toBe(0);
    await machine.run(nvme.disk.writeBytes(7, new Uint8Array(0)));
    await refused(nvme.disk.discard([{ firstBlock: 64, blocks: 1 }]), "ERR_DMA_NVME_RANGE");
    expect(() => nvme.namespace(2)).toThrow(expect.objectContaining({ code: "ERR_DMA_NVME_NAMESPACE" }));
    expect(plugged.controller.commands).toBe(commands);
    await machine.run(nvme.close());
    await refused(nvme.read(0, buffer.vecs), "ERR_DMA_NVME_CLOSED");
  });

  test("of several namespaces go to their own", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { namespaces: [{ blocks: 64 }, { blocks: 32, blockBytes: 4096 }] });
    const nvme = await machine.open(plugged);
    expect(nvme.namespaces.map(({ id, blocks, blockBytes }) => [id, blocks, blockBytes])).toEqual([
      [1, 64, 512],
      [2, 32, 4096],
    ]);
    await machine.run(nvme.namespace(2).writeBytes(5000, Uint8Array.of(1, 2, 3)));
    expect([...(await machine.run(nvme.namespace(2).readBytes(4999, 5)))]).toEqual([0, 1, 2, 3, 0]);
    expect([...(await machine.run(nvme.disk.readBytes(5000, 3)))]).toEqual([0, 0, 0]);
    await machine.run(nvme.close());
  });

  test("of 1 MiB behind an IOMMU are eight, each one range, one sync and one invalidation", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const nvme = await machine.open(plugged);
    const buffer = machine.scattered(256);
    const before = plugged.dma.counters.snapshot();
    const { metadataBytes } = nvme.counters;
    await machine.run(nvme.read(0, buffer.vecs));
    const { iovaAllocations, leavesWritten, mapSyncs, rangeInvalidations } = plugged.dma.counters.since(before);
    expect([iovaAllocations, leavesWritten, mapSyncs, rangeInvalidations]).toEqual([8, 256, 8, 8]);
    expect(nvme.counters.metadataBytes - metadataBytes).toBe(8 * 16);
    await machine.run(nvme.close());
  });

  test("of a controller without SGLs are split where PRPs could not go on", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { sgls: 0 });
    const nvme = await machine.open(plugged);
    const buffer = machine.scattered(2).fill(pattern(1));
    const vecs = buffer.vecs.map(({ phys }) => ({ phys: (phys + 512) as typeof phys, length: 1024 }));
    const { commands } = plugged.controller;
    await machine.run(nvme.write(0, vecs));
    expect(plugged.controller.commands - commands).toBe(2);
    const withSgl = machine.plug("0.1");
    const other = await machine.open(withSgl);
    const was = withSgl.controller.commands;
    await machine.run(other.write(0, vecs));
    expect(withSgl.controller.commands - was).toBe(1);
    await machine.run(Promise.all([nvme.close(), other.close()]));
  });
});

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

describe("opening", () => {
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

describe("besides", () => {
  test("events of the controller are told, one after the other", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const events: unknown[] = [];
    const nvme = await machine.open(plugged, { onEvent: (event) => events.push(event) });
    await machine.run(nvme.flush());
    plugged.controller.engine.raiseEvent(2, 0, 3);
    plugged.controller.engine.raiseEvent(1, 1, 2);
    for (let i = 0; i < 5; i++) await machine.run(nvme.flush());
    expect(events).toEqual([
      { type: 2, information: 0, logPage: 3 },
      { type: 1, information: 1, logPage: 2 },
    ]);
    await machine.run(nvme.close());
  });

  test("submission queues in the controller's memory work as those in RAM", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug("0.0", { cmbBytes: MiB });
    const nvme = await machine.open(plugged, { submissionQueuesInCmb: true, queues: 2 });
    const buffer = machine.scattered(16).fill(pattern(4));
    await machine.run(nvme.write(0, buffer.vecs));
    expect(await machine.run(nvme.disk.compare(0, buffer.vecs))).toBe(true);
    expect(plugged.controller.cmb.some((byte) => byte !== 0)).toBe(true);
    await machine.run(nvme.reset());
    expect(await machine.run(nvme.disk.compare(0, buffer.vecs))).toBe(true);
    await machine.run(nvme.close());
  });

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

  test("a command that fails for good says why", async () => {
    const machine = new TestMachine();
    const plugged = machine.plug();
    const nvme = await machine.open(plugged);
    plugged.controller.faults = ({ opcode, queue }) =>
      queue > 0 && opcode === IO.read ? { kind: "status", status: 0x281 } : undefined;
    const buffer = machine.scattered(1);
    const { commands } = plugged.controller;
    await expect(machine.run(nvme.read(7, buffer.vecs))).rejects.toThrow(
      "read of block 7 and after failed: unrecoveredRead",
    );
    expect(plugged.controller.commands - commands).toBe(6); // once, and five times again
    await machine.run(nvme.close());
  });
});
