/** Memory of processes: what a program does to it, what a device may hold of it, and who pays. */
import { describe, expect, test } from "vitest";
import { MiB, PAGE_SIZE, type PhysPage } from "../../../base/index.ts";
import { finish, newPageEntry, UserAddr } from "../../../platform/index.ts";
import { SimulatedMachine } from "../index.ts";
import { Frames, type FramesOptions, SimulatedDeviceMemory, SimulatedFile, SimulatedProcess } from "./index.ts";

const START = UserAddr(2 ** 32);
const at = (page: number): UserAddr => UserAddr(START + page * PAGE_SIZE);

function setUp(options: Partial<FramesOptions> = {}) {
  const machine = new SimulatedMachine({ memoryBytes: 2 ** 29 });
  const frames = new Frames({ pages: machine.pages, memory: machine.memory, ...options });
  const process = new SimulatedProcess(frames);
  return { machine, frames, process, memory: process.memory };
}

const byteAt = (process: SimulatedProcess, page: number): number => {
  const bytes = new Uint8Array(1);
  process.memory.read(at(page), bytes);
  return bytes[0]!;
};
const fill = (process: SimulatedProcess, page: number, value: number, pages = 1): void =>
  void process.memory.write(at(page), new Uint8Array(pages * PAGE_SIZE).fill(value));

describe("memory of a process", () => {
  test("costs nothing before it is touched, and no page of its own before it is written", () => {
    const { frames, memory } = setUp();
    memory.map({ address: START, length: 64 * PAGE_SIZE });
    expect(frames.inUse).toBe(0);
    memory.read(START, new Uint8Array(64 * PAGE_SIZE));
    expect(frames.inUse).toBe(0);
    memory.write(START, new Uint8Array(2 * PAGE_SIZE));
    expect(frames.inUse).toBe(2);
  });

  test("comes in huge pages where that is advised, and in small ones around them", () => {
    const { memory } = setUp();
    memory.map({ address: at(0), length: 3 * MiB });
    memory.advise(at(0), 3 * MiB, "hugepage");
    memory.touch(at(1), true);
    memory.touch(at(600), true);
    const entry = newPageEntry();
    memory.entryAt(at(0), entry);
    expect([entry.kind, entry.order]).toEqual(["present", 9]);
    memory.entryAt(at(600), entry);
    expect([entry.kind, entry.order]).toEqual(["present", 0]);
  });

  test("is common after a fork until one side writes", () => {
    const { process, frames, memory } = setUp();
    memory.map({ address: START, length: 4 * PAGE_SIZE });
    fill(process, 0, 1, 4);
    const child = process.fork();
    expect(frames.inUse).toBe(4);
    fill(child, 2, 9);
    expect([byteAt(process, 2), byteAt(child, 2), byteAt(child, 3), frames.inUse]).toEqual([1, 9, 1, 5]);
    child.exit();
    expect(frames.inUse).toBe(4);
  });

  test("tells the signal that an access would end in", () => {
    const { memory, frames } = setUp();
    const file = new SimulatedFile({ frames, name: "f", length: PAGE_SIZE });
    memory.map({ address: at(0), length: PAGE_SIZE, access: "r" });
    memory.map({ address: at(1), length: 2 * PAGE_SIZE, file, shared: true });
    expect([memory.touch(at(0), true), memory.touch(at(2), false), memory.touch(at(9), false)]).toEqual([
      "no-permission",
      "no-page",
      "no-area",
    ]);
  });

  test("refuses ranges that are none, and leaves nothing of them", () => {
    const { memory } = setUp();
    for (const [address, length] of [
      [START, 0],
      [START, -1],
      [START, Number.NaN],
      [UserAddr(START + 1), PAGE_SIZE],
      [UserAddr(2 ** 47 - PAGE_SIZE), 2 * PAGE_SIZE],
    ] as const)
      expect(() => memory.map({ address, length })).toThrow(expect.objectContaining({ code: "ERR_DMA_USER_RANGE" }));
    expect(memory.areas).toEqual([]);
  });

  test("is gone with the last process that runs in it", () => {
    const { process, memory, frames } = setUp();
    memory.map({ address: START, length: PAGE_SIZE });
    fill(process, 0, 1);
    const thread = process.clone();
    process.exit();
    expect([memory.isGone, frames.inUse]).toEqual([false, 1]);
    thread.exit();
    expect([memory.isGone, frames.inUse]).toEqual([true, 0]);
    expect(() => memory.pin(START, 1, new Float64Array(1), 0, { write: false })).toThrow(
      expect.objectContaining({ code: "ERR_DMA_USER_GONE" }),
    );
  });

  test("is another one after exec; open files stay", () => {
    const { process, frames } = setUp();
    const before = process.memory;
    const fd = process.descriptors.install(new SimulatedFile({ frames, name: "f" }));
    process.exec();
    expect([before.isGone, process.memory === before, process.descriptors.get(fd)?.file.kind]).toEqual([
      true,
      false,
      "memory-file",
    ]);
  });
});

