/** The driver and the controller together: data come back, commands end once, and nothing is left when it is closed. */
import { describe, expect, test, vi } from "vitest";
import { DmaError, KiB, MiB, PAGE_SIZE, Random } from "../../src/base/index.ts";
import type { Dma } from "../../src/dma/index.ts";
import { randomFaults } from "../../src/hosts/simulated/index.ts";
import { IO } from "../../src/layouts/nvme/index.ts";
import { many } from "../effort.ts";
import { MODES, TestMachine } from "./machine.ts";
import { expectNothingLeft, IDLE, pattern } from "./stand.ts";

/** One seed each by default. */
const SEEDS = Array.from({ length: many(1) }, (_, i) => i + 1);

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

    test("whose metadata cannot be mapped fails as that does, and its data is mapped no more", async () => {
      const machine = new TestMachine({ mode });
      const plugged = machine.plug("0.0", { namespaces: [{ blocks: 4096, metadataBytes: 8 }] });
      const before = machine.machine.snapshot();
      const nvme = await machine.open(plugged);
      const [data, metadata] = [machine.scattered(8), machine.scattered(1)];
      const one = [{ phys: metadata.vecs[0]!.phys, length: 512 }];
      const refusal = new DmaError("ERR_DMA_NO_SPACE", "EIO", "no");
      const { mapPhys } = plugged.dma;
      const refused = vi.spyOn(plugged.dma, "mapPhys").mockImplementation(function (this: Dma, phys, length, ...rest) {
        if (length === 512) throw refusal;
        return mapPhys.call(this, phys, length, ...rest);
      });
      await expect(machine.run(nvme.write(0, data.vecs, { metadata: one }))).rejects.toMatchObject({ cause: refusal });
      refused.mockRestore();
      await machine.run(nvme.write(0, data.vecs, { metadata: one }));
      for (const buffer of [data, metadata]) buffer.free();
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
