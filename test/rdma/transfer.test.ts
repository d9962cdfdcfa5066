/** The kernel's own transfers: one request where the memory joins, a chain where it does not, and nothing left where it fails. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, PhysAddr, PhysPage } from "../../src/base/index.ts";
import { RdmaDevice, RegistrationPool, Transfer } from "../../src/consumers/rdma/index.ts";
import type { PhysVec } from "../../src/dma/index.ts";
import { beforeEachMap, type End, Pair, type Side, START } from "./stand.ts";

const ALL = 0xf;

function connected(host: object = {}) {
  const pair = new Pair({ a: { host: { iommu: {}, ...host } } });
  const [x, y] = pair.connect();
  const { device, pd, process } = y.side;
  const theirs = device.register(pd, { process, address: START, length: 64 * PAGE_SIZE, access: ALL });
  return { pair, x, y, theirs };
}

/** Pages of RAM, one here and one there, filled with their number. */
function scattered(side: Side, pages: number): PhysAddr[] {
  const { machine } = side.host;
  const block = machine.pages.allocatePages(2 * pages)!;
  return Array.from({ length: pages }, (_, i) => {
    const phys = PhysPage.start((block + 2 * i) as PhysPage);
    machine.memory.write(phys, new Uint8Array(PAGE_SIZE).fill(i + 1));
    return phys;
  });
}

const wholePages = (places: readonly PhysAddr[]): PhysVec[] => places.map((phys) => ({ phys, length: PAGE_SIZE }));

function run(pair: Pair, { pair: queuePair, queue }: End, transfer: Transfer): string {
  for (const request of transfer.requests(9)) queuePair.send(request);
  return pair.next(queue).status;
}

const leavesOf = ({ domain }: Side): number => [...domain!.table.entries()].filter(({ leaf }) => leaf).length;

const codeOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    const { code, errno } = error as { code: string; errno: string };
    return `${code} ${errno}`;
  }
};

