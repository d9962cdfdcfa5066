/** Buffers for the state of a device: what the device reaches, what it costs, what is left when a step fails. */
import { describe, expect, test } from "vitest";
import { type DmaAddr, DmaError, GiB, IovaPage, MiB, PAGE_SIZE, type PhysPage } from "../../../../base/index.ts";
import { Dma, type DmaOptions } from "../../../../dma/index.ts";
import { DmaEngine, SimulatedHost, SimulatedUnit } from "../../../../hosts/simulated/index.ts";
import { DmaDomain } from "../../../../iommu/index.ts";
import { vtdSecondStage } from "../../../../layouts/pagetable/index.ts";
import type { PageAllocator } from "../../../../platform/index.ts";
import { type BufferForm, bookkeepingBytes } from "./buffer-cost.ts";
import { BufferPool } from "./buffer-pool.ts";
import { type BufferHost, DataBuffer, type DeviceKeys } from "./data-buffer.ts";

/** Keys of a device that can be told to refuse; and the addresses it was given. */
class Keys implements DeviceKeys {
  isPresent = true;
  refuses = false;
  readonly given = new Map<number, DmaAddr[]>();

  createKey(pages: number, addressAt: (index: number) => DmaAddr): number {
    if (this.refuses) throw new DmaError("ERR_DMA_TEST", "EIO", "no key");
    const key = this.given.size + 1;
    this.given.set(
      key,
      Array.from({ length: pages }, (_, i) => addressAt(i)),
    );
    return key;
  }

  destroyKey(key: number): void {
    this.given.delete(key);
  }
}

interface Stand extends BufferHost {
  readonly keys: Keys;
  readonly host: SimulatedHost;
  readonly domain: DmaDomain | undefined;
  readonly engine: DmaEngine;
  /** Pages of RAM, entries and ranges in use. */
  state(): object;
}

function stand(
  options: Partial<BufferHost> & { isDirect?: boolean; dma?: never; device?: DmaOptions; lastPage?: number } = {},
): Stand {
  const unit = new SimulatedUnit();
  const host = new SimulatedHost({ memoryBytes: 8 * GiB, scattered: true, pool: { slots: 4096 } });
  const { machine } = host;
  if (!options.isDirect) machine.fabric.translator = unit;
  const engine = new DmaEngine();
  const [device] = machine.plug("0.0", engine);
  device!.setBusMaster(true);
  const domain = options.isDirect
    ? undefined
    : new DmaDomain({
        layout: vtdSecondStage(),
        unit,
        clock: machine.clock,
        mode: "strict",
        ...(options.lastPage && { lastPage: options.lastPage }),
      });
  if (domain) unit.attach(device!.requester, domain.tables);
  const dma = new Dma({ ...(domain && { domain }), machine: host.dmaMachine, ...options.device });
  const { device: _device, isDirect: _isDirect, lastPage: _lastPage, ...rest } = options;
  return {
    memory: machine.memory,
    pages: machine.pages,
    keys: new Keys(),
    ...rest,
    dma,
    host,
    domain,
    engine,
    state: () => {
      const { leavesWritten, leavesCleared, iovaAllocations, iovaFrees } = dma.counters;
      return {
        pages: machine.ram.pagesInUse,
        leaves: leavesWritten - leavesCleared,
        ranges: iovaAllocations - iovaFrees,
      };
    },
  } as Stand;
}

/** Pages from `first` on, one in `step`, as many as there are; how many are out. */
function pagesFrom(first: number, step: number, most = Number.POSITIVE_INFINITY): PageAllocator & { out: number } {
  let next = first;
  return {
    out: 0,
    allocatePages(count) {
      if (this.out + count > most) return undefined;
      this.out += count;
      next += count * step;
      return (next - count * step) as PhysPage;
    },
    freePages(_page, count) {
      this.out -= count;
    },
  };
}

const FORMS: readonly BufferForm[] = ["page-list", "runs", "scatterlist"];
const errnoOf = (call: () => void): string | undefined => {
  try {
    call();
    return undefined;
  } catch (error) {
    return (error as DmaError).errno;
  }
};

