/** The error rules, each on traces of a few events: what they find, and what they must not. */
import { describe, expect, test } from "vitest";
import { DISK, NIC, SampleTrace } from "./sample-trace.ts";

const A = 0xffff_e000;
const B = 0xffff_d000;
const KIB = 1024;
const PAGE = 4096;

/** Mappings of the disk that come and go, `count` of them. */
function steady(trace: SampleTrace, count: number): SampleTrace {
  for (let i = 0; i < count; i++)
    trace
      .map(DISK, B, 0x10_0000 + i * PAGE, PAGE)
      .wait(10)
      .unmap(DISK, B, PAGE)
      .wait(5);
  return trace;
}

describe("a clean life", () => {
  test("of every kind of mapping has no finding", async () => {
    const pieces = [
      { phys: 0x5000, size: PAGE },
      { phys: 0x9000, size: PAGE },
    ];
    const trace = new SampleTrace()
      .map(DISK, A, 0x2000, PAGE)
      .unmap(DISK, A, PAGE)
      .alloc(NIC, A, 0x3000, 24)
      .free(NIC, A, 24)
      .mapList(DISK, 0xfff0_0000, pieces)
      .unmapList(DISK, 0xfff0_0000, pieces)
      .reserve(DISK, 1, 0xffe0_0000, 8 * KIB)
      .link(DISK, 1, 0xffe0_0000, 0, 0x7000, PAGE)
      .link(DISK, 1, 0xffe0_0000, PAGE, 0xb000, PAGE)
      .syncRange(DISK, 1, 0xffe0_0000, 8 * KIB)
      .destroy(DISK, 1, 0xffe0_0000, 8 * KIB)
      .map(NIC, 0x8040, 0x8040, 1522)
      .unmapOnly(NIC, 0x8040, 1522);
    const { findings, ambiguous, unknownStart, liveAtEnd } = await trace.check();
    expect(findings).toEqual([]);
    expect({ ambiguous, unknownStart, liveAtEnd }).toEqual({ ambiguous: 0, unknownStart: 0, liveAtEnd: 0 });
  });

  test("of what user space maps is ambiguous, not wrong", async () => {
    const trace = new SampleTrace().iommuMap(0x1000, 0x2000, PAGE).iommuMap(0x1000, 0x3000, PAGE);
    trace.iommuUnmap(0x1000, PAGE).iommuUnmap(0x1000, PAGE);
    const { findings, ambiguous } = await trace.check();
    expect(findings).toEqual([]);
    expect(ambiguous).toBe(2);
  });
});

