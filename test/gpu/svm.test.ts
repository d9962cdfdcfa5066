/** Shared virtual memory: page faults of a GPU in a process, what changes meanwhile, and where its pages are. */

import { describe, expect, test } from "vitest";
import { type Counters, DmaError, KiB, MiB, PAGE_SIZE, PhysPage } from "../../src/base/index.ts";
import type { ReservationPolicy, SvmOptions } from "../../src/consumers/gpu/index.ts";
import { DmaEngine } from "../../src/hosts/simulated/index.ts";
import { SimulatedFile } from "../../src/hosts/simulated/process/index.ts";
import { finish, type GpuWork, newPageEntry, type UserMemory } from "../../src/platform/index.ts";
import { at, bytesAt, gpuRig, isSame, mapPages, pattern, type Rig, type RigOptions, START } from "./rig.ts";

const code = (run: () => unknown): string => {
  try {
    run();
    return "nothing";
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    return `${error.code} ${error.errno}`;
  }
};

/** A machine whose first GPU shares the process's memory. */
function share(options: SvmOptions = {}, machine: RigOptions = {}, pages = 64) {
  const rig = gpuRig(machine);
  if (pages > 0) mapPages(rig, pages);
  const { device } = rig.gpu;
  const space = device.openSpace(rig.memory);
  const shared = space.shareMemory(options);
  const run = (work: GpuWork): string => device.run(space, work).status;
  const fill = (page: number, seed: number, length = PAGE_SIZE): string =>
    run({ do: "fill", to: at(page), length, seed });
  return { rig, device, space, shared, run, fill, counters: rig.gpu.dma.counters as Counters };
}

const end = (rig: Rig): string[] => {
  for (const { device } of rig.gpus) device.close();
  rig.process.exit();
  return rig.leftovers();
};
const SMALL = { chunks: [64 * KiB, PAGE_SIZE] } as const;

/** Is the page in the memory of the GPU? */
function isInGpu(memory: UserMemory, page: number): boolean {
  const entry = newPageEntry();
  memory.entryAt(at(page), entry);
  return entry.kind === "device-private";
}

