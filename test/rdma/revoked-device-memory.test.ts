/** Memory of a VFIO device under RDMA traffic: three parts of a BAR as one buffer, a reset, and what is left of each region. */
import { describe, expect, test } from "vitest";
import { DmaAddr, DmaError, PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import { SystemHeap, VfioDeviceMemory } from "../../src/consumers/dmabuf/index.ts";
import { Iommufd, UnitDevice, UnitIommu } from "../../src/consumers/iommufd/index.ts";
import { type BufferLife, type MemoryRegion, sharedBufferOf } from "../../src/consumers/rdma/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import { vtdSecondStage } from "../../src/layouts/pagetable/index.ts";
import { finish } from "../../src/platform/index.ts";
import { ALL, firstDifference, Pair, type Side, START } from "./stand.ts";

const PARTS = [8, 2, 5].map((page) => ({ offset: BigInt(page * PAGE_SIZE), length: BigInt(2 * PAGE_SIZE) }));
const BYTES = 6 * PAGE_SIZE;

function connected(slot: string, parts: typeof PARTS = PARTS) {
  const pair = new Pair();
  const [x, y] = pair.connect();
  const { device, pd, process } = x.side;
  const local = device.register(pd, { process, address: START, length: 64 * PAGE_SIZE, access: ALL });
  const [pci] = y.side.host.plug(slot, new DmaEngine({ memoryBytes: 65_536 }));
  const bar = pci!.node.bars[0]!;
  const provider = y.side.host.peers.add(pci!.node, bar);
  const owner = new VfioDeviceMemory("exporter", new Map([[0, { lengthBytes: bar.length, provider }]]));
  const { buffer } = owner.export({ region: 0, openFlags: 2, flags: 0, ranges: parts });
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
    let at = 0;
    for (const { offset, length } of parts) {
      const part = bytes.subarray(at, at + Number(length));
      at += Number(length);
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

/** A device that a program drives by iommufd, on the machine of `side`: it does DMA through the tables that iommufd fills. */
function byIommufd(side: Side) {
  const { host } = side;
  const engine = new DmaEngine();
  const [slot] = host.plug("0.1", engine);
  slot!.setBusMaster(true);
  const iommu = new UnitIommu({ unit: host.tablesUnit!, layout: vtdSecondStage() });
  const iommufd = new Iommufd();
  const ioas = iommufd.createIoas();
  const bound = iommufd.bind(new UnitDevice({ name: slot!.name, iommu, requester: slot!.requester }));
  iommufd.attach(bound, ioas.id);
  const leave = (): void => {
    iommufd.unbind(bound);
    iommufd.release();
  };
  const write = (iova: number, bytes: Uint8Array): boolean =>
    engine.scatter([{ address: DmaAddr(iova), length: bytes.length }], bytes);
  return { iommufd, ioas, write, leave };
}

const errnoOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    return (error as DmaError).errno;
  }
};

describe("one buffer of a device's memory in the hands of two regions and an address space of iommufd", () => {
  const IOVA = 0x1000_0000;
  const ONE = [{ offset: BigInt(8 * PAGE_SIZE), length: BigInt(BYTES) }];

  test.each(["registrations first", "iommufd first"])(
    "a reset takes it from all three before it happens (%s leave)",
    (order) => {
      const { pair, x, y, owner, register, write, content } = connected("0.0.1", ONE);
      const { iommufd, ioas, write: writeByIommufd, leave: leaveIommufd } = byIommufd(y.side);
      const buffer = owner.buffers[0]!;
      const [follows, pinned] = [register("dynamic"), register("pinned-revocable")];
      const map = (): bigint =>
        iommufd.mapFile(ioas, y.side.process, buffer, 0n, { iova: BigInt(IOVA), length: BigInt(BYTES) });
      map();
      // All three reach the same bytes.
      const sent = x.side.fill(0, 6, 1);
      expect([write(follows), write(pinned), firstDifference(content(), sent)]).toEqual(["success", "success", -1]);
      expect(writeByIommufd(IOVA + 5, new Uint8Array([1, 2, 3]))).toBe(true);
      expect([...content().subarray(5, 8)]).toEqual([1, 2, 3]);
      const before = content();

      const calls = buffer.counts.invalidations;
      finish(
        owner.reset(() => {
          expect([buffer.liveMaps, buffer.isRevoked, buffer.counts.invalidations - calls]).toEqual([0, true, 3]);
          expect(writeByIommufd(IOVA, new Uint8Array([9]))).toBe(false);
          expect(errnoOf(map)).toBe("ENODEV");
        }),
      );
      // What was revoked for good stays so; who follows has it again; an area of iommufd stays empty until it is unmapped.
      x.side.fill(0, 6, 2);
      expect([write(pinned), firstDifference(content(), before)]).toEqual(["remote-access", -1]);
      expect(writeByIommufd(IOVA, new Uint8Array([9]))).toBe(false);
      expect(ioas.unmap(BigInt(IOVA), BigInt(BYTES))).toBe(BigInt(BYTES));
      map();
      expect([writeByIommufd(IOVA, new Uint8Array([9])), content()[0]]).toEqual([true, 9]);

      const leaveRegions = () => {
        for (const { key } of [follows, pinned]) y.side.device.deregister(key);
      };
      for (const leave of order === "iommufd first" ? [leaveIommufd, leaveRegions] : [leaveRegions, leaveIommufd])
        leave();
      expect(buffer.attachments).toEqual([]);
      finish(owner.close());
      const faults = y.side.host.faults;
      expect(faults).toBe(2); // those of the device that iommufd had, while it had nothing
      pair.close(x, y);
      pair.settle();
      expect(pair.leftOvers()).toEqual([`${faults} refused requests`]);
    },
  );

  test("iommufd takes one range of a device's memory only, as Linux does", () => {
    const { y, owner, buffer } = connected("0.0.1");
    const { iommufd, ioas } = byIommufd(y.side);
    const heap = new SystemHeap({ pages: y.side.host.machine.pages }).allocate({ lengthBytes: 65_536 }).buffer;
    const length = BigInt(PAGE_SIZE);
    for (const refused of [buffer, heap])
      expect(errnoOf(() => iommufd.mapFile(ioas, y.side.process, refused, 0n, { length }))).toBe("EOPNOTSUPP");
    const { buffer: one } = owner.export({ region: 0, openFlags: 2, flags: 0, ranges: PARTS.slice(0, 1) });
    expect(errnoOf(() => iommufd.mapFile(ioas, y.side.process, one, 2n * length, { length }))).toBe("EINVAL");
    finish(owner.writeCommand(0));
    expect(errnoOf(() => iommufd.mapFile(ioas, y.side.process, one, 0n, { length }))).toBe("ENODEV");
    expect(one.attachments).toEqual([]);
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