describe.each(FORMS)("a buffer as %s", (form) => {
  test.each([
    ["behind an IOMMU", {}],
    ["without one", { isDirect: true }],
    ...(form === "scatterlist" ? [] : [["where the address space has no room", { lastPage: 40 }] as const]),
  ] as const)("%s is reached by the device, page by page in order", (_where, options) => {
    const place = stand({ form, ...options });
    const before = place.state();
    const buffer = new DataBuffer(place, 20 * PAGE_SIZE, "from-device");
    buffer.register();
    const addresses = place.keys.given.get(buffer.key)!;
    expect(addresses).toHaveLength(20);
    addresses.forEach((address, i) => {
      expect(place.engine.write(address, new Uint8Array(PAGE_SIZE).fill(i + 1))).toBe(true);
    });
    const seen = new Uint8Array(20 * PAGE_SIZE);
    buffer.read(0, seen);
    expect(seen.every((byte, i) => byte === Math.floor(i / PAGE_SIZE) + 1)).toBe(true);
    buffer.free();
    buffer.free();
    expect(place.state()).toEqual(before);
    if (place.domain) expect(place.engine.write(addresses[0]!, new Uint8Array(1))).toBe(false);
  });

  test("counts what it holds", () => {
    const place = stand({ form, keepsAddresses: false, blockPages: 16 });
    const buffer = new DataBuffer(place, 300 * PAGE_SIZE, "to-device");
    buffer.register();
    const { pageCount: pages, runCount: runs } = buffer;
    const state = form === "scatterlist" ? 0 : 16;
    expect(buffer.metadataBytes).toBe(bookkeepingBytes(form, { pages, runs }) + state);
    expect(runs).toBeLessThanOrEqual(Math.ceil(300 / 16));
    buffer.free();
  });

  test("that fails at any page leaves nothing behind", () => {
    const count = 12;
    const where = stand({ form });
    const probe = where.dma.tryReserveIova({ length: count * PAGE_SIZE })!;
    const first = IovaPage.of(probe.address);
    for (let k = 0; k < count; k++) {
      const place = stand({ form });
      // Somebody else's page stands where page k is to be linked.
      place.domain!.map(IovaPage.add(first, k), 77 as PhysPage, 1, 3);
      const before = place.state();
      const buffer = new DataBuffer(place, count * PAGE_SIZE, "from-device");
      expect(errnoOf(() => buffer.register())).toBe("EADDRINUSE");
      expect(buffer.isRegistered).toBe(false);
      buffer.free();
      expect(place.state()).toEqual(before);
      const reached = Array.from({ length: count }, (_, i) => place.domain!.lookup(IovaPage.add(first, i)));
      expect(reached).toEqual(reached.map((_, i) => (i === k ? 77 : -1)));
    }
  });

  test("whose key is refused is unmapped again", () => {
    const place = stand({ form });
    place.keys.refuses = true;
    const buffer = new DataBuffer(place, 5 * PAGE_SIZE, "from-device");
    const mapped = place.state();
    expect(errnoOf(() => buffer.register())).toBe("EIO");
    expect(place.state()).toEqual(mapped);
    buffer.free();
  });
});

test.each(FORMS)("a buffer ends in this order: key, addresses, pages (%s)", (form) => {
  const events: string[] = [];
  const place = stand({ form });
  const { dma, keys } = place;
  const note = (what: string): void => {
    const last = events.at(-1);
    if (last !== what) events.push(what);
  };
  const pages: PageAllocator = {
    allocatePages: (count) => place.host.machine.ram.allocatePages(count),
    freePages(page, count) {
      note(`pages, ${dma.counters.leavesWritten - dma.counters.leavesCleared} entries`);
      place.host.machine.ram.freePages(page, count);
    },
  };
  keys.destroyKey = () => note(`key, ${dma.counters.leavesWritten - dma.counters.leavesCleared} entries`);
  const buffer = new DataBuffer({ ...place, pages }, 3 * PAGE_SIZE, "from-device");
  buffer.register();
  buffer.free();
  expect(events).toEqual(["key, 3 entries", "pages, 0 entries"]);
});

test("a scatterlist has no other way when the address space has no room", () => {
  const place = stand({ form: "scatterlist", lastPage: 40 });
  const before = place.state();
  const buffer = new DataBuffer(place, 20 * PAGE_SIZE, "from-device");
  expect(errnoOf(() => buffer.register())).toBe("ENOMEM");
  buffer.free();
  expect(place.state()).toEqual(before);
});

test("two steps cost one range, one entry a page and one sync, and one invalidation at the end", () => {
  const place = stand();
  const { counters } = place.dma;
  const buffer = new DataBuffer(place, 2 * MiB, "from-device");
  buffer.register();
  expect(counters).toMatchObject({ iovaAllocations: 1, leavesWritten: 512, mapSyncs: 1, rangeInvalidations: 0 });
  buffer.free();
  expect(counters).toMatchObject({ iovaFrees: 1, leavesCleared: 512, rangeInvalidations: 1 });
});

test("a gigabyte of scattered pages: 4 MiB and 16 bytes kept, 262144 entries, one sync; afterwards nothing", () => {
  const pages = pagesFrom(1000, 2);
  const place = stand({ pages });
  const keys: DeviceKeys = { isPresent: true, createKey: () => 1, destroyKey: () => {} };
  const buffer = new DataBuffer({ ...place, keys }, GiB, "from-device");
  buffer.register();
  expect(buffer.metadataBytes).toBe(4 * MiB + 16);
  expect(place.dma.counters).toMatchObject({ leavesWritten: 262_144, mapSyncs: 1, iovaAllocations: 1 });
  buffer.free();
  expect(place.dma.counters).toMatchObject({ leavesCleared: 262_144, iovaFrees: 1 });
  expect(pages.out).toBe(0);
});