describe("a page fault of a GPU", () => {
  test("brings a whole chunk, with one sync, and the next access in it needs none", () => {
    const { rig, fill, space, shared, counters } = share(SMALL);
    expect([fill(3, 9), fill(12, 5)]).toEqual(["done", "done"]);
    expect(isSame(bytesAt(rig.memory, 12, PAGE_SIZE), pattern(5, PAGE_SIZE))).toBe(true);
    expect([space.counts.faults, shared.ranges.length, counters.mapSyncs]).toEqual([1, 1, 1]);
    expect(end(rig)).toEqual([]);
  });

  test("computes what a program asks for over pointers of the process", () => {
    const { rig, run } = share(SMALL);
    const words = new Uint32Array(2048).map((_, i) => i * 77);
    rig.memory.write(at(1), new Uint8Array(words.buffer));
    expect(run({ do: "add", to: at(1), length: 8192, value: 5 })).toBe("done");
    expect(run({ do: "reduce", from: at(1), to: at(20), length: 8192 })).toBe("done");
    const sum = words.reduce((total, word) => (total + word + 5) >>> 0, 0);
    expect(new DataView(bytesAt(rig.memory, 20, 4).buffer).getUint32(0, true)).toBe(sum);
    expect(end(rig)).toEqual([]);
  });

  test("is refused for what the process does not have, with the error that says why", () => {
    const { rig, shared, run, device } = share({ ...SMALL, start: START, end: START + 64 * MiB });
    const { memory } = rig;
    memory.map({ address: at(100), length: PAGE_SIZE, access: "r" });
    memory.map({ address: at(200), length: PAGE_SIZE, io: PhysPage.add(0 as PhysPage, 2 ** 30), shared: true });
    expect(code(() => shared.fault(START - 1, false))).toBe("ERR_DMA_GPU_OUTSIDE EINVAL");
    expect(code(() => shared.fault(at(64), false))).toBe("ERR_DMA_GPU_AREA ENOENT");
    expect(code(() => shared.fault(at(100), true))).toBe("ERR_DMA_GPU_READ_ONLY EPERM");
    expect(code(() => shared.fault(at(200), false))).toBe("ERR_DMA_GPU_IO EIO");
    shared.fault(at(100), false);
    expect(run({ do: "copy", from: at(63), to: at(64), length: PAGE_SIZE })).toBe("fault");
    expect([...device.refusals]).toEqual([["ERR_DMA_GPU_AREA", 1]]);
    rig.process.exit();
    expect(code(() => shared.fault(at(1), false))).toBe("ERR_DMA_USER_GONE EFAULT");
    expect(end(rig)).toEqual([]);
  });

  test("is refused for memory of another device, unless that is allowed: then it is reached by the bus, without the IOMMU", () => {
    for (const allowPeers of [false, true]) {
      const { rig, shared, run, counters } = share({ ...SMALL, allowPeers });
      const [{ node }] = rig.host.plug("0.0.1", new DmaEngine({ memoryBytes: 65_536 })) as never as [{ node: never }];
      const provider = rig.host.peers.add(node, (node as { bars: never[] }).bars[0]!);
      rig.memory.map({ address: at(256), length: 2 * PAGE_SIZE, shared: true, peer: PhysPage.of(provider.bar.phys) });
      if (!allowPeers) expect(code(() => shared.fault(at(256), false))).toBe("ERR_DMA_GPU_PEER EOPNOTSUPP");
      else {
        expect(run({ do: "fill", to: at(256), length: 2 * PAGE_SIZE, seed: 1 })).toBe("done");
        expect(isSame(bytesAt(rig.memory, 256, 2 * PAGE_SIZE), pattern(1, 2 * PAGE_SIZE))).toBe(true);
        expect(counters.leavesWritten).toBe(0);
      }
      expect(end(rig).filter((left) => left !== "2 pages of processes")).toEqual([]); // the peer's own, which stay known
    }
  });

  test("of a file's last chunk brings the page that is there, and not those behind the end", () => {
    const { rig, shared, run } = share(SMALL);
    const file = new SimulatedFile({ frames: rig.frames, name: "data", length: 3 * PAGE_SIZE });
    rig.memory.map({ address: at(256), length: 16 * PAGE_SIZE, file, shared: true });
    expect(run({ do: "fill", to: at(257), length: PAGE_SIZE, seed: 4 })).toBe("done");
    expect(code(() => shared.fault(at(260), false))).toBe("ERR_DMA_HMM_FAULT EFAULT");
    expect(isSame(bytesAt(rig.memory, 257, PAGE_SIZE), pattern(4, PAGE_SIZE))).toBe(true);
    rig.gpu.device.close();
  });

  test("reads the page of zeros without a copy, and gets its own page when it writes", () => {
    const { rig, run, space } = share(SMALL);
    expect(run({ do: "reduce", from: at(0), to: at(40), length: PAGE_SIZE })).toBe("done");
    const zero = space.table.entryAt(START / PAGE_SIZE)!;
    expect(zero.writable).toBe(false);
    expect(run({ do: "add", to: at(0), length: 4, value: 3 })).toBe("done");
    expect(space.table.entryAt(START / PAGE_SIZE)!.writable).toBe(true);
    expect(bytesAt(rig.memory, 0, 4)).toEqual(Uint8Array.of(3, 0, 0, 0));
    expect(bytesAt(rig.memory, 1, 4)).toEqual(Uint8Array.of(0, 0, 0, 0));
    expect(end(rig)).toEqual([]);
  });
});

