/**
 * The simulated controller under a driver that means harm, such as a guest that drives it: lists without end, memory that is not
 * there, queues that are never emptied. The work of a command is bounded by the data it names.
 */
import { describe, expect, test } from "vitest";
import { DataRuns, readSgl } from "../../src/hosts/simulated/devices/nvme/data.ts";
import { MemoryStore, type NvmeModelOptions } from "../../src/hosts/simulated/index.ts";
import {
  COMMAND,
  DSM_RANGE_BYTES,
  IO,
  NVME_STATUS,
  POINTERS,
  put64,
  SGL_TYPE,
  submissionDoorbell,
} from "../../src/layouts/nvme/index.ts";
import { RawDriver, type RawQueue } from "./raw-driver.ts";

/** Seconds of this process, and MiB of memory it did not have. */
function costOf(work: () => void): { seconds: number; grownMiB: number } {
  const heap = (): number => process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
  const [before, had] = [process.cpuUsage(), heap()];
  work();
  const { user, system } = process.cpuUsage(before);
  return { seconds: (user + system) / 1e6, grownMiB: (heap() - had) / 2 ** 20 };
}

function driver(options: Partial<NvmeModelOptions> = {}): { raw: RawDriver; queue: RawQueue } {
  const raw = new RawDriver(options);
  raw.enable();
  return { raw, queue: raw.ioQueue() };
}

const descriptor = (view: DataView, at: number, address: number, length: number, type: number): void => {
  put64(view, at, address);
  view.setUint32(at + 8, length, true);
  view.setUint8(at + 15, type);
};

/** A read of `blocks` by an SGL that begins with one descriptor; its status. */
const readBy = (
  { raw, queue }: ReturnType<typeof driver>,
  blocks: number,
  address: number,
  length: number,
  type: number,
) =>
  raw.send(
    IO.read,
    1,
    (view) => {
      view.setUint8(COMMAND.flags, POINTERS.sgl);
      descriptor(view, COMMAND.dataPointer, address, length, type);
      view.setUint16(COMMAND.blocks0, blocks - 1, true);
    },
    queue,
  );

describe("a list that never ends", () => {
  test.each([
    ["of a segment that leads to itself, with a byte in each descriptor", 1],
    ["of a segment that leads to itself, with nothing in any", 0],
    ["of a segment that leads to itself, each as long as a guest's memory can say", 2 ** 31],
  ])("%s", (_what, each) => {
    const bench = driver();
    const { raw } = bench;
    const bytes = 1 << 20;
    const segment = raw.machine.ram.allocate(bytes);
    const view = new DataView(segment.bytes.buffer, segment.bytes.byteOffset, bytes);
    for (let at = 0; at < bytes - 16; at += 16)
      descriptor(view, at, 0x20_0000 + ((at * 37) % 4096), each, SGL_TYPE.dataBlock);
    descriptor(view, bytes - 16, segment.phys, bytes, SGL_TYPE.segment);
    let status = "";
    const { seconds, grownMiB } = costOf(() => {
      status = readBy(bench, 8, segment.phys, bytes, SGL_TYPE.segment);
    });
    expect(status).toMatch(each > 0 ? /^success/ : /^sglDescriptorCount|^SGL/i);
    expect(seconds).toBeLessThan(20);
    expect(grownMiB).toBeLessThan(64);
  });

  test("of segments that hold nothing but the way to the next: a thousand are read, however much data is asked for", () => {
    const way = new Uint8Array(16);
    const view = new DataView(way.buffer);
    descriptor(view, 0, 0x1000, 16, SGL_TYPE.segment);
    let reads = 0;
    const port = {
      read(_address: number, into: Uint8Array): boolean {
        into.set(way);
        return ++reads > 0;
      },
      write: () => true,
    };
    const status = readSgl(port, view, 0, 1 << 24, new DataRuns(), false);
    expect([status, reads]).toEqual([NVME_STATUS.sglDescriptorCount, 1024]);
  });

  test("a last segment of 4 GiB costs what is read of it", () => {
    const bench = driver();
    const { seconds, grownMiB } = costOf(() => {
      expect(readBy(bench, 8, 0x20_0000, 0xffff_fff0, SGL_TYPE.lastSegment)).not.toBe("none");
    });
    expect(seconds).toBeLessThan(20);
    expect(grownMiB).toBeLessThan(64);
  });
});

describe("a driver that takes no completions", () => {
  test("gets no more done than its queue holds twice; when it takes some it goes on, and none is lost", () => {
    const { raw, queue } = driver();
    const { engine } = raw.controller;
    let sent = 0;
    for (let round = 0; round < 201; round++) {
      for (let i = 0; i < (round < 200 ? 8 : 5); i++) {
        raw.put(queue, IO.flush, 1);
        sent++;
      }
      raw.ring(queue);
    }
    const held = engine.completionQueues.get(1)!.held.length;
    expect(held).toBeLessThanOrEqual(3 * 16); // what was under way when it was full is done as well
    const before = engine.commands;
    let taken = 0;
    for (let round = 0; round < 400; round++) {
      while (raw.take(queue)) taken++;
      raw.consume(queue);
      raw.machine.clock.advance(1);
    }
    expect(engine.commands).toBeGreaterThan(before);
    expect(taken).toBe(engine.commands - 2); // but for the two that made the queues
    expect(engine.completionQueues.get(1)!.held).toEqual([]);
    expect(sent).toBe(1605);
  });
});

test("deallocating a disk of petabytes 256 times costs what was written of it", () => {
  const store = new MemoryStore();
  const { raw, queue } = driver({ namespaces: [{ blocks: 2 ** 42, store }] });
  store.write(0, new Uint8Array(8192).fill(1));
  const ranges = raw.machine.ram.allocate(4096);
  const view = new DataView(ranges.bytes.buffer, ranges.bytes.byteOffset, 4096);
  for (let at = 0; at < 4096; at += DSM_RANGE_BYTES) {
    view.setUint32(at + 4, 0xffff_ffff, true);
    put64(view, at + 8, 0);
  }
  const { seconds } = costOf(() => {
    const status = raw.send(
      IO.datasetManagement,
      1,
      (command) => {
        put64(command, COMMAND.dataPointer, ranges.phys);
        command.setUint32(COMMAND.cdw10, 255, true);
        command.setUint32(COMMAND.cdw11, 4, true);
      },
      queue,
    );
    expect(status).toMatch(/^success/);
  });
  expect(seconds).toBeLessThan(20);
  expect(store.chunks).toBe(0);
});

test("doorbells that ring without end, and values that no queue has, are small work each", () => {
  const { raw } = driver();
  const { seconds } = costOf(() => {
    for (let i = 0; i < 20_000; i++) raw.registers.write32(submissionDoorbell(1, 0), i % 40);
    raw.machine.clock.advance(10);
  });
  expect(seconds).toBeLessThan(20);
});
