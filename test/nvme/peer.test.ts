/** From disk to disk without RAM: below one switch, through the host bridge, or refused. Data are compared each time. */
import { describe, expect, test } from "vitest";
import { type DmaError, MiB, PAGE_SIZE } from "../../src/base/index.ts";
import type { Nvme, PeerMemory } from "../../src/consumers/nvme/index.ts";
import { CMB_BAR } from "../../src/hosts/simulated/index.ts";
import { ACS } from "../../src/layouts/pci/index.ts";
import { MODES, type Mode, type Plugged, TestMachine } from "./machine.ts";

interface Two {
  readonly machine: TestMachine;
  readonly a: Plugged;
  readonly b: Plugged;
  readonly diskA: Nvme;
  readonly diskB: Nvme;
  readonly lent: PeerMemory;
  readonly before: Record<string, number>;
}

/** Two disks below one switch; A has 8 MiB of memory of its own. */
async function two(mode: Mode, cpu: { vendor: string; family: number }, redirect: boolean): Promise<Two> {
  const machine = new TestMachine({ mode, bridges: [{ cpu, rootPorts: [{ switch: [{}, {}] }] }] });
  const before = machine.machine.snapshot();
  const a = machine.plug("0.0.0", { cmbBytes: 8 * MiB });
  const b = machine.plug("0.0.1");
  if (redirect) for (const { device } of [a, b]) device.node.parent!.acsControl = ACS.requestRedirect;
  const [diskA, diskB] = [await machine.open(a), await machine.open(b)];
  const lent = diskA.lendMemory(a.device.node.bars.find(({ index }) => index === CMB_BAR)!)!;
  return { machine, a, b, diskA, diskB, lent, before };
}

const AMD = { vendor: "AMD", family: 0x17 };
const INTEL = { vendor: "Intel", family: 6 };
const pattern = (i: number) => (i * 11 + (i >> 9) * 3) & 0xff;

/** Puts 1 MiB on A, copies it to B through A's memory, and compares it there. What the copy cost B. */
async function copy({ machine, b, diskA, diskB, lent }: Two) {
  const source = machine.scattered(256).fill(pattern);
  await machine.run(diskA.write(0, source.vecs));
  await machine.run(diskA.read(0, [lent.vec(MiB, MiB)]));
  const before = b.dma.counters.snapshot();
  const mapped = diskB.counters.singles;
  await machine.run(diskB.write(512, [lent.vec(MiB, MiB)]));
  const cost = b.dma.counters.since(before);
  expect(diskB.counters.singles).toBe(mapped);
  const back = machine.scattered(256);
  await machine.run(diskB.read(512, back.vecs));
  expect(Buffer.compare(back.bytes, source.bytes)).toBe(0);
  source.free();
  back.free();
  return cost;
}

async function finish({ machine, a, b, diskA, diskB, lent, before }: Two) {
  for (const { inUse } of [diskA, diskB]) expect(inUse).toEqual({ commands: 0, descriptors: 0, records: 0 });
  lent[Symbol.dispose]();
  await machine.run(Promise.all([diskA.close(), diskB.close()]));
  for (const { domain, dma } of [a, b]) {
    domain?.destroy();
    expect(dma.counters.leavesWritten).toBe(dma.counters.leavesCleared);
  }
  expect(machine.machine.leaks(before)).toEqual([]);
}

for (const mode of MODES)
  describe(`a peer's memory, ${mode}`, () => {
    test("below one switch is reached by its address on the bus: nothing is mapped, and nothing unmapped", async () => {
      const both = await two(mode, INTEL, false);
      const { fabric } = both.machine.machine;
      const turned = fabric.turnedAround;
      const cost = await copy(both);
      expect([cost.iovaAllocations, cost.leavesWritten, cost.mapSyncs, cost.bouncedBytes]).toEqual([0, 0, 0, 0]);
      expect(fabric.turnedAround - turned).toBeGreaterThanOrEqual(256);
      await finish(both);
    });

    test("with redirection goes through the host bridge of a processor that passes it on", async () => {
      const both = await two(mode, AMD, true);
      const { fabric } = both.machine.machine;
      if (mode === "bounced") {
        // It would have to be bounced, which a peer's memory cannot be.
        await expect(copy(both)).rejects.toMatchObject({ code: "ERR_DMA_NVME_REQUEST", errno: "EIO" });
        return;
      }
      const [turned, passed] = [fabric.turnedAround, fabric.passedOn];
      const cost = await copy(both);
      expect([fabric.turnedAround - turned, fabric.passedOn - passed >= 256]).toEqual([0, true]);
      const translated = mode.endsWith("lazy") || mode.endsWith("strict");
      expect([cost.iovaAllocations, cost.leavesWritten, cost.mapSyncs]).toEqual(translated ? [8, 256, 8] : [0, 0, 0]);
      if (mode.endsWith("strict")) expect(cost.rangeInvalidations).toBe(8);
      if (mode.endsWith("lazy")) expect([cost.rangeInvalidations, cost.flushQueueEntries]).toEqual([0, 8]);
      await finish(both);
    });

    test("with redirection and another processor is refused before any command is sent, and nothing is mapped", async () => {
      const both = await two(mode, INTEL, true);
      const { machine, b, diskB, lent } = both;
      const { commands } = b.controller;
      const counters = b.dma.counters.snapshot();
      await expect(machine.run(diskB.write(0, [lent.vec(0, PAGE_SIZE)]))).rejects.toMatchObject({ errno: "EINVAL" });
      expect([b.controller.commands, b.dma.counters.since(counters).leavesWritten]).toEqual([commands, 0]);
      await finish(both);
    });
  });