describe("leak", () => {
  test("is what stays though its kind never does", async () => {
    const trace = new SampleTrace().on(1, "oops-7").map(DISK, A, 0x2000, PAGE).on(0, "test-1");
    const [finding] = await steady(trace, 40).findings("leak");
    expect(finding).toMatchObject({ severity: "error", device: DISK, iova: A, length: PAGE });
    expect(finding?.evidence[0]).toMatchObject({ what: "mapped", cpu: 1, task: "oops", pid: 7 });
  });

  test("is not what is in flight when the recording ends", async () => {
    expect(await steady(new SampleTrace(), 40).map(DISK, A, 0x2000, PAGE).errors()).toEqual([]);
  });

  test("is not a direct mapping, which needs no unmap", async () => {
    const trace = new SampleTrace({ iommu: false });
    for (let i = 0; i < 40; i++) trace.map(DISK, 0x2000 + i * PAGE, 0x2000 + i * PAGE, PAGE).wait(10);
    for (let i = 1; i < 40; i++) trace.unmapOnly(DISK, 0x2000 + i * PAGE, PAGE).wait(10);
    expect(await trace.wait(10_000).event("other", "x=1").errors()).toEqual([]);
  });

  test("is a two-step range whose state is used again", async () => {
    const trace = new SampleTrace()
      .reserve(DISK, 1, A, PAGE)
      .destroy(DISK, 1, A, 0)
      .reserve(DISK, 2, A, PAGE)
      .reserve(DISK, 2, B, PAGE)
      .destroy(DISK, 2, B, 0);
    const [finding] = await trace.findings("leak");
    expect(finding).toMatchObject({ device: DISK, iova: A, confidence: "certain" });
  });

  test("is what grows all the time and never ends, not what was mapped at the start to be kept", async () => {
    for (const step of ["alloc", "map"] as const) {
      const trace = new SampleTrace();
      for (let i = 0; i < 64; i++) trace[step](NIC, 0xff00_0000 + i * PAGE, 0x10_0000 + i * PAGE, PAGE).wait(100);
      const [finding] = await trace.findings("leak");
      expect(finding).toMatchObject({ severity: "warning", device: NIC, length: 64 * PAGE });
      expect(await steady(trace.wait(50_000), 40).findings("leak")).toEqual([]);
    }
  });

  test("is found without a device too, while one address has one owner", async () => {
    const trace = new SampleTrace().map(NIC, 0x8040, 0x8040, 64).iommuMap(A, 0x2000, PAGE);
    for (let i = 0; i < 20; i++) trace.iommuMap(B, 0x9000, PAGE).wait(10).iommuUnmap(B, PAGE);
    expect(await trace.findings("leak")).toMatchObject([{ severity: "error", iova: A, length: PAGE }]);
    expect(await trace.iommuMap(A, 0x3000, PAGE).errors()).toEqual([]);
  });

  test("is not said of what may be coherent memory: a kernel before 6.12 has no dma events", async () => {
    const trace = new SampleTrace().iommuMap(A, 0x2000, PAGE);
    for (let i = 0; i < 20; i++) trace.iommuMap(B, 0x9000, PAGE).wait(10).iommuUnmap(B, PAGE);
    expect(await trace.findings("leak")).toEqual([]);
  });

  test("is not said where its unmap may have been among the events that were lost", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).lose(12);
    expect(await steady(trace, 40).errors()).toEqual([]);
  });
});

describe("unmap-unknown", () => {
  test("is an address inside a mapping", async () => {
    const [finding] = await new SampleTrace()
      .map(DISK, A, 0x2000, 2 * PAGE)
      .unmapOnly(DISK, A + PAGE, PAGE)
      .findings("unmap-unknown");
    expect(finding?.message).toContain("begins 4 KiB inside the mapping of 8 KiB at 0xffffe000");
  });

  test("is an address other than the one whose pages were just taken back", async () => {
    const trace = new SampleTrace()
      .map(DISK, A, 0x2000, PAGE)
      .iommuUnmap(A, PAGE)
      .unmapOnly(DISK, A - 0x1_0000, PAGE);
    const [finding] = await trace.findings("unmap-unknown");
    expect(finding).toMatchObject({ iova: A - 0x1_0000, confidence: "certain" });
    expect(await trace.errors()).toEqual(["unmap-unknown"]);
  });

  test("is what the IOMMU had nothing for", async () => {
    const trace = new SampleTrace().iommuUnmap(A, PAGE, 0).unmapOnly(DISK, A, PAGE);
    expect(await trace.errors()).toContain("unmap-unknown");
  });

  test("is not what may have been mapped before the recording", async () => {
    const { findings, unknownStart } = await new SampleTrace().unmap(DISK, A, PAGE).check();
    expect(findings.map(({ rule, severity }) => [rule, severity])).toEqual([["unknown-start", "advice"]]);
    expect(unknownStart).toBe(1);
  });
});

