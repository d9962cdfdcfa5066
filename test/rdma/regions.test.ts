/** Pinned regions: accounts, errors, mixed memory, keys, and what the peer may do. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import { type Completion, type MemoryRegion, PinnedMemory, RdmaDevice } from "../../src/consumers/rdma/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { SimulatedProcess } from "../../src/hosts/simulated/process/index.ts";
import { ACCESS, KEY } from "../../src/layouts/rdma/index.ts";
import { ALL, at, type End, firstDifference, Pair, type Side, START } from "./stand.ts";

const register = (side: Side, page: number, pages: number, access: number = ALL): MemoryRegion =>
  side.device.register(side.pd, { process: side.process, address: at(page), length: pages * PAGE_SIZE, access });

const codeOf = (call: () => unknown): string => {
  try {
    call();
    return "none";
  } catch (error) {
    const { code, errno } = error as { code: string; errno: string };
    return `${code} ${errno}`;
  }
};

/** A process with a limit, and no privileges. */
function limited({ frames }: Side, pages: number): SimulatedProcess {
  const process = new SimulatedProcess(frames, { memlockBytes: pages * PAGE_SIZE });
  process.memory.map({ address: START, length: 64 * PAGE_SIZE });
  return process;
}

describe("registering pinned memory", () => {
  test("charges pages against the limit before anything is pinned, and gives all back", () => {
    const { a } = new Pair();
    const process = limited(a, 10);
    const pin = (page: number, pages: number): PinnedMemory =>
      new PinnedMemory({ process, address: at(page), length: pages * PAGE_SIZE, access: ALL, dma: a.dma });
    const whole = pin(0, 10);
    expect(codeOf(() => pin(10, 1))).toBe("ERR_DMA_RDMA_PINNED ENOMEM");
    expect(process.memory.pinned.pages).toBe(10);
    whole.release();
    expect(process.memory.pinned.pages).toBe(0);
    process.capabilities.add("IPC_LOCK");
    pin(0, 11).release();
    expect(process.memory.pinned.pages).toBe(0);
  });

  test("over the limit is said before a hole is found, and a limit of nothing before both", () => {
    const { a } = new Pair();
    const hole = { address: at(100), length: 4 * PAGE_SIZE, access: ALL, dma: a.dma };
    expect(codeOf(() => new PinnedMemory({ process: limited(a, 1), ...hole }))).toBe("ERR_DMA_RDMA_PINNED ENOMEM");
    expect(codeOf(() => new PinnedMemory({ process: limited(a, 0), ...hole }))).toBe("ERR_DMA_RDMA_LOCKING EPERM");
    expect(codeOf(() => new PinnedMemory({ process: limited(a, 9), ...hole }))).toBe("ERR_DMA_USER_FAULT EFAULT");
    expect(codeOf(() => new PinnedMemory({ process: limited(a, 0), ...hole, address: 2 ** 64 - 4096 }))).toBe(
      "ERR_DMA_RDMA_RANGE EINVAL",
    );
  });

  test("nothing is left where the range runs into a hole", () => {
    const pair = new Pair();
    const before = pair.a.frames.inUse;
    expect(codeOf(() => register(pair.a, 60, 8))).toBe("ERR_DMA_USER_FAULT EFAULT");
    pair.a.process.memory.unmap(START, 64 * PAGE_SIZE);
    expect(pair.a.frames.inUse).toBe(before);
    expect(pair.leftOvers()).toEqual([]);
  });

  test("refuses a device that would need copies, and its account is restored", () => {
    const pair = new Pair({ a: { host: { iommu: undefined, pool: { slots: 256 } } } });
    const { process, host } = pair.a;
    const dma = new Dma({ machine: host.dmaMachine, forceBounce: true });
    const memory = { process, address: START as number, length: 4 * PAGE_SIZE, access: ALL, dma };
    expect(codeOf(() => new PinnedMemory(memory))).toBe("ERR_DMA_RDMA_MAP EIO");
    expect([process.memory.pinned.pages, host.pool!.used]).toEqual([0, 0]);
  });

  test("takes copies where it is asked to, and whoever asked brings them up to date (beyond Linux)", () => {
    const pair = new Pair({ a: { host: { iommu: undefined, pool: { slots: 256 } } } });
    const { process, host, nic } = pair.a;
    const dma = new Dma({ machine: host.dmaMachine, forceBounce: true, maxSegmentSize: 2 ** 31 });
    const bounced = new PinnedMemory({ process, address: START, length: PAGE_SIZE, access: ALL, dma, mayBounce: true });
    process.memory.write(START, Uint8Array.from([7]));
    bounced.toDevice();
    const seen = new Uint8Array(1);
    const { address } = bounced.segments[0]!;
    expect(host.pool!.used).toBeGreaterThan(0);
    host.machine.fabric.read(pair.a.pci.node, address, seen);
    expect([seen[0], nic.counts.packets]).toEqual([7, 0]);
    host.machine.fabric.write(pair.a.pci.node, address, Uint8Array.from([9]));
    bounced.fromDevice();
    process.memory.read(START, seen);
    expect(seen[0]).toBe(9);
    bounced.release();
    expect(host.pool!.used).toBe(0);
  });

  test("its page list costs 8 bytes for each block: 2 MiB for a gigabyte of 4 KiB pages", () => {
    const { a } = new Pair();
    const region = register(a, 0, 64);
    const { list } = region.backing;
    expect(region.backing.listBytes).toBe(8 * list!.entries);
    expect((2 ** 30 / 4096) * 8).toBe(2 * 2 ** 20);
    a.device.deregister(region.key);
  });
});

