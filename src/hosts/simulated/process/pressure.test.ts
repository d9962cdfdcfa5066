/** What the system does to memory that nobody asked it to touch: pages go to swap and come back, move, are joined and cut. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, type PhysPage, Random } from "../../../base/index.ts";
import { finish, type Invalidation, newPageEntry, type PageEntry, UserAddr } from "../../../platform/index.ts";
import { SimulatedMachine } from "../index.ts";
import { Frames, type FramesOptions, SimulatedDeviceMemory, SimulatedFile, SimulatedProcess } from "./index.ts";

const START = UserAddr(2 ** 32);
const HUGE = 512;
const at = (page: number): UserAddr => UserAddr(START + page * PAGE_SIZE);

function setUp(options: Partial<FramesOptions> = {}) {
  const machine = new SimulatedMachine({ memoryBytes: 2 ** 26 });
  const frames = new Frames({ pages: machine.pages, memory: machine.memory, swapPages: 4096, ...options });
  const process = new SimulatedProcess(frames);
  const { memory } = process;
  return { machine, frames, process, memory, swap: frames.swap! };
}

const byteAt = (process: SimulatedProcess, page: number): number => {
  const bytes = new Uint8Array(1);
  expect(process.memory.read(at(page), bytes)).toBe(1);
  return bytes[0]!;
};
const fill = (process: SimulatedProcess, page: number, value: number, pages = 1): number =>
  process.memory.write(at(page), new Uint8Array(pages * PAGE_SIZE).fill(value));
const entry = (process: SimulatedProcess, page: number): PageEntry => {
  const into: PageEntry = newPageEntry();
  process.memory.entryAt(at(page), into);
  return into;
};
/** First page from `first` on whose first byte is not the one that is expected; -1: none. */
function firstWrong(process: SimulatedProcess, first: number, expected: Uint8Array): number {
  const bytes = new Uint8Array(1);
  return expected.findIndex((value, i) => process.memory.read(at(first + i), bytes) !== 1 || bytes[0] !== value);
}
/** What a watcher of the first `pages` hears. */
function watched(process: SimulatedProcess, pages: number): Invalidation[] {
  const heard: Invalidation[] = [];
  process.memory.watch(START, at(pages), (what) => heard.push(what) > 0);
  return heard;
}

