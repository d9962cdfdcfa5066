/** The Linux host on a kernel made up for tests: opening, mapping, coalescing, failing anywhere, closing. */
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Counters, MiB, PAGE_SIZE, PhysAddr } from "../../src/base/index.ts";
import { Dma } from "../../src/dma/index.ts";
import { type BackEnd, type LinuxDevice, LinuxHost, type LinuxOpenOptions } from "../../src/hosts/linux/index.ts";
import { FakeKernel, type FakeKernelOptions, refusal, USABLE } from "./fake-kernel.ts";
import { DISK, FakeMachine, type FakeMachineOptions, NEIGHBOUR } from "./fake-machine.ts";

let sysfs: FakeMachine;
let hosts: LinuxHost[] = [];
beforeEach(() => {
  sysfs = new FakeMachine({ driver: "vfio-pci" });
});
afterEach(() => {
  for (const host of hosts) host.close();
  hosts = [];
  sysfs[Symbol.dispose]();
});

interface SetUp {
  readonly kernel: FakeKernel;
  readonly host: LinuxHost;
  readonly device: LinuxDevice;
  readonly dma: Dma;
}

function setUp(options: LinuxOpenOptions = {}, kernelOptions: FakeKernelOptions = {}): SetUp {
  const kernel = new FakeKernel(kernelOptions);
  const host = new LinuxHost({ sys: kernel, sysfs });
  hosts.push(host);
  const { device } = host.openDevice(DISK, options);
  return { kernel, host, device, dma: new Dma({ domain: device.domain, name: DISK, machine: host.dmaMachine }) };
}

/** A machine other than the usual one. */
function on(options: FakeMachineOptions): void {
  sysfs[Symbol.dispose]();
  sysfs = new FakeMachine(options);
}

describe("memory of a host", () => {
  test.each(["3 MiB", "4 KiB", "toString", 2])("is not of huge pages of %s", (hugePage) => {
    const host = new LinuxHost({ sys: new FakeKernel(), sysfs });
    hosts.push(host);
    expect(() => host.memory.allocate(4096, { hugePage: hugePage as never })).toThrow(
      expect.objectContaining({
        code: "ERR_DMA_LINUX_HUGE_PAGE",
        errno: "EINVAL",
        message: expect.stringMatching(/"2 MiB" or "1 GiB" is needed/),
      }),
    );
  });

  test("is given out no more once it was closed; what was given out stays its owner's", () => {
    const host = new LinuxHost({ sys: new FakeKernel(), sysfs });
    const buffer = host.memory.allocate(4096);
    host.close();
    expect(() => host.memory.allocate(4096)).toThrow(
      expect.objectContaining({ code: "ERR_DMA_LINUX_CLOSED", message: expect.stringContaining("make another") }),
    );
    expect(host.memory.allocatePages(1)).toBeUndefined();
    buffer.bytes[0] = 1;
    buffer.free();
  });
});