describe("what the process changes", () => {
  test.each<ReservationPolicy>(["chunk", "area", "linux-7.2"])(
    "under a munmap of a part leaves no way to what went, by %s; the rest works on in smaller ranges",
    (policy) => {
      const { rig, run, shared, space } = share({ ...SMALL, policy }, { frames: { settings: { quietSplits: true } } });
      expect(run({ do: "fill", to: at(0), length: 32 * PAGE_SIZE, seed: 1 })).toBe("done");
      const linked = space.counts.linkedPages;
      rig.memory.unmap(at(5), PAGE_SIZE);
      expect(space.table.lookup(START / PAGE_SIZE + 5)).toBe(-1);
      expect(run({ do: "add", to: at(5), length: 4, value: 1 })).toBe("fault");
      expect(run({ do: "fill", to: at(0), length: 5 * PAGE_SIZE, seed: 2 })).toBe("done");
      expect(run({ do: "fill", to: at(6), length: 26 * PAGE_SIZE, seed: 3 })).toBe("done");
      expect(isSame(bytesAt(rig.memory, 6, 26 * PAGE_SIZE), pattern(3, 26 * PAGE_SIZE))).toBe(true);
      const again = (space.counts.linkedPages - linked) * PAGE_SIZE;
      expect(again).toBe(policy === "area" ? 0 : 15 * PAGE_SIZE);
      expect(space.counts.relinkedBytes).toBe(again);
      expect(shared.ranges.every(({ isUnmapped }) => !isUnmapped)).toBe(true);
      expect(end(rig)).toEqual([]);
    },
  );

  test("one page at a time costs one page, and by Linux 7.2 the range", () => {
    const dropped = (policy: ReservationPolicy): number => {
      const { rig, run, space } = share({ ...SMALL, policy });
      run({ do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 1 });
      rig.memory.advise(at(3), PAGE_SIZE, "dontneed");
      expect(run({ do: "add", to: at(3), length: 4, value: 1 })).toBe("done");
      expect(bytesAt(rig.memory, 3, 4)).toEqual(Uint8Array.of(1, 0, 0, 0));
      expect(end(rig)).toEqual([]);
      return space.counts.bystanderPages;
    };
    expect([dropped("chunk"), dropped("linux-7.2")]).toEqual([0, 15]);
  });

  test("keeps addresses: a page that is copied after a fork is linked at the same place, and the GPU follows the parent", () => {
    const { rig, run, space } = share(SMALL);
    run({ do: "fill", to: at(0), length: 4 * PAGE_SIZE, seed: 1 });
    const before = space.table.lookup(START / PAGE_SIZE + 2);
    const child = rig.process.fork();
    child.memory.write(at(2), Uint8Array.of(99));
    expect(run({ do: "add", to: at(2), length: 4, value: 0 })).toBe("done");
    rig.memory.write(at(2), Uint8Array.of(55));
    expect(run({ do: "copy", from: at(2), to: at(9), length: PAGE_SIZE })).toBe("done");
    expect([bytesAt(rig.memory, 9, 1)[0], bytesAt(child.memory, 2, 1)[0]]).toEqual([55, 99]);
    expect(space.table.lookup(START / PAGE_SIZE + 2)).toBe(before);
    child.exit();
    expect(end(rig)).toEqual([]);
  });

  test("the notifier comes with the first range and goes with the last", () => {
    const { rig, fill, shared } = share({ ...SMALL, notifierBytes: MiB });
    fill(0, 1);
    fill(40, 1);
    expect(shared.notifierCount).toBe(1);
    rig.memory.unmap(at(0), 64 * PAGE_SIZE);
    finish(shared.collectGarbage());
    expect([shared.notifierCount, shared.ranges.length]).toEqual([0, 0]);
    expect(end(rig)).toEqual([]);
  });
});