describe("a device that does not see what the CPU sees", () => {
  const low = { isDirect: true, device: { mask: 2 ** 32 - 1 } };
  const high = pagesFrom((5 * GiB) / PAGE_SIZE, 1);

  test.each(FORMS)("is refused where it would bounce (%s)", (form) => {
    const place = stand({ ...low, form, pages: high });
    const buffer = new DataBuffer(place, 3 * PAGE_SIZE, "from-device");
    expect(errnoOf(() => buffer.register())).toBe("EOPNOTSUPP");
    expect(place.host.pool!.used).toBe(0);
    buffer.free();
  });

  test.each(FORMS)("or synced, and nobody sees stale bytes (%s)", (form) => {
    const place = stand({ ...low, form, pages: high, coherence: "synced" });
    const [out, into] = (["to-device", "from-device"] as const).map((direction) => {
      const buffer = new DataBuffer(place, 3 * PAGE_SIZE, direction);
      buffer.register();
      return buffer;
    });
    const bytes = Uint8Array.from({ length: 3 * PAGE_SIZE }, (_, i) => (i * 7) & 0xff);
    out!.write(0, bytes);
    out!.forDevice();
    place.keys.given.get(out!.key)!.forEach((address, i) => {
      const page = new Uint8Array(PAGE_SIZE);
      place.engine.read(address, page);
      place.engine.write(place.keys.given.get(into!.key)![i]!, page);
    });
    const seen = new Uint8Array(bytes.length);
    into!.forCpu();
    into!.read(0, seen);
    expect(seen).toEqual(bytes);
    out!.free();
    into!.free();
    expect(place.host.pool!.used).toBe(0);
  });
});

test.each([
  ["no bytes", "EINVAL", (place: Stand) => new DataBuffer(place, 0, "to-device")],
  ["half a byte", "EINVAL", (place: Stand) => new DataBuffer(place, 0.5, "to-device")],
  ["a header, which is never mapped", "EINVAL", (place: Stand) => new DataBuffer(place, 16, "none").register()],
  [
    "a second registration",
    "EINVAL",
    (place: Stand) => {
      const buffer = new DataBuffer(place, 16, "to-device");
      buffer.register();
      buffer.register();
    },
  ],
  [
    "a device that is gone",
    "ENOTCONN",
    (place: Stand) => {
      place.keys.isPresent = false;
      new DataBuffer(place, 16, "to-device").register();
    },
  ],
])("refused: %s (%s)", (_what, errno, call) => {
  const place = stand();
  expect(errnoOf(() => call(place))).toBe(errno);
});

test("no memory in the middle gives back what was taken", () => {
  const pages = pagesFrom(10, 2, 5);
  const place = stand({ pages });
  expect(errnoOf(() => new DataBuffer(place, 6 * PAGE_SIZE, "to-device"))).toBe("ENOMEM");
  expect(pages.out).toBe(0);
});

describe("kept buffers", () => {
  test("the first of the direction that is large enough is used again; smaller ones that were met are given up", () => {
    const place = stand();
    const before = place.state();
    const pool = new BufferPool(place);
    const taken = [1, 2, 8, 4].map((pages) => pool.take(pages * PAGE_SIZE, "from-device"));
    const other = pool.take(PAGE_SIZE, "to-device");
    for (const buffer of [...taken, other]) pool.giveBack(buffer);
    expect(pool.take(3 * PAGE_SIZE, "from-device")).toBe(taken[2]);
    expect(pool.counters).toMatchObject({ built: 5, reused: 1, freed: 2 });
    expect(pool.kept).toBe(2);
    expect(pool.take(4 * PAGE_SIZE, "from-device")).toBe(taken[3]);
    pool.giveBack(taken[2]!);
    pool.giveBack(taken[3]!);
    pool.free();
    expect(place.state()).toEqual(before);
    expect(pool.counters.metadataBytes).toBe(0);
    expect(pool.counters.metadataPeakBytes).toBe((1 + 2 + 8 + 4 + 1) * 16 + 5 * 16);
  });

  test("a request that cannot be built leaves nothing", () => {
    const place = stand();
    const before = place.state();
    place.keys.refuses = true;
    const pool = new BufferPool(place);
    expect(errnoOf(() => pool.take(PAGE_SIZE, "from-device"))).toBe("EIO");
    expect([place.state(), pool.inUse]).toEqual([before, 0]);
  });
});
