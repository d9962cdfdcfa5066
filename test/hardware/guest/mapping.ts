/** The DMA API on a real kernel, with a real device (QEMU's edu) that reads and writes what is mapped, and tries what is not. */
import { MiB, type Observer, PAGE_SIZE, PhysAddr, Random } from "../../../src/base/index.ts";
import { Dma } from "../../../src/dma/index.ts";
import type { BackEnd, LinuxDevice, LinuxHost, Sysfs } from "../../../src/hosts/linux/index.ts";
import { EDU_MASK, Edu } from "./edu.ts";
import { hasKernelEvents, joined, type KernelEvent, kernelEvents } from "./kernel-events.ts";
import { checkPageTables, whyNoPageTables } from "./page-tables.ts";
import { equal, expect, type Report, thrown } from "./report.ts";

export async function mappingCases(
  report: Report,
  host: LinuxHost,
  sysfs: Sysfs,
  name: string,
  backEnd: BackEnd,
): Promise<void> {
  const issued: KernelEvent[] = [];
  const observer: Observer = {
    mapped: (iova, _phys, length) => issued.push({ kind: "map", iova, length }),
    unmapped: (iova, length) => issued.push({ kind: "unmap", iova, length }),
  };
  const { device } = host.openDevice(name, { backEnd, observer });
  const test = (what: string, work: () => unknown): Promise<void> => report.test(`${backEnd}: ${what}`, work);
  try {
    const dma = new Dma({ domain: device.domain, name, machine: host.dmaMachine });
    dma.setMask(EDU_MASK);
    dma.setCoherentMask(EDU_MASK);
    const edu = new Edu(device);
    await cases(test, host, device, dma, edu);
    if (hasKernelEvents())
      await test("the kernel's own events are what we issued, and nothing else", () => truth(host, dma, issued));
    else report.skip(`${backEnd}: the kernel's own events are what we issued`, "the kernel has no iommu events");
    const noTables = whyNoPageTables(sysfs);
    const tables = "the kernel's page tables hold what we mapped, frame by frame, and nothing else";
    if (noTables === undefined) await test(tables, () => pageTables(host, sysfs, device, dma));
    else report.skip(`${backEnd}: ${tables}`, noTables);
  } finally {
    device.close();
  }
  await test("a second process-wide owner can open the device once it is closed", () =>
    host.openDevice(name, { backEnd }).device.close());
  await coalescing(test, host, name, backEnd);
}

type Test = (what: string, work: () => unknown) => Promise<void>;

