/** The NVMe driver, the same file that drives the simulated controller, on QEMU's controller under a real kernel. */
import { readFileSync } from "node:fs";
import { KiB, MiB, PhysAddr, Random } from "../../../src/base/index.ts";
import { Nvme } from "../../../src/consumers/nvme/index.ts";
import { Dma, type PhysVec } from "../../../src/dma/index.ts";
import type { BackEnd, LinuxHost } from "../../../src/hosts/linux/index.ts";
import { answerOf, startChild } from "./child.ts";
import { equal, expect, type Report } from "./report.ts";

/** Length, and how many at once. */
const LOADS: readonly (readonly [length: number, depth: number])[] = [
  [4 * KiB, 1],
  [4 * KiB, 32],
  [128 * KiB, 1],
  [128 * KiB, 32],
  [MiB, 1],
  [MiB, 32],
];

export async function nvmeCases(report: Report, host: LinuxHost, name: string, backEnd: BackEnd): Promise<void> {
  const test = (what: string, work: () => unknown): Promise<void> => report.test(`${backEnd}: NVMe: ${what}`, work);
  const { device } = host.openDevice(name, { backEnd });
  const dma = new Dma({ domain: device.domain, name, machine: host.dmaMachine });
  let nvme: Nvme | undefined;
  try {
    await test("the controller comes up and says who it is", async () => {
      nvme = await Nvme.open(device, dma, { clock: host.clock });
      expect(nvme.identity.modelNumber.startsWith("QEMU NVMe"), `model ${nvme.identity.modelNumber}`);
    });
    if (nvme === undefined) return;
    const disk = nvme.disk;
    for (const [length, depth] of LOADS)
      await test(`${length / KiB} KiB, ${depth} at once: written, read back, equal`, async () => {
        const random = Random.fromSeed(length + depth);
        const bytes = length * depth;
        using written = host.memory.allocate(bytes);
        using read = host.memory.allocate(bytes);
        for (let i = 0; i < bytes; i += 4) written.bytes[i] = random.below(256);
        const blocks = length / disk.blockBytes;
        const pieces = Array.from({ length: depth }, (_, i) => i);
        await Promise.all(pieces.map((i) => disk.write(i * blocks, scattered(written.phys, i, length))));
        await Promise.all(pieces.map((i) => disk.read(i * blocks, scattered(read.phys, i, length))));
        expect(Buffer.compare(written.bytes, read.bytes) === 0, "other bytes came back");
      });
    await test("a reset under load: every write ends, and is there", async () => {
      using written = host.memory.allocate(64 * 64 * KiB);
      using read = host.memory.allocate(written.length);
      for (let i = 0; i < written.length; i += 512) written.bytes[i] = (i >> 9) & 0xff;
      const pieces = Array.from({ length: 64 }, (_, i) => i);
      const vec = (phys: number, i: number): PhysVec[] => [{ phys: PhysAddr(phys + i * 64 * KiB), length: 64 * KiB }];
      const writes = pieces.map((i) => disk.write(i * 128, vec(written.phys, i)));
      await nvme!.reset();
      await Promise.all(writes);
      await Promise.all(pieces.map((i) => disk.read(i * 128, vec(read.phys, i))));
      expect(Buffer.compare(written.bytes, read.bytes) === 0, "other bytes came back");
      equal(nvme!.warnings.resets, 1, "resets");
    });
    await test("closing it leaves nothing mapped", async () => {
      await nvme!.close();
      equal([device.domain.areaCount, dma.counters.leavesWritten - dma.counters.leavesCleared], [0, 0], "areas, pages");
    });
  } finally {
    device.close();
  }
  for (const signal of ["SIGKILL", "SIGINT"] as const)
    await test(`a process that ends by ${signal} in mid-write leaves nothing pinned, and the next one finds the disk well`, async () => {
      const before = pinnedPages();
      const child = startChild("write-forever", name, backEnd);
      const answer = await answerOf(child);
      equal(answer, { ok: true }, "what the child said");
      const during = pinnedPages() - before;
      expect(during > 0, `${during} pages pinned while it writes`);
      child.kill(signal);
      await new Promise((resolve) => child.once("close", resolve));
      // Each processor adds up what it counted about once a second.
      for (let wait = 0; wait < 50 && pinnedPages() !== before; wait++)
        await new Promise((resolve) => setTimeout(resolve, 100));
      equal(pinnedPages() - before, 0, "pages still pinned");
      const { device: again } = host.openDevice(name, { backEnd });
      try {
        const next = await Nvme.open(again, new Dma({ domain: again.domain, name, machine: host.dmaMachine }), {
          clock: host.clock,
        });
        using buffer = host.memory.allocate(4 * KiB);
        await next.read(0, [{ phys: buffer.phys, length: 4 * KiB }]);
        await next.close();
      } finally {
        again.close();
      }
    });
}

/** Pages that the whole machine has pinned for devices now. */
function pinnedPages(): number {
  const text = readFileSync("/proc/vmstat", "utf8");
  const value = (name: string): number => Number(new RegExp(`^${name} (\\d+)`, "m").exec(text)?.[1]);
  return value("nr_foll_pin_acquired") - value("nr_foll_pin_released");
}

/** The pages of piece `i`, every other one first: no two neighbours are adjacent. */
function scattered(phys: number, i: number, length: number): PhysVec[] {
  const pages = length / 4096;
  const order = Array.from({ length: pages }, (_, page) => (page * 2 < pages ? page * 2 : (page * 2 - pages) | 1));
  return order.map((page) => ({ phys: PhysAddr(phys + i * length + page * 4096), length: 4096 }));
}
