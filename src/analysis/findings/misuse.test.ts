/** What dma-debug says of a driver, said from the events alone: syncs, functions, entry counts, releases, bounce buffers, failed calls. */
import { describe, expect, test } from "vitest";
import { DISK, NIC, SampleTrace } from "./sample-trace.ts";

const A = 0xffff_e000;
const B = 0xffff_d000;
const PAGE = 4096;
const KIB = 1024;
const PIECES = [
  { phys: 0x5000, size: PAGE },
  { phys: 0x9000, size: PAGE },
  { phys: 0xd000, size: PAGE },
];

describe("sync-outside", () => {
  test("is a sync that goes beyond its mapping, from its beginning or from inside", async () => {
    for (const [at, length, beyond] of [
      [A, 2 * PAGE, "4 KiB beyond"],
      [A + 2 * KIB, PAGE, "2 KiB beyond"],
    ] as const) {
      const [finding] = await new SampleTrace()
        .map(DISK, A, 0x2000, PAGE)
        .sync(DISK, at, length, "FROM_DEVICE")
        .findings("sync-outside");
      expect(finding).toMatchObject({ severity: "error", device: DISK, iova: at, length });
      expect(finding?.message).toContain(beyond);
    }
  });

  test("is a sync after the unmap, also of the middle of what was mapped, also without an IOMMU", async () => {
    for (const [iova, phys] of [
      [A, 0x2000],
      [0x2000, 0x2000],
    ] as const) {
      const trace = new SampleTrace({ iommu: iova !== phys });
      trace
        .map(DISK, iova, phys, PAGE)
        .unmap(DISK, iova, PAGE)
        .wait(50)
        .sync(DISK, iova + 512, 64, "FROM_DEVICE");
      const [finding] = await trace.findings("sync-outside");
      expect(finding).toMatchObject({ iova: iova + 512, length: 64, confidence: "certain" });
      expect(finding?.evidence.map(({ what }) => what)).toEqual(["mapped", "unmapped", "synced"]);
    }
  });

  test("is a sync before the map, unless an unmap shows that the address was mapped before the recording", async () => {
    const early = (): SampleTrace => new SampleTrace().sync(DISK, A, PAGE, "FROM_DEVICE");
    const [finding] = await early().map(DISK, A, 0x2000, PAGE).findings("sync-outside");
    expect(finding).toMatchObject({ iova: A, confidence: "likely" });
    expect(finding?.message).toContain("before they are mapped");
    expect(await early().unmap(DISK, A, PAGE).map(DISK, A, 0x2000, PAGE).errors()).toEqual([]);
    expect(await early().map(NIC, A, 0x2000, PAGE).errors()).toEqual([]);
  });

  test("is not a sync of a part, of one of several mappings of the same memory, or of what the recording never saw", async () => {
    const trace = new SampleTrace({ iommu: false })
      .map(DISK, 0x2000, 0x2000, PAGE)
      .map(DISK, 0x2100, 0x2100, 64)
      .unmapOnly(DISK, 0x2100, 64)
      .sync(DISK, 0x2100, 32, "FROM_DEVICE")
      .sync(DISK, 0x2000, PAGE, "FROM_DEVICE")
      .sync(DISK, 0x9000, PAGE, "FROM_DEVICE");
    expect(await trace.findings("sync-outside")).toEqual([]);
  });

  test("of a scatterlist is held against each entry", async () => {
    const lists = (addresses: string, lengths: string): SampleTrace =>
      new SampleTrace()
        .mapList(DISK, 0xfff0_0000, PIECES)
        .event(
          "dma_sync_sg_for_cpu",
          `${DISK} dir=FROM_DEVICE nents=3/3 dma_addrs={${addresses}} lengths={${lengths}}`,
        );
    expect(await lists("0xfff00000", "0x3000").findings("sync-outside")).toEqual([]);
    expect(await lists("0xfff00000", "0x4000").findings("sync-outside")).toHaveLength(1);
  });
});