describe("a transfer", () => {
  test("of 256 scattered pages is one request with one piece and one sync", () => {
    const { pair, x, theirs } = connected();
    const vecs = wholePages(scattered(x.side, 16));
    const before = x.side.dma.counters.snapshot();
    const remote = { remoteAddress: START, remoteKey: theirs.key };
    const transfer = new Transfer({ device: x.side.device, work: "write", vecs, ...remote });
    expect([transfer.kind, transfer.slots, transfer.requests(1)[0]!.pieces.length]).toEqual(["linked", 1, 1]);
    const since = x.side.dma.counters.since(before);
    expect([since.mapSyncs, since.iovaAllocations, since.leavesWritten]).toEqual([1, 1, 16]);
    expect(run(pair, x, transfer)).toBe("success");
    transfer.release();
    const many = wholePages(scattered(x.side, 256));
    const large = new Transfer({ device: x.side.device, work: "write", vecs: many, ...remote });
    expect([large.kind, large.slots]).toEqual(["linked", 1]);
    large.release();
    expect(x.side.dma.counters.since(before).iovaFrees).toBe(2);
  });

  test("without address space is a chain: 256 pieces are nine requests of up to thirty", () => {
    const { pair, x, y, theirs } = connected({ iommu: undefined });
    const vecs = wholePages(scattered(x.side, 60));
    const remote = { remoteAddress: START, remoteKey: theirs.key };
    const transfer = new Transfer({ device: x.side.device, work: "write", vecs, ...remote });
    expect([transfer.kind, transfer.slots]).toEqual(["pieces", 2]);
    expect(run(pair, x, transfer)).toBe("success");
    expect([y.side.read(0, 1)[0], y.side.read(29, 1)[7], y.side.read(30, 1)[0], y.side.read(59, 1)[0]]).toEqual([
      1, 30, 31, 60,
    ]);
    transfer.release();
    const many = wholePages(scattered(x.side, 256));
    expect(new Transfer({ device: x.side.device, work: "write", vecs: many, ...remote }).slots).toBe(9);
  });

  test("of parts that do not join is asked about first, and falls back with its data whole", () => {
    const { pair, x, y, theirs } = connected();
    const places = scattered(x.side, 5);
    const vecs = places.map((phys, i) => ({ phys, length: i === 2 ? 1000 : PAGE_SIZE }));
    y.side.fill(0, 5, 4);
    const expected = y.side.read(0, 5);
    const remote = { remoteAddress: START, remoteKey: theirs.key };
    const transfer = new Transfer({ device: x.side.device, work: "read", vecs, ...remote });
    expect([transfer.kind, transfer.requests(1)[0]!.pieces.length]).toEqual(["pieces", 5]);
    expect(run(pair, x, transfer)).toBe("success");
    transfer.release();
    const found = new Uint8Array(transfer.totalBytes);
    let offset = 0;
    for (const { phys, length } of vecs) {
      x.side.host.machine.memory.read(phys, found.subarray(offset, offset + length));
      offset += length;
    }
    expect(Buffer.compare(found, expected.subarray(0, found.length))).toBe(0);
  });

  test("of one part is mapped in one shot", () => {
    const { x, theirs } = connected();
    const vecs = [{ phys: PhysAddr(scattered(x.side, 1)[0]! + 100), length: 50 }];
    const transfer = new Transfer({
      device: x.side.device,
      work: "read",
      vecs,
      remoteAddress: START,
      remoteKey: theirs.key,
    });
    expect([transfer.kind, transfer.totalBytes]).toEqual(["single", 50]);
    transfer.release();
    transfer.release();
  });

  test("begins and ends inside of pages, and joins between", () => {
    const { pair, x, y, theirs } = connected();
    const [first, second, third] = scattered(x.side, 3) as [PhysAddr, PhysAddr, PhysAddr];
    const vecs = [
      { phys: PhysAddr(first + 96), length: 4000 },
      { phys: second, length: PAGE_SIZE },
      { phys: third, length: 10 },
    ];
    const transfer = new Transfer({
      device: x.side.device,
      work: "write",
      vecs,
      remoteAddress: START,
      remoteKey: theirs.key,
    });
    expect(transfer.kind).toBe("linked");
    expect(run(pair, x, transfer)).toBe("success");
    const there = y.side.read(0, 2);
    expect([there[0], there[3999], there[4000], there[8095], there[8096]]).toEqual([1, 1, 2, 2, 3]);
    transfer.release();
  });

  test("tells peer memory from other: all of one kind joins, a mixture is a chain, what cannot be reached is refused", () => {
    const { pair, x, y, theirs } = connected();
    const near = x.side.addPeer("0.0.1");
    const far = x.side.addPeer("0.1");
    const [ram] = scattered(x.side, 1) as [PhysAddr];
    const make = (places: readonly PhysAddr[]): Transfer =>
      new Transfer({
        device: x.side.device,
        work: "write",
        vecs: wholePages(places),
        remoteAddress: START,
        remoteKey: theirs.key,
      });
    x.side.host.machine.memory.write(far.phys, new Uint8Array(PAGE_SIZE).fill(0x77));
    const through = make([far.phys, PhysAddr(far.phys + 2 * PAGE_SIZE)]);
    expect(through.kind).toBe("linked");
    expect(run(pair, x, through)).toBe("success");
    expect(y.side.read(0, 1)[5]).toBe(0x77);
    through.release();
    const mixed = make([ram, near.phys, far.phys]);
    expect(mixed.kind).toBe("pieces");
    expect(run(pair, x, mixed)).toBe("success");
    expect([y.side.read(0, 1)[0], y.side.read(2, 1)[0]]).toEqual([1, 0x77]);
    mixed.release();
    const other = connected({ bridges: [{ rootPorts: [{ switch: [{}, {}] }, {}] }] });
    const lost = other.x.side.addPeer("0.1");
    const vecs = wholePages([lost.phys]);
    const refused = { device: other.x.side.device, work: "write" as const, vecs, remoteAddress: START, remoteKey: 0 };
    expect(codeOf(() => new Transfer(refused))).toBe("ERR_DMA_RDMA_PEER EREMOTEIO");
  });

  test("of nothing is refused, and so is one of a software device", () => {
    const { x } = connected();
    const nothing = { work: "read" as const, vecs: [], remoteAddress: START, remoteKey: 0 };
    expect(codeOf(() => new Transfer({ device: x.side.device, ...nothing }))).toBe("ERR_DMA_RDMA_ARGUMENT EINVAL");
    expect(codeOf(() => new Transfer({ device: new RdmaDevice(), ...nothing }))).toBe("ERR_DMA_RDMA_ARGUMENT EINVAL");
  });

  test("whose third link fails leaves no entry and no range", () => {
    const { x, theirs } = connected();
    const { domain, device, dma } = x.side;
    const vecs = wholePages(scattered(x.side, 5));
    const before = leavesOf(x.side);
    let maps = 0;
    beforeEachMap(domain!, () => {
      if (++maps === 3) throw new Error("planted");
    });
    const ranges = dma.counters.iovaAllocations - dma.counters.iovaFrees;
    const options = { device, work: "read" as const, vecs, remoteAddress: START, remoteKey: theirs.key };
    expect(() => new Transfer(options)).toThrow("planted");
    expect([leavesOf(x.side), dma.counters.iovaAllocations - dma.counters.iovaFrees]).toEqual([before, ranges]);
  });
});

describe("a transfer under keys of its own", () => {
  test("takes regions from a pool, gives them back with another variant, and says when there is none", () => {
    const { pair, x, y, theirs } = connected();
    const { device, pd } = x.side;
    const pool = new RegistrationPool({ device, domain: pd, regions: 2, pages: 16 });
    const remote = { remoteAddress: START as number, remoteKey: theirs.key };
    const vecs = wholePages(scattered(x.side, 12));
    const first = new Transfer({ device, work: "write", vecs, registration: pool, ...remote });
    expect([first.kind, first.slots, pool.available]).toEqual(["registered", 1, 1]);
    const { key } = first.requests(0)[0]!.pieces[0]!;
    expect(run(pair, x, first)).toBe("success");
    expect(y.side.read(11, 1)[0]).toBe(12);
    const odd = vecs.map(({ phys }) => ({ phys, length: 100 }));
    const asked = { device, work: "write" as const, vecs: odd.slice(0, 3), registration: pool, ...remote };
    expect(codeOf(() => new Transfer(asked))).toBe("ERR_DMA_RDMA_POOL EAGAIN");
    first.release();
    const second = new Transfer({ ...asked, vecs: odd.slice(0, 2) });
    expect(second.slots).toBe(2);
    expect(second.requests(0).map(({ pieces }) => pieces[0]!.key)).not.toContain(key);
    expect(run(pair, x, second)).toBe("success");
    expect([y.side.read(0, 1)[99], y.side.read(0, 1)[100]]).toEqual([1, 2]);
    second.release();
    expect(pool.available).toBe(2);
    pool.free();
  });
});