async function cases(test: Test, host: LinuxHost, device: LinuxDevice, dma: Dma, edu: Edu): Promise<void> {
  const { domain } = device;
  const fresh = (pages: number, byte: number) => {
    const buffer = host.memory.allocate(pages * PAGE_SIZE);
    buffer.bytes.fill(byte);
    return buffer;
  };
  await test("the device answers through its BAR", () =>
    expect((edu.identity & 0xff) === 0xed, `identity ${edu.identity}`));

  await test("a one-shot mapping is read and written by the device, byte for byte", async () => {
    using source = fresh(1, 0);
    using target = fresh(1, 0);
    for (let i = 0; i < PAGE_SIZE; i++) source.bytes[i] = (i * 7) & 0xff;
    using from = dma.map(source.phys, PAGE_SIZE, "to-device");
    using to = dma.map(PhysAddr(target.phys + 64), 1000, "from-device");
    await edu.read(from.address, PAGE_SIZE);
    await edu.write(to.address, 1000);
    expect(Buffer.compare(target.bytes.subarray(64, 1064), source.bytes.subarray(0, 1000)) === 0, "other bytes");
    equal([target.bytes[63], target.bytes[1064]], [0, 0], "the bytes around");
  });

  await test("scattered pages are one run for the device", async () => {
    using memory = fresh(16, 0);
    const order = [9, 2, 14];
    for (const [i, page] of order.entries()) memory.bytes.fill(i + 1, page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
    using range = dma.tryReserveIova({ length: 3 * PAGE_SIZE })!;
    order.forEach((page, i) => {
      range.link(i * PAGE_SIZE, PhysAddr(memory.phys + page * PAGE_SIZE), PAGE_SIZE, "bidirectional");
    });
    range.sync();
    using copy = fresh(1, 0);
    using to = dma.map(copy.phys, PAGE_SIZE, "from-device");
    await edu.read(range.address + PAGE_SIZE - 8, 16); // over the edge of two pages
    await edu.write(to.address, 16);
    equal([...copy.bytes.subarray(0, 16)], [...Array(8).fill(1), ...Array(8).fill(2)], "bytes across the edge");
  });

  await test("what was unlinked is not reached any more, and its neighbours are", async () => {
    using memory = fresh(2, 0);
    using ones = fresh(1, 0xff);
    using from = dma.map(ones.phys, 8, "to-device");
    using range = dma.tryReserveIova({ length: 2 * PAGE_SIZE })!;
    range.link(0, memory.phys, PAGE_SIZE, "from-device");
    range.link(PAGE_SIZE, PhysAddr(memory.phys + PAGE_SIZE), PAGE_SIZE, "from-device");
    range.sync();
    range.unlink(0, PAGE_SIZE);
    await edu.read(from.address, 8);
    await edu.write(range.address, 8);
    await edu.write(range.address + PAGE_SIZE, 8);
    equal([memory.bytes[0], memory.bytes[PAGE_SIZE]], [0, 0xff], "first bytes of both pages");
  });

  await test("a mapping to the device is not written", async () => {
    using memory = fresh(1, 1);
    using zeros = fresh(1, 0);
    using from = dma.map(zeros.phys, 8, "to-device");
    using to = dma.map(memory.phys, PAGE_SIZE, "to-device");
    await edu.read(from.address, 8);
    await edu.write(to.address, 8);
    equal(memory.bytes[0], 1, "first byte");
  });

  await test("addresses stay below what the device can emit", () => {
    using memory = fresh(1, 0);
    using mapping = dma.map(memory.phys, PAGE_SIZE, "to-device");
    expect(mapping.address <= EDU_MASK, `address ${mapping.address}`);
  });

  await test("a scatterlist, vectors and coherent memory work too", async () => {
    using memory = fresh(8, 3);
    const list = [0, 2, 4].map((page) => ({ phys: PhysAddr(memory.phys + page * PAGE_SIZE), length: PAGE_SIZE }));
    const mapped = dma.mapScatterlist(list, "to-device");
    using vecs = dma.mapVecs(list, "to-device");
    const ring = dma.allocCoherent(8192);
    await edu.read(mapped.segments[0]!.address, 8);
    await edu.write(ring.address, 8);
    await edu.read(vecs.vecs[0]!.address, 8);
    await edu.write(ring.address + 4096, 8);
    const into = new Uint8Array(8);
    ring.read(4096, into);
    equal([...into, ...ring.bytes.subarray(0, 8)], Array(16).fill(3), "the ring");
    mapped.unmap();
    ring.free();
  });

  await test("huge pages are mapped, and their last byte reached", async () => {
    using memory = host.memory.allocate(4 * MiB, { hugePage: "2 MiB" });
    using from = dma.map(memory.phys, 4 * MiB, "bidirectional");
    memory.bytes.fill(9, 4 * MiB - 8);
    await edu.read(from.address + 4 * MiB - 8, 8);
    await edu.write(from.address, 8);
    equal(memory.bytes[7], 9, "a byte at the start");
  });

  await test("a part of what was linked together is refused, and nothing is lost", async () => {
    using memory = fresh(4, 0);
    using range = dma.tryReserveIova({ length: 4 * PAGE_SIZE })!;
    range.link(0, memory.phys, 4 * PAGE_SIZE, "from-device");
    range.sync();
    equal((await thrown(() => range.unlink(0, PAGE_SIZE))).code, "ERR_DMA_SPLIT", "code");
    equal(domain.lookup((range.address / PAGE_SIZE) as never), memory.phys / PAGE_SIZE, "still mapped");
  });

  await test("memory that is not ours is refused with the kernel's word", async () => {
    const error = await thrown(() => dma.map(PhysAddr(4096), PAGE_SIZE, "to-device"));
    equal([error.code, error.errno], ["ERR_DMA_SYSCALL", "EFAULT"], "code and errno");
  });

  await test("freed memory is an error and not a crash", async () => {
    const buffer = fresh(1, 7);
    const { bytes } = buffer;
    buffer.free();
    equal((await thrown(() => buffer.bytes)).code, "ERR_DMA_LINUX_FREED", "code");
    equal(bytes[0], 0, "the view that was kept");
  });

  await test("interrupts arrive, each once", async () => {
    let came = 0;
    const stop = device.onInterrupt(0, () => came++);
    for (let i = 1; i <= 5; i++) {
      edu.raise(1);
      edu.acknowledge(1);
      for (let wait = 0; wait < 2000 && came < i; wait++) await new Promise((resolve) => setTimeout(resolve, 1));
      equal(came, i, "interrupts");
    }
    stop();
  });

  await test("after random work nothing is mapped", async () => {
    const random = Random.fromSeed(1);
    using memory = fresh(64, 0);
    const live: (() => void)[] = [];
    for (let i = 0; i < 500; i++) {
      if (live.length > 20 || random.chance(1, 3)) live.splice(random.below(live.length || 1), 1)[0]?.();
      const page = random.below(48);
      const phys = PhysAddr(memory.phys + page * PAGE_SIZE + random.below(PAGE_SIZE));
      const length = 1 + random.below(12 * PAGE_SIZE);
      if (random.chance(1, 2)) {
        const mapping = dma.map(phys, length, "bidirectional");
        live.push(() => mapping.unmap());
      } else {
        const range = dma.tryReserveIova({ length, physOffset: phys })!;
        range.link(0, phys, length, "from-device");
        range.sync();
        live.push(() => range.destroy());
      }
    }
    for (const end of live) end();
    equal([domain.areaCount, domain.mappings.length], [0, 0], "areas and mappings");
    equal(dma.counters.leavesWritten, dma.counters.leavesCleared, "pages mapped and unmapped");
  });
}

/** Random work, recorded by us and by the kernel. */
async function truth(host: LinuxHost, dma: Dma, issued: KernelEvent[]): Promise<void> {
  using memory = host.memory.allocate(64 * PAGE_SIZE);
  issued.length = 0;
  const events = await kernelEvents(() => {
    const random = Random.fromSeed(2);
    for (let i = 0; i < 60; i++) {
      const pages = 1 + random.below(8);
      using range = dma.tryReserveIova({ length: pages * PAGE_SIZE })!;
      for (let page = 0; page < pages; page++)
        range.link(page * PAGE_SIZE, PhysAddr(memory.phys + random.below(64) * PAGE_SIZE), PAGE_SIZE, "bidirectional");
      range.sync();
      using _one = dma.map(PhysAddr(memory.phys + 100), 5000, "to-device");
    }
  });
  expect(issued.length > 100, `${issued.length} events of ours`);
  equal(joined(events), joined(issued), "events");
}

/** Mappings of every kind, and what the tables say of them; then some go, and again. */
function pageTables(host: LinuxHost, sysfs: Sysfs, device: LinuxDevice, dma: Dma): void {
  using scattered = host.memory.allocate(256 * PAGE_SIZE);
  using huge = host.memory.allocate(2 * MiB, { hugePage: "2 MiB" });
  scattered.bytes.fill(1);
  const range = dma.tryReserveIova({ length: 128 * PAGE_SIZE })!;
  for (let page = 0; page < 128; page++)
    range.link(
      page * PAGE_SIZE,
      PhysAddr(scattered.phys + ((page * 37) % 256) * PAGE_SIZE),
      PAGE_SIZE,
      "bidirectional",
    );
  range.sync();
  const ring = dma.allocCoherent(5 * PAGE_SIZE);
  const whole = dma.map(huge.phys, 2 * MiB, "bidirectional");
  checkPageTables(sysfs, device);
  whole.unmap();
  range.unlink(0, 3 * PAGE_SIZE);
  checkPageTables(sysfs, device);
  range.destroy();
  ring.free();
}

async function coalescing(test: Test, host: LinuxHost, name: string, backEnd: BackEnd): Promise<void> {
  const { device } = host.openDevice(name, { backEnd, coalesce: true });
  try {
    const dma = new Dma({ domain: device.domain, name, machine: host.dmaMachine });
    dma.setMask(EDU_MASK);
    const edu = new Edu(device);
    using memory = host.memory.allocate(256 * PAGE_SIZE);
    await test("coalesced, 256 links that go on from each other are one call", async () => {
      const { maps, unmaps } = { ...device.domain.calls };
      const range = dma.tryReserveIova({ length: 256 * PAGE_SIZE })!;
      for (let page = 0; page < 256; page++)
        range.link(page * PAGE_SIZE, PhysAddr(memory.phys + page * PAGE_SIZE), PAGE_SIZE, "bidirectional");
      range.sync();
      memory.bytes.fill(5, 255 * PAGE_SIZE);
      await edu.read(range.address + 255 * PAGE_SIZE, 8);
      await edu.write(range.address, 8);
      equal(memory.bytes[0], 5, "first byte");
      range.destroy();
      const { calls } = device.domain;
      equal([calls.maps - maps, calls.unmaps - unmaps], [1, 1], "calls to map and unmap");
    });
    await test("coalesced, a link that was not synced is never mapped", () => {
      const { maps } = { ...device.domain.calls };
      const range = dma.tryReserveIova({ length: PAGE_SIZE })!;
      range.link(0, memory.phys, PAGE_SIZE, "to-device");
      range.destroy();
      equal(device.domain.calls.maps - maps, 0, "calls to map");
    });
  } finally {
    device.close();
  }
}