describe("wrong-function", () => {
  test("is coherent memory that a mapping's unmap ends, and the other way round", async () => {
    const [coherent] = await new SampleTrace()
      .alloc(DISK, A, 0x2000, PAGE)
      .unmap(DISK, A, PAGE)
      .findings("wrong-function");
    expect(coherent?.message).toContain("made by dma_alloc_coherent and is ended by dma_unmap_page");
    const [single] = await new SampleTrace().map(DISK, A, 0x2000, PAGE).free(DISK, A, PAGE).findings("wrong-function");
    expect(single?.message).toContain("dma_unmap_page belongs to it");
  });

  test("is a scatterlist that ends as a page, a page that ends as a list, and pages that end as coherent memory", async () => {
    const list = new SampleTrace().mapList(DISK, 0xfff0_0000, PIECES).unmap(DISK, 0xfff0_0000, 3 * PAGE);
    expect((await list.findings("wrong-function"))[0]?.message).toContain("made by dma_map_sg");
    const page = new SampleTrace()
      .map(DISK, A, 0x5000, PAGE)
      .event("dma_unmap_sg", `${DISK} dir=FROM_DEVICE phys_addrs={0x5000} attrs=`);
    expect(await page.findings("wrong-function")).toMatchObject([{ confidence: "likely", iova: A }]);
    const pages = new SampleTrace()
      .event(
        "dma_alloc_pages",
        `${DISK} dir=FROM_DEVICE dma_addr=ffffe000 size=4096 virt_addr=0xffff888000002000 flags=GFP_KERNEL attrs=`,
      )
      .free(DISK, A, PAGE);
    expect((await pages.findings("wrong-function"))[0]?.message).toContain("dma_free_pages belongs to it");
  });

  test("is not an older name of the same function", async () => {
    const trace = new SampleTrace().event(
      "dma_map_page",
      `${DISK} dir=FROM_DEVICE dma_addr=ffffe000 size=4096 phys_addr=2000 attrs=`,
    );
    expect(await trace.unmapOnly(DISK, A, PAGE).errors()).toEqual([]);
  });
});

describe("entry-count", () => {
  test("is an unmap with fewer entries, or with more", async () => {
    const fewer = new SampleTrace().mapList(DISK, 0xfff0_0000, PIECES).unmapList(DISK, 0xfff0_0000, PIECES.slice(0, 2));
    const [finding] = await fewer.findings("entry-count");
    expect(finding?.message).toContain("mapped with 3 entries and is unmapped with 2");
    const more = new SampleTrace().mapList(DISK, 0xfff0_0000, PIECES.slice(0, 2)).unmapList(DISK, 0xfff0_0000, PIECES);
    expect(await more.findings("entry-count")).toHaveLength(1);
  });

  test("is not a list of which the events show the first 128 entries", async () => {
    const many = Array.from({ length: 128 }, (_, i) => ({ phys: 0x10_0000 + i * 2 * PAGE, size: PAGE }));
    const trace = new SampleTrace({ iommu: false })
      .mapList(DISK, 0xfff0_0000, many, 200)
      .unmapList(DISK, 0xfff0_0000, many);
    expect(await trace.findings("entry-count")).toEqual([]);
    const old = Array.from({ length: 200 }, (_, i) => ({ phys: 0x10_0000 + i * 2 * PAGE, size: PAGE }));
    const all = new SampleTrace({ iommu: false }).mapList(DISK, 0xfff0_0000, old).unmapList(DISK, 0xfff0_0000, old);
    expect(await all.findings("entry-count")).toEqual([]);
  });
});

describe("left-at-release", () => {
  const ring = (i: number): number => 0xff00_0000 + i * 0x1_0000;
  const bound = (rings: number): SampleTrace => {
    const trace = new SampleTrace().on(0, "kworker/0:1-7");
    for (let i = 0; i < rings; i++) trace.alloc(NIC, ring(i), 0x10_0000 + i * 0x1_0000, PAGE << (i % 3)).wait(100);
    return trace.wait(100_000).on(1, "rmmod-99");
  };

  test("is what stays when the others of the device are freed by rmmod; a group of two is enough", async () => {
    for (const rings of [2, 5]) {
      const trace = bound(rings);
      for (let i = 1; i < rings; i++) trace.free(NIC, ring(i), PAGE << (i % 3));
      const found = await trace.findings("left-at-release");
      expect(found).toMatchObject([{ severity: "error", device: NIC, iova: ring(0), length: PAGE }]);
    }
  });

  test("is told when the driver is bound again too", async () => {
    const trace = bound(4)
      .free(NIC, ring(1), 2 * PAGE)
      .free(NIC, ring(2), 4 * PAGE)
      .free(NIC, ring(3), PAGE);
    trace.on(0, "kworker/0:2-8").wait(1000).alloc(NIC, ring(7), 0x80_0000, PAGE);
    expect(await trace.findings("left-at-release")).toMatchObject([{ device: NIC, iova: ring(0) }]);
  });

  test("is not what a driver keeps while it changes its rings, nor a release that frees all", async () => {
    const changed = bound(6)
      .free(NIC, ring(4), 2 * PAGE)
      .free(NIC, ring(5), 4 * PAGE);
    expect(await changed.findings("left-at-release")).toEqual([]);
    const byAnother = bound(2)
      .on(1, "ip-99")
      .free(NIC, ring(1), 2 * PAGE);
    expect(await byAnother.findings("left-at-release")).toEqual([]);
    expect(
      await bound(2)
        .free(NIC, ring(0), PAGE)
        .free(NIC, ring(1), 2 * PAGE)
        .findings("left-at-release"),
    ).toEqual([]);
  });
});

