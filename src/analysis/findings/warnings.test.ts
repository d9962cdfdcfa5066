/** Warnings and advice, each on traces of a few events; most need a few dozen before they speak. */
import { describe, expect, test } from "vitest";
import { DISK, NIC, SampleTrace } from "./sample-trace.ts";

const A = 0xffff_e000;
const PAGE = 4096;

const times = (trace: SampleTrace, count: number, step: (trace: SampleTrace, i: number) => void): SampleTrace => {
  for (let i = 0; i < count; i++) step(trace, i);
  return trace;
};

describe("truncated-scatterlist", () => {
  test("says how many entries were not recorded, and judges nothing of them", async () => {
    const trace = new SampleTrace().mapList(DISK, A, [{ phys: 0x5000, size: PAGE }], 200);
    const [finding] = await trace.findings("truncated-scatterlist");
    expect(finding).toMatchObject({ severity: "warning", device: DISK });
    expect(finding?.message).toContain("199 entries were not recorded");
    expect(await trace.errors()).toEqual([]);
  });
});

describe("needless-bounce", () => {
  test("tells why: forced, mask, alignment", async () => {
    const trace = new SampleTrace({ iommu: false })
      .bounced(DISK, "ffffffffffffffff", 0x2000, PAGE, "FORCE")
      .bounced(DISK, "ffffffffffffffff", 0x3000, PAGE, "FORCE")
      .bounced(NIC, "ffffffff", 0x1_2000_0000, 1500, "NORMAL")
      .bounced(NIC, "ffffffffffffffff", 0x2040, 100, "NORMAL");
    const messages = (await trace.findings("needless-bounce")).map(({ message }) => message);
    expect(messages).toHaveLength(3);
    expect(messages[0]).toContain("2 mappings (8 KiB)");
    expect(messages[0]).toContain("swiotlb=force");
    expect(messages[1]).toContain("above what the device can address (32-bit)");
    expect(messages[2]).toContain("does not fill whole cache lines");
  });
});

describe("page-freed-while-mapped", () => {
  test("is memory that is freed under a live mapping", async () => {
    const free = (trace: SampleTrace): SampleTrace => trace.event("mm_page_free", "page=0x1 pfn=0x9 order=0");
    const live = free(new SampleTrace().map(DISK, A, 0x9000, PAGE));
    expect(await live.findings("page-freed-while-mapped")).toMatchObject([{ device: DISK, iova: A }]);
    const done = free(new SampleTrace().map(DISK, A, 0x9000, PAGE).unmap(DISK, A, PAGE));
    expect(await done.findings("page-freed-while-mapped")).toEqual([]);
  });
});

describe("a page's number that is no memory's", () => {
  test.each(["0x20000000000000", "0xffffffffffffffff", "0x10000000000000", "0xfffffffffffff"])(
    "is none that is mapped, and ends: pfn=%s",
    async (pfn) => {
      for (const order of [0, 1, 10, 63, 1e9]) {
        const trace = new SampleTrace()
          .map(DISK, A, 0x9000, PAGE)
          .event("mm_page_free", `page=0x1 pfn=${pfn} order=${order}`);
        expect(await trace.findings("page-freed-while-mapped")).toEqual([]);
      }
    },
  );
});

describe("above-4g", () => {
  test("is said once a device, with the first address", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE);
    times(trace, 3, (all, i) => all.map(DISK, 0x1_0000_0000 + i * PAGE, 0x3000, PAGE));
    const findings = await trace.findings("above-4g");
    expect(findings).toMatchObject([{ device: DISK, iova: 0x1_0000_0000 }]);
    expect(findings[0]?.message).toContain("3 of 4 mappings");
  });
});

describe("entry-budget", () => {
  test("is user mappings that come near 65,535", async () => {
    const trace = times(new SampleTrace(), 50_000, (all, i) => all.iommuMap(i * 2 * PAGE, 0x2000, PAGE));
    const [finding] = await trace.findings("entry-budget");
    expect(finding).toMatchObject({ severity: "warning", confidence: "possible" });
    expect(finding?.message).toContain("76 %");
  });
});

describe("flush-storm", () => {
  test("is a hundred thousand invalidations a second", async () => {
    expect(await times(new SampleTrace(), 1500, (all) => all.flush()).findings("flush-storm")).toHaveLength(1);
    const calm = times(new SampleTrace(), 1500, (all) => all.wait(20).flush());
    expect(await calm.findings("flush-storm")).toEqual([]);
  });
});

