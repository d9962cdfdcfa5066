/** Memory of an RDMA adapter, exported to others: what is refused and how, traffic into it, and its end under traffic. */
import { describe, expect, test } from "vitest";
import { type DmaError, PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import { type BufferLife, RdmaDeviceMemory, sharedBufferOf } from "../../src/consumers/rdma/index.ts";
import { Rnic } from "../../src/hosts/simulated/index.ts";
import { finish } from "../../src/platform/index.ts";
import { ALL, firstDifference, Pair, START } from "./stand.ts";

const PAGES = 4;
const BYTES = PAGES * PAGE_SIZE;

/** Another adapter with memory of its own beside the one of B, below the same switch. */
function connected() {
  const pair = new Pair();
  const [x, y] = pair.connect();
  const owner = new Rnic({ wire: pair.wire, address: 3, memoryBytes: 65_536 });
  const [pci] = y.side.host.plug("0.0.1", owner);
  const bar = pci!.node.bars[0]!;
  const provider = y.side.host.peers.add(pci!.node, bar);
  const memory = new RdmaDeviceMemory({ name: "owner", provider });
  const { device, pd, process } = x.side;
  const local = device.register(pd, { process, address: START, length: 64 * PAGE_SIZE, access: ALL });
  const register = (buffer: Parameters<typeof sharedBufferOf>[0], life: BufferLife = "dynamic") =>
    y.side.device.registerBuffer(y.side.pd, {
      buffer: sharedBufferOf(buffer),
      life,
      offset: 0,
      length: BYTES,
      access: ALL,
    });
  const write = (key: number): string => {
    const pieces = [{ address: START as number, length: BYTES, key: local.key }];
    x.pair.send({ work: "write", id: 1, pieces, remoteAddress: 0, remoteKey: key });
    return pair.next(x.queue).status;
  };
  return { pair, x, y, bar, memory, register, write };
}

const errnoOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    return (error as DmaError).errno;
  }
};

describe("memory of an adapter", () => {
  test("is one vector for whoever imports it, reached by its address on the bus", () => {
    const { pair, x, y, bar, memory, register, write } = connected();
    const buffer = memory.export(memory.add(PhysAddr(bar.phys + 8192), BYTES));
    const region = register(buffer);
    const sent = x.side.fill(0, PAGES, 1);
    const before = y.side.dma.counters.snapshot();
    expect(write(region.key)).toBe("success");
    const found = new Uint8Array(BYTES);
    y.side.host.machine.memory.read(PhysAddr(bar.phys + 8192), found);
    expect([firstDifference(found, sent), buffer.counts.entries]).toEqual([-1, 1]);
    expect(y.side.dma.counters.since(before).leavesWritten).toBe(0);
    y.side.device.deregister(region.key);
    pair.close(x, y);
    pair.settle();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("that its program frees is gone for importers before it is free: nothing comes through, and no map succeeds", () => {
    const { x, y, bar, memory, register, write } = connected();
    const [first, other] = [memory.add(bar.phys, BYTES), memory.add(PhysAddr(bar.phys + BYTES), BYTES)];
    const [buffer, kept] = [memory.export(first), memory.export(other)];
    const region = register(buffer);
    const sent = x.side.fill(0, PAGES, 1);
    expect(write(region.key)).toBe("success");
    finish(memory.freeSteps(first));
    expect([buffer.isRevoked, buffer.liveMaps, kept.isRevoked, buffer.counts.invalidations]).toEqual([
      true,
      0,
      false,
      1,
    ]);
    x.side.fill(0, PAGES, 2);
    expect(write(region.key)).toBe("remote-access");
    const found = new Uint8Array(BYTES);
    y.side.host.machine.memory.read(bar.phys, found);
    expect(firstDifference(found, sent)).toBe(-1);
    expect([errnoOf(() => register(buffer)), errnoOf(() => memory.export(first))]).toEqual(["ENODEV", "EINVAL"]);
    y.side.device.deregister(region.key);
    finish(memory.removeSteps());
    expect([kept.isRevoked, errnoOf(() => memory.export(other))]).toEqual([true, "EIO"]);
  });

  test("is refused where it is none, where peers cannot reach it, and to who could not lose it", () => {
    const { bar, memory, register } = connected();
    const offset = memory.add(bar.phys, BYTES);
    const outside = memory.add(PhysAddr(bar.phys + bar.length), BYTES);
    expect([errnoOf(() => memory.export(offset + 1)), errnoOf(() => memory.export(outside))]).toEqual([
      "EINVAL",
      "EINVAL",
    ]);
    expect(errnoOf(() => memory.add(bar.phys, 100))).toBe("EINVAL");
    const alone = new RdmaDeviceMemory({ name: "alone" });
    expect(errnoOf(() => alone.export(alone.add(bar.phys, BYTES)))).toBe("EOPNOTSUPP");
    const buffer = memory.export(offset);
    for (const life of ["pinned", "pinned-revocable"] as const)
      expect(errnoOf(() => register(buffer, life))).toBe("EOPNOTSUPP");
    const dma = connected().y.side.dma;
    expect(errnoOf(() => buffer.attach({ name: "with pages only", dma }))).toBe("EOPNOTSUPP");
    expect(buffer.attachments).toEqual([]);
  });
});