describe("a pin", () => {
  const pinned = (process: SimulatedProcess, page: number, count: number, write: boolean, longTerm = true) => {
    const into = new Float64Array(count);
    const done = process.memory.pin(at(page), count, into, 0, { write, longTerm });
    return [...into.subarray(0, done)] as PhysPage[];
  };

  test("keeps the page though the process unmaps, drops or protects it", () => {
    const { process, memory, frames } = setUp();
    memory.map({ address: START, length: 3 * PAGE_SIZE });
    const pages = pinned(process, 0, 3, true);
    memory.unmap(at(0), PAGE_SIZE);
    memory.advise(at(1), PAGE_SIZE, "dontneed");
    memory.protect(at(2), PAGE_SIZE, "none");
    expect([frames.inUse, ...pages.map((page) => frames.pinsOf(page))]).toEqual([3, 1, 1, 1]);
    for (const page of pages) memory.pages.unpin(page, 1, true);
    expect(frames.inUse).toBe(1);
  });

  test("stays the parent's over a fork: the child gets its own page at once", () => {
    for (const write of [true, false]) {
      const { process, memory } = setUp();
      memory.map({ address: START, length: 2 * PAGE_SIZE });
      fill(process, 0, 1, 2);
      const [page] = pinned(process, 0, 1, write);
      const child = process.fork();
      const entry = newPageEntry();
      memory.entryAt(at(0), entry);
      expect([entry.page, entry.writable]).toEqual([page, true]);
      child.memory.entryAt(at(0), entry);
      expect([entry.page === page, entry.writable]).toEqual([false, true]);
      fill(process, 0, 7);
      expect(byteAt(child, 0)).toBe(1);
    }
  });

  test("for reading parts a page that is common, and leaves the zero page for a page of the process's own", () => {
    const { process, memory, frames } = setUp();
    memory.map({ address: START, length: 2 * PAGE_SIZE });
    fill(process, 0, 1);
    memory.touch(at(1), false);
    process.fork();
    const [common, zero] = pinned(process, 0, 2, false);
    expect([frames.folio(common!)!.isExclusive(common!), frames.isZeroPage(zero!)]).toEqual([true, false]);
    fill(process, 0, 5);
    const bytes = new Uint8Array(1);
    frames.memory.read((common! * PAGE_SIZE) as never, bytes);
    expect(bytes[0]).toBe(5);
  });

  test("brings pages home from a device's memory, and refuses registers and what may not be written", () => {
    const { process, memory, frames } = setUp();
    memory.map({ address: START, length: PAGE_SIZE });
    fill(process, 0, 4);
    const owner = { name: "gpu" };
    const firstPage = (2 ** 30) as PhysPage;
    const device = new SimulatedDeviceMemory({ frames, kind: "device-private", owner, firstPage, pages: 512 });
    const migration = finish(memory.collect({ start: START, end: at(1), from: "system", owner }));
    const place = device.allocate(0)!;
    device.write(place, 0, new Uint8Array(PAGE_SIZE).fill(4));
    migration.setDestination(0, place, 0);
    finish(migration.move());
    migration.finish();
    expect(device.pagesInUse).toBe(1);
    const [page] = pinned(process, 0, 1, true);
    expect([frames.kindOf(page!), device.pagesInUse, byteAt(process, 0)]).toEqual(["ram", 0, 4]);
    memory.map({ address: at(4), length: PAGE_SIZE, io: 0xfee00 as PhysPage, shared: true });
    memory.map({ address: at(5), length: PAGE_SIZE, access: "r" });
    for (const place of [4, 5, 6])
      expect(() => pinned(process, place, 1, true)).toThrow(expect.objectContaining({ errno: "EFAULT" }));
  });

  test("says how many of a range it took, and fails only if it took none", () => {
    const { process, memory } = setUp();
    memory.map({ address: START, length: 2 * PAGE_SIZE });
    expect(pinned(process, 0, 5, true)).toHaveLength(2);
    expect(() => pinned(process, 2, 1, true)).toThrow(expect.objectContaining({ code: "ERR_DMA_USER_FAULT" }));
  });

  test("of a peer's memory needs to be asked for", () => {
    const { memory } = setUp();
    memory.map({ address: START, length: PAGE_SIZE, peer: 0x4000_0000 as PhysPage, shared: true });
    const into = new Float64Array(1);
    expect(() => memory.pin(START, 1, into, 0, { write: true })).toThrow(expect.objectContaining({ errno: "EFAULT" }));
    expect(memory.pin(START, 1, into, 0, { write: true, peers: true })).toBe(1);
    expect(memory.pages.kindOf(into[0] as PhysPage)).toBe("peer");
  });

  test("that runs out of memory leaves no pin", () => {
    let left = 3;
    const { memory, frames } = setUp({ mayAllocate: () => left-- > 0 });
    memory.map({ address: START, length: 8 * PAGE_SIZE });
    const into = new Float64Array(8);
    expect(memory.pin(START, 8, into, 0, { write: true })).toBe(3);
    expect(() => memory.pin(at(3), 5, into, 3, { write: true })).toThrow(expect.objectContaining({ errno: "ENOMEM" }));
    for (let i = 0; i < 3; i++) memory.pages.unpin(into[i] as PhysPage, 1, false);
    memory.unmap(START, 8 * PAGE_SIZE);
    expect(frames.inUse).toBe(0);
  });
});

