/** Shared buffers as memory of a disk: mixed memory, moves and revocations under transfers, and who waits for whom. */
import { describe, expect, test } from "vitest";
import { type DmaError, KiB, MiB, PAGE_SIZE, PhysAddr, PhysPage } from "../../src/base/index.ts";
import {
  BarPages,
  DeviceMemoryBuffers,
  DmaBuf,
  Fence,
  type StorageVec,
  VfioDeviceMemory,
} from "../../src/consumers/dmabuf/index.ts";
import { NvmeBuffer } from "../../src/consumers/nvme/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import type { Steps } from "../../src/platform/index.ts";
import { type Mode, TestMachine } from "./machine.ts";

async function stand(mode: Mode) {
  const machine = new TestMachine({
    mode,
    bridges: [{ cpu: { vendor: "AMD", family: 0x19 }, rootPorts: [{ switch: [{}, {}] }] }],
  });
  const before = machine.machine.snapshot();
  const plugged = machine.plug("0.0.0");
  const nvme = await machine.open(plugged);
  const [peer] = machine.machine.plug("0.0.1", new DmaEngine({ memoryBytes: MiB }));
  const bar = peer!.node.bars[0]!;
  const provider = machine.host.peers.add(peer!.node, bar);
  const page = (): PhysAddr => PhysPage.start(machine.machine.pages.allocatePages(1)!);
  const { memory } = machine.machine;
  const fill = (vecs: readonly StorageVec[], value: number): void => {
    for (const { phys, length } of vecs) memory.write(phys, new Uint8Array(length).fill(value++));
  };
  const bytesOf = (vecs: readonly StorageVec[]): number[] =>
    vecs.flatMap(({ phys, length }) => {
      const bytes = new Uint8Array(length);
      memory.read(phys, bytes);
      return [...new Set(bytes)];
    });
  /** Runs steps; where they wait, time and promises go on. */
  const run = async (steps: Steps<void>): Promise<void> => {
    for (let idle = 0; idle < 20; ) {
      const { done, value } = steps.next();
      if (done) return;
      if (value !== "waiting") continue;
      idle = machine.clock.step() ? 0 : idle + 1;
      for (let i = 0; i < 4; i++) await Promise.resolve();
    }
    throw new Error("all wait");
  };
  const finish = async () => {
    await machine.run(nvme.close());
    machine.host.peers.remove(provider);
    machine.machine.unplug(peer!.node);
    plugged.domain?.destroy();
    expect(plugged.dma.counters.leavesWritten).toBe(plugged.dma.counters.leavesCleared);
    expect(machine.faults).toBe(0);
    return machine.machine.leaks(before);
  };
  return { machine, plugged, nvme, provider, bar, page, fill, bytesOf, run, finish };
}

const errnoOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "none",
    (error: DmaError) => `${error.code} ${error.errno}`,
  );

for (const mode of ["strict", "lazy", "direct", "bounced"] as const)
  describe(`a disk's transfers of a shared buffer, ${mode}`, () => {
    test("of RAM and a peer's memory mixed: each part by its own way, and nothing stays mapped", async () => {
      const { machine, plugged, nvme, provider, bar, page, fill, bytesOf, finish } = await stand(mode);
      const ram = [page(), page(), page()].map((phys) => ({ phys, length: PAGE_SIZE }));
      const part = (offset: number): StorageVec => ({ phys: PhysAddr(bar.phys + offset), length: PAGE_SIZE, provider });
      const vecs = [ram[0]!, part(0), part(2 * PAGE_SIZE), ram[1]!, ram[2]!];
      const lengthBytes = vecs.length * PAGE_SIZE;
      const buffer = new DmaBuf({
        name: "mixed",
        lengthBytes,
        form: "vectors",
        teardown: "at-once",
        vectors: () => vecs,
      });
      const shared = new NvmeBuffer(nvme.disk, buffer);
      fill(vecs, 10);
      const start = plugged.dma.counters.snapshot();
      const bounced = machine.poolCounters.bouncedBytes;
      await machine.run(shared.write(0));
      const cost = plugged.dma.counters.since(start);
      // Three runs: what belongs to the peer needs no entry, whatever the IOMMU does with the rest.
      expect([cost.leavesWritten, cost.leavesCleared]).toEqual(mode === "strict" || mode === "lazy" ? [3, 3] : [0, 0]);
      expect(machine.poolCounters.bouncedBytes - bounced).toBe(mode === "bounced" ? 3 * PAGE_SIZE : 0);
      fill(vecs, 100);
      await machine.run(shared.read(8, { offset: PAGE_SIZE, length: 3 * PAGE_SIZE }));
      expect(bytesOf(vecs)).toEqual([100, 11, 12, 13, 104]);
      expect(await machine.run(errnoOf(shared.read(0, { offset: 4 * PAGE_SIZE, length: 2 * PAGE_SIZE })))).toContain(
        "EINVAL",
      );
      shared.detach();
      expect(buffer.liveMaps).toBe(0);
      for (const { phys } of ram) machine.machine.pages.freePages(PhysPage.of(phys), 1);
      expect(await finish()).toEqual([]);
    });
  });

