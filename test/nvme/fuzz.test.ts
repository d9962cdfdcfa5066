/** Nonsense from either side: no controller throws whatever a driver writes, no driver whatever a controller says. */
import { describe, expect, test } from "vitest";
import { DmaError, MiB, Random } from "../../src/base/index.ts";
import { NvmeController, SimulatedMachine } from "../../src/hosts/simulated/index.ts";
import {
  ADMIN,
  adminQueueSizes,
  CONFIGURATION,
  CONFIGURATION_4K,
  IO,
  POINTERS,
  REGISTER,
  SGL_TYPE,
  STATUS_REGISTER,
  submissionDoorbell,
  viewOf,
  write64,
} from "../../src/layouts/nvme/index.ts";
import { many } from "../effort.ts";
import { TestMachine } from "./machine.ts";

const RUNS = many(300);

describe("a controller", () => {
  test("takes any registers, doorbells and commands, and works after a reset", () => {
    const random = Random.fromSeed(0xbad);
    const machine = new SimulatedMachine({ memoryBytes: 64 * MiB });
    const controller = new NvmeController({
      namespaces: [{ blocks: 4096, metadataBytes: 8 }],
      cmbBytes: 2 * MiB,
      ioQueues: 2,
    });
    const device = machine.plug("0.0", controller)[0]!;
    device.setBusMaster(true);
    const registers = device.bar(0)!;
    const [commands, completions, data] = [16, 16, 64].map((pages) => machine.ram.allocate(pages * 4096));
    const address = (): number =>
      random.pick([
        data!.phys,
        data!.phys + 4,
        data!.phys + 4096 * random.below(64),
        commands!.phys,
        0,
        2 ** 51,
        random.below(2 ** 53),
      ]);
    const start = (): void => {
      registers.write32(REGISTER.configuration, 0);
      registers.write32(REGISTER.adminQueueSizes, adminQueueSizes(64));
      write64(registers, REGISTER.adminSubmissionQueue, commands!.phys);
      write64(registers, REGISTER.adminCompletionQueue, completions!.phys);
      registers.write32(REGISTER.configuration, CONFIGURATION_4K | CONFIGURATION.enable);
      machine.clock.advance(10);
    };
    const command = (): void => {
      const view = viewOf(commands!.bytes);
      const at = random.below(64) * 64;
      for (let word = 0; word < 64; word += 4)
        view.setUint32(at + word, random.chance(1, 3) ? random.bits() : random.below(4), true);
      view.setUint8(at, random.pick([...Object.values(ADMIN), ...Object.values(IO), random.below(256)]));
      view.setUint8(at + 1, random.pick([POINTERS.prp, POINTERS.sgl, POINTERS.sglMetadata, random.below(256)]));
      view.setBigUint64(at + 24, BigInt(address()), true);
      if (random.chance(1, 2)) view.setBigUint64(at + 32, BigInt(address()), true);
      else view.setUint8(at + 39, random.pick([...Object.values(SGL_TYPE), random.below(256)]));
    };
    for (let run = 0; run < RUNS; run++) {
      start();
      expect(registers.read32(REGISTER.status)).toBe(STATUS_REGISTER.ready);
      for (let i = 0; i < 30; i++) {
        const what = random.below(10);
        if (what < 5) command();
        else if (what < 8) registers.write32(submissionDoorbell(random.below(3), 0), random.below(70));
        else if (what < 9) registers.write32(random.below(0x1100) & ~3, random.bits());
        else
          data!.bytes.set(
            Uint8Array.from({ length: 256 }, () => random.below(256)),
            random.below(200) * 1024,
          );
        machine.clock.advance(random.below(3));
      }
      for (let offset = 0; offset < 0x1040; offset += 4) registers.read32(offset);
    }
    device.reset();
    start();
    expect(registers.read32(REGISTER.status)).toBe(STATUS_REGISTER.ready);
  });
});

describe("a driver", () => {
  test("takes any completions and events, ends every request, and leaves nothing", async () => {
    for (let seed = 1; seed <= Math.max(3, RUNS / 50); seed++) {
      const random = Random.fromSeed(seed);
      const machine = new TestMachine({ seed });
      const plugged = machine.plug("0.0", { serviceMs: 0.2 });
      const before = machine.machine.snapshot();
      const nvme = await machine.open(plugged, { queues: 2, queueDepth: 16, timeoutMs: 20 });
      const nonsense = (): void => {
        const queues = [...plugged.controller.engine.submissionQueues.values()];
        if (queues.length > 0 && random.chance(2, 3))
          plugged.controller.engine.complete(
            random.pick(queues),
            random.below(65_536),
            random.below(0x8000),
            random.bits(),
          );
        else plugged.controller.engine.raiseEvent(random.below(8), random.below(256), random.below(256));
      };
      for (let round = 0; round < 20; round++) {
        const buffers = Array.from({ length: 10 }, () => machine.scattered(1 + random.below(3)));
        const work = buffers.map((buffer, i) =>
          (random.chance(1, 2) ? nvme.read(i * 64, buffer.vecs) : nvme.write(i * 64, buffer.vecs)).catch((error) => {
            expect(error).toBeInstanceOf(DmaError);
          }),
        );
        for (let i = 0; i < 8; i++) {
          nonsense();
          machine.clock.advance(random.below(3) / 10);
        }
        await machine.run(Promise.all(work));
        for (const buffer of buffers) buffer.free();
      }
      expect(nvme.inUse).toEqual({ commands: 0, descriptors: 0, records: 0 });
      await machine.run(nvme.close());
      plugged.domain?.destroy();
      expect(machine.machine.leaks(before)).toEqual([]);
      expect(plugged.dma.counters.leavesWritten).toBe(plugged.dma.counters.leavesCleared);
    }
  });
});