describe("pages in the GPU's memory", () => {
  const wanted = (options: SvmOptions = {}, machine: RigOptions = {}, pages = 64) => {
    const rig = gpuRig(machine);
    mapPages(rig, pages);
    const { device, memory: gpuMemory } = rig.gpu;
    const space = device.openSpace(rig.memory);
    let wants = true;
    const setWants = (on: boolean): void => {
      wants = on;
    };
    const shared = space.shareMemory({ ...SMALL, gpuMemory, wantsGpuMemory: () => wants, ...options });
    const run = (work: GpuWork): string => device.run(space, work).status;
    return { rig, space, shared, run, gpuMemory, setWants };
  };

  test("are moved at the fault, and are mapped for nobody on the bus", () => {
    const { rig, run, space, gpuMemory } = wanted();
    rig.memory.write(at(0), pattern(3, 16 * PAGE_SIZE));
    expect(run({ do: "add", to: at(0), length: 4, value: 0 })).toBe("done");
    expect([isInGpu(rig.memory, 0), isInGpu(rig.memory, 15), gpuMemory.counts.movedIn]).toEqual([true, true, 16]);
    expect(rig.gpu.dma.counters.leavesWritten).toBe(rig.gpu.dma.counters.leavesCleared); // the copy's own
    expect(space.counts.scratchBytes).toBe(16 * 40);
    // The CPU touches one: its allocation comes back, and no more.
    expect(
      isSame(bytesAt(rig.memory, 4, PAGE_SIZE), pattern(3, 16 * PAGE_SIZE).subarray(4 * PAGE_SIZE, 5 * PAGE_SIZE)),
    ).toBe(true);
    expect([isInGpu(rig.memory, 0), gpuMemory.counts.movedOut]).toEqual([false, 16]);
    expect(end(rig)).toEqual([]);
  });

  test("stay equal to a model through cycles of moves and writes of both sides, and no page is ever in both places", () => {
    const { rig, run, shared, setWants } = wanted();
    const model = new Uint8Array(64 * PAGE_SIZE);
    for (let cycle = 0; cycle < 60; cycle++) {
      const page = (cycle * 37) % 60;
      setWants(cycle % 3 !== 0);
      const bytes = pattern(cycle, 3 * PAGE_SIZE);
      if (cycle % 2 === 0) rig.memory.write(at(page), bytes);
      else expect(run({ do: "fill", to: at(page), length: bytes.length, seed: cycle })).toBe("done");
      model.set(bytes, page * PAGE_SIZE);
      let present = 0;
      for (const range of shared.ranges)
        for (let i = 0; i < range.pages; i++) {
          const isMapped = range.backing.has(i, false) && !isInGpu(rig.memory, (range.start - START) / PAGE_SIZE + i);
          if (isMapped) present++;
        }
      expect(shared.reservation.linkedBytes / PAGE_SIZE).toBe(present);
    }
    expect(isSame(bytesAt(rig.memory, 0, model.length), model)).toBe(true);
    expect(end(rig)).toEqual([]);
  });

  test("and pages of the system in one range are one object where mixing is allowed, and come back where it is not", () => {
    for (const allowMixed of [true, false]) {
      const { rig, run, shared, gpuMemory, setWants } = wanted({ allowMixed });
      rig.memory.write(at(0), pattern(1, 16 * PAGE_SIZE));
      finish(gpuMemory.moveIn(rig.memory, at(0), at(8)));
      setWants(false);
      expect(run({ do: "add", to: at(12), length: 4, value: 0 })).toBe("done");
      expect(shared.reservation.linkedBytes).toBe((allowMixed ? 8 : 16) * PAGE_SIZE);
      expect(isInGpu(rig.memory, 0)).toBe(allowMixed);
      expect(isSame(bytesAt(rig.memory, 0, 16 * PAGE_SIZE), pattern(1, 16 * PAGE_SIZE))).toBe(true);
      expect(end(rig)).toEqual([]);
    }
  });

  test("make room by eviction of the oldest, and if nothing can go the range is used where it is", () => {
    const { rig, run, gpuMemory } = wanted({ chunks: [MiB, 64 * KiB, PAGE_SIZE] }, { gpuBytes: 2 * MiB }, 1024);
    for (let page = 0; page < 1024; page += 256)
      expect(run({ do: "fill", to: at(page), length: 2 * PAGE_SIZE, seed: page })).toBe("done");
    expect([gpuMemory.counts.movedIn, gpuMemory.counts.evictions]).toEqual([1024, 2]);
    for (let page = 0; page < 1024; page += 256)
      expect(isSame(bytesAt(rig.memory, page, 2 * PAGE_SIZE), pattern(page, 2 * PAGE_SIZE))).toBe(true);
    expect(end(rig)).toEqual([]);
  });

  test("refuse to move what is no single area of the process's own, or is there in part", () => {
    const { rig, gpuMemory } = wanted();
    const move = (from: number, to: number): string =>
      code(() => finish(gpuMemory.moveIn(rig.memory, at(from), at(to))));
    rig.memory.map({ address: at(100), length: 4 * PAGE_SIZE, shared: true });
    expect(move(64, 66)).toBe("ERR_DMA_GPU_MIGRATE ENOENT");
    expect(move(60, 66)).toBe("ERR_DMA_GPU_MIGRATE EINVAL");
    expect(move(100, 102)).toBe("ERR_DMA_GPU_MIGRATE EBUSY");
    expect(move(0, 4)).toBe("nothing");
    expect(move(0, 4)).toBe("nothing"); // there already
    expect(move(2, 8)).toBe("ERR_DMA_GPU_MIGRATE EBUSY");
    const pages = new Float64Array(1);
    rig.memory.pin(at(20), 1, pages, 0, { write: true });
    expect(move(16, 24)).toBe("ERR_DMA_GPU_MIGRATE EBUSY");
    rig.frames.unpin(pages[0] as PhysPage, 1, false);
    expect(move(16, 24)).toBe("nothing");
    expect(end(rig)).toEqual([]);
  });

  test("belong to the GPU alone for its timeslice: a CPU that comes before waits, one that comes after has all of it back", () => {
    const timeslice = ({ clock }: Rig["host"]) => ({ lengthMs: 10, clock, wait: () => void clock.advance(3) });
    const { rig, run, gpuMemory } = wanted({}, { timeslice });
    run({ do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 8 });
    const before = rig.host.clock.nowMs();
    expect(isSame(bytesAt(rig.memory, 1, PAGE_SIZE), pattern(8 + PAGE_SIZE, PAGE_SIZE))).toBe(true);
    expect([gpuMemory.counts.waits, rig.host.clock.nowMs() - before, gpuMemory.counts.movedOut]).toEqual([4, 12, 16]);
    expect(end(rig)).toEqual([]);
  });

  test("come back only as far as the touched area reaches, when it was cut", () => {
    const { rig, run, gpuMemory } = wanted();
    run({ do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 8 });
    rig.memory.protect(at(8), 8 * PAGE_SIZE, "r");
    bytesAt(rig.memory, 2, 1);
    expect([gpuMemory.counts.movedOut, isInGpu(rig.memory, 7), isInGpu(rig.memory, 8)]).toEqual([8, false, true]);
    expect(end(rig)).toEqual([]);
  });

  test("of a GPU whose driver leaves all go back, and none come any more", () => {
    const { rig, run, gpuMemory } = wanted();
    run({ do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 8 });
    finish(gpuMemory.unbindSteps());
    expect([isInGpu(rig.memory, 3), rig.gpu.pool.pagesInUse]).toEqual([false, 0]);
    expect(code(() => finish(gpuMemory.moveIn(rig.memory, at(0), at(4))))).toBe("ERR_DMA_GPU_UNBOUND ENODEV");
    expect(run({ do: "add", to: at(0), length: 4, value: 0 })).toBe("done");
    expect(isSame(bytesAt(rig.memory, 0, 16 * PAGE_SIZE), pattern(8, 16 * PAGE_SIZE))).toBe(true);
    expect(end(rig)).toEqual([]);
  });

  test("that a child shares after fork are found for reading, and copied when the GPU writes", () => {
    const { rig, run } = wanted();
    run({ do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 8 });
    const child = rig.process.fork();
    expect(run({ do: "add", to: at(0), length: 4, value: 1 })).toBe("done");
    const [mine, its] = [bytesAt(rig.memory, 0, 4), bytesAt(child.memory, 0, 4)];
    expect([mine[0], its[0]]).toEqual([9, 8]);
    child.exit();
    expect(end(rig)).toEqual([]);
  });

  test("of 2 MiB are one entry of the GPU, and a huge page of the process goes whole", () => {
    for (const hugePages of ["never", "always"] as const) {
      const machine = { frames: { settings: { hugePages } } };
      const { rig, run, space, gpuMemory } = wanted({ chunks: [2 * MiB, PAGE_SIZE] }, machine, 512);
      rig.memory.write(at(100), pattern(5, PAGE_SIZE));
      expect(run({ do: "add", to: at(0), length: 4, value: 1 })).toBe("done");
      expect([gpuMemory.counts.movedIn, space.table.entryAt(START / PAGE_SIZE)?.leafPages]).toEqual([512, 512]);
      rig.memory.unmap(at(7), PAGE_SIZE); // splits it; the rest stays, until the dead range is collected
      expect(isSame(bytesAt(rig.memory, 100, PAGE_SIZE), pattern(5, PAGE_SIZE))).toBe(true);
      expect(end(rig)).toEqual([]);
    }
  });
});

