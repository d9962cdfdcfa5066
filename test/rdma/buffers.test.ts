/** Regions over buffers of other drivers: three lives, moves, revocation under traffic. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, PhysAddr, PhysPage } from "../../src/base/index.ts";
import type {
  BufferAttachment,
  BufferBacking,
  BufferImporter,
  BufferLife,
  MemoryRegion,
  SharedBuffer,
} from "../../src/consumers/rdma/index.ts";
import type { DmaVec, ScatterlistMapping } from "../../src/dma/index.ts";
import { ALL, firstDifference, Pair, type Side, START } from "./stand.ts";

/** A buffer of RAM or of a BAR, which moves or goes when it is told to. */
class TestBuffer implements SharedBuffer {
  readonly lengthBytes: number;
  readonly #importers: BufferImporter[] = [];
  readonly story: string[] = [];
  place: readonly PhysAddr[];
  mayMove = true;
  waits = true;

  constructor(place: readonly PhysAddr[]) {
    this.place = place;
    this.lengthBytes = place.length * PAGE_SIZE;
  }

  attach(importer: BufferImporter): BufferAttachment {
    this.#importers.unshift(importer);
    let mapping: ScatterlistMapping | undefined;
    return {
      pin: () => {
        if (!importer.invalidate && this.mayMove) throw new Error("an importer that cannot be told may not pin");
        this.story.push("pin");
      },
      unpin: () => void this.story.push("unpin"),
      map: (): readonly DmaVec[] => {
        mapping = importer.dma.mapScatterlist(
          this.place.map((phys) => ({ phys, length: PAGE_SIZE })),
          "bidirectional",
        );
        this.story.push("map");
        return mapping.segments;
      },
      unmap: () => {
        mapping?.unmap();
        mapping = undefined;
        this.story.push("unmap");
      },
      wait: () => {
        if (!this.waits) throw new Error("the move does not end");
      },
      detach: () => {
        this.#importers.splice(this.#importers.indexOf(importer), 1);
        this.story.push("detach");
      },
    };
  }