describe("swap", () => {
  test("takes pages when memory is short, oldest first, and a process has more than there is", () => {
    const { process, memory, frames, swap } = setUp({ limitPages: 256 });
    memory.map({ address: START, length: 1024 * PAGE_SIZE });
    for (let page = 0; page < 1024; page++) fill(process, page, 1 + (page % 250));
    expect([frames.pagesInUse <= 256, swap.inUse >= 768]).toEqual([true, true]);
    expect([entry(process, 0).kind, entry(process, 1023).kind]).toEqual(["swapped", "present"]);
    expect(
      firstWrong(
        process,
        0,
        Uint8Array.from({ length: 1024 }, (_, page) => 1 + (page % 250)),
      ),
    ).toBe(-1);
    process.exit();
    expect([frames.inUse, frames.pagesInUse, swap.inUse]).toEqual([0, 0, 0]);
  });

  test("that is full is the end of memory, and what is there stays", () => {
    const { process, memory } = setUp({ limitPages: 64, swapPages: 32 });
    memory.map({ address: START, length: 256 * PAGE_SIZE });
    let page = 0;
    while (fill(process, page, 5) === PAGE_SIZE) page++;
    expect([page, memory.touch(at(page), true)]).toEqual([96, "out-of-memory"]);
    memory.unmap(at(0), 8 * PAGE_SIZE);
    expect([byteAt(process, 8), byteAt(process, 95), fill(process, page, 5)]).toEqual([5, 5, PAGE_SIZE]);
  });

  test("is told to watchers before the page goes; coming back is not, since nothing goes that they could have", () => {
    const { process, memory } = setUp();
    memory.map({ address: START, length: 4 * PAGE_SIZE });
    fill(process, 0, 9, 4);
    const heard = watched(process, 4);
    memory.advise(at(1), 2 * PAGE_SIZE, "pageout");
    expect(heard.map(({ kind, start, end }) => [kind, start, end])).toEqual([
      ["clear", at(1), at(2)],
      ["clear", at(2), at(3)],
    ]);
    expect([entry(process, 1).kind, memory.pagemap(at(1)).swapped]).toEqual(["swapped", true]);
    expect([byteAt(process, 1), heard.length, entry(process, 1).writable]).toEqual([9, 2, true]);
  });

  test("keeps what a device wrote while it was told", () => {
    const { process, memory, frames } = setUp();
    memory.map({ address: START, length: PAGE_SIZE });
    fill(process, 0, 1);
    const { page } = entry(process, 0);
    memory.watch(START, at(1), () => {
      frames.memory.write((page * PAGE_SIZE) as never, new Uint8Array([77]));
      return true;
    });
    expect(frames.reclaim(1)).toBe(1);
    expect(byteAt(process, 0)).toBe(77);
  });

  test("leaves pages that are pinned, that a file keeps for a device, and a device's own", () => {
    const { process, memory, frames } = setUp();
    memory.map({ address: START, length: 3 * PAGE_SIZE });
    fill(process, 0, 4, 3);
    const into = new Float64Array(2);
    memory.pin(at(0), 1, into, 0, { write: true });
    const file = new SimulatedFile({ frames, name: "f", length: PAGE_SIZE });
    file.pin(0, 1, into, 1);
    const owner = { name: "gpu" };
    const firstPage = (2 ** 30) as PhysPage;
    const device = new SimulatedDeviceMemory({ frames, kind: "device-private", owner, firstPage, pages: 512 });
    const migration = finish(memory.collect({ start: at(1), end: at(2), from: "system", owner }));
    migration.setDestination(0, device.allocate(0)!, 0);
    finish(migration.move());
    migration.finish();
    expect(frames.reclaim(100)).toBe(1);
    expect([0, 1, 2].map((page) => entry(process, page).kind)).toEqual(["present", "device-private", "swapped"]);
    for (const page of into) frames.unpin(page as PhysPage, 1, true);
    expect(frames.reclaim(100)).toBe(2);
  });

  test("is common after a fork: one slot, one page when both come back, and a copy for who writes", () => {
    const { process, memory, frames, swap } = setUp();
    memory.map({ address: START, length: PAGE_SIZE });
    fill(process, 0, 3);
    memory.advise(START, PAGE_SIZE, "pageout");
    const child = process.fork();
    expect([swap.inUse, frames.inUse]).toEqual([1, 0]);
    expect([byteAt(process, 0), byteAt(child, 0), frames.inUse, swap.inUse]).toEqual([3, 3, 1, 0]);
    expect(entry(process, 0).page).toBe(entry(child, 0).page);
    fill(child, 0, 8);
    expect([byteAt(process, 0), byteAt(child, 0), frames.inUse]).toEqual([3, 8, 2]);
    child.exit();
    process.exit();
    expect([frames.inUse, swap.inUse]).toEqual([0, 0]);
  });

  test("takes a page that came back for one of two processes once more, and neither loses it", () => {
    const { process, memory, frames, swap } = setUp();
    memory.map({ address: START, length: PAGE_SIZE });
    fill(process, 0, 3);
    memory.advise(START, PAGE_SIZE, "pageout");
    const child = process.fork();
    memory.touch(START, false);
    expect([swap.inUse, entry(process, 0).kind, entry(child, 0).kind]).toEqual([1, "present", "swapped"]);
    expect(frames.reclaim(1)).toBe(1);
    expect([swap.inUse, frames.inUse]).toEqual([1, 0]);
    fill(process, 0, 6);
    expect([byteAt(child, 0), byteAt(process, 0), swap.inUse]).toEqual([3, 6, 0]);
  });

  test("parts nobody from a file: its pages go out of all mappings, and come back to all", () => {
    const { process, memory, frames, swap } = setUp();
    const file = new SimulatedFile({ frames, name: "f", length: 4 * PAGE_SIZE });
    memory.map({ address: at(0), length: 4 * PAGE_SIZE, file, shared: true });
    memory.map({ address: at(8), length: 4 * PAGE_SIZE, file, shared: true });
    fill(process, 0, 2, 4);
    expect(byteAt(process, 9)).toBe(2);
    frames.reclaim(4);
    expect([file.cachedPages, file.swappedPages, entry(process, 0).kind, entry(process, 9).kind]).toEqual([
      0,
      4,
      "none",
      "none",
    ]);
    const bytes = new Uint8Array(4);
    file.read(2 * PAGE_SIZE - 2, bytes);
    expect([...bytes]).toEqual([2, 2, 2, 2]);
    fill(process, 8, 5);
    expect(byteAt(process, 0)).toBe(5);
    file.truncate(2 * PAGE_SIZE + 100);
    file.truncate(3 * PAGE_SIZE);
    file.read(2 * PAGE_SIZE + 98, bytes);
    expect([...bytes, swap.inUse]).toEqual([2, 2, 0, 0, 2]);
    process.exit();
    file.release();
    expect([swap.inUse, frames.inUse]).toEqual([0, 0]);
  });

  test("cuts huge pages, and what was nothing but zeros needs no place there", () => {
    const { process, memory, frames, swap } = setUp();
    memory.map({ address: START, length: HUGE * PAGE_SIZE });
    memory.advise(START, HUGE * PAGE_SIZE, "hugepage");
    fill(process, 7, 1, 3);
    expect(entry(process, 7).order).toBe(9);
    expect(frames.reclaim(1)).toBe(HUGE);
    expect([swap.inUse, frames.inUse, byteAt(process, 8), byteAt(process, 20)]).toEqual([3, 0, 1, 0]);
  });

  test("is met half way: a touch while a page goes out or comes in waits, and a range that goes is gone", () => {
    const { process, memory, frames, swap } = setUp();
    memory.map({ address: START, length: 2 * PAGE_SIZE });
    fill(process, 0, 1, 2);
    const out = frames.reclaimSteps(1);
    expect(out.next().value).toBe("a page is written to swap");
    const touching = memory.touchSteps(START, true);
    expect(touching.next().value).toBe("waiting");
    expect(finish(out)).toBe(1);
    expect(touching.next().value).toBe("a page is read from swap");
    finish(memory.adviseSteps(START, PAGE_SIZE, "dontneed"));
    expect([finish(touching), byteAt(process, 0), swap.inUse]).toEqual(["done", 0, 0]);
  });
});