describe("a shared buffer under transfers of a disk", () => {
  test("that moves waits for what is under way, and is followed afterwards", async () => {
    const { machine, plugged, nvme, provider, fill, bytesOf, run } = await stand("strict");
    const { pages, memory } = machine.machine;
    const ownPages = new BarPages(provider);
    const memoryOf = new DeviceMemoryBuffers({
      name: "gpu",
      provider,
      devicePages: ownPages,
      systemPages: pages,
      memory,
    });
    const migrating = memoryOf.allocate(16 * KiB, "system");
    const { buffer } = migrating;
    fill(buffer.exporter.vectors(), 20);
    const before = bytesOf(buffer.exporter.vectors());
    const shared = new NvmeBuffer(nvme.disk, buffer);
    plugged.controller.faults = ({ queue }) => (queue > 0 ? { kind: "slow", ms: 5 } : undefined);
    const writing = shared.write(0);
    await Promise.resolve();
    await Promise.resolve();
    const started = machine.clock.nowMs();
    await run(migrating.migrate(0, 16 * KiB, "device"));
    expect(machine.clock.nowMs() - started).toBeGreaterThanOrEqual(5);
    await machine.run(writing);
    plugged.controller.faults = undefined;
    expect(migrating.placeOf(0)).toBe("device");
    expect(await machine.run(nvme.disk.readBytes(0, 16 * KiB))).toEqual(
      new Uint8Array(await machine.run(shared.write(64).then(() => nvme.disk.readBytes(64 * 512, 16 * KiB)))),
    );
    expect(bytesOf(buffer.exporter.vectors())).toEqual(before);
    shared.detach();
  });

  test("that is revoked ends what is under way first; nothing begins until it is back", async () => {
    const { machine, plugged, nvme, provider, bar, run, fill } = await stand("strict");
    const owner = new VfioDeviceMemory("peer", new Map([[0, { lengthBytes: bar.length, provider }]]));
    const ranges = [0n, 8192n].map((offset) => ({ offset, length: 4096n }));
    const { buffer } = owner.export({ region: 0, openFlags: 2, flags: 0, ranges });
    fill(buffer.exporter.vectors(), 30);
    const shared = new NvmeBuffer(nvme.disk, buffer);
    plugged.controller.faults = ({ queue }) => (queue > 0 ? { kind: "slow", ms: 5 } : undefined);
    let ended = false;
    const writing = shared.write(0).then(() => {
      ended = true;
    });
    for (let i = 0; i < 4; i++) await Promise.resolve();
    const resetting = owner.reset(() => expect(buffer.liveMaps).toBe(0));
    expect(resetting.next().done).toBe(false);
    await Promise.resolve();
    expect(ended).toBe(false);
    expect(await errnoOf(shared.write(64))).toMatch(/ENODEV|EBUSY/);
    await machine.run(writing);
    await run(resetting);
    plugged.controller.faults = undefined;
    await machine.run(shared.write(64)); // the reset is over: it is followed
    await run(owner.writeCommand(0));
    expect(await errnoOf(shared.read(0))).toBe("ERR_DMA_BUF_REVOKED ENODEV");
    expect([buffer.liveMaps, buffer.isRevoked]).toEqual([0, true]);
    shared.detach();
    await run(owner.close());
    expect(buffer.attachments).toEqual([]);
  });

  test("waits for the fences of others, and gives up where the storage went meanwhile", async () => {
    const { machine, nvme, page, fill, bytesOf } = await stand("strict");
    const vecs = [{ phys: page(), length: PAGE_SIZE }];
    const buffer = new DmaBuf({
      name: "own",
      lengthBytes: PAGE_SIZE,
      form: "vectors",
      teardown: "at-once",
      vectors: () => vecs,
    });
    const shared = new NvmeBuffer(nvme.disk, buffer);
    fill(vecs, 1);
    await machine.run(shared.write(0));
    fill(vecs, 2);
    const other = new Fence("a reader");
    buffer.reservation.locked(() => buffer.reservation.addFence(other, "read"));
    const reading = shared.read(0);
    machine.clock.advance(10);
    await Promise.resolve();
    expect(bytesOf(vecs)).toEqual([2]);
    other.signal();
    await machine.run(reading);
    expect(bytesOf(vecs)).toEqual([1]);

    const third = new Fence("a writer");
    buffer.reservation.locked(() => buffer.reservation.addFence(third, "write"));
    const late = errnoOf(shared.write(8));
    const revoking = buffer.revoke();
    revoking.next();
    third.signal();
    expect(await machine.run(late)).toBe("ERR_DMA_NVME_BUFFER EAGAIN");
    for (const _ of revoking);
    shared.detach();
  });

  test("that is given out as a scatter table only is refused", async () => {
    const { nvme } = await stand("direct");
    const table = new DmaBuf({
      name: "table",
      lengthBytes: 4096,
      form: "scatter-table",
      teardown: "deferred",
      vectors: () => [],
    });
    expect(() => new NvmeBuffer(nvme.disk, table)).toThrow(expect.objectContaining({ errno: "EOPNOTSUPP" }));
    expect(table.attachments).toEqual([]);
  });
});