describe("double-unmap", () => {
  test("is a second unmap with no map between, with all three places", async () => {
    const trace = new SampleTrace().on(2, "first-5").map(DISK, A, 0x2000, PAGE).unmap(DISK, A, PAGE);
    const [finding] = await trace.on(3, "second-6").unmap(DISK, A, PAGE).findings("double-unmap");
    expect(finding).toMatchObject({ device: DISK, iova: A, length: PAGE, confidence: "certain" });
    expect(finding?.evidence.map(({ what, cpu, task }) => [what, cpu, task])).toEqual([
      ["mapped", 2, "first"],
      ["unmapped", 2, "first"],
      ["unmapped again", 3, "second"],
    ]);
  });

  test("is a second free, a second unmap of a list, a second destroy", async () => {
    const pieces = [{ phys: 0x5000, size: PAGE }];
    const trace = new SampleTrace()
      .alloc(NIC, A, 0x3000, PAGE)
      .free(NIC, A, PAGE)
      .free(NIC, A, PAGE)
      .mapList(DISK, B, pieces)
      .unmapList(DISK, B, pieces)
      .unmapList(DISK, B, pieces)
      .reserve(DISK, 1, 0xffe0_0000, PAGE)
      .destroy(DISK, 1, 0xffe0_0000, 0)
      .destroy(DISK, 1, 0xffe0_0000, 0);
    expect(await trace.errors()).toEqual(["double-unmap", "double-unmap", "double-unmap"]);
  });

  test("is not an address that another CPU was given before the unmap of its last owner was written", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).on(0).iommuUnmap(A, PAGE);
    trace.on(1).map(DISK, A, 0x9000, PAGE).on(0).unmapOnly(DISK, A, PAGE).on(1).unmap(DISK, A, PAGE);
    expect(await trace.errors()).toEqual([]);
  });

  test("is not said of a direct mapping that was mapped twice", async () => {
    const trace = new SampleTrace({ iommu: false }).map(NIC, 0x2000, 0x2000, 64).map(NIC, 0x2000, 0x2000, 64);
    expect(await trace.unmapOnly(NIC, 0x2000, 64).unmapOnly(NIC, 0x2000, 64).errors()).toEqual([]);
  });

  test("is not said where the map between may have been lost", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(DISK, A, PAGE).lose(2).unmap(DISK, A, PAGE);
    expect(await trace.errors()).toEqual([]);
  });
});

describe("size-mismatch", () => {
  test("is an unmap of more or less than the map", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(DISK, A, 512).alloc(NIC, A, 0x3000, 24);
    const findings = await trace.free(NIC, A, PAGE).findings("size-mismatch");
    expect(findings.map(({ device, length }) => [device, length])).toEqual([
      [DISK, 512],
      [NIC, PAGE],
    ]);
  });
});

describe("direction-mismatch", () => {
  test("is an unmap the other way, of lists and ranges too", async () => {
    const pieces = [{ phys: 0x5000, size: PAGE }];
    const trace = new SampleTrace()
      .map(DISK, A, 0x2000, PAGE, "TO_DEVICE")
      .unmap(DISK, A, PAGE, "FROM_DEVICE")
      .mapList(DISK, B, pieces)
      .unmapList(DISK, B, pieces, "TO_DEVICE")
      .reserve(DISK, 1, 0xffe0_0000, PAGE)
      .link(DISK, 1, 0xffe0_0000, 0, 0x7000, PAGE, 1)
      .syncRange(DISK, 1, 0xffe0_0000, PAGE)
      .destroy(DISK, 1, 0xffe0_0000, PAGE, 2);
    const findings = await trace.findings("direction-mismatch");
    expect(findings.map(({ iova }) => iova)).toEqual([A, B, 0xffe0_0000]);
    expect(findings[0]?.message).toContain("was mapped to the device and is unmapped from the device");
  });

  test("is a sync the other way, unless it was mapped both ways", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE, "TO_DEVICE").sync(DISK, A, 64, "FROM_DEVICE");
    trace.map(DISK, B, 0x3000, PAGE, "BIDIRECTIONAL").sync(DISK, B, 64, "FROM_DEVICE");
    expect((await trace.findings("direction-mismatch")).map(({ iova }) => iova)).toEqual([A]);
  });
});