describe("memory of a device through iommufd", () => {
  const backEnd = "iommufd";

  test("is mapped by file, from any page on; RAM as ever", () => {
    const { kernel, host, device, dma } = setUp({ backEnd }, { barBytes: MiB, dmaBuf: true });
    const { phys } = device.barMemory(2)!;
    const buffer = host.memory.allocate(PAGE_SIZE);
    kernel.calls.length = 0;
    const mappings = [
      dma.map(PhysAddr(phys + 3 * PAGE_SIZE + 8), 16, "to-device"),
      dma.map(buffer.phys, PAGE_SIZE, "to-device"),
      dma.map(PhysAddr(phys + MiB - PAGE_SIZE), PAGE_SIZE, "bidirectional"),
    ];
    expect(kernel.calls).toEqual(["IOMMU_IOAS_MAP_FILE", "IOMMU_IOAS_MAP", "IOMMU_IOAS_MAP_FILE"]);
    expect(kernel.areas).toEqual([
      { iova: mappings[0]!.address - 8, address: phys + 3 * PAGE_SIZE, length: PAGE_SIZE },
      { iova: mappings[1]!.address, address: buffer.phys, length: PAGE_SIZE },
      { iova: mappings[2]!.address, address: phys + MiB - PAGE_SIZE, length: PAGE_SIZE },
    ]);
    expect(kernel.readOnly).toEqual(new Set(kernel.areas.slice(0, 2).map(({ iova }) => iova)));
    for (const mapping of mappings) mapping.unmap();
    expect(kernel.areas).toEqual([]);
  });

  test("coalesced, a link of RAM that adjoins it in this process is a call of its own", () => {
    const { kernel, host, device, dma } = setUp({ backEnd, coalesce: true }, { barBytes: MiB, dmaBuf: true });
    const { phys } = device.barMemory(2)!;
    const buffer = host.memory.allocate(2 * PAGE_SIZE);
    expect(buffer.phys).toBe(phys + MiB);
    const range = dma.tryReserveIova({ length: 4 * PAGE_SIZE })!;
    for (let i = 0; i < 4; i++)
      range.link(i * PAGE_SIZE, PhysAddr(phys + MiB + (i - 2) * PAGE_SIZE), PAGE_SIZE, "bidirectional");
    range.sync();
    expect(kernel.areas).toEqual([
      { iova: range.address, address: phys + MiB - 2 * PAGE_SIZE, length: 2 * PAGE_SIZE },
      { iova: range.address + 2 * PAGE_SIZE, address: buffer.phys, length: 2 * PAGE_SIZE },
    ]);
    range.destroy();
    expect(kernel.areas).toEqual([]);
  });

  test("is refused with a cure by a kernel that makes no file of it, and after its owner is closed", () => {
    const { kernel, device, dma } = setUp({ backEnd }, { barBytes: MiB });
    const error = refusal(() => dma.mapPhys(device.barMemory(2)!.phys, MiB, "bidirectional"));
    expect(error).toMatchObject({ code: "ERR_DMA_SYSCALL", errno: "EFAULT" });
    expect(error?.message).toMatch(/dma-buf.*type1/);
    expect(kernel.areas).toEqual([]);
    on({ driver: "vfio-pci", neighbour: true });
    const two = setUp({ backEnd }, { barBytes: MiB, dmaBuf: true });
    const { device: neighbour } = two.host.openDevice(NEIGHBOUR);
    const lent = neighbour.barMemory(2)!;
    neighbour.close();
    expect(refusal(() => two.dma.mapPhys(lent.phys, MiB, "bidirectional"))?.errno).toBe("EFAULT");
  });
});