  /** Everybody stops using it; then it is elsewhere. */
  move(place: readonly PhysAddr[] = this.place): void {
    for (const { invalidate } of [...this.#importers]) invalidate?.();
    this.place = place;
  }
}

function connected(life: BufferLife, pages = 4) {
  const pair = new Pair();
  const [x, y] = pair.connect();
  const { device, pd, process } = x.side;
  const local = device.register(pd, { process, address: START, length: 64 * PAGE_SIZE, access: ALL });
  const places = (count: number): PhysAddr[] => {
    const block = y.side.host.machine.pages.allocatePages(2 * count)!;
    return Array.from({ length: count }, (_, i) => PhysPage.start((block + 2 * i) as PhysPage));
  };
  const buffer = new TestBuffer(places(pages));
  const region = y.side.device.registerBuffer(y.side.pd, {
    buffer,
    life,
    offset: 0,
    length: pages * PAGE_SIZE,
    access: ALL,
  });
  const write = (): string => {
    const pieces = [{ address: START as number, length: pages * PAGE_SIZE, key: local.key }];
    x.pair.send({ work: "write", id: 1, pieces, remoteAddress: 0, remoteKey: region.key });
    return pair.next(x.queue).status;
  };
  const content = (): Uint8Array => {
    const bytes = new Uint8Array(pages * PAGE_SIZE);
    for (const [i, phys] of buffer.place.entries())
      y.side.host.machine.memory.read(phys, bytes.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
    return bytes;
  };
  return { pair, x, y, buffer, region, write, content, places };
}

const backingOf = (region: MemoryRegion): BufferBacking => region.backing as BufferBacking;
const leavesOf = ({ domain }: Side): number => [...domain!.table.entries()].filter(({ leaf }) => leaf).length;

describe("a region over a buffer", () => {
  test("that may move is mapped by the first fault, unmapped by a move, and mapped again", () => {
    const { x, y, buffer, region, write, content, places } = connected("dynamic");
    expect(buffer.story).toEqual([]);
    const first = x.side.fill(0, 4, 1);
    expect(write()).toBe("success");
    expect(firstDifference(content(), first)).toBe(-1);
    const old = buffer.place;
    buffer.move(places(4));
    expect(buffer.story).toEqual(["map", "unmap"]);
    const second = x.side.fill(0, 4, 2);
    expect(write()).toBe("success");
    expect(firstDifference(content(), second)).toBe(-1);
    const left = new Uint8Array(PAGE_SIZE);
    y.side.host.machine.memory.read(old[0]!, left);
    expect(firstDifference(left, first.subarray(0, PAGE_SIZE))).toBe(-1); // nothing was written to the old place
    y.side.device.deregister(region.key);
    expect(buffer.story.slice(-2)).toEqual(["unmap", "detach"]);
  });

  test("that comes back in larger pieces is cut into larger blocks", () => {
    const { y, buffer, region, write, x } = connected("dynamic", 32);
    x.side.fill(0, 32, 1);
    expect(write()).toBe("success");
    const block = y.side.host.machine.pages.allocatePages(64)!;
    const start = Math.ceil(block / 16) * 16;
    buffer.move(Array.from({ length: 32 }, (_, i) => PhysPage.start((start + i) as PhysPage)));
    expect(write()).toBe("success");
    expect(backingOf(region).list).toMatchObject({ blockBytes: 65_536, entries: 2 });
    buffer.move();
    expect(write()).toBe("success");
    y.side.device.deregister(region.key);
  });

  test("that is pinned and revocable ends under traffic: once, before the call returns, and for good", () => {
    const { pair, x, y, buffer, region, write, content } = connected("pinned-revocable");
    const lists = 1;
    const sent = x.side.fill(0, 4, 1);
    expect(write()).toBe("success");
    expect([buffer.story, firstDifference(content(), sent)]).toEqual([["pin", "map"], -1]);
    buffer.move();
    expect([buffer.story.slice(2), region.state]).toEqual([["unmap", "unpin"], "revoked"]);
    buffer.move();
    expect(buffer.story).toHaveLength(4); // at most once
    const before = content();
    expect(write()).toBe("remote-access");
    expect(firstDifference(content(), before)).toBe(-1);
    const others = Array.from({ length: 70 }, () => {
      const { device, pd, process } = y.side;
      const other = device.register(pd, { process, address: START, length: 1, access: ALL });
      device.deregister(other.key);
      return other.key >> 8;
    });
    expect(others).not.toContain(region.index); // the key is not given to others
    y.side.device.deregister(region.key);
    expect(buffer.story.at(-1)).toBe("detach");
    expect(lists).toBe(1);
    pair.close(x, y);
    pair.settle();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("that is only pinned is refused by an owner that moves", () => {
    const { y, buffer } = connected("dynamic");
    const ask = { buffer, life: "pinned" as const, offset: 0, length: PAGE_SIZE, access: ALL };
    expect(() => y.side.device.registerBuffer(y.side.pd, ask)).toThrow("may not pin");
    buffer.mayMove = false;
    const region = y.side.device.registerBuffer(y.side.pd, ask);
    y.side.device.deregister(region.key);
  });

  test("refuses parts that are not in it, and leaves nothing of a part that cannot be mapped", () => {
    const { pair, x, y, buffer, region } = connected("dynamic");
    const ask =
      (offset: number, length: number, virt = offset) =>
      (): MemoryRegion =>
        y.side.device.registerBuffer(y.side.pd, {
          buffer,
          life: "pinned-revocable",
          offset,
          length,
          virt,
          access: ALL,
        });
    for (const [offset, length] of [
      [0, 0],
      [0, 4 * PAGE_SIZE + 1],
      [4 * PAGE_SIZE, 1],
      [2 ** 64 - 1, 1],
    ] as const)
      expect(ask(offset, length)).toThrow(expect.objectContaining({ errno: "EINVAL" }));
    expect(ask(0, 4096, 100)).toThrow(expect.objectContaining({ code: "ERR_DMA_RDMA_PAGE_SIZE" }));
    const before = leavesOf(y.side);
    buffer.waits = false;
    expect(ask(0, 4096)).toThrow("does not end");
    expect(leavesOf(y.side)).toBe(before);
    y.side.device.deregister(region.key);
    pair.close(x, y);
    pair.settle();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("that its owner has mapped through bounce slots is refused: nobody would bring them up to date", () => {
    const pair = new Pair({ b: { host: { iommu: {}, pool: { slots: 256 } } } });
    const { b } = pair;
    const untrusted = b.host.openDevice(b.pci.name).dma;
    const buffer = new TestBuffer([PhysPage.start(b.host.machine.pages.allocatePages(1)!)]);
    const attach = buffer.attach.bind(buffer);
    buffer.attach = (importer) => {
      const attachment = attach(importer);
      return {
        ...attachment,
        map: () => {
          untrusted.device.bounces++; // as a mapping by slots does
          return attachment.map();
        },
      };
    };
    const ask = { buffer, life: "pinned-revocable" as const, offset: 0, length: PAGE_SIZE, access: ALL };
    expect(() => b.device.registerBuffer(b.pd, ask)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_RDMA_BOUNCE", errno: "EOPNOTSUPP" }),
    );
    expect(buffer.story).toEqual(["pin", "map", "unmap", "unpin", "detach"]);
  });

  test("in memory of another device is reached by its address on the bus, or through the bridge", () => {
    for (const slot of ["0.0.1", "0.1"]) {
      const { pair, x, y, buffer, region, write } = connected("dynamic", 2);
      const peer = y.side.addPeer(slot);
      buffer.move([peer.phys, PhysAddr(peer.phys + PAGE_SIZE)]);
      const before = y.side.dma.counters.snapshot();
      const sent = x.side.fill(0, 2, 9);
      expect(write()).toBe("success");
      const found = new Uint8Array(2 * PAGE_SIZE);
      y.side.host.machine.memory.read(peer.phys, found);
      expect(firstDifference(found, sent)).toBe(-1);
      expect(y.side.dma.counters.since(before).leavesWritten).toBe(slot === "0.1" ? 2 : 0);
      y.side.device.deregister(region.key);
      pair.close(x, y);
    }
  });
});