describe("same-memory", () => {
  test("is advice: the same bytes, or two buffers of one cache line, of which the device may write one", async () => {
    const same = new SampleTrace().map(DISK, A, 0x2000, PAGE).map(DISK, B, 0x2000, PAGE, "TO_DEVICE");
    expect(await same.findings("same-memory")).toMatchObject([{ severity: "advice", device: DISK }]);
    const line = new SampleTrace().map(DISK, A, 0x2010, 16).map(DISK, B + 0x20, 0x2020, 16);
    const [finding] = await line.findings("same-memory");
    expect(finding?.message).toContain("one line of 64 bytes");
  });

  test("is not what the device only reads, nor what comes after the other has ended", async () => {
    const read = new SampleTrace().map(DISK, A, 0x2000, PAGE, "TO_DEVICE").map(DISK, B, 0x2000, PAGE, "TO_DEVICE");
    expect(await read.findings("same-memory")).toEqual([]);
    const after = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(DISK, A, PAGE).map(DISK, B, 0x2000, PAGE);
    expect(await after.findings("same-memory")).toEqual([]);
  });
});

describe("bounce-pool-full", () => {
  const MASK = "ffffffff";

  test("says of a piece over the limit that it never fits, and names no other cause", async () => {
    const trace = new SampleTrace({ iommu: false });
    for (let i = 0; i < 3; i++)
      trace.bounced(DISK, MASK, 0x1_4800_0000, 512 * KIB, "NORMAL").mapFailed(DISK, 0x1_4800_0000, 512 * KIB);
    const { findings } = await trace.check();
    expect(findings.filter(({ severity }) => severity === "error")).toMatchObject([
      { rule: "bounce-pool-full", length: 512 * KIB },
    ]);
    expect(findings[0]?.message).toMatch(/3 mappings failed.*All are larger than 256 KiB/);
    expect(findings[0]?.message).not.toContain("In use then");
  });

  test("says so where no event tells that the mapping failed", async () => {
    const trace = new SampleTrace({ iommu: false }).bounced(DISK, MASK, 0x1_4800_0000, 512 * KIB, "NORMAL");
    expect(await trace.findings("bounce-pool-full")).toHaveLength(1);
  });

  test("names who fills the pool, and a leak as the cause where it is one", async () => {
    const filled = (leaks: boolean): SampleTrace => {
      const trace = new SampleTrace({ iommu: false });
      for (let i = 0; i < 40; i++) {
        trace.bounced(NIC, MASK, 0x1_4000_0000 + i * PAGE, PAGE, "NORMAL");
        trace.map(NIC, 0xd500_0000 + i * PAGE, 0x1_4000_0000 + i * PAGE, PAGE);
        if (!leaks && i < 30) trace.unmapOnly(NIC, 0xd500_0000 + i * PAGE, PAGE);
      }
      return trace.bounced(DISK, MASK, 0x1_4800_0000, 64 * KIB, "NORMAL").mapFailed(DISK, 0x1_4800_0000, 64 * KIB);
    };
    const [leak] = await filled(true).findings("bounce-pool-full");
    expect(leak).toMatchObject({ device: DISK });
    expect(leak?.message).toMatch(
      /needs 32 slots.*80 slots \(160 KiB\), of these 0000:00:05\.0 100.*That leak is the cause/,
    );
    expect(leak?.advice).toContain("Mend the leak");
    const [load] = await filled(false).findings("bounce-pool-full");
    expect(load?.message).toMatch(/20 slots \(40 KiB\).*gives its slots back/);
  });
});

