/**
 * From a request to a data pointer, judged by the controller's own reading of it.
 *
 * The long run, by hand: `DMALINK_NVME=100000 npx vitest run test/nvme/data-pointer.test.ts`.
 */
import { describe, expect, test } from "vitest";
import { DmaAddr, DmaError, hex, IovaPage, KiB, MiB, PAGE_SIZE, Random } from "../../src/base/index.ts";
import {
  Bio,
  BlockRequest,
  DEFAULT_LIMITS,
  DmaDoor,
  DmaIterator,
  type MappingDoor,
  OneShotDoor,
  type PeerRoute,
  PhysicalVectors,
  type QueueLimits,
  ScatterlistDoor,
  VectorList,
} from "../../src/consumers/block/index.ts";
import {
  CommandMapping,
  DataMapper,
  DescriptorPool,
  DescriptorPools,
  LARGE_BLOCK,
  type MapperOptions,
  RecordPool,
  SMALL_BLOCK,
} from "../../src/consumers/nvme/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { DataRuns, readPrps, readSgl } from "../../src/hosts/simulated/devices/nvme-data.ts";
import { SimulatedUnit, VirtualClock } from "../../src/hosts/simulated/index.ts";
import { IommuDomain } from "../../src/iommu/index.ts";
import { COMMAND, get64, NVME_STATUS, POINTERS, SGL_TYPE, viewOf } from "../../src/layouts/nvme/index.ts";
import { armLpae, type TableLayout, vtdSecondStage } from "../../src/layouts/pagetable/index.ts";

type Run = readonly [address: number, length: number];
const A = 0x1000_0000;
const DESCRIPTORS = 2 ** 44;
const REQUESTER = 0x100;

/** Memory for descriptors, which the controller reads. It fails the k-th time it is asked. */
class DescriptorMemory {
  readonly #pages: Uint8Array[] = [];
  failAt = 0;
  asked = 0;

