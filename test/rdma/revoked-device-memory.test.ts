/** Memory of a VFIO device under RDMA traffic: three parts of a BAR as one buffer, a reset, and what is left of each region. */
import { describe, expect, test } from "vitest";
import { DmaError, PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import { SystemHeap, VfioDeviceMemory } from "../../src/consumers/dmabuf/index.ts";
import { type BufferLife, type MemoryRegion, sharedBufferOf } from "../../src/consumers/rdma/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import { finish } from "../../src/platform/index.ts";
import { ALL, firstDifference, Pair, START } from "./stand.ts";

const PARTS = [8, 2, 5].map((page) => ({ offset: BigInt(page * PAGE_SIZE), length: BigInt(2 * PAGE_SIZE) }));
const BYTES = 6 * PAGE_SIZE;

function connected(slot: string) {
  const pair = new Pair();
  const [x, y] = pair.connect();
  const { device, pd, process } = x.side;
  const local = device.register(pd, { process, address: START, length: 64 * PAGE_SIZE, access: ALL });
  const [pci] = y.side.host.plug(slot, new DmaEngine({ memoryBytes: 65_536 }));
  const bar = pci!.node.bars[0]!;
  const provider = y.side.host.peers.add(pci!.node, bar);
  const owner = new VfioDeviceMemory("exporter", new Map([[0, { lengthBytes: bar.length, provider }]]));
  const { buffer } = owner.export({ region: 0, openFlags: 2, flags: 0, ranges: PARTS });
  const register = (life: BufferLife): MemoryRegion =>
    y.side.device.registerBuffer(y.side.pd, {
      buffer: sharedBufferOf(buffer),
      life,
      offset: 0,
      length: BYTES,
      access: ALL,
    });
  const write = ({ key }: MemoryRegion): string => {
    const pieces = [{ address: START as number, length: BYTES, key: local.key }];
    x.pair.send({ work: "write", id: 1, pieces, remoteAddress: 0, remoteKey: key });
    return pair.next(x.queue).status;
  };
  const content = (): Uint8Array => {
    const bytes = new Uint8Array(BYTES);
    for (const [i, { offset }] of PARTS.entries()) {
      const part = bytes.subarray(i * 2 * PAGE_SIZE, (i + 1) * 2 * PAGE_SIZE);
      y.side.host.machine.memory.read(PhysAddr(bar.phys + Number(offset)), part);
    }
    return bytes;
  };
  return { pair, x, y, owner, buffer, register, write, content };
}

describe.each([
  ["below the same switch", "0.0.1"],
  ["behind the bridge", "0.1"],
])("three parts of a BAR %s, as one region", (_name, slot) => {
  test("that follows: a reset takes it away before it happens, and afterwards it is mapped again", () => {
    const { pair, x, y, owner, buffer, register, write, content } = connected(slot);
    const region = register("dynamic");
    const first = x.side.fill(0, 6, 1);
    expect(write(region)).toBe("success");
    expect(firstDifference(content(), first)).toBe(-1);
    finish(
      owner.reset(() => {
        expect([buffer.liveMaps, buffer.isRevoked]).toEqual([0, true]);
      }),
    );
    const second = x.side.fill(0, 6, 2);
    expect(write(region)).toBe("success");
    expect(firstDifference(content(), second)).toBe(-1);
    finish(owner.writeCommand(0));
    expect(write(region)).toBe("remote-access");
    expect(firstDifference(content(), second)).toBe(-1);
    y.side.device.deregister(region.key);
    expect(buffer.attachments).toHaveLength(0);
    finish(owner.close());
    pair.close(x, y);
    pair.settle();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("that is pinned and revocable: a reset ends it for good, and its key is not given to others", () => {
    const { pair, x, y, owner, buffer, register, write, content } = connected(slot);
    const region = register("pinned-revocable");
    const sent = x.side.fill(0, 6, 1);
    expect(write(region)).toBe("success");
    finish(owner.reset());
    expect([region.state, buffer.liveMaps]).toEqual(["revoked", 0]);
    x.side.fill(0, 6, 2);
    expect(write(region)).toBe("remote-access");
    expect(firstDifference(content(), sent)).toBe(-1);
    y.side.device.deregister(region.key);
    finish(owner.close());
    pair.close(x, y);
    pair.settle();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("that could not be told is refused", () => {
    const { register, buffer } = connected(slot);
    expect(() => register("pinned")).toThrow(DmaError);
    expect(buffer.attachments).toHaveLength(0);
  });
});

test("a heap's buffer stays where it is, pinned without being told", () => {
  const { a } = new Pair();
  const { pages } = a.host.machine;
  const { buffer } = new SystemHeap({ pages }).allocate({ lengthBytes: 65_536 });
  const ask = { buffer: sharedBufferOf(buffer), offset: 0, length: 65_536, access: ALL };
  const region = a.device.registerBuffer(a.pd, { ...ask, life: "pinned" });
  expect(region.backing.list!.entries).toBeGreaterThan(0);
  a.device.deregister(region.key);
  expect(buffer.liveMaps).toBe(0);
});