describe("two GPUs in one process", () => {
  const both = (linked: boolean) => {
    const rig = gpuRig({ gpus: 2, linked });
    mapPages(rig, 64);
    const spaces = rig.gpus.map(({ device, memory: gpuMemory }, i) => {
      const space = device.openSpace(rig.memory);
      space.shareMemory({ ...SMALL, gpuMemory, wantsGpuMemory: () => i === 0, allowMixed: true });
      return space;
    });
    const run = (i: number, work: GpuWork): string => rig.gpus[i]!.device.run(spaces[i]!, work).status;
    return { rig, run, spaces };
  };

  test("without a link: what moves to one leaves the other, whose next access brings it back", () => {
    const { rig, run, spaces } = both(false);
    expect(run(1, { do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 2 })).toBe("done");
    expect(run(0, { do: "add", to: at(0), length: 4, value: 1 })).toBe("done");
    expect([isInGpu(rig.memory, 0), spaces[1]!.table.lookup(START / PAGE_SIZE)]).toEqual([true, -1]);
    expect(run(1, { do: "add", to: at(0), length: 4, value: 1 })).toBe("done");
    expect([isInGpu(rig.memory, 0), spaces[0]!.table.lookup(START / PAGE_SIZE)]).toEqual([false, -1]);
    expect(bytesAt(rig.memory, 0, 1)[0]).toBe(4);
    expect(end(rig)).toEqual([]);
  });

  test("with a link: the other reaches it where it is, and nothing moves", () => {
    const { rig, run } = both(true);
    expect(run(0, { do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 2 })).toBe("done");
    expect(run(1, { do: "add", to: at(0), length: 4, value: 5 })).toBe("done");
    expect([isInGpu(rig.memory, 0), rig.gpus[1]!.dma.counters.leavesWritten]).toEqual([true, 0]);
    expect(bytesAt(rig.memory, 0, 1)[0]).toBe(7);
    expect(end(rig)).toEqual([]);
  });

  test("with a link: a range moves from one to the other without the bus", () => {
    const { rig, run } = both(true);
    expect(run(0, { do: "fill", to: at(0), length: 16 * PAGE_SIZE, seed: 2 })).toBe("done");
    finish(rig.gpus[1]!.memory.moveIn(rig.memory, at(0), at(16)));
    expect([rig.gpus[1]!.memory.counts.acrossPages, rig.gpus[0]!.pool.pagesInUse]).toEqual([16, 0]);
    expect(run(1, { do: "add", to: at(0), length: 4, value: 1 })).toBe("done");
    expect(bytesAt(rig.memory, 0, 1)[0]).toBe(3);
    expect(end(rig)).toEqual([]);
  });
});