describe("moving pages to other frames", () => {
  test("keeps what they hold, tells watchers, and leaves pinned ones", () => {
    const { process, memory, frames } = setUp();
    const file = new SimulatedFile({ frames, name: "f", length: 2 * PAGE_SIZE });
    memory.map({ address: at(0), length: 4 * PAGE_SIZE });
    memory.map({ address: at(4), length: 2 * PAGE_SIZE, file, shared: true });
    for (let page = 0; page < 6; page++) fill(process, page, page + 1);
    const child = process.fork();
    child.memory.touch(at(4), false);
    const into = new Float64Array(1);
    memory.pin(at(3), 1, into, 0, { write: true });
    const frameOf = (page: number): PhysPage => entry(process, page).page;
    const before = [0, 1, 2, 3, 4, 5].map(frameOf);
    const heard = watched(process, 6);
    expect(memory.relocate(START, 6 * PAGE_SIZE)).toBe(5);
    expect(before.map((frame, page) => frameOf(page) === frame)).toEqual([false, false, false, true, false, false]);
    expect(heard.map(({ kind }) => kind)).toEqual(["clear", "clear", "clear", "clear", "clear"]);
    expect([0, 1, 2, 3, 4, 5].map((page) => byteAt(process, page))).toEqual([1, 2, 3, 4, 5, 6]);
    expect([entry(child, 1).page, entry(child, 4).page]).toEqual([frameOf(1), frameOf(4)]);
    const bytes = new Uint8Array(1);
    file.read(PAGE_SIZE, bytes);
    expect(bytes[0]).toBe(6);
  });

  test("of 2 MiB goes as a whole, and a touch meanwhile waits", () => {
    const { process, memory } = setUp();
    memory.map({ address: START, length: HUGE * PAGE_SIZE });
    memory.advise(START, HUGE * PAGE_SIZE, "hugepage");
    fill(process, 0, 1, HUGE);
    const { page } = entry(process, 0);
    const moving = memory.relocateSteps(START, HUGE * PAGE_SIZE);
    moving.next();
    const touching = memory.touchSteps(at(100), true);
    expect(touching.next().value).toBe("waiting");
    expect(finish(moving)).toBe(HUGE);
    expect([finish(touching), entry(process, 0).order, entry(process, 0).page === page]).toEqual(["done", 9, false]);
    expect(byteAt(process, 511)).toBe(1);
  });
});