describe("failed calls", () => {
  test("are counted by device, function and reason, and are no mappings", async () => {
    const trace = new SampleTrace({ iommu: false });
    for (let i = 0; i < 6; i++)
      trace.event(
        "dma_alloc",
        `${DISK} dir=BIDIRECTIONAL dma_addr=0 size=4194304 virt_addr=(nil) flags=GFP_KERNEL attrs=`,
      );
    for (let i = 0; i < 2; i++) trace.mapFailed(NIC, 0x2000, PAGE * (i + 1));
    trace.event("dma_map_sg_err", `${NIC} dir=FROM_DEVICE err=-121 nents=1/1 phys_addrs={0x1000} attrs=`);
    const { findings, mappings, failed, liveAtEnd } = await trace.check({ rules: ["invalid-address"] });
    expect({ mappings, failed, liveAtEnd }).toEqual({ mappings: 0, failed: 9, liveAtEnd: 0 });
    expect(findings.map(({ severity, message }) => `${severity} ${message}`)).toEqual([
      expect.stringContaining("error 0000:00:05.0: 2 mappings of 4 KiB to 8 KiB failed (dma_map_phys, EIO)"),
      expect.stringContaining("error 0000:00:05.0: 1 mapping failed (dma_map_sg, EREMOTEIO)"),
      expect.stringContaining("warning 0000:00:04.0: 6 allocations of 4 MiB failed (dma_alloc, ENOMEM)"),
    ]);
  });

  test("a free of nothing is allowed", async () => {
    const trace = new SampleTrace({ iommu: false });
    trace.event("dma_free", `${DISK} dir=BIDIRECTIONAL dma_addr=0 size=4096 virt_addr=(nil) attrs=`);
    expect((await trace.check()).findings).toEqual([]);
  });
});

describe("a leak in a small group", () => {
  test("is coherent memory that others of its size passed", async () => {
    const trace = new SampleTrace();
    for (let i = 0; i < 8; i++) {
      trace.alloc(DISK, B - i * PAGE, 0x10_0000 + i * PAGE, PAGE).wait(10_000);
      if (i !== 5) trace.free(DISK, B - i * PAGE, PAGE);
    }
    expect(await trace.findings("leak")).toMatchObject([{ iova: B - 5 * PAGE, confidence: "likely" }]);
  });

  test("is not memory of another size, which was taken to be kept", async () => {
    const trace = new SampleTrace().alloc(DISK, A, 0x8000, 8 * PAGE);
    for (let i = 0; i < 5; i++) trace.alloc(DISK, B, 0x10_0000, PAGE).wait(100).free(DISK, B, PAGE);
    expect(await trace.findings("leak")).toEqual([]);
  });

  test("is a page amid a row that user space mapped and unmapped, though no event names a device", async () => {
    const row = (from: number, step: number): SampleTrace => {
      const trace = new SampleTrace();
      for (let i = 0; i < 20; i++) trace.iommuMap(from + i * step, 0x10_0000 + i * PAGE, PAGE);
      for (let i = 0; i < 20; i++) if (i !== 9) trace.iommuUnmap(from + i * step, PAGE);
      return trace.wait(100_000).event("other", "x=1");
    };
    expect(await row(0x10_0000, PAGE).findings("leak")).toMatchObject([{ iova: 0x10_9000, confidence: "likely" }]);
    // Downwards, as the kernel gives addresses out: it may be the pool of a driver that grew.
    expect(await row(0xffff_f000, -PAGE).findings("leak")).toEqual([]);
  });
});

describe("what is live at the end", () => {
  test("is listed, the oldest of its kind first, with who mapped it", async () => {
    const trace = new SampleTrace().on(0, "init-1").alloc(NIC, 0xff00_0000, 0x10_0000, PAGE).on(1, "fio-7");
    for (let i = 0; i < 20; i++) trace.map(DISK, B, 0x20_0000, PAGE).wait(5).unmap(DISK, B, PAGE);
    const { live } = await trace.map(DISK, A, 0x30_0000, PAGE).wait(1000).event("other", "x=1").check({ live: true });
    expect(live).toMatchObject([
      { device: DISK, kind: "one-shot", iova: A, task: "fio", pid: 7 },
      { device: NIC, kind: "coherent", typicalNs: undefined, task: "init" },
    ]);
    expect((await trace.check()).live).toBeUndefined();
  });
});