describe("a request", () => {
  test("of RAM and a peer's memory is refused when it is built, as is one of two peers", async () => {
    const both = await two("strict", INTEL, false);
    const { machine, diskB, lent } = both;
    const ram = machine.scattered(1);
    await expect(machine.run(diskB.write(0, [lent.vec(0, PAGE_SIZE), ...ram.vecs]))).rejects.toMatchObject({
      code: "ERR_DMA_BLOCK_MIXED",
    });
    await expect(machine.run(diskB.write(0, [...ram.vecs, lent.vec(0, PAGE_SIZE)]))).rejects.toMatchObject({
      code: "ERR_DMA_BLOCK_MIXED",
    });
  });

  test("for memory that is lent no more is RAM to nobody: the transfer comes to nothing", async () => {
    const both = await two("strict", INTEL, false);
    const { machine, diskB, lent } = both;
    const vec = lent.vec(0, PAGE_SIZE);
    lent[Symbol.dispose]();
    expect(machine.host.peers.providers).toEqual([]);
    await expect(machine.run(diskB.write(0, [vec]))).rejects.toMatchObject({ code: "ERR_DMA_NVME_STATUS" });
  });
});

describe("pulling out", () => {
  test("a disk with 256 requests in flight, half of them for a peer's memory, ends each once", async () => {
    const both = await two("strict", INTEL, false);
    const { machine, b, diskB, lent } = both;
    b.controller.faults = ({ queue }) => (queue > 0 ? { kind: "slow", ms: 5 } : undefined);
    const ram = Array.from({ length: 128 }, () => machine.scattered(2));
    const ends: string[] = [];
    const work = Array.from({ length: 256 }, (_, i) =>
      diskB
        .write(i * 16, i % 2 === 0 ? ram[i >> 1]!.vecs : [lent.vec(i * 8192, 8192)])
        .catch((error: DmaError) => ends.push(error.errno)),
    );
    machine.clock.advance(1);
    expect(diskB.inUse.commands).toBe(256);
    machine.machine.unplug(b.device.node);
    await machine.run(Promise.all(work));
    expect([ends.length, new Set(ends)]).toEqual([256, new Set(["ENODEV"])]);
    for (const buffer of ram) buffer.free();
    machine.clock.advance(10); // what it was still working on comes to nothing
    await finish(both);
    expect(machine.unit.faults).toEqual([]);
  });

  test("the owner of lent memory ends the transfers that use it, and nothing else", async () => {
    const both = await two("strict", INTEL, false);
    const { machine, a, diskA, diskB, lent } = both;
    const own = diskA.read(0, [lent.vec(0, MiB)]).catch((error: DmaError) => error.errno);
    const other = diskB.write(0, [lent.vec(MiB, MiB)]).catch((error: DmaError) => error.code);
    machine.machine.unplug(a.device.node);
    expect(await machine.run(own)).toBe("ENODEV");
    expect(await machine.run(other)).toBe("ERR_DMA_NVME_STATUS");
    const buffer = machine.scattered(16).fill(pattern);
    await machine.run(diskB.write(0, buffer.vecs));
    expect(await machine.run(diskB.disk.compare(0, buffer.vecs))).toBe(true);
    buffer.free();
    await finish(both);
  });
});

describe("a controller memory buffer", () => {
  const lend = async (uses: { readData?: boolean; writeData?: boolean }, cmbBytes: number, queues = false) => {
    const machine = new TestMachine();
    const a = machine.plug("0.0", { cmbBytes, cmbUses: uses });
    const disk = await machine.open(a, { submissionQueuesInCmb: queues });
    const bar = a.device.node.bars.find(({ index }) => index === CMB_BAR)!;
    return { machine, disk, lent: disk.lendMemory(bar) };
  };

  test("is lent only if it holds data both ways and in whole pieces of 2 MiB", async () => {
    expect((await lend({}, 4 * MiB)).lent?.length).toBe(4 * MiB);
    expect((await lend({ readData: false }, 4 * MiB)).lent).toBeUndefined();
    expect((await lend({ writeData: false }, 4 * MiB)).lent).toBeUndefined();
    expect((await lend({}, MiB)).lent).toBeUndefined();
  });

  test("is lent but for what its queues need", async () => {
    const { lent } = await lend({}, 4 * MiB, true);
    expect(lent?.length).toBe(2 * MiB);
  });

  test("that cannot hold data refuses them", async () => {
    const { machine, disk } = await lend({ writeData: false }, 4 * MiB);
    const { cmb } = disk;
    const vec = { phys: cmb!.busAddress as never, length: PAGE_SIZE };
    // By hand, without asking anybody: the controller itself says no.
    const direct = new TestMachine({ mode: "direct" });
    const plugged = direct.plug("0.0", { cmbBytes: 4 * MiB, cmbUses: { readData: false } });
    const own = await direct.open(plugged);
    expect(own.cmb!.holdsData).toBe(false);
    await expect(direct.run(own.read(0, [{ ...vec, phys: own.cmb!.busAddress as never }]))).rejects.toThrow("cmbUse");
    await machine.run(disk.close());
  });
});