describe("device-mismatch", () => {
  test("is said once the first device is given the address again", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(NIC, A, PAGE).map(DISK, A, 0x3000, PAGE);
    const [finding] = await trace.findings("device-mismatch");
    expect(finding).toMatchObject({ device: DISK, iova: A, confidence: "certain" });
    expect(finding?.message).toContain(`unmapped for ${NIC}`);
    expect(await trace.errors()).toEqual(["device-mismatch"]);
  });

  test("is not said when the first device unmaps as well: each had its own", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(NIC, A, PAGE).unmap(DISK, A, PAGE);
    expect(await trace.map(DISK, A, 0x3000, PAGE).errors()).toEqual([]);
  });

  test("is certain at once for bounce buffers, which all devices share", async () => {
    const trace = new SampleTrace({ iommu: false }).mapOnly(DISK, 0x6000_0000, 0x2000, PAGE);
    const [finding] = await trace.unmapOnly(NIC, 0x6000_0000, PAGE).findings("device-mismatch");
    expect(finding).toMatchObject({ device: DISK, iova: 0x6000_0000 });
  });
});

describe("short-unmap", () => {
  test("is an unmap that took back less than it was asked to", async () => {
    const [finding] = await new SampleTrace()
      .map(DISK, A, 0x2000, 2 * PAGE)
      .iommuUnmap(A, 2 * PAGE, PAGE)
      .findings("short-unmap");
    expect(finding).toMatchObject({ iova: A, length: 2 * PAGE });
    expect(finding?.message).toContain("took back 4 KiB: from 0xfffff000 on there was a hole");
  });

  test("is not the map and unmap of 0 bytes that a failed map prints", async () => {
    expect(await new SampleTrace().iommuMap(A, 0x2000, 0).iommuUnmap(A, 0).errors()).toEqual([]);
  });
});

describe("map-over-live", () => {
  test("is one address with two owners, also in part", async () => {
    const trace = new SampleTrace().map(DISK, B, 0x2000, 2 * PAGE).map(DISK, A, 0x9000, PAGE);
    const [finding] = await trace.findings("map-over-live");
    expect(finding).toMatchObject({ device: DISK, iova: A, length: PAGE });
    expect(finding?.evidence.map(({ what, iova }) => [what, iova])).toEqual([
      ["mapped first", B],
      ["mapped over it", A],
    ]);
  });

  test("is not one address of two devices", async () => {
    expect(await new SampleTrace().map(DISK, A, 0x2000, PAGE).map(NIC, A, 0x3000, PAGE).errors()).toEqual([]);
  });

  test("is said of bounce slots only when it was no late unmap", async () => {
    const slot = 0x6000_0000;
    const late = new SampleTrace({ iommu: false }).mapOnly(NIC, slot, 0x2000, 64).mapOnly(NIC, slot, 0x3000, 64);
    expect(await late.unmapOnly(NIC, slot, 64).unmapOnly(NIC, slot, 64).errors()).toEqual([]);
    const left = new SampleTrace({ iommu: false }).mapOnly(NIC, slot, 0x2000, 64);
    for (let i = 0; i < 3; i++) left.mapOnly(NIC, slot, 0x3000, 64).unmapOnly(NIC, slot, 64);
    expect(await left.errors()).toEqual(["map-over-live"]);
  });
});