describe("iova-fragmentation", () => {
  test("is few mappings over much address space", async () => {
    const wide = times(new SampleTrace(), 80, (all, i) => all.map(DISK, 0x8000_0000 + i * 0x100_0000, 0x2000, PAGE));
    const [finding] = await wide.findings("iova-fragmentation");
    expect(finding).toMatchObject({ device: DISK, severity: "warning" });
    expect(finding?.message).toContain("80 mappings (320 KiB)");
    const dense = times(new SampleTrace(), 80, (all, i) => all.map(DISK, 0x8000_0000 + i * PAGE, 0x2000, PAGE));
    expect(await dense.findings("iova-fragmentation")).toEqual([]);
  });
});

describe("merge-contiguous", () => {
  test("is neighbours in memory that are mapped one by one", async () => {
    const near = times(new SampleTrace(), 100, (all, i) => all.map(DISK, A - i * PAGE, 0x10_0000 + i * PAGE, PAGE));
    const [finding] = await near.findings("merge-contiguous");
    // Four runs of at most 128 KiB: the first piece of each continues nothing.
    expect(finding?.message).toContain("96 of 100 mapped pieces (96 %)");
    const apart = times(new SampleTrace(), 100, (all, i) => all.map(DISK, A - i * PAGE, i * 3 * PAGE, PAGE));
    expect(await apart.findings("merge-contiguous")).toEqual([]);
  });

  test("is not said of requests that would be too large for the allocator's cache if they were joined", async () => {
    const whole = 32 * PAGE;
    const large = times(new SampleTrace(), 100, (all, i) => all.map(DISK, A - i * whole, 0x10_0000 + i * whole, whole));
    expect(await large.findings("merge-contiguous")).toEqual([]);
  });
});

describe("use-two-step", () => {
  const requests = (phys: (i: number, piece: number) => number): SampleTrace =>
    times(new SampleTrace(), 20, (trace, i) => {
      for (let piece = 0; piece < 8; piece++) trace.map(DISK, A - piece * PAGE, phys(i, piece), PAGE);
      trace.wait(100);
      for (let piece = 0; piece < 8; piece++) trace.unmap(DISK, A - piece * PAGE, PAGE);
      trace.wait(100);
    });

  test("counts what one range a request would save", async () => {
    const [finding] = await requests((i, piece) => (i * 100 + piece * 3) * PAGE + PAGE).findings("use-two-step");
    expect(finding).toMatchObject({ severity: "advice", confidence: "possible", device: DISK });
    expect(finding?.message).toContain("160 one-shot maps look like 20 requests of 8.0 segments");
  });

  test("is silent about pieces that do not meet at page borders, which cannot be linked", async () => {
    expect(await requests((i, piece) => (i * 100 + piece * 3) * PAGE + 64).findings("use-two-step")).toEqual([]);
  });
});

describe("keep-mapped", () => {
  test("is the same memory mapped again and again", async () => {
    const cycle = (page: (i: number) => number): SampleTrace =>
      times(new SampleTrace(), 300, (all, i) => all.map(NIC, A, page(i) * PAGE, PAGE).unmap(NIC, A, PAGE));
    const [finding] = await cycle((i) => 1 + (i % 4)).findings("keep-mapped");
    expect(finding?.message).toContain("300 of 300 maps (100 %) begin in the same 4 pages");
    expect(await cycle((i) => 1 + i).findings("keep-mapped")).toEqual([]);
  });
});

describe("over-cache-size", () => {
  test("is reservations over 128 KiB", async () => {
    const reserve = (pages: number): SampleTrace =>
      times(new SampleTrace(), 20, (all, i) =>
        all.reserve(DISK, i, 0xff00_0000, pages * PAGE).destroy(DISK, i, 0xff00_0000, 0),
      );
    const [finding] = await reserve(33).findings("over-cache-size");
    expect(finding?.message).toContain("20 of 20 reservations (100 %) are larger than 128 KiB, up to 132 KiB");
    expect(await reserve(32).findings("over-cache-size")).toEqual([]);
  });
});

describe("unknown-start", () => {
  test("counts the ends of what was not seen to begin, once a device, with three examples", async () => {
    const trace = times(new SampleTrace(), 5, (all, i) => all.unmap(NIC, A - i * PAGE, PAGE));
    const findings = await trace.findings("unknown-start");
    expect(findings).toMatchObject([{ severity: "advice", device: NIC }]);
    expect(findings[0]?.message).toContain("5 ends");
    expect(findings[0]?.evidence).toHaveLength(3);
  });
});