describe.each<BackEnd>(["iommufd", "type1"])("a device through %s", (backEnd) => {
  test("is stopped and given back on closing, and nothing stays open", () => {
    const { kernel, host, dma, device } = setUp({ backEnd });
    const buffer = host.memory.allocate(PAGE_SIZE);
    dma.mapPhys(buffer.phys, PAGE_SIZE, "to-device");
    device.setBusMaster(true);
    expect([kernel.areas.length, device.readConfig(4, 2) & 4]).toEqual([1, 4]);
    host.close();
    expect([kernel.areas.length, kernel.files.size, (kernel.config[4] ?? 0) & 4]).toEqual([0, 0, 0]);
    expect(device.readConfig(0, 4)).toBe(0xffff_ffff);
    expect(refusal(() => dma.mapPhys(buffer.phys, PAGE_SIZE, "to-device"))?.code).toBe("ERR_DMA_LINUX_CLOSED");
  });

  test("whichever call fails while it is opened, nothing stays open", () => {
    let failures = 0;
    for (let call = 1; ; call++) {
      const kernel = new FakeKernel();
      kernel.failAt = { call, errno: "EIO" };
      const host = new LinuxHost({ sys: kernel, sysfs });
      hosts.push(host);
      const error = refusal(() => host.openDevice(DISK, { backEnd }));
      host.close();
      expect(kernel.files.size).toBe(0);
      if (error !== undefined) {
        expect(error).toMatchObject({ code: "ERR_DMA_SYSCALL", errno: "EIO" });
        failures++;
      } else if (call > kernel.calls.length) break;
    }
    expect(failures).toBeGreaterThan(6);
  });

  test("is mapped at addresses that the kernel allows, and nowhere else", () => {
    const { kernel, host, dma } = setUp({ backEnd });
    const buffer = host.memory.allocate(16 * MiB);
    for (let i = 0; i < 300; i++) dma.mapPhys(buffer.phys, 16 * MiB, "bidirectional"); // over 4 GiB in all
    expect(kernel.areas.length).toBe(300);
    for (const { iova, length } of kernel.areas)
      expect(USABLE.some(([start, last]) => iova >= start && iova + length - 1 <= last)).toBe(true);
  });

  test("is never mapped at the addresses of its own memory: it would take them for that", () => {
    const own = { start: 0xf800_0000, end: 0xfc00_0000 };
    on({
      driver: "vfio-pci",
      resource: [
        "0x00000000f8000000 0x00000000fbffffff 0x000000000014220c",
        "0x000000000000e000 0x000000000000e03f 0x0000000000040101",
        "0x0000000000000000 0x0000000000000000 0x0000000000000000",
      ].join("\n"),
    });
    const { kernel, host, dma } = setUp({ backEnd });
    const buffer = host.memory.allocate(16 * MiB);
    for (let i = 0; i < 300; i++) dma.mapPhys(buffer.phys, 16 * MiB, "bidirectional");
    expect(kernel.areas.filter(({ iova, length }) => iova < own.end && iova + length > own.start)).toEqual([]);
    expect(kernel.areas.some(({ iova }) => iova < own.start)).toBe(true);
  });

  test("shows a BAR as memory for other devices, until it is closed", () => {
    const { kernel, host, device, dma } = setUp({ backEnd }, { barBytes: MiB, dmaBuf: backEnd === "iommufd" });
    kernel.config.set([0x0c, 0, 0, 0xf8, 0x02, 0, 0, 0], 0x18); // 64 bits, prefetchable, at 0x2_f800_0000
    const bar = device.barMemory(2);
    expect(bar).toMatchObject({ index: 2, length: MiB, busAddress: 0x2_f800_0000 });
    dma.mapPhys(bar!.phys, MiB, "bidirectional");
    expect(kernel.areas).toMatchObject([{ address: bar!.phys, length: MiB }]);
    expect(device.barMemory(2)).toEqual(bar);
    expect(device.barMemory(0)).toBeUndefined();
    host.close();
    expect(device.barMemory(2)).toBeUndefined();
    expect(kernel.files.size).toBe(0);
  });

  test("shares its address space with the devices of its group that are open; the last one ends it", () => {
    on({ driver: "vfio-pci", neighbour: true });
    const { kernel, host, device, dma } = setUp({ backEnd });
    const buffer = host.memory.allocate(2 * PAGE_SIZE);
    const alone = kernel.files.size;
    const { device: neighbour } = host.openDevice(NEIGHBOUR);
    expect(kernel.files.size).toBe(alone + 1);
    expect(neighbour.domain).toBe(device.domain);
    const other = new Dma({ domain: neighbour.domain, name: NEIGHBOUR, machine: host.dmaMachine });
    const addresses = [dma, other].map((each) => each.mapPhys(buffer.phys, PAGE_SIZE, "to-device"));
    expect(new Set(addresses).size).toBe(2);
    device.setBusMaster(true);
    device.close();
    expect([kernel.areas.length, kernel.files.size]).toEqual([2, alone]);
    const { device: back } = host.openDevice(DISK, { backEnd });
    expect(back.domain).toBe(neighbour.domain);
    neighbour.close();
    back.close();
    expect([kernel.areas.length, kernel.files.size]).toEqual([0, 0]);
    expect(host.openDevice(DISK, { backEnd }).domain).not.toBe(device.domain);
  });

  test("is opened once, and with what its group was opened with", () => {
    on({ driver: "vfio-pci", neighbour: true });
    const { kernel, host } = setUp({ backEnd });
    const { size } = kernel.files;
    expect(refusal(() => host.openDevice(DISK))).toMatchObject({ code: "ERR_DMA_LINUX_OPEN", errno: "EBUSY" });
    const otherBackEnd = backEnd === "type1" ? "iommufd" : "type1";
    for (const options of [
      { backEnd: otherBackEnd },
      { coalesce: true },
      { counters: new Counters() },
      { observer: {} },
    ])
      expect(refusal(() => host.openDevice(NEIGHBOUR, options as LinuxOpenOptions))).toMatchObject({
        code: "ERR_DMA_LINUX_SHARED",
        errno: "EBUSY",
        message: expect.stringContaining(`${DISK}, which was opened with another ${Object.keys(options)[0]}`),
      });
    expect(kernel.files.size).toBe(size);
    host.openDevice(NEIGHBOUR, { coalesce: false, polled: true });
  });

  test("whichever call fails while a neighbour is opened, the first goes on and nothing of the second stays", () => {
    on({ driver: "vfio-pci", neighbour: true });
    let failures = 0;
    for (let call = 1; ; call++) {
      const { kernel, host, dma } = setUp({ backEnd });
      const buffer = host.memory.allocate(PAGE_SIZE);
      const before = kernel.files.size;
      const at = kernel.calls.length + call;
      kernel.failAt = { call: at, errno: "EIO" };
      const error = refusal(() => host.openDevice(NEIGHBOUR));
      if (at > kernel.calls.length) break;
      if (error === undefined) continue; // a kind of interrupt that it is said not to have
      failures++;
      expect(kernel.files.size).toBe(before);
      dma.mapPhys(buffer.phys, PAGE_SIZE, "to-device");
      expect(kernel.areas.length).toBe(1);
    }
    expect(failures).toBeGreaterThanOrEqual(4);
  });

  test("what is mapped equals a model, through random work, and nothing is left", () => {
    const step = fc.record({
      kind: fc.constantFrom("one", "two", "vecs", "list", "end"),
      page: fc.nat(20),
      pages: fc.integer({ min: 1, max: 6 }),
      inside: fc.nat(PAGE_SIZE - 1),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), fc.boolean(), (plan, coalesce) => {
        const { kernel, host, dma, device } = setUp({ backEnd, coalesce });
        const { phys } = host.memory.allocate(32 * PAGE_SIZE);
        const live: { pages: Map<number, number>; end: () => void }[] = [];
        for (const { kind, page, pages, inside } of plan) {
          const at = phys + page * PAGE_SIZE;
          const model = new Map<number, number>();
          const note = (address: number, memory: number, length: number): void => {
            for (let i = 0; i < length; i += PAGE_SIZE) model.set(address + i, memory + i);
          };
          if (kind === "end") {
            live.shift()?.end();
          } else if (kind === "one") {
            const mapping = dma.map(PhysAddr(at + inside), pages * PAGE_SIZE - inside, "bidirectional");
            note(mapping.address - inside, at, pages * PAGE_SIZE);
            live.push({ pages: model, end: () => mapping.unmap() });
          } else if (kind === "two") {
            const range = dma.tryReserveIova({ length: pages * PAGE_SIZE })!;
            for (let i = 0; i < pages; i++) {
              const memory = i % 3 === 2 ? phys : at + i * PAGE_SIZE; // some continue, some do not
              range.link(i * PAGE_SIZE, PhysAddr(memory), PAGE_SIZE, "bidirectional");
              note(range.address + i * PAGE_SIZE, memory, PAGE_SIZE);
            }
            range.sync();
            live.push({ pages: model, end: () => range.destroy() });
          } else if (kind === "vecs") {
            const vecs = Array.from({ length: pages }, (_, i) => ({
              phys: PhysAddr(phys + ((page + i * (inside % 2 === 0 ? 1 : 3)) % 32) * PAGE_SIZE),
              length: PAGE_SIZE,
            }));
            const range = dma.tryReserveIova({ length: pages * PAGE_SIZE })!;
            range.linkVecs(0, vecs, "bidirectional");
            range.sync();
            for (const [i, vec] of vecs.entries()) note(range.address + i * PAGE_SIZE, vec.phys, PAGE_SIZE);
            live.push({ pages: model, end: () => range.destroy() });
          } else {
            const list = [0, 2].map((skip) => ({ phys: PhysAddr(at + skip * PAGE_SIZE), length: PAGE_SIZE }));
            const mapping = dma.mapVecs(list, "bidirectional");
            const address = mapping.vecs[0]!.address;
            note(address, at, PAGE_SIZE);
            note(address + PAGE_SIZE, at + 2 * PAGE_SIZE, PAGE_SIZE);
            live.push({ pages: model, end: () => mapping.unmap() });
          }
          const wanted = new Map(live.flatMap((each) => [...each.pages]));
          const mapped = new Map<number, number>();
          for (const { iova, address, length } of kernel.areas)
            for (let i = 0; i < length; i += PAGE_SIZE) mapped.set(iova + i, address + i);
          expect(mapped).toEqual(wanted);
          for (const [iova, memory] of wanted)
            expect(device.domain.lookup((iova / PAGE_SIZE) as never)).toBe(memory / PAGE_SIZE);
        }
        for (const { end } of live) end();
        expect([kernel.areas, device.domain.areaCount]).toEqual([[], 0]);
        expect(dma.counters.leavesWritten).toBe(dma.counters.leavesCleared);
        expect(dma.counters.iovaAllocations).toBe(dma.counters.iovaFrees);
        device.close();
      }),
      { numRuns: 40 },
    );
  });

  test("a map that fails in the middle leaves nothing, and says what to do", () => {
    const { kernel, host, dma } = setUp({ backEnd }, { lockedBytes: 5 * PAGE_SIZE });
    const { phys } = host.memory.allocate(64 * PAGE_SIZE);
    const vecs = Array.from({ length: 8 }, (_, i) => ({ phys: PhysAddr(phys + i * 8192), length: PAGE_SIZE }));
    const error = refusal(() => dma.mapVecs(vecs, "to-device"));
    expect(error).toMatchObject({ code: "ERR_DMA_SYSCALL", errno: "ENOMEM" });
    expect(error?.message).toMatch(/ulimit -l unlimited/);
    expect(kernel.areas).toEqual([]);
    const range = dma.tryReserveIova({ length: 8 * PAGE_SIZE })!;
    expect(refusal(() => range.linkVecs(0, vecs, "to-device"))?.errno).toBe("ENOMEM");
    expect([kernel.areas, range.linkedPages]).toEqual([[], 0]);
    range.destroy();
    expect(dma.counters.iovaAllocations).toBe(dma.counters.iovaFrees);
  });

  test("unmapping a part of what was mapped together is refused; all of it goes", () => {
    const { kernel, host, dma } = setUp({ backEnd });
    const { phys } = host.memory.allocate(4 * PAGE_SIZE);
    const range = dma.tryReserveIova({ length: 4 * PAGE_SIZE })!;
    range.link(0, phys, 4 * PAGE_SIZE, "from-device");
    range.sync();
    expect(refusal(() => range.unlink(PAGE_SIZE, PAGE_SIZE))).toMatchObject({
      code: "ERR_DMA_SPLIT",
      errno: "EOPNOTSUPP",
    });
    expect(kernel.areas).toHaveLength(1);
    range.unlink(0, 4 * PAGE_SIZE);
    expect([kernel.areas.length, range.linkedPages]).toEqual([0, 0]);
  });

  test("an unmap that the kernel cuts short is an error, and its addresses are not given out again", () => {
    const { kernel, host, dma } = setUp({ backEnd });
    const { phys } = host.memory.allocate(PAGE_SIZE);
    const address = dma.mapPhys(phys, PAGE_SIZE, "to-device");
    kernel.shortBy = PAGE_SIZE;
    expect(refusal(() => dma.unmapPhys(address, PAGE_SIZE, "to-device"))?.code).toBe("ERR_DMA_LINUX_SHORT_UNMAP");
    kernel.shortBy = 0;
    expect(dma.mapPhys(phys, PAGE_SIZE, "to-device")).not.toBe(address);
  });

  test("ends with one call to unmap, however many links there were", () => {
    const { host, dma, device } = setUp({ backEnd });
    const { phys } = host.memory.allocate(512 * PAGE_SIZE);
    const range = dma.tryReserveIova({ length: 256 * PAGE_SIZE })!;
    for (let i = 0; i < 256; i++) range.link(i * PAGE_SIZE, PhysAddr(phys + i * 8192), PAGE_SIZE, "to-device");
    range.sync();
    range.destroy();
    expect(device.domain.calls).toEqual({ maps: 256, unmaps: 1 });
  });

  describe("with coalescing", () => {
    test("links that continue each other are one call; others are not", () => {
      const { host, dma, device, kernel } = setUp({ backEnd, coalesce: true });
      const { phys } = host.memory.allocate(512 * PAGE_SIZE);
      const range = dma.tryReserveIova({ length: 256 * PAGE_SIZE })!;
      for (let i = 0; i < 128; i++) range.link(i * PAGE_SIZE, PhysAddr(phys + i * PAGE_SIZE), PAGE_SIZE, "to-device");
      for (let i = 128; i < 256; i++) range.link(i * PAGE_SIZE, PhysAddr(phys + i * 8192), PAGE_SIZE, "to-device");
      expect(kernel.areas).toHaveLength(0);
      range.sync();
      expect(device.domain.calls.maps).toBe(1 + 128);
      range.destroy();
      expect([kernel.areas.length, device.domain.calls.unmaps]).toEqual([0, 1]);
    });

    test("before the sync a part can be unlinked", () => {
      const { host, dma, kernel } = setUp({ backEnd, coalesce: true });
      const { phys } = host.memory.allocate(3 * PAGE_SIZE);
      const range = dma.tryReserveIova({ length: 3 * PAGE_SIZE })!;
      for (let i = 0; i < 3; i++) range.link(i * PAGE_SIZE, PhysAddr(phys + i * PAGE_SIZE), PAGE_SIZE, "to-device");
      range.unlink(PAGE_SIZE, PAGE_SIZE);
      range.sync();
      const at = range.address;
      expect(kernel.areas).toEqual([
        { iova: at, address: phys, length: PAGE_SIZE },
        { iova: at + 2 * PAGE_SIZE, address: phys + 2 * PAGE_SIZE, length: PAGE_SIZE },
      ]);
      range.destroy();
      expect(kernel.areas).toEqual([]);
    });

    test("a sync that fails maps nothing of what waited, and the range can still be destroyed", () => {
      const { host, dma, kernel, device } = setUp({ backEnd, coalesce: true }, { lockedBytes: 2 * PAGE_SIZE });
      const { phys } = host.memory.allocate(16 * PAGE_SIZE);
      const range = dma.tryReserveIova({ length: 4 * PAGE_SIZE })!;
      for (let i = 0; i < 4; i++) range.link(i * PAGE_SIZE, PhysAddr(phys + i * 8192), PAGE_SIZE, "to-device");
      expect(refusal(() => range.sync())?.errno).toBe("ENOMEM");
      expect([kernel.areas.length, device.domain.areaCount]).toEqual([0, 0]);
      range.destroy();
      expect(dma.counters.iovaAllocations).toBe(dma.counters.iovaFrees);
    });
  });
});