describe("two-step misuse", () => {
  const range = (): SampleTrace =>
    new SampleTrace()
      .reserve(DISK, 1, A, 2 * PAGE)
      .link(DISK, 1, A, 0, 0x2000, PAGE)
      .link(DISK, 1, A, PAGE, 0x9000, PAGE)
      .syncRange(DISK, 1, A, 2 * PAGE);

  test("link-out-of-range is a link past the end", async () => {
    const [finding] = await range()
      .link(DISK, 1, A, 2 * PAGE, 0xa000, PAGE)
      .findings("link-out-of-range");
    expect(finding).toMatchObject({ iova: A + 2 * PAGE, length: PAGE });
    expect(finding?.message).toContain("ends 4 KiB past the range of 8 KiB");
  });

  test("destroy-with-live-links is a destroy of less, or a free of what is linked", async () => {
    expect(await range().destroy(DISK, 1, A, PAGE).errors()).toEqual(["destroy-with-live-links"]);
    expect(await range().freeRange(DISK, 1, A).errors()).toEqual(["destroy-with-live-links"]);
    expect(
      await range()
        .unlink(DISK, 1, A, 0, 2 * PAGE)
        .freeRange(DISK, 1, A)
        .errors(),
    ).toEqual([]);
  });

  test("unlink-hole is an unlink or a destroy of what is not linked", async () => {
    const twice = range()
      .unlink(DISK, 1, A, 0, PAGE)
      .unlink(DISK, 1, A, 0, 2 * PAGE, 0);
    expect(await twice.errors()).toContain("unlink-hole");
    expect(
      await range()
        .destroy(DISK, 1, A, 3 * PAGE)
        .errors(),
    ).toContain("unlink-hole");
    const inside = A + 0x240; // a range that begins inside a page
    const apart = new SampleTrace({ iommu: false }).reserve(DISK, 1, inside, 3 * PAGE);
    for (const [offset, phys] of [
      [0, 0x2240],
      [PAGE - 0x240, 0x9000],
      [2 * PAGE - 0x240, 0xb000],
    ] as const)
      apart.link(DISK, 1, inside, offset, phys, offset === 0 ? PAGE - 0x240 : PAGE);
    apart.syncRange(DISK, 1, inside, 3 * PAGE - 0x240).unlink(DISK, 1, inside, PAGE - 0x240, PAGE);
    apart.link(DISK, 1, inside, PAGE - 0x240, 0x9000, PAGE).syncRange(DISK, 1, inside, PAGE);
    expect(await apart.destroy(DISK, 1, inside, 3 * PAGE - 0x240).errors()).toEqual([]);
    const back = range().unlink(DISK, 1, A, 0, PAGE).link(DISK, 1, A, 0, 0x2000, PAGE).syncRange(DISK, 1, A, PAGE);
    expect(await back.destroy(DISK, 1, A, 2 * PAGE).errors()).toEqual([]);
  });

  test("links in any order make one range", async () => {
    const trace = new SampleTrace().reserve(DISK, 1, A, 3 * PAGE);
    for (const i of [2, 0, 1]) trace.link(DISK, 1, A, i * PAGE, 0x2000 + i * 0x1_0000, PAGE);
    trace.syncRange(DISK, 1, A, 3 * PAGE);
    expect(await trace.destroy(DISK, 1, A, 3 * PAGE).errors()).toEqual([]);
  });

  test("access-before-sync is a range that lived without one", async () => {
    const trace = range()
      .destroy(DISK, 1, A, 2 * PAGE)
      .reserve(DISK, 2, B, PAGE)
      .link(DISK, 2, B, 0, 0x2000, PAGE)
      .wait(50)
      .destroy(DISK, 2, B, PAGE);
    expect(await trace.errors()).toEqual(["access-before-sync"]);
  });

  test("a range that is linked in full and given up at once was never used", async () => {
    const trace = range()
      .destroy(DISK, 1, A, 2 * PAGE)
      .reserve(DISK, 2, B, PAGE)
      .link(DISK, 2, B, 0, 0x2000, PAGE)
      .destroy(DISK, 2, B, PAGE);
    expect(await trace.errors()).toEqual([]);
  });

  test("access-before-sync is a fault in a range that is not synced yet", async () => {
    const trace = new SampleTrace().reserve(DISK, 1, A, PAGE).link(DISK, 1, A, 0, 0x2000, PAGE);
    trace.event("io_page_fault", `IOMMU:nvme ${DISK} iova=0x${(A + 64).toString(16)} flags=0x0000`);
    // The rule names the cause, and the fault is told besides, like every fault.
    expect(await trace.errors()).toEqual(["access-before-sync", "device-fault"]);
  });

  test("a link that failed, and the destroy of what came before it, are right", async () => {
    const trace = new SampleTrace().reserve(DISK, 1, A, 2 * PAGE).link(DISK, 1, A, 0, 0x2000, PAGE);
    trace.linkFailed(DISK, 1, A, PAGE, 0x3000, PAGE).destroy(DISK, 1, A, PAGE);
    expect(await trace.errors()).toEqual([]);
  });

  test("a range from before the recording is not judged", async () => {
    const trace = new SampleTrace().link(DISK, 1, A, PAGE, 0x2000, PAGE).syncRange(DISK, 1, A, 2 * PAGE);
    expect(
      await trace
        .destroy(DISK, 1, A, 2 * PAGE)
        .destroy(DISK, 2, B, PAGE)
        .errors(),
    ).toEqual([]);
  });
});