describe("a file of memory", () => {
  test("is pinned without any process; a hole is filled, the end is not passed", () => {
    const { frames } = setUp();
    const file = new SimulatedFile({ frames, name: "f", length: 4 * PAGE_SIZE });
    const into = new Float64Array(4);
    file.pin(0, 4, into, 0);
    expect([file.cachedPages, new Set(into).size]).toEqual([4, 4]);
    expect(() => file.pin(3 * PAGE_SIZE, 2, into, 0)).toThrow(expect.objectContaining({ errno: "EINVAL" }));
    file.truncate(0);
    file.release();
    expect(frames.inUse).toBe(4);
    for (const page of into) frames.unpin(page as PhysPage, 1, true);
    expect(frames.inUse).toBe(0);
  });

  test("keeps what its seals forbid", () => {
    const { frames, memory } = setUp();
    const file = new SimulatedFile({ frames, name: "f", length: PAGE_SIZE });
    for (const seal of ["write", "grow", "shrink", "seal"] as const) file.seal(seal);
    const refused = expect.objectContaining({ errno: "EPERM" });
    expect(() => file.write(0, new Uint8Array(1))).toThrow(refused);
    expect(() => file.truncate(2 * PAGE_SIZE)).toThrow(refused);
    expect(() => file.truncate(0)).toThrow(refused);
    expect(() => file.seal("write")).toThrow(refused);
    expect(() => memory.map({ length: PAGE_SIZE, file, shared: true })).toThrow(refused);
    memory.map({ length: PAGE_SIZE, file, shared: true, access: "r" });
  });

  test("lets go of a hole in every process at once, and spares copies that they made", () => {
    const { process, frames, memory } = setUp();
    const file = new SimulatedFile({ frames, name: "f", length: 2 * PAGE_SIZE });
    memory.map({ address: at(0), length: 2 * PAGE_SIZE, file, shared: true });
    memory.map({ address: at(8), length: 2 * PAGE_SIZE, file });
    fill(process, 0, 1, 2);
    fill(process, 8, 2);
    file.punch(0, 2 * PAGE_SIZE);
    expect([byteAt(process, 0), byteAt(process, 8), byteAt(process, 9)]).toEqual([0, 2, 0]);
  });
});

test("a page that is moved while its process waits is whole when the process goes on", () => {
  const { process, memory, frames } = setUp();
  memory.map({ address: START, length: PAGE_SIZE });
  fill(process, 0, 6);
  const owner = { name: "gpu" };
  const device = new SimulatedDeviceMemory({
    frames,
    kind: "device-private",
    owner,
    firstPage: (2 ** 30) as PhysPage,
    pages: 512,
  });
  const migration = finish(memory.collect({ start: START, end: at(1), from: "system", owner }));
  const touching = memory.touchSteps(START, true);
  expect(touching.next()).toEqual({ done: false, value: "waiting" });
  const place = device.allocate(0)!;
  device.write(place, 0, new Uint8Array(PAGE_SIZE).fill(6));
  migration.setDestination(0, place, 0);
  finish(migration.move());
  migration.finish();
  expect(finish(touching)).toBe("done");
  expect(byteAt(process, 0)).toBe(6);
});