describe("opening a device", () => {
  test.each([
    ["that is not there", {}, "0000:00:09.0", "ERR_DMA_LINUX_DEVICE", /dmalink doctor/],
    ["that a kernel driver has", { driver: "nvme" }, DISK, "ERR_DMA_LINUX_DRIVER", /dmalink bind/],
    ["without an IOMMU", { iommu: false, driver: "vfio-pci" }, DISK, "ERR_DMA_LINUX_IOMMU", /intel_iommu=on/],
    ["without VFIO", { nodes: [], driver: "vfio-pci" }, DISK, "ERR_DMA_LINUX_VFIO", /modprobe/],
  ] as const)("%s is refused, and says what to do", (_what, options, name, code, advice) => {
    on(options);
    const host = new LinuxHost({ sys: new FakeKernel(), sysfs });
    hosts.push(host);
    const error = refusal(() => host.openDevice(name));
    expect(error?.code).toBe(code);
    expect(error?.message).toMatch(advice);
  });

  test("by a host that was closed is refused", () => {
    const { host } = setUp();
    host.close();
    host.close();
    expect(refusal(() => host.openDevice(DISK))?.code).toBe("ERR_DMA_LINUX_CLOSED");
  });

  test("takes iommufd where there is one, else the container", () => {
    expect(setUp().kernel.calls).toContain("VFIO_DEVICE_BIND_IOMMUFD");
    on({ nodes: ["/dev/vfio/vfio"], driver: "vfio-pci" });
    expect(setUp().kernel.calls).toContain("VFIO_SET_IOMMU");
  });

  test("more mappings than the container has entries for are refused by name", () => {
    const { host, dma } = setUp({ backEnd: "type1" }, { entryBudget: 2 });
    const { phys } = host.memory.allocate(PAGE_SIZE);
    for (let i = 0; i < 2; i++) dma.mapPhys(phys, PAGE_SIZE, "to-device");
    const error = refusal(() => dma.mapPhys(phys, PAGE_SIZE, "to-device"));
    expect(error?.errno).toBe("ENOSPC");
    expect(error?.message).toMatch(/dma_entry_limit/);
  });
});