describe("iova-reuse-before-flush", () => {
  test("is a map of an address whose invalidation is still to come", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).on(0, "early-9").unmap(DISK, A, PAGE);
    const [finding] = await trace
      .on(1, "test-1")
      .map(DISK, A, 0x3000, PAGE)
      .flush()
      .findings("iova-reuse-before-flush");
    expect(finding).toMatchObject({ device: DISK, iova: A });
    expect(finding?.evidence.map(({ what, task }) => [what, task])).toEqual([
      ["unmapped", "early"],
      ["mapped again", "test"],
    ]);
  });

  test("is not said after an invalidation, of the range or of all", async () => {
    const ranged = new SampleTrace()
      .map(DISK, A, 0x2000, PAGE)
      .unmap(DISK, A, PAGE)
      .flush(A, A + PAGE - 1);
    expect(await ranged.map(DISK, A, 0x3000, PAGE).errors()).toEqual([]);
    const whole = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(DISK, A, PAGE).flush();
    expect(await whole.map(DISK, A, 0x3000, PAGE).errors()).toEqual([]);
  });

  test("is not said where invalidations were not recorded", async () => {
    const trace = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(DISK, A, PAGE).map(DISK, A, 0x3000, PAGE);
    expect(await trace.errors()).toEqual([]);
  });
});

describe("invalid-address", () => {
  test("is a map that failed, and an unmap of what it gave", async () => {
    const trace = new SampleTrace().mapFailed(DISK, 0x2000, PAGE).unmapOnly(DISK, "ffffffffffffffff", PAGE);
    expect(await trace.errors()).toEqual(["invalid-address", "invalid-address"]);
  });
});

describe("shared-page-write", () => {
  test("is two devices that write the same bytes", async () => {
    const [finding] = await new SampleTrace()
      .map(DISK, A, 0x2000, PAGE)
      .map(NIC, B, 0x2800, 1024)
      .findings("shared-page-write");
    expect(finding).toMatchObject({ severity: "error", device: NIC });
    expect(finding?.message).toContain("0x2800");
  });

  test("is advice where they only share the page, and nothing where one reads or is done", async () => {
    const apart = new SampleTrace().map(DISK, A, 0x2000, 512).map(NIC, B, 0x2800, 512);
    expect((await apart.findings("shared-page-write")).map(({ severity }) => severity)).toEqual(["advice"]);
    const reads = new SampleTrace().map(DISK, A, 0x2000, PAGE, "TO_DEVICE").map(NIC, B, 0x2000, PAGE);
    expect(await reads.errors()).toEqual([]);
    const done = new SampleTrace().map(DISK, A, 0x2000, PAGE).unmap(DISK, A, PAGE).map(NIC, B, 0x2000, PAGE);
    expect(await done.errors()).toEqual([]);
  });
});
