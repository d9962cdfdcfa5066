/** A process's memory on a device: range faults, the DMA map, and the mirror that holds both together. */
import { describe, expect, test } from "vitest";
import { orderSeeds } from "../../../test/effort.ts";
import { everyOrder, interleave, type Piece } from "../../../test/models/interleaver.ts";
import { DmaError, type IovaPage, PAGE_SIZE, type PhysAddr, Random } from "../../base/index.ts";
import { Dma } from "../../dma/index.ts";
import { SimulatedMachine, SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { Frames, SimulatedDeviceMemory, SimulatedProcess } from "../../hosts/simulated/process/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { vtdSecondStage } from "../../layouts/pagetable/index.ts";
import { finish, newPageEntry, type PageEntry, UserAddr, type UserMemory } from "../../platform/index.ts";
import { HMM, HmmDmaMap, Mirror, type MirrorOptions, PfnWords } from "./index.ts";

const START = UserAddr(2 ** 32);
const at = (page: number): UserAddr => UserAddr(START + page * PAGE_SIZE);

/** A device's table, which the driver keeps: what it may use now. */
class Shown {
  readonly entries = new Map<number, { readonly address: number; readonly writable: boolean }>();
  /** Planted: the device forgets nothing. */
  forgetful = false;

  show(index: number, addresses: Float64Array, words: PfnWords): void {
    addresses.forEach((address, i) => {
      if (!Number.isNaN(address)) this.entries.set(index + i, { address, writable: words.has(index + i, HMM.write) });
    });
  }

  hide(first: number, end: number): void {
    if (this.forgetful) return;
    for (let i = first; i < end; i++) this.entries.delete(i);
  }
}

function setUp(pages = 32, options: Partial<MirrorOptions> = {}) {
  const machine = new SimulatedMachine({ memoryBytes: 2 ** 28 });
  const frames = new Frames({ pages: machine.pages, memory: machine.memory, swapPages: 64 });
  const process = new SimulatedProcess(frames);
  const domain = new DmaDomain({
    layout: vtdSecondStage(),
    unit: new SimulatedUnit(),
    clock: new VirtualClock(),
    mode: "strict",
  });
  const dma = new Dma({ domain });
  process.memory.map({ address: START, length: pages * PAGE_SIZE });
  const shown = new Shown();
  const mirror = new Mirror({ memory: process.memory, dma, driver: shown, start: START, pages, ...options });
  const { memory } = process;
  return { machine, frames, process, memory, domain, dma, shown, mirror, counters: domain.counters };
}
type SetUp = ReturnType<typeof setUp>;

/** Whatever the device may use must be what the process has, with no more rights. */
function checkShown({ shown, memory, domain }: SetUp): void {
  const entry: PageEntry = newPageEntry();
  for (const [index, { address, writable }] of shown.entries) {
    memory.entryAt(at(index), entry);
    const reached = domain.table.lookup((address / PAGE_SIZE) as IovaPage);
    if (entry.kind !== "present" || entry.page !== reached)
      throw new Error(
        `the device reaches ${reached} for page ${index}, where the process has ${entry.kind} ${entry.page}`,
      );
    if (writable && !entry.writable) throw new Error(`the device may write page ${index}, and the process may not`);
  }
}

describe("a mirror", () => {
  test("gives each page its own place in one reservation, with one sync for all of a fault", () => {
    const { mirror, counters, shown } = setUp();
    mirror.fault(0, 16, true);
    expect([counters.iovaAllocations, counters.mapSyncs]).toEqual([1, 1]);
    expect(shown.entries.get(7)!.address - shown.entries.get(0)!.address).toBe(7 * PAGE_SIZE);
  });

  test("shows a right to write later without touching the IOMMU", () => {
    const { mirror, counters, shown, memory } = setUp();
    memory.write(START, new Uint8Array(PAGE_SIZE));
    mirror.fault(0, 1, false);
    const before = counters.snapshot();
    mirror.fault(0, 1, true);
    expect([counters.since(before).leavesWritten, counters.since(before).mapSyncs]).toEqual([0, 0]);
    expect(shown.entries.get(0)!.writable).toBe(true);
  });

  test("loses exactly what is unmapped; the rest keeps its addresses; a new page comes to the same one", () => {
    const { mirror, counters, shown, memory } = setUp();
    mirror.fault(0, 32, true);
    const address = shown.entries.get(5)!.address;
    const before = counters.snapshot();
    memory.unmap(at(5), PAGE_SIZE);
    expect([counters.since(before).leavesCleared, counters.since(before).rangeInvalidations]).toEqual([1, 1]);
    expect([shown.entries.has(5), shown.entries.size]).toEqual([false, 31]);
    memory.map({ address: at(5), length: PAGE_SIZE });
    mirror.fault(5, 1, true);
    expect(shown.entries.get(5)!.address).toBe(address);
  });

  test("takes 512 pages away with one invalidation; as Linux does, page by page, with 512", () => {
    for (const [batched, count] of [
      [true, 1],
      [false, 512],
    ] as const) {
      const { mirror, counters, memory } = setUp(512, { batched });
      mirror.fault(0, 512, true);
      const before = counters.snapshot();
      memory.advise(START, 512 * PAGE_SIZE, "dontneed");
      expect(counters.since(before).rangeInvalidations).toBe(count);
    }
  });

  test("follows the parent when a fork makes pages common and a write parts them", () => {
    const all = setUp();
    const { mirror, process, memory, shown } = all;
    memory.write(START, new Uint8Array(PAGE_SIZE).fill(1));
    mirror.fault(0, 1, true);
    const child = process.fork();
    expect(shown.entries.has(0)).toBe(false);
    mirror.fault(0, 1, true);
    checkShown(all);
    const bytes = new Uint8Array(1);
    memory.write(START, new Uint8Array([9]));
    child.memory.read(START, bytes);
    expect(bytes[0]).toBe(1);
  });

  test("refuses what the process could not do itself, and keeps what it had", () => {
    const { mirror, memory, shown } = setUp();
    mirror.fault(0, 2, true);
    memory.unmap(at(8), PAGE_SIZE);
    memory.protect(at(9), PAGE_SIZE, "r");
    expect(() => mirror.fault(7, 2, false)).toThrow(expect.objectContaining({ errno: "EFAULT" }));
    expect(() => mirror.fault(9, 1, true)).toThrow(expect.objectContaining({ errno: "EPERM" }));
    expect(shown.entries.size).toBe(2);
  });

  test("does not map pages that lie in the device's own memory", () => {
    const owner = { name: "gpu" };
    const all = setUp(8, { owner });
    const { mirror, memory, frames, shown, counters } = all;
    const device = new SimulatedDeviceMemory({
      frames,
      kind: "device-private",
      owner,
      firstPage: (2 ** 30) as never,
      pages: 512,
    });
    memory.write(START, new Uint8Array(8 * PAGE_SIZE).fill(3));
    const migration = finish(memory.collect({ start: START, end: at(4), from: "system", owner }));
    for (let i = 0; i < 4; i++) migration.setDestination(i, device.allocate(0)!, 0);
    finish(migration.move());
    migration.finish();
    const before = counters.snapshot();
    mirror.fault(0, 8, false);
    expect([...shown.entries.keys()]).toEqual([4, 5, 6, 7]);
    expect(counters.since(before).leavesWritten).toBe(4);
    checkShown(all);
  });

  test("leaves no entry and no address behind when it is closed, also twice", () => {
    const { mirror, domain, counters, memory } = setUp();
    mirror.fault(0, 32, true);
    mirror.close();
    mirror.close();
    expect([...domain.table.entries()].filter(({ leaf }) => leaf)).toEqual([]);
    expect(counters.iovaFrees).toBe(1);
    memory.unmap(START, PAGE_SIZE);
    expect(() => mirror.fault(0, 1, false)).toThrow(expect.objectContaining({ code: "ERR_DMA_RELEASED" }));
  });

  test("cannot be made for a device that would need copies", () => {
    const { memory } = setUp();
    const dma = new Dma({ mask: 2 ** 32 - 1, machine: { ramEnd: (2 ** 34) as PhysAddr } });
    const driver = new Shown();
    expect(() => new Mirror({ memory, dma, driver, start: START, pages: 1 })).toThrow(
      expect.objectContaining({ code: "ERR_DMA_HMM_UNSUPPORTED", errno: "EOPNOTSUPP" }),
    );
  });
});

/** A memory whose watchers never learn that they were too late. */
function withoutSequence(memory: UserMemory): UserMemory {
  const broken: Partial<UserMemory> = {
    pages: memory.pages,
    areasAreStill: true,
    areaFrom: (address) => memory.areaFrom(address),
    entryAt: (address, into) => memory.entryAt(address, into),
    holdAreas: () => memory.holdAreas(),
    fault: (address, write) => memory.fault(address, write),
    watch: (start, end, callback, own) => {
      const notifier = memory.watch(start, end, callback, own);
      return {
        start,
        end,
        isInvalidating: false,
        readBegin: () => 0,
        retry: () => false,
        remove: () => notifier.remove(),
      };
    },
  };
  return broken as UserMemory;
}

type Planted = "nothing" | "forgets entries" | "does not ask again";

/** Faults of three queues against whatever a process and its system do. */
function race(seed: number, planted: Planted = "nothing"): string[] {
  const all = setUp(16);
  all.shown.forgetful = planted === "forgets entries";
  const { process, memory } = all;
  let { mirror } = all;
  if (planted === "does not ask again") {
    mirror.close();
    mirror = new Mirror({ memory: withoutSequence(memory), dma: all.dma, driver: all.shown, start: START, pages: 16 });
  }
  const random = Random.fromSeed(seed);
  const pick = (): [number, number] => {
    const first = random.below(16);
    return [first, random.between(1, 16 - first)];
  };
  memory.write(START, new Uint8Array(16 * PAGE_SIZE).fill(5));
  const mayThrow = (error: unknown): boolean => error instanceof DmaError;
  const piece = (name: string, steps: Piece["steps"]): Piece => ({ name, steps, mayThrow });
  const [pieces, children]: [Piece[], SimulatedProcess[]] = [[], []];
  for (let i = 0; i < 3; i++) {
    const [first, count] = pick();
    pieces.push(piece(`fault ${first}+${count}`, mirror.faultSteps(first, count, random.chance(1, 2))));
  }
  for (let i = 0; i < 4; i++) {
    const [first, count] = pick();
    const length = count * PAGE_SIZE;
    const makers: (() => Piece)[] = [
      () => piece(`unmap ${first}+${count}`, memory.unmapSteps(at(first), length)),
      () =>
        piece(`protect ${first}+${count}`, memory.protectSteps(at(first), length, random.chance(1, 2) ? "r" : "rw")),
      () => piece(`drop ${first}+${count}`, memory.adviseSteps(at(first), length, "dontneed")),
      () => piece(`move ${first}+${count}`, memory.remapSteps(at(first), length, length, at(64))),
      () => piece(`touch ${first}`, memory.touchSteps(at(first), true)),
      () => piece(`page out ${first}+${count}`, memory.adviseSteps(at(first), length, "pageout")),
      () => piece(`other frames ${first}+${count}`, memory.relocateSteps(at(first), length)),
      () => piece(`reclaim ${count}`, all.frames.reclaimSteps(count)),
      () =>
        piece(
          "fork",
          (function* () {
            children.push(yield* process.forkSteps());
          })(),
        ),
    ];
    pieces.push(random.pick(makers)());
  }
  const story = interleave(random, pieces, () => checkShown(all));
  for (const child of children) child.exit();
  mirror.close();
  process.exit();
  expect([...all.domain.table.entries()].filter(({ leaf }) => leaf)).toEqual([]);
  expect([all.frames.inUse, all.frames.swap!.inUse]).toEqual([0, 0]);
  return story;
}

describe("faults of a device and changes of a process, in any order", () => {
  const seeds = orderSeeds(200);

  test(`never show the device a page that the process has lost: ${seeds.length} orders`, { timeout: 600_000 }, () =>
    everyOrder(seeds, (seed) => race(seed)),
  );

  test("happen the same way for one seed", () => expect(race(11)).toEqual(race(11)));

  for (const planted of ["forgets entries", "does not ask again"] as const)
    test(`are found out where a mirror ${planted}`, () => {
      const isFound = (seed: number): boolean => {
        try {
          race(seed, planted);
          return false;
        } catch {
          return true;
        }
      };
      const found = Array.from({ length: 100 }, (_, seed) => seed).filter(isFound);
      expect(found.length).toBeGreaterThan(5);
    });
});

describe("a DMA map", () => {
  const made = (linuxCompatible: boolean) => {
    const { domain } = setUp(1);
    return new HmmDmaMap({ dma: new Dma({ domain, linuxCompatible }), pages: 8 });
  };

  test("refuses a word that is not valid, where Linux maps physical page 0", () => {
    expect(() => made(false).map(3)).toThrow(expect.objectContaining({ code: "ERR_DMA_HMM_WORD" }));
    const linux = made(true);
    expect(linux.map(3)).toBe(linux.address! + 3 * PAGE_SIZE);
    expect(linux.words.flags[3]).toBe(HMM.dmaMapped);
  });

  test("acts on a word only while it is both valid and mapped", () => {
    const map = made(false);
    expect(map.unmap(0)).toBe(false);
    map.words.put(0, HMM.valid | HMM.write, 0x1234);
    map.map(0);
    expect([map.unmap(0), map.unmap(0)]).toEqual([true, false]);
    expect(map.words.flags[0]).toBe(HMM.valid | HMM.write);
  });

  test("keeps its flags over a walk, and only those", () => {
    const words = new PfnWords(1);
    words.flags[0] = HMM.valid | HMM.write | HMM.error | HMM.dmaMapped | HMM.peer | HMM.peerBus | 9;
    words.put(0, HMM.valid, 7);
    expect(words.flags[0]).toBe(HMM.valid | HMM.dmaMapped | HMM.peer | HMM.peerBus);
  });
});