describe("one region over any mix of memory", () => {
  /** 16 pages of RAM, 16 below the same switch, 16 through the bridge, 15 of a huge page and a page of zeros. */
  function mixed(onDemand: boolean) {
    const pair = new Pair({ a: { pages: 1, frames: { settings: { hugePages: "always" } } }, b: { pages: 64 } });
    const { a } = pair;
    const near = a.addPeer("0.0.1");
    const far = a.addPeer("0.1");
    const { memory } = a.process;
    memory.unmap(START, PAGE_SIZE);
    const map = (page: number, pages: number, peer?: number): void => {
      const part = { address: at(page), length: pages * PAGE_SIZE, shared: peer !== undefined };
      memory.map({ ...part, ...(peer !== undefined && { peer: PhysPage.of(peer as never) }) });
    };
    map(0, 16);
    map(16, 16, near.phys);
    map(32, 16, far.phys);
    map(48, 16);
    const bytes = a.fill(0, 63, 8);
    const connected = pair.connect();
    const access = ALL;
    const before = a.dma.counters.snapshot();
    const region = a.device.register(a.pd, {
      process: a.process,
      address: START,
      length: 64 * PAGE_SIZE,
      virt: at(1), // so that blocks larger than a page do not fit by chance
      access: onDemand ? ACCESS.remoteRead | ACCESS.onDemand : access,
    });
    if (onDemand) memory.read(at(63), new Uint8Array(1));
    const expected = new Uint8Array(64 * PAGE_SIZE);
    expected.set(bytes);
    return { pair, a, near, region, expected, connected, before };
  }

  test.each([false, true])("is read whole by one key (on demand: %s)", (onDemand) => {
    const { pair, a, near, region, expected, connected, before } = mixed(onDemand);
    const [x, y] = connected;
    const local = register(y.side, 0, 64);
    y.pair.send({
      work: "read",
      id: 1,
      pieces: [{ address: START, length: 64 * PAGE_SIZE, key: local.key }],
      remoteAddress: region.virt,
      remoteKey: region.key,
    });
    expect(pair.next(y.queue).status).toBe("success");
    expect(firstDifference(y.side.read(0, 64), expected)).toBe(-1);
    // 48 pages are in the IOMMU, and the list; the 16 pages of the near peer are not.
    expect(a.dma.counters.since(before).leavesWritten).toBe(48 + 1);
    if (!onDemand) {
      expect(region.backing.list).toMatchObject({ blockBytes: 4096, entries: 64 });
      const { memory } = region.backing as unknown as { memory: PinnedMemory };
      const bus = memory.segments.filter((segment) => segment.bus);
      expect(bus.reduce((sum, { length }) => sum + length, 0)).toBe(16 * PAGE_SIZE);
      const { hostBridge } = a.pci.node;
      expect(bus[0]!.address).toBe(near.phys + (hostBridge as unknown as { busOffset: number }).busOffset);
    }
    pair.close(x, y);
    pair.settle();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("fails whole where one page cannot be reached", () => {
    const pair = new Pair({
      a: { host: { iommu: {}, memoryBytes: 2 ** 28, bridges: [{ rootPorts: [{ switch: [{}, {}] }, {}] }] } },
    });
    const { a } = pair;
    const far = a.addPeer("0.1");
    const peer = { shared: true, peer: PhysPage.of(far.phys as never), replace: true };
    a.process.memory.map({ address: at(8), length: PAGE_SIZE, ...peer });
    expect(codeOf(() => register(a, 0, 16))).toBe("ERR_DMA_RDMA_MAP EIO");
    expect(pair.leftOvers()).toEqual([]);
  });
});

describe("re-registration", () => {
  test("changes access and domain, and the key stays", () => {
    const { a } = new Pair();
    const region = register(a, 0, 4, ACCESS.localWrite);
    const other = a.device.allocateDomain();
    const { key } = region;
    expect(a.device.reregister(key, { domain: other, access: ALL }).key).toBe(key);
    expect([region.domain, region.access]).toEqual([other, ALL]);
    expect(codeOf(() => a.device.freeDomain(other))).toBe("ERR_DMA_RDMA_DOMAIN EBUSY");
    a.device.deregister(key);
    a.device.freeDomain(other);
  });

  test("gives it other memory under the same key, or leaves the old where that fails", () => {
    const pair = new Pair();
    const { a } = pair;
    const region = register(a, 0, 4);
    const { process } = a;
    const hole = { process, address: at(100), length: PAGE_SIZE };
    expect(codeOf(() => a.device.reregister(region.key, { translation: hole }))).toBe("ERR_DMA_USER_FAULT EFAULT");
    expect([region.length, process.memory.pinned.pages]).toEqual([4 * PAGE_SIZE, 4]);
    a.device.reregister(region.key, { translation: { process, address: at(8), length: 8 * PAGE_SIZE } });
    expect([region.virt, region.length, process.memory.pinned.pages]).toEqual([at(8), 8 * PAGE_SIZE, 8]);
    a.device.close();
    expect(pair.leftOvers()).toEqual([]);
  });

  test("refuses in the order of verbs", () => {
    const { a } = new Pair();
    a.process.memory.protect(at(0), PAGE_SIZE, "r");
    const { key } = register(a, 0, 1, ACCESS.remoteRead);
    const change = (what: object, of = key): string => codeOf(() => a.device.reregister(of, what));
    expect(change({})).toBe("ERR_DMA_RDMA_ARGUMENT EINVAL");
    expect(change({ colour: 1 })).toBe("ERR_DMA_RDMA_UNSUPPORTED EOPNOTSUPP");
    expect(change({ access: 0 }, key + 1)).toBe("ERR_DMA_RDMA_NAME ENOENT");
    expect(change({ domain: { number: 99 } })).toBe("ERR_DMA_RDMA_NAME ENOENT");
    expect(change({ access: ACCESS.remoteWrite })).toBe("ERR_DMA_RDMA_ACCESS EINVAL");
    expect(change({ access: ALL })).toBe("ERR_DMA_RDMA_READ_ONLY EACCES");
  });
});

describe("keys", () => {
  function connected(access: number = ALL) {
    const pair = new Pair();
    const [x, y] = pair.connect();
    const local = register(x.side, 0, 8);
    const theirs = register(y.side, 0, 8, access);
    const attempt = (request: Partial<Parameters<End["pair"]["send"]>[0]>): Completion => {
      const piece = { address: START as number, length: 64, key: local.key };
      const remote = { remoteAddress: START as number, remoteKey: theirs.key };
      x.pair.send({ work: "write", id: 1, pieces: [piece], ...remote, ...request });
      return pair.next(x.queue);
    };
    return { pair, x, y, local, theirs, attempt };
  }

  const WRONG: readonly [string, (theirs: MemoryRegion) => object][] = [
    ["a key of another variant", ({ key }) => ({ remoteKey: KEY.of(KEY.index(key), KEY.variant(key) + 1) })],
    ["a key that names nothing", ({ key }) => ({ remoteKey: key + 4096 })],
    ["one byte past the end", () => ({ remoteAddress: START + 8 * PAGE_SIZE - 63 })],
    ["one byte before the beginning", () => ({ remoteAddress: START - 1 })],
    ["the end of all addresses", () => ({ remoteAddress: 2 ** 64 - 4096 })],
  ];

  test.each(WRONG)("%s is refused, nothing is written, and the connection ends", (_name, change) => {
    const { pair, x, y, theirs, attempt } = connected();
    x.side.fill(0, 1, 3);
    expect(attempt(change(theirs)).status).toBe("remote-access");
    expect([x.pair.state, y.pair.state]).toEqual(["error", "error"]);
    expect(y.side.read(0, 8).every((byte) => byte === 0)).toBe(true);
    expect(attempt({ id: 2 }).status).toBe("flushed");
    pair.close(x, y);
  });

  test("writing to what may only be read is refused, and so is reading what may only be written", () => {
    expect(connected(ACCESS.remoteRead).attempt({}).status).toBe("remote-access");
    expect(connected(ACCESS.localWrite | ACCESS.remoteWrite).attempt({ work: "read" }).status).toBe("remote-access");
    expect(connected(ACCESS.remoteRead).attempt({ work: "fetch-add", add: 1n, pieces: [] }).status).toBe(
      "local-length",
    );
  });

  test("a region of another domain is refused on either side", () => {
    const { x, y, local, theirs, attempt } = connected();
    const other = y.side.device.allocateDomain();
    y.side.device.reregister(theirs.key, { domain: other });
    expect(attempt({}).status).toBe("remote-access");
    const second = connected();
    second.x.side.device.reregister(second.local.key, { domain: second.x.side.device.allocateDomain() });
    expect(second.attempt({}).status).toBe("local-protection");
    expect([local.key, x.pair.state]).toEqual([local.key, "error"]);
  });

  test("a transfer of nothing needs no key", () => {
    const { attempt } = connected();
    expect(attempt({ pieces: [], remoteKey: 0, remoteAddress: 0 }).status).toBe("success");
    expect(attempt({ work: "read", pieces: [], remoteKey: 0, remoteAddress: 0 }).status).toBe("success");
  });

  test("the key of the device's own addresses is no peer's", () => {
    const { attempt, theirs } = connected();
    expect(theirs.key).not.toBe(0xff);
    expect(attempt({ remoteKey: 0xff, remoteAddress: 0x1000 }).status).toBe("remote-access");
  });

  test("a deregistered key misses, and its index comes back with another variant", () => {
    const { y, theirs, attempt } = connected();
    const old = theirs.key;
    y.side.device.deregister(old);
    expect(attempt({}).status).toBe("remote-access");
    const again = new Set<number>();
    for (let i = 0; i < 80; i++) {
      const region = register(y.side, 0, 1);
      again.add(region.key);
      y.side.device.deregister(region.key);
    }
    expect(again.has(old)).toBe(false);
    expect([...again].some((key) => KEY.index(key) === KEY.index(old))).toBe(true);
  });

  test("reading into memory that may not be written is this side's error", () => {
    const { x, attempt } = connected();
    x.side.process.memory.protect(at(20), PAGE_SIZE, "r");
    const readOnly = register(x.side, 20, 1, ACCESS.remoteRead);
    const pieces = [{ address: at(20) as number, length: 8, key: readOnly.key }];
    expect(attempt({ work: "read", pieces }).status).toBe("local-protection");
  });

  test("an atomic operation at an odd address is an invalid request", () => {
    const { attempt, local } = connected();
    const pieces = [{ address: START as number, length: 8, key: local.key }];
    const status = attempt({ work: "fetch-add", add: 1n, pieces, remoteAddress: START + 4 }).status;
    expect(status).toBe("remote-invalid-request");
  });

  test("on an unreliable connection a refused write is dropped, and nobody hears of it", () => {
    const pair = new Pair();
    const [x, y] = pair.connect({ reliable: false });
    const local = register(x.side, 0, 1);
    const pieces = [{ address: START as number, length: 64, key: local.key }];
    x.side.fill(0, 1, 3);
    x.pair.send({ work: "write", id: 1, pieces, remoteAddress: START, remoteKey: 0x12345 });
    expect(pair.next(x.queue).status).toBe("success");
    pair.settle();
    expect([x.pair.state, y.pair.state]).toEqual(["ready-to-send", "ready-to-send"]);
    expect(y.side.read(0, 1).every((byte) => byte === 0)).toBe(true);
  });
});

describe("what the IOMMU refuses", () => {
  test("is a completion with an error, and never a part that went through silently", () => {
    const pair = new Pair();
    const [x, y] = pair.connect();
    const local = register(x.side, 0, 8);
    const theirs = register(y.side, 0, 8);
    const { domain } = y.side;
    const { list } = theirs.backing.list!;
    domain!.release((list / PAGE_SIZE) as never, 1, 1); // planted: the page list is not there any more
    const pieces = [{ address: START as number, length: 4096, key: local.key }];
    x.pair.send({ work: "write", id: 1, pieces, remoteAddress: START, remoteKey: theirs.key });
    expect(pair.next(x.queue).status).toBe("remote-operation");
    expect(y.side.host.faults).toBeGreaterThan(0);
  });
});

test("a software device has accounts and keys, and maps nothing", () => {
  const { a } = new Pair();
  const device = new RdmaDevice();
  const region = device.register(device.allocateDomain(), {
    process: a.process,
    address: START,
    length: PAGE_SIZE,
    access: ALL,
  });
  expect([region.context, a.process.memory.pinned.pages]).toEqual([undefined, 1]);
  device.close();
  expect(a.process.memory.pinned.pages).toBe(0);
});
