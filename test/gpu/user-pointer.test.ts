/** User pointers: memory of a process on a GPU, of which parts go and come back, and the way of Linux 7.2 beside it. */
import { describe, expect, test } from "vitest";
import { DmaError, type IovaPage, MiB, PAGE_SIZE } from "../../src/base/index.ts";
import { KeptPages } from "../../src/consumers/gpu/index.ts";
import type { Arena } from "../../src/pagetable/index.ts";
import { at, bytesAt, type Gpu, gpuRig, isSame, mapPages, pattern, type Rig, START } from "./rig.ts";

const QUIET = { frames: { settings: { quietSplits: true } } } as const;
const code = (run: () => unknown): string => {
  try {
    run();
    return "nothing";
  } catch (error) {
    return error instanceof DmaError ? `${error.code} ${error.errno}` : String(error);
  }
};
const end = (rig: Rig): string[] => {
  rig.gpu.device.close();
  rig.process.exit();
  return rig.leftovers();
};
const reaches = ({ dma }: Gpu, address: number): boolean => dma.domain!.lookup((address / PAGE_SIZE) as IovaPage) >= 0;

describe("a user pointer", () => {
  test("lets the GPU copy what the process wrote, through both tables, at an address of its own", () => {
    const rig = gpuRig();
    mapPages(rig, 16);
    rig.memory.write(at(0), pattern(3, 5 * PAGE_SIZE));
    const space = rig.gpu.device.openSpace(rig.memory);
    const pointer = space.bindUserPointer({ start: START, length: 16 * PAGE_SIZE, gpuAddress: 0x10_0000 });
    const work = { do: "copy", from: 0x10_0000, to: 0x10_0000 + 8 * PAGE_SIZE, length: 5 * PAGE_SIZE } as const;
    expect(rig.gpu.device.run(space, work)).toEqual({ status: "done", bytes: 5 * PAGE_SIZE });
    expect(bytesAt(rig.memory, 8, 5 * PAGE_SIZE)).toEqual(pattern(3, 5 * PAGE_SIZE));
    expect(pointer.backing.linkedPages).toBe(16);
    expect(end(rig)).toEqual([]);
  });

  // One page of 64 MiB goes and comes back.
  const cost = (wholeObject: boolean, quietSplits: boolean, gone = 1) => {
    const pages = (64 * MiB) / PAGE_SIZE;
    const rig = gpuRig({ gpuBytes: 2 * MiB, frames: { settings: { quietSplits } } });
    mapPages(rig, pages);
    const space = rig.gpu.device.openSpace(rig.memory);
    const pointer = space.bindUserPointer({ start: START, length: 64 * MiB, wholeObject, leaves: "small" });
    pointer.bring();
    const { counters } = rig.gpu.dma;
    const kept = pointer.backing instanceof KeptPages ? pointer.backing : undefined;
    const [first, last] = [kept?.addressOf(0), kept?.addressOf(pages - 1)];
    const [before, gpuBefore] = [counters.snapshot(), space.table.counters.snapshot()];
    rig.memory.unmap(at(777), gone * PAGE_SIZE);
    const [spent, gpuSpent] = [counters.since(before), space.table.counters.since(gpuBefore)];
    if (kept) {
      expect([kept.addressOf(0), kept.addressOf(pages - 1), kept.addressOf(777)]).toEqual([first, last, undefined]);
      expect(reaches(rig.gpu, first! + 777 * PAGE_SIZE)).toBe(false);
    }
    rig.memory.map({ address: at(777), length: gone * PAGE_SIZE });
    const rebound = counters.snapshot();
    pointer.bring();
    const relinked = counters.since(rebound);
    if (kept) expect(kept.addressOf(777)).toBe(first! + 777 * PAGE_SIZE);
    expect(end(rig)).toEqual([]);
    const { relinkedBytes } = space.counts;
    const { leavesCleared: cleared, invalidations: flushes } = spent;
    return {
      cleared,
      flushes,
      gpuFlushes: gpuSpent.invalidations,
      linked: relinked.leavesWritten,
      syncs: relinked.mapSyncs,
      relinkedBytes,
    };
  };

  test("of 64 MiB loses one page for one entry, one invalidation of each TLB, and nothing linked again", () => {
    expect(cost(false, true)).toEqual({ cleared: 1, flushes: 1, gpuFlushes: 1, linked: 1, syncs: 1, relinkedBytes: 0 });
  });

  test("pays for 512 pages where the kernel announces every border within 2 MiB, as Linux 7.2 does", () => {
    expect(cost(false, false)).toMatchObject({ cleared: 512, flushes: 1, gpuFlushes: 1, linked: 512 });
  });

  test("in the way of Linux 7.2 loses 16384 pages for one", () => {
    const whole = { cleared: 16_384, linked: 16_384, relinkedBytes: 16_383 * PAGE_SIZE };
    expect(cost(true, true)).toMatchObject(whole);
  });

  test("with large entries splits one that loses a page, and its other pages stay mapped", () => {
    const rig = gpuRig({ ...QUIET, frames: { settings: { quietSplits: true, hugePages: "always" } } });
    mapPages(rig, 1024);
    const space = rig.gpu.device.openSpace(rig.memory);
    const pointer = space.bindUserPointer({ start: START, length: 1024 * PAGE_SIZE, leaves: "large" });
    pointer.bring();
    expect(rig.gpu.dma.counters.leavesWritten).toBe(2);
    expect(space.table.entryAt(START / PAGE_SIZE)?.leafPages).toBe(512);
    rig.memory.unmap(at(5), PAGE_SIZE);
    pointer.faultSteps(START / PAGE_SIZE, true).next();
    const kept = pointer.backing as KeptPages;
    expect(kept.has(600, true)).toBe(true);
    expect(space.table.entryAt(START / PAGE_SIZE + 600)?.leafPages).toBe(512);
    expect(kept.addressOf(5)).toBeUndefined();
    expect(end(rig)).toEqual([]);
  });

  test("drops all of a large entry that it has no memory to split, and the rest is asked for again", () => {
    const rig = gpuRig({ ...QUIET });
    // A run that lies together without being a huge page of the process: the kernel announces one page only.
    mapPages(rig, 512);
    for (let i = 0; i < 512; i++) rig.memory.touch(at(i), true);
    const space = rig.gpu.device.openSpace(rig.memory);
    const pointer = space.bindUserPointer({ start: START, length: 512 * PAGE_SIZE, leaves: "large" });
    pointer.bring();
    const isOneLeaf = rig.gpu.dma.counters.leavesWritten === 1;
    const arena = (rig.gpu.dma.domain as unknown as { arena: Arena }).arena;
    if (isOneLeaf) arena.failAt = 1;
    rig.memory.unmap(at(5), PAGE_SIZE);
    arena.failAt = 0;
    if (isOneLeaf) expect([space.counts.widened, pointer.backing.linkedPages]).toEqual([1, 0]);
    rig.memory.map({ address: at(5), length: PAGE_SIZE });
    pointer.bring();
    expect(pointer.backing.linkedPages).toBe(512);
    expect(end(rig)).toEqual([]);
  });

  test("without address space maps page by page, with the same answers; when others give theirs back, the next has it again", () => {
    const rig = gpuRig({ limits: { limits: { mask: 2 ** 32 - 1 } } });
    mapPages(rig, 4096);
    const space = rig.gpu.device.openSpace(rig.memory);
    const hogs: { free(): void }[] = [];
    const take = (length: number): void => {
      for (let hog = rig.gpu.dma.tryReserveIova({ length }); hog; hog = rig.gpu.dma.tryReserveIova({ length }))
        hogs.push(hog);
    };
    take(256 * MiB);
    take(MiB);
    for (const hog of hogs.splice(-16)) hog.free();
    take(PAGE_SIZE); // 16 MiB of single pages, of which every second one is given back: room for pages, and for nothing else
    const singles = hogs.splice(-4096);
    for (const [i, hog] of singles.entries()) if (i % 2 === 0) hog.free();
    hogs.push(...singles.filter((_, i) => i % 2 === 1));
    for (const hog of hogs.splice(0, 1)) hog.free(); // 256 MiB for some objects
    const big = rig.gpu.dma.tryReserveIova({ length: 248 * MiB });
    expect(big).toBeDefined();
    hogs.push(big!);
    const pointers = Array.from({ length: 16 }, (_, i) => {
      const pointer = space.bindUserPointer({ start: at(i * 256), length: MiB, leaves: "small" });
      pointer.bring();
      return pointer;
    });
    const reserved = pointers.filter(({ backing }) => backing.reservedBytes > 0);
    expect([reserved.length, space.counts.fellBack]).toEqual([8, 8]);
    for (const [i, pointer] of pointers.entries()) {
      expect(pointer.isWhole).toBe(true);
      const fill = { do: "fill", to: at(i * 256), length: MiB, seed: i } as const;
      expect(rig.gpu.device.run(space, fill).status).toBe("done");
      expect(isSame(bytesAt(rig.memory, i * 256, MiB), pattern(i, MiB))).toBe(true);
    }
    for (const pointer of pointers) pointer.release();
    const again = space.bindUserPointer({ start: START, length: MiB });
    expect(again.backing.reservedBytes).toBe(MiB);
    for (const hog of hogs) hog.free();
    expect(end(rig)).toEqual([]);
  });

  test("answers EFAULT when it is brought over a hole, and the GPU's work ends there; what is mapped anew is found again", () => {
    const rig = gpuRig(QUIET);
    mapPages(rig, 8);
    const space = rig.gpu.device.openSpace(rig.memory);
    const pointer = space.bindUserPointer({ start: START, length: 8 * PAGE_SIZE });
    pointer.bring();
    rig.memory.unmap(at(3), PAGE_SIZE);
    expect(code(() => pointer.bring())).toBe("ERR_DMA_HMM_FAULT EFAULT");
    const fill = { do: "fill", to: START, length: 8 * PAGE_SIZE, seed: 1 } as const;
    expect(rig.gpu.device.run(space, fill)).toEqual({ status: "fault", bytes: 3 * PAGE_SIZE, at: at(3) });
    expect(rig.gpu.device.refusals).toEqual(new Map([["ERR_DMA_HMM_FAULT", 1]]));
    rig.memory.map({ address: at(3), length: PAGE_SIZE });
    expect(rig.gpu.device.run(space, fill).status).toBe("done");
    expect(end(rig)).toEqual([]);
  });

  test("in a space that cannot fault is made whole before each piece of work", () => {
    const rig = gpuRig(QUIET);
    mapPages(rig, 8);
    const space = rig.gpu.device.openSpace(rig.memory, { faulting: false });
    space.bindUserPointer({ start: START, length: 8 * PAGE_SIZE });
    const fill = { do: "fill", to: START, length: 8 * PAGE_SIZE, seed: 1 } as const;
    expect(rig.gpu.device.run(space, fill).status).toBe("done");
    rig.memory.advise(at(2), PAGE_SIZE, "dontneed");
    expect(rig.gpu.device.run(space, { do: "add", to: at(2), length: 4, value: 7 }).status).toBe("done");
    expect(bytesAt(rig.memory, 2, 4)).toEqual(Uint8Array.of(7, 0, 0, 0));
    rig.memory.unmap(at(7), PAGE_SIZE);
    expect(rig.gpu.device.run(space, fill)).toMatchObject({ status: "fault", at: at(7) });
    expect(rig.gpu.model.counts.faults).toBe(0);
    expect(end(rig)).toEqual([]);
  });

  test("that is read only never lets the GPU write, and takes memory that the process may only read", () => {
    const rig = gpuRig();
    mapPages(rig, 4);
    rig.memory.write(at(0), pattern(9, PAGE_SIZE));
    rig.memory.protect(at(0), 4 * PAGE_SIZE, "r");
    const space = rig.gpu.device.openSpace(rig.memory);
    expect(code(() => space.bindUserPointer({ start: START, length: 4 * PAGE_SIZE, gpuAddress: 0x4000 }).bring())).toBe(
      "ERR_DMA_HMM_READ_ONLY EPERM",
    );
    using pointer = space.bindUserPointer({ start: START, length: 4 * PAGE_SIZE, readOnly: true });
    pointer.bring();
    expect(space.table.entryAt(START / PAGE_SIZE)?.writable).toBe(false);
    expect(end(rig)).toEqual([]);
  });
});

test("a device whose mappings may be copies is refused when its driver opens it", () => {
  const bounces = { limits: { limits: { forceBounce: true } } };
  expect(code(() => gpuRig({ ...bounces, iommu: false, host: { pool: { slots: 1024 } } }))).toBe(
    "ERR_DMA_GPU_DEVICE EOPNOTSUPP",
  );
});