  allocate = (length: number): { address: DmaAddr; bytes: Uint8Array; free(): void } => {
    if (++this.asked === this.failAt) throw new DmaError("ERR_DMA_TEST", "ENOMEM", "no descriptor memory");
    const bytes = new Uint8Array(length);
    this.#pages.push(bytes);
    return { address: DmaAddr(DESCRIPTORS + (this.#pages.length - 1) * PAGE_SIZE), bytes, free: () => {} };
  };

  read(address: DmaAddr, into: Uint8Array): boolean {
    const at = address - DESCRIPTORS;
    const page = this.#pages[Math.floor(at / PAGE_SIZE)];
    if (!page || (at % PAGE_SIZE) + into.length > PAGE_SIZE) return false;
    into.set(page.subarray(at % PAGE_SIZE, (at % PAGE_SIZE) + into.length));
    return true;
  }

  write(): boolean {
    return false;
  }
}

/** Every address is what it is; what is mapped is counted. */
class PlainDoor implements MappingDoor {
  readonly mergeBoundary = 0;
  readonly needsUnmap: boolean = true;
  readonly live = new Map<string, number>();
  peer: PeerRoute = { type: "none", busOffset: 0 };
  failAt = 0;
  calls = 0;

  providerOf(): undefined {
    return undefined;
  }

  peerRoute(): PeerRoute {
    return this.peer;
  }

  tryReserveIova(): undefined {
    return undefined;
  }

  mapPhys(phys: number, length: number): DmaAddr {
    if (++this.calls === this.failAt) throw new DmaError("ERR_DMA_TEST", "ENOMEM", "no");
    const key = `${phys} ${length}`;
    this.live.set(key, (this.live.get(key) ?? 0) + 1);
    return DmaAddr(phys);
  }

  unmapPhys(address: DmaAddr, length: number): void {
    const key = `${address} ${length}`;
    const count = this.live.get(key) ?? 0;
    if (count === 0) throw new Error(`${key} is not mapped`);
    if (count === 1) this.live.delete(key);
    else this.live.set(key, count - 1);
  }
}

const OPTIONS: MapperOptions = { sgls: false, metadataSgls: false, sglThreshold: 32 * KiB, untrusted: false };
const LIMITS: QueueLimits = { ...DEFAULT_LIMITS, blockBytes: 1, maxIntegritySegments: 15, peerMemory: true };

class Bench {
  readonly memory = new DescriptorMemory();
  readonly pools = new DescriptorPools(
    new DescriptorPool(SMALL_BLOCK, this.memory.allocate),
    new DescriptorPool(LARGE_BLOCK, this.memory.allocate),
  );
  readonly records = new RecordPool();
  readonly mapping = new CommandMapping();
  readonly command = viewOf(new Uint8Array(64));
  readonly mapper: DataMapper;

  constructor(door: MappingDoor, options: Partial<MapperOptions> = {}) {
    this.mapper = new DataMapper(door, LIMITS, { ...OPTIONS, ...options }, this.pools, this.records);
  }

  map(request: BlockRequest, passthrough = false): string {
    return this.mapper.mapData(this.mapping, request, this.command, 0, passthrough);
  }

  /** The controller's reading of the data pointer. */
  read(bytes: number): { status: number; runs: Run[] } {
    const runs = new DataRuns();
    const at = COMMAND.dataPointer;
    const { command, memory } = this;
    const status =
      (command.getUint8(COMMAND.flags) & POINTERS.mask) === POINTERS.prp
        ? readPrps(memory, get64(command, at), get64(command, at + 8), bytes, runs)
        : readSgl(memory, command, at, bytes, runs, false);
    return { status, runs: runs.addresses.map((address, i) => [address, runs.lengths[i]!]) };
  }

  get prps(): string[] {
    return [hex(get64(this.command, COMMAND.dataPointer)), hex(get64(this.command, COMMAND.dataPointer + 8))];
  }

  get inUse(): number {
    return this.pools.inUse + this.records.inUse;
  }
}

function requestOf(vecs: readonly Run[], provider?: object, integrity?: readonly Run[]): BlockRequest {
  const [data, metadata] = [new VectorList(), new VectorList()];
  for (const [phys, length] of vecs) data.add(phys, length, provider);
  for (const [phys, length] of integrity ?? []) metadata.add(phys, length);
  const bio = new Bio();
  const limits = { ...LIMITS, ...(integrity && { blockBytes: 512 }) };
  bio.set("read", 0, data, limits, integrity && metadata, integrity && (metadata.bytes / data.bytes) * 512);
  const front = new Bio();
  expect(bio.split(limits, front)).toBe(false);
  const request = new BlockRequest();
  request.start(front);
  return request;
}

/** Runs with neighbours joined, as sets of bytes compare. */
function joined(runs: Iterable<Run>): Run[] {
  const all: [number, number][] = [];
  for (const [address, length] of runs) {
    const last = all.at(-1);
    if (last && last[0] + last[1] === address) last[1] += length;
    else all.push([address, length]);
  }
  return all;
}

function intended(request: BlockRequest): Run[] {
  const vectors = new PhysicalVectors();
  vectors.start(request.first, LIMITS);
  const runs: Run[] = [];
  while (vectors.next()) runs.push([vectors.phys, vectors.length]);
  return joined(runs);
}

const pages = (count: number, at = A): Run[] => Array.from({ length: count }, (_, i) => [at + i * 8192, PAGE_SIZE]);

describe("one segment", () => {
  const cases: [offset: number, length: number, prp1: string, prp2: string][] = [
    [0, 1, "0x10000000", "0x0"],
    [0, 4096, "0x10000000", "0x0"],
    [0, 4097, "0x10000000", "0x10001000"],
    [4, 4096, "0x10000004", "0x10001000"],
    [4092, 4, "0x10000ffc", "0x0"],
    [4092, 4100, "0x10000ffc", "0x10001000"],
    [0, 8192, "0x10000000", "0x10001000"],
  ];
  for (const [offset, length, prp1, prp2] of cases)
    test(`of ${length} bytes at offset ${offset} needs no list`, () => {
      const bench = new Bench(new PlainDoor());
      expect(bench.map(requestOf([[A + offset, length]]))).toBe("ok");
      expect([bench.prps, bench.mapping.form, bench.inUse]).toEqual([[prp1, prp2], "single", 0]);
    });

  for (const [offset, length] of [
    [4092, 4101],
    [0, 8193],
  ] as const)
    test(`of ${length} bytes at offset ${offset} does not fit two PRPs: a list of two, or one descriptor`, () => {
      const bench = new Bench(new PlainDoor());
      expect(bench.map(requestOf([[A + offset, length]]))).toBe("ok");
      const list = bench.mapping.blocks[0]!.view;
      expect([bench.prps[0], hex(get64(list, 0)), hex(get64(list, 8)), get64(list, 16)]).toEqual([
        hex(A + offset),
        "0x10001000",
        "0x10002000",
        0,
      ]);
      const withSgl = new Bench(new PlainDoor(), { sgls: true });
      expect(withSgl.map(requestOf([[A + offset, length]]))).toBe("ok");
      expect([withSgl.mapping.form, withSgl.command.getUint8(COMMAND.flags), withSgl.read(length).runs]).toEqual([
        "single",
        POINTERS.sgl,
        [[A + offset, length]],
      ]);
    });
});

describe("PRP lists of page-aligned requests", () => {
  const cases: [count: number, block: number, slots: number[]][] = [
    [1, 0, []],
    [2, 0, []],
    [3, SMALL_BLOCK, [2]],
    [33, SMALL_BLOCK, [32]],
    [34, LARGE_BLOCK, [33]],
    [512, LARGE_BLOCK, [511]],
    [513, LARGE_BLOCK, [512]],
    [514, LARGE_BLOCK, [512, 2]],
    [1024, LARGE_BLOCK, [512, 512]],
    [1025, LARGE_BLOCK, [512, 512, 2]],
    [2048, LARGE_BLOCK, [512, 512, 512, 512, 3]],
  ];
  const slotsOf = (view: DataView): number => {
    let slots = 0;
    while (slots * 8 < view.byteLength && get64(view, slots * 8) !== 0) slots++;
    return slots;
  };
  for (const [count, block, slots] of cases)
    test(`${count} pages: ${slots.length === 0 ? "no list" : `slots ${slots.join(", ")}`}`, () => {
      const bench = new Bench(new PlainDoor());
      expect(bench.map(requestOf([[A, count * PAGE_SIZE]]))).toBe("ok");
      expect(bench.mapping.blocks.slice(0, bench.mapping.blockCount).map(({ view }) => slotsOf(view))).toEqual(slots);
      for (const { view } of bench.mapping.blocks.slice(0, bench.mapping.blockCount))
        expect(view.byteLength).toBe(block);
      expect(bench.read(count * PAGE_SIZE)).toEqual({ status: 0, runs: [[A, count * PAGE_SIZE]] });
      bench.mapper.unmap(bench.mapping);
      expect(bench.inUse).toBe(0);
    });

  test("8 MiB that begin four bytes before a page's end need one slot more", () => {
    const bench = new Bench(new PlainDoor());
    expect(bench.map(requestOf([[A + 4092, 8 * MiB]]))).toBe("ok");
    expect(bench.mapping.blocks.slice(0, bench.mapping.blockCount).map(({ view }) => slotsOf(view))).toEqual([
      512, 512, 512, 512, 4,
    ]);
    expect(bench.read(8 * MiB).runs).toEqual([[A + 4092, 8 * MiB]]);
  });
});

describe("the choice between PRPs and SGLs", () => {
  const flags = (options: Partial<MapperOptions>, vecs: readonly Run[], passthrough = false): number => {
    const bench = new Bench(new PlainDoor(), options);
    expect(bench.map(requestOf(vecs), passthrough)).toBe("ok");
    return bench.command.getUint8(COMMAND.flags);
  };

  test("a gap inside a page needs an SGL", () => {
    const gap: Run[] = [
      [A + 512, 1024],
      [A + 0x5200, 1024],
    ];
    expect(flags({ sgls: true }, gap)).toBe(POINTERS.sgl);
    expect(flags({ sgls: true, sglThreshold: 0 }, gap)).toBe(POINTERS.sgl);
  });

  test("a user's own command gets an SGL", () => expect(flags({ sgls: true }, pages(2), true)).toBe(POINTERS.sgl));

  test("segments of 32 KiB on average get an SGL; shorter ones, or none wanted, PRPs", () => {
    const long: Run[] = [
      [A, 32 * KiB],
      [A + 2 * MiB, 32 * KiB],
    ];
    expect(flags({ sgls: true }, long)).toBe(POINTERS.sgl);
    expect(flags({ sgls: true, sglThreshold: 0 }, long)).toBe(POINTERS.prp);
    expect(flags({ sgls: false }, long)).toBe(POINTERS.prp);
    expect(flags({ sgls: true }, pages(16))).toBe(POINTERS.prp);
    expect(flags({ sgls: true, sglThreshold: 4096 }, pages(16))).toBe(POINTERS.sgl);
  });

  test("256 scattered pages, direct: 255 PRPs in one page, or an SGL of 4096 bytes", () => {
    const prp = new Bench(new PlainDoor(), { sgls: true });
    expect(prp.map(requestOf(pages(256)))).toBe("ok");
    expect([prp.mapping.blockCount, prp.read(MiB).runs.length]).toEqual([1, 256]);
    const sgl = new Bench(new PlainDoor(), { sgls: true, sglThreshold: 4096 });
    expect(sgl.map(requestOf(pages(256)))).toBe("ok");
    expect([
      sgl.command.getUint32(COMMAND.dataPointer + 8, true),
      sgl.command.getUint8(COMMAND.dataPointer + 15),
    ]).toEqual([4096, SGL_TYPE.lastSegment]);
    expect(sgl.read(MiB).runs).toEqual(pages(256));
  });

  test("a request that PRPs cannot express is an error, and nothing stays mapped", () => {
    const door = new PlainDoor();
    const bench = new Bench(door);
    expect(
      bench.map(
        requestOf([
          [A + 512, 1024],
          [A + 0x5200, 1024],
        ]),
      ),
    ).toBe("io-error");
    expect([bench.inUse, door.live.size]).toEqual([0, 0]);
  });
});

describe("descriptors that an untrusted device has written over", () => {
  for (const sgls of [false, true])
    test(`are not believed: what is unmapped is what was mapped (${sgls ? "SGL" : "PRPs"})`, () => {
      const door = new PlainDoor();
      const bench = new Bench(door, { sgls, sglThreshold: 4096, untrusted: true });
      expect(bench.map(requestOf(pages(20)))).toBe("ok");
      for (const { view } of bench.mapping.blocks)
        for (let at = 0; at < view.byteLength; at += 4) view.setUint32(at, 0xdeadbeef);
      bench.mapper.unmap(bench.mapping);
      expect([door.live.size, bench.inUse]).toEqual([0, 0]);
    });
});

test("a request without data maps nothing, and that is no error", () => {
  const iterator = new DmaIterator();
  const mapped = new CommandMapping().data;
  expect(iterator.start(new PlainDoor(), undefined, "data", 0, 0, LIMITS, "to-device", mapped)).toBe(false);
  expect([iterator.status, mapped.range]).toEqual(["ok", undefined]);
});

describe("metadata", () => {
  const data: Run[] = [[A, 32 * KiB]];
  const three: Run[] = [
    [0x900_0000, 200],
    [0x910_0000, 200],
    [0x920_0000, 112],
  ];

  test("in three segments is a last segment of 48 bytes in slot 0 of a small block", () => {
    const door = new PlainDoor();
    const bench = new Bench(door, { sgls: true, metadataSgls: true });
    const request = requestOf(data, undefined, three);
    expect(bench.map(request)).toBe("ok");
    expect(bench.mapper.mapMetadata(bench.mapping, request, bench.command, 0)).toBe("ok");
    expect(bench.command.getUint8(COMMAND.flags)).toBe(POINTERS.sglMetadata);
    const block = bench.mapping.metadataBlock!;
    expect(get64(bench.command, COMMAND.metadataPointer)).toBe(block.address);
    expect([get64(block.view, 0), block.view.getUint32(8, true), block.view.getUint8(15)]).toEqual([
      block.address + 16,
      48,
      SGL_TYPE.lastSegment,
    ]);
    const runs = new DataRuns();
    expect(readSgl(bench.memory, block.view, 0, 512, runs, false)).toBe(NVME_STATUS.success);
    expect(runs.addresses).toEqual(three.map(([address]) => address));
    bench.mapper.unmap(bench.mapping);
    expect([bench.inUse, door.live.size]).toEqual([0, 0]);
  });

  test("in one segment is a plain address", () => {
    const door = new PlainDoor();
    const bench = new Bench(door, { sgls: true, metadataSgls: true });
    const request = requestOf(data, undefined, [[0x900_0000, 512]]);
    expect(bench.map(request)).toBe("ok");
    expect(bench.mapper.mapMetadata(bench.mapping, request, bench.command, 0)).toBe("ok");
    expect([bench.command.getUint8(COMMAND.flags), get64(bench.command, COMMAND.metadataPointer)]).toEqual([
      POINTERS.sgl,
      0x900_0000,
    ]);
    bench.mapper.unmap(bench.mapping);
    expect(door.live.size).toBe(0);
  });
});

/** An IOMMU, and a way back from its addresses. */
function translated(options: { lastPage?: number; layout?: TableLayout; countSteps?: boolean } = {}) {
  const unit = new SimulatedUnit();
  const domain = new IommuDomain({
    layout: vtdSecondStage(),
    unit,
    clock: new VirtualClock(),
    mode: "strict",
    ...options,
  });
  unit.attach(REQUESTER, domain.tables);
  const dma = new Dma({ domain });
  const back = (runs: readonly Run[]): Run[] => {
    const found: Run[] = [];
    for (const [address, length] of runs)
      for (let at = 0; at < length; ) {
        const offset = (address + at) % PAGE_SIZE;
        const piece = Math.min(PAGE_SIZE - offset, length - at);
        const page = unit.translate(REQUESTER, IovaPage.of(DmaAddr(address + at)), "write");
        found.push([page * PAGE_SIZE + offset, piece]);
        at += piece;
      }
    return joined(found);
  };
  const mapped = (): number => dma.counters.leavesWritten - dma.counters.leavesCleared;
  return { dma, door: new DmaDoor(dma), back, mapped, unit };
}

describe("behind an IOMMU", () => {
  test("32 scattered pages are one run: one range, one sync, an inline descriptor, two words kept", () => {
    const { dma, door, back, mapped } = translated();
    const bench = new Bench(door, { sgls: true });
    const before = dma.counters.snapshot();
    const request = requestOf(pages(32));
    expect(bench.map(request)).toBe("ok");
    expect(joined(back(bench.read(128 * KiB).runs))).toEqual(intended(request));
    expect(bench.command.getUint8(COMMAND.dataPointer + 15)).toBe(SGL_TYPE.dataBlock);
    expect([bench.inUse, bench.mapper.counters.metadataBytes]).toEqual([0, 16]);
    bench.mapper.unmap(bench.mapping);
    const { iovaAllocations, iovaFrees, leavesWritten, leavesCleared, mapSyncs, rangeInvalidations } =
      dma.counters.since(before);
    expect([iovaAllocations, iovaFrees, leavesWritten, leavesCleared, mapSyncs, rangeInvalidations]).toEqual([
      1, 1, 32, 32, 1, 1,
    ]);
    expect(mapped()).toBe(0);
  });

  test("the same by PRPs has 31 of them in a small block", () => {
    const { door, back } = translated();
    const bench = new Bench(door);
    const request = requestOf(pages(32));
    expect(bench.map(request)).toBe("ok");
    expect([bench.pools.small.inUse, bench.mapper.counters.listBytes]).toEqual([1, 248]);
    expect(joined(back(bench.read(128 * KiB).runs))).toEqual(intended(request));
  });

  test("a link that fails in the middle leaves nothing: no entry, no address, no descriptor", () => {
    const { dma, door, mapped } = translated();
    const bench = new Bench(door, { sgls: true });
    const vecs = pages(32);
    vecs[20] = [2 ** 52 + A, PAGE_SIZE]; // beyond what the table can point to
    const before = dma.counters.snapshot();
    expect(bench.map(requestOf(vecs))).toBe("io-error");
    const { iovaAllocations, iovaFrees, leavesWritten } = dma.counters.since(before);
    expect([iovaAllocations, iovaFrees, leavesWritten, mapped(), bench.inUse]).toEqual([1, 1, 20, 0, 0]);
    expect(bench.map(requestOf(pages(32)))).toBe("ok");
  });

  test("without room for a range, each segment is mapped by itself if it can be", () => {
    const { dma, door, mapped } = translated({ lastPage: 40 });
    const held = [dma.tryReserveIova({ length: 16 * PAGE_SIZE })!, dma.tryReserveIova({ length: 8 * PAGE_SIZE })!];
    const bench = new Bench(door, { sgls: true, sglThreshold: 1 });
    expect(bench.map(requestOf(pages(32)))).toBe("resource"); // nor is there room for all of them one by one
    expect([mapped(), bench.inUse]).toEqual([0, 0]);
    for (const range of held) range.destroy();
    expect(bench.map(requestOf(pages(32)))).toBe("ok");
    bench.mapper.unmap(bench.mapping);
    expect(mapped()).toBe(0);
  });

  /** One request of 128 KiB: allocations, entries, syncs, invalidations; bytes of lists, and of what is kept. */
  const table: [way: string, Door: new (dma: Dma) => DmaDoor, sgl: boolean, cost: number[]][] = [
    ["two steps, an SGL", DmaDoor, true, [1, 32, 1, 1, 0, 16]],
    ["two steps, PRPs", DmaDoor, false, [1, 32, 1, 1, 248, 16]],
    ["each segment by itself, an SGL", OneShotDoor, true, [32, 32, 32, 32, 512, 0]],
    ["each segment by itself, PRPs", OneShotDoor, false, [32, 32, 32, 32, 248, 512]],
    ["a scatterlist, an SGL", ScatterlistDoor, true, [1, 32, 1, 1, 0, 16 + 1024]],
    ["a scatterlist, PRPs", ScatterlistDoor, false, [1, 32, 1, 1, 248, 16 + 1024]],
  ];
  for (const [way, Door, sgls, cost] of table)
    test(`32 scattered pages cost, by ${way}: ${cost.join(", ")}`, () => {
      const { dma, back, mapped } = translated();
      const door = new Door(dma);
      const bench = new Bench(door, { sgls, sglThreshold: 4096 });
      const request = requestOf(pages(32));
      const before = dma.counters.snapshot();
      expect(bench.map(request)).toBe("ok");
      expect(back(bench.read(request.bytes).runs)).toEqual(intended(request));
      bench.mapper.unmap(bench.mapping);
      const { iovaAllocations, iovaFrees, leavesWritten, leavesCleared, mapSyncs, rangeInvalidations } =
        dma.counters.since(before);
      const { listBytes, metadataBytes } = bench.mapper.counters;
      const kept = metadataBytes + (door instanceof ScatterlistDoor ? door.tableBytes : 0);
      expect([iovaAllocations, leavesWritten, mapSyncs, rangeInvalidations, listBytes, kept]).toEqual(cost);
      expect([iovaFrees, leavesCleared, mapped()]).toEqual([iovaAllocations, leavesWritten, 0]);
    });

  test("requests up to 128 KiB never search the address space once the caches are warm; larger ones do", () => {
    const { dma, door } = translated({ countSteps: true });
    const bench = new Bench(door, { sgls: true });
    const searched = (count: number): number => {
      for (let i = 0; i < 40; i++) {
        expect(bench.map(requestOf(pages(count)))).toBe("ok");
        bench.mapper.unmap(bench.mapping);
      }
      const before = dma.counters.iovaSteps;
      for (let i = 0; i < 100; i++) {
        expect(bench.map(requestOf(pages(count)))).toBe("ok");
        bench.mapper.unmap(bench.mapping);
      }
      return dma.counters.iovaSteps - before;
    };
    expect([searched(2), searched(17), searched(32)]).toEqual([0, 0, 0]);
    expect(searched(33)).toBeGreaterThan(0);
  });

  test("of 16 KiB pages, vectors are one range only if each junction lies on one of them", () => {
    const layout = armLpae({ stage: 1, pageSizes: 0x4000n | (1n << 25n), inputBits: 47, outputBits: 48 })!;
    const { door, back, mapped } = translated({ layout });
    expect(door.mergeBoundary).toBe(16_383);
    const whole = (vecs: readonly Run[]): boolean => {
      const bench = new Bench(door, { sgls: true, sglThreshold: 4096 });
      const request = requestOf(vecs);
      expect(bench.map(request)).toBe("ok");
      const found = bench.mapping.data.range !== undefined;
      expect(back(bench.read(request.bytes).runs)).toEqual(intended(request));
      bench.mapper.unmap(bench.mapping);
      expect([bench.inUse, mapped()]).toEqual([0, 0]);
      return found;
    };
    const granule = 16 * KiB;
    expect(
      whole([
        [A, granule],
        [A + 4 * granule, granule],
      ]),
    ).toBe(true);
    expect(
      whole([
        [A + 4096, granule],
        [A + 4 * granule + 4096, granule],
      ]),
    ).toBe(false);
    expect(
      whole([
        [A + 4096, granule - 4096],
        [A + 4 * granule, 100],
      ]),
    ).toBe(true);
    expect(whole(pages(4))).toBe(false);
  });

  test("a request with nothing of the range left never looks as if it had one", () => {
    const { door } = translated();
    const bench = new Bench(door, { sgls: true });
    expect(bench.map(requestOf(pages(4)))).toBe("ok");
    expect(bench.mapping.data.range).toBeDefined();
    bench.mapper.unmap(bench.mapping);
    class Peer extends DmaDoor {
      override peerRoute(): PeerRoute {
        return { type: "bus-address", busOffset: 0x1_0000_0000 };
      }
    }
    const peer = new Bench(new Peer(door.dma), { sgls: true });
    Object.assign(peer.mapping.data, { range: bench.mapping.data.range });
    const before = door.dma.counters.snapshot();
    expect(peer.map(requestOf(pages(4), {}))).toBe("ok");
    expect([peer.mapping.data.range, peer.read(4 * PAGE_SIZE).runs.length]).toEqual([undefined, 4]);
    expect(peer.read(4 * PAGE_SIZE).runs[0]![0]).toBe(A + 0x1_0000_0000);
    peer.mapper.unmap(peer.mapping);
    expect(door.dma.counters.since(before).iovaAllocations).toBe(0);
  });
});

describe("any request", () => {
  const cases = Number(process.env.DMALINK_NVME ?? 1500);

  /** A request that the queue would have built: for PRPs without gaps inside pages. */
  function randomRequest(random: Random, prpOnly: boolean, most: number): Run[] {
    const count = 1 + random.below(random.chance(1, 8) ? 60 : 8);
    const vecs: [number, number][] = [];
    let total = 0;
    for (let i = 0; i < count && total < most; i++) {
      const first = i === 0;
      const last = i === count - 1;
      const gapless = prpOnly || random.chance(1, 2);
      const page = A + random.below(2 ** 20) * PAGE_SIZE;
      const before = vecs.at(-1);
      const follows = before !== undefined && (before[0] + before[1]) % PAGE_SIZE === 0 && random.chance(1, 4);
      const offset = gapless && !first ? 0 : random.below(1024) * 4;
      let length = gapless && !last ? (1 + random.below(4)) * PAGE_SIZE - offset : 4 + random.below(4000) * 4;
      length = Math.max(4, Math.min(length, most - total));
      if (follows) vecs.push([before[0] + before[1], length]);
      else vecs.push([page + (gapless && !first ? 0 : offset), length]);
      total += length;
      if (prpOnly && !last && (vecs.at(-1)![0] + length) % PAGE_SIZE !== 0) break;
    }
    return vecs;
  }

  for (const way of ["direct", "behind an IOMMU"] as const)
    test(`${way}: the controller reads exactly the bytes that were meant, and nothing is left (${cases} cases)`, () => {
      const random = Random.fromSeed(0x5eed);
      const plain = new PlainDoor();
      const { door, back, mapped } = translated();
      for (let i = 0; i < cases; i++) {
        const sgls = random.chance(1, 2);
        const options = { sgls, sglThreshold: random.pick([0, 4096, 32_768]), untrusted: random.chance(1, 4) };
        const bench = new Bench(way === "direct" ? plain : door, options);
        const vecs = randomRequest(random, !sgls, way === "direct" && random.chance(1, 20) ? 4 * MiB : 128 * KiB);
        const request = requestOf(vecs);
        expect([i, bench.map(request)]).toEqual([i, "ok"]);
        const { status, runs } = bench.read(request.bytes);
        expect([i, status]).toEqual([i, NVME_STATUS.success]);
        expect(joined(way === "direct" ? runs : back(runs))).toEqual(intended(request));
        bench.mapper.unmap(bench.mapping);
        expect([i, bench.inUse, plain.live.size, mapped()]).toEqual([i, 0, 0, 0]);
      }
    });

  test("whichever allocation fails, it says resource, leaves nothing, and works the next time", () => {
    const random = Random.fromSeed(7);
    for (let i = 0; i < 200; i++) {
      const vecs = i === 0 ? pages(200).concat([[A + 2 ** 32, 2 * MiB]]) : randomRequest(random, true, 4 * MiB);
      for (let failAt = 1; ; failAt++) {
        const door = new PlainDoor();
        const bench = new Bench(door, { sgls: i % 2 === 1, sglThreshold: 1 });
        bench.memory.failAt = failAt;
        const status = bench.map(requestOf(vecs));
        if (status === "ok" && bench.memory.asked < failAt) break;
        expect([status, bench.inUse, door.live.size]).toEqual(["resource", 0, 0]);
        expect(bench.map(requestOf(vecs))).toBe("ok");
      }
      for (let failAt = 1; ; failAt++) {
        const door = new PlainDoor();
        const bench = new Bench(door, { sgls: i % 2 === 1 });
        door.failAt = failAt;
        const status = bench.map(requestOf(vecs));
        if (door.calls < failAt) break;
        expect([status, bench.inUse, door.live.size]).toEqual(["resource", 0, 0]);
      }
    }
  });
});