describe("joining small pages", () => {
  test("makes one huge page of what is there, in swap, common or absent, and watchers hear of 2 MiB", () => {
    const { process, memory, frames, swap } = setUp();
    memory.map({ address: START, length: HUGE * PAGE_SIZE });
    for (let page = 0; page < 100; page++) fill(process, page, page + 1);
    memory.touch(at(200), false);
    memory.advise(at(10), 5 * PAGE_SIZE, "pageout");
    const child = process.fork();
    fill(child, 50, 99);
    const heard = watched(process, HUGE);
    memory.advise(START, HUGE * PAGE_SIZE, "collapse");
    expect(heard.at(-1)).toMatchObject({ kind: "clear", start: START, end: at(HUGE) });
    expect([entry(process, 300).order, entry(process, 0).writable]).toEqual([9, true]);
    expect([0, 12, 50, 99, 100, 200].map((page) => byteAt(process, page))).toEqual([1, 13, 51, 100, 0, 0]);
    fill(process, 0, 200);
    expect([byteAt(child, 0), byteAt(child, 50), byteAt(child, 12)]).toEqual([1, 99, 13]);
    child.exit();
    process.exit();
    expect([frames.inUse, swap.inUse]).toEqual([0, 0]);
  });

  test("does not while a page is pinned, nor where nothing was touched, nor in files; all stays as it was", () => {
    const { process, memory, frames } = setUp();
    memory.map({ address: START, length: 2 * HUGE * PAGE_SIZE });
    const file = new SimulatedFile({ frames, name: "f", length: HUGE * PAGE_SIZE });
    memory.map({ address: at(2 * HUGE), length: HUGE * PAGE_SIZE, file, shared: true });
    fill(process, 3, 7);
    const into = new Float64Array(1);
    memory.pin(at(3), 1, into, 0, { write: true });
    for (const [page, errno] of [
      [0, "EAGAIN"],
      [HUGE, "EINVAL"],
      [2 * HUGE, "EINVAL"],
      [3 * HUGE, "ENOMEM"],
    ] as const)
      expect(() => memory.advise(at(page), HUGE * PAGE_SIZE, "collapse")).toThrow(expect.objectContaining({ errno }));
    expect([entry(process, 3).page, entry(process, 3).order]).toEqual([into[0], 0]);
  });

  test("is undone page by page when only a part of it may go", () => {
    const { process, memory } = setUp();
    memory.map({ address: START, length: HUGE * PAGE_SIZE });
    fill(process, 0, 1, 20);
    memory.advise(START, HUGE * PAGE_SIZE, "collapse");
    memory.advise(at(5), PAGE_SIZE, "pageout");
    expect([entry(process, 4).order, entry(process, 5).kind, byteAt(process, 5), byteAt(process, 6)]).toEqual([
      0,
      "swapped",
      1,
      1,
    ]);
  });
});

describe("processes with less memory than they use", () => {
  /** Two processes with common and own pages, and what each must read. */
  function pressed(seed: number): number {
    const { process, frames, swap, machine } = setUp({ limitPages: 700, settings: { hugePages: "always" } });
    const before = machine.ram.pagesInUse;
    const random = Random.fromSeed(seed);
    const pages = 2 * HUGE;
    process.memory.map({ address: START, length: pages * PAGE_SIZE });
    const all = [{ process, shadow: new Uint8Array(pages) }];
    for (let i = 0; i < 250; i++) {
      const { process: one, shadow } = random.pick(all);
      const page = random.below(pages);
      const count = Math.min(pages - page, random.between(1, 40));
      const length = count * PAGE_SIZE;
      const dice = random.below(12);
      if (dice < 4) {
        const value = 1 + random.below(255);
        expect(fill(one, page, value, count)).toBe(length);
        shadow.fill(value, page, page + count);
      } else if (dice < 7) expect(firstWrong(one, page, shadow.subarray(page, page + count))).toBe(-1);
      else if (dice === 7) frames.reclaim(random.between(1, 200));
      else if (dice === 8) one.memory.relocate(at(page), length);
      else if (dice === 9) {
        one.memory.advise(at(page), length, "dontneed");
        shadow.fill(0, page, page + count);
      } else if (dice === 10) {
        try {
          one.memory.advise(at(HUGE * random.below(2)), HUGE * PAGE_SIZE, "collapse");
        } catch (error) {
          expect(["EINVAL", "ENOMEM", "EAGAIN"]).toContain((error as { errno: string }).errno);
        }
      } else if (all.length < 3) all.push({ process: one.fork(), shadow: shadow.slice() });
      else all.splice(1, 1)[0]!.process.exit();
      expect(frames.pagesInUse).toBeLessThanOrEqual(700);
    }
    for (const { process: one, shadow } of all) {
      expect(firstWrong(one, 0, shadow)).toBe(-1);
      one.exit();
    }
    expect([frames.inUse, frames.pagesInUse, swap.inUse]).toEqual([0, 0, 0]);
    expect(machine.ram.pagesInUse - before).toBeLessThanOrEqual(513); // pages of zeros that all share
    return swap.counts.out;
  }

  test("read what they wrote, each its own, and leave nothing behind", () => {
    for (let seed = 1; seed <= 4; seed++) expect(pressed(seed)).toBeGreaterThan(100);
  });
});