describe("address space of ranges", () => {
  test("by area is one reservation, and by chunk one a range; an area above the limit falls back to chunks", () => {
    const reserved = (policy: ReservationPolicy, mask: number): number => {
      const machine = { limits: { limits: { mask } } };
      const { rig, fill, shared } = share({ chunks: [64 * KiB, PAGE_SIZE], policy }, machine, 1024);
      fill(0, 1);
      fill(512, 1);
      const { reservedBytes } = shared.reservation;
      expect(end(rig)).toEqual([]);
      return reservedBytes;
    };
    expect(reserved("chunk", 2 ** 48 - 1)).toBe(2 * 64 * KiB);
    expect(reserved("area", 2 ** 48 - 1)).toBe(4 * MiB);
    expect(reserved("linux-7.2", 2 ** 48 - 1)).toBe(2 * 64 * KiB);
  });

  test("by area grows with it: what is beyond the reservation has one of its own, and the old one stays while it is used", () => {
    const { rig, fill, shared } = share({ ...SMALL, policy: "area" });
    fill(0, 1);
    rig.memory.map({ address: at(64), length: 64 * PAGE_SIZE }); // one area of 128 pages now
    fill(70, 2);
    expect(shared.reservation).toEqual({ reservedBytes: 128 * PAGE_SIZE, linkedBytes: 32 * PAGE_SIZE });
    rig.memory.unmap(at(0), 64 * PAGE_SIZE);
    finish(shared.collectGarbage());
    expect(shared.reservation.reservedBytes).toBe(64 * PAGE_SIZE);
    expect(end(rig)).toEqual([]);
  });

  test("keeps a page at the offset of its own address, where Linux 7.2 packs: a huge page behind an odd one stays one entry", () => {
    const leafPages = (wholeObject: boolean): number => {
      const rig = gpuRig({ frames: { settings: { hugePages: "always" } } });
      mapPages(rig, 1024);
      const space = rig.gpu.device.openSpace(rig.memory);
      rig.memory.unmap(at(0), 511 * PAGE_SIZE);
      const options = { start: at(511), length: 513 * PAGE_SIZE, wholeObject, leaves: "large" } as const;
      space.bindUserPointer(options).bring();
      const found = space.table.entryAt(START / PAGE_SIZE + 512)!.leafPages;
      expect(end(rig)).toEqual([]);
      return found;
    };
    expect([leafPages(false), leafPages(true)]).toEqual([512, 1]);
  });
});
