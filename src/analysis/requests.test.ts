/** Requests, from events: each mapping once, with its memory, whatever calls made it. */
import { describe, expect, test } from "vitest";
import { DISK, NIC, SampleTrace } from "./findings/sample-trace.ts";
import { type Request, Requests, readRequests } from "./requests.ts";

const PAGE = 4096;

const read = async (trace: SampleTrace): Promise<Requests> => readRequests(await trace.open());
/** What they are, without their times. */
const said = (requests: Requests): object[] =>
  [...requests].map(({ device, kind, length, segments, endNs, translated }: Request) => ({
    device,
    kind,
    length,
    segments: segments.map(({ iova, phys, length: bytes }) => [iova, phys, bytes]),
    live: endNs === undefined,
    translated,
  }));

describe("requests, from events", () => {
  test("probe events from try_alloc to destroy make one request with its true bytes", async () => {
    const trace = new SampleTrace()
      .reserve(DISK, 1, 0x1_0000, 4608)
      .link(DISK, 1, 0x1_0000, 0, 0x5000, PAGE, 1)
      .link(DISK, 1, 0x1_0000, PAGE, 0x9000, 512, 1)
      .destroy(DISK, 1, 0x1_0000, 4608);
    const requests = await read(trace);
    expect(said(requests)).toEqual([
      {
        device: DISK,
        kind: "two-step",
        length: 4608,
        segments: [
          [0x1_0000, 0x5000, PAGE],
          [0x1_1000, 0x9000, 512],
        ],
        live: false,
        translated: true,
      },
    ]);
    expect(requests.at(0).direction).toBe("to-device");
    expect([...requests.order]).toEqual([0, ~0]);
    expect(requests.counts).toMatchObject({ ambiguous: 0, unmapsOfUnknown: 0 });
  });

  test("a dma event names the device of the pages mapped just before it on its CPU", async () => {
    const trace = new SampleTrace()
      .on(0)
      .iommuMap(0x1_0000, 0x5000, PAGE)
      .on(1, "other-2")
      .iommuMap(0x2_0000, 0x7000, PAGE)
      .on(0, "test-1")
      .mapOnly(DISK, 0x1_0040, 0x5040, 100)
      .iommuUnmap(0x1_0000, PAGE)
      .unmapOnly(DISK, 0x1_0040, 100);
    const requests = await read(trace);
    expect(said(requests)).toMatchObject([
      { device: undefined, kind: "unattributed", live: true },
      { device: DISK, kind: "one-shot", length: 100, live: false, translated: true },
    ]);
    expect(requests.counts).toMatchObject({ mappings: 2, ambiguous: 1, liveAtEnd: 1 });
  });

  test("pages that one unmap takes back are one request, whose device is not guessed", async () => {
    const trace = new SampleTrace();
    for (const page of [0, 1, 2]) trace.iommuMap(0x1_0000 + page * PAGE, 0x5000 * (page + 1), PAGE);
    const requests = await read(trace.iommuUnmap(0x1_0000, 3 * PAGE));
    expect(said(requests)).toMatchObject([{ device: undefined, kind: "unattributed", length: 12_288, live: false }]);
    expect(requests.counts.ambiguous).toBe(1);
  });

  test("a coherent allocation of several runs is one request, of the bytes that were asked for", async () => {
    const trace = new SampleTrace({ iommu: false }).iommuMap(0x1_0000, 0x5000, PAGE).iommuMap(0x1_1000, 0x9000, PAGE);
    expect(said(await read(trace.alloc(DISK, 0x1_0000, 0x5000, 5000)))).toMatchObject([
      {
        kind: "coherent",
        device: DISK,
        length: 5000,
        segments: [
          [0x1_0000, 0x5000, PAGE],
          [0x1_1000, 0x9000, 904],
        ],
      },
    ]);
  });

  test("teardown of what was mapped before the recording is no request, and counted once", async () => {
    const requests = await read(new SampleTrace().iommuUnmap(0x1_0000, 4 * PAGE).unmapOnly(DISK, 0x1_0000, 4 * PAGE));
    expect(requests.count).toBe(0);
    expect(requests.counts).toMatchObject({ unknownStart: 1, unmapEvents: 1, unmapsOfUnknown: 1 });
  });

  test("without iommu events each dma mapping is a request, ended by its own unmap", async () => {
    const trace = new SampleTrace({ iommu: false }).map(DISK, 0x5000, 0x5000, PAGE).map(DISK, 0x5000, 0x5000, PAGE);
    expect(said(await read(trace.unmapOnly(DISK, 0x5000, PAGE)))).toMatchObject([
      { live: true, translated: false },
      { live: false, translated: false },
    ]);
  });

  test("a free of NULL is no teardown, and an allocation that gave NULL none at all", async () => {
    const what = (size: number): string => `dma_addr=0 size=${size} virt_addr=0x0000000000000000`;
    const trace = new SampleTrace()
      .event("dma_free", `${DISK} dir=BIDIRECTIONAL ${what(64)} attrs=`)
      .event("dma_alloc", `${DISK} dir=BIDIRECTIONAL ${what(4096)} flags=GFP_KERNEL attrs=`);
    const requests = await read(trace);
    expect([requests.count, requests.counts.unknownStart]).toEqual([0, 0]);
  });

  test("one address in two domains is two mappings, and said", async () => {
    const trace = new SampleTrace().iommuMap(0x1_0000, 0x5000, PAGE).iommuMap(0x1_0000, 0x6000, PAGE);
    const requests = await read(trace.iommuUnmap(0x1_0000, PAGE).iommuUnmap(0x1_0000, PAGE));
    expect(said(requests)).toMatchObject([{ live: false }, { live: false }]);
    expect(requests.at(0).endNs).toBeLessThan(requests.at(1).endNs!);
    expect(requests.counts).toMatchObject({ mapsOverLive: 1, unmapsOfUnknown: 0 });
  });

  test("an unmap of absurd length costs no more than what is live", async () => {
    const requests = await read(new SampleTrace().iommuMap(0x1_0000, 0x5000, PAGE).iommuUnmap(0, 2 ** 62));
    expect(said(requests)).toMatchObject([{ live: false }]);
  });

  test("what is live at the end is one request for each run of neighbours that was mapped in a row", async () => {
    const trace = new SampleTrace().iommuMap(0x1_0000, 0x5000, PAGE).iommuMap(0x1_1000, 0x9000, PAGE);
    const requests = await read(trace.iommuMap(0x8_0000, 0xa000, PAGE));
    expect(said(requests)).toMatchObject([
      { length: 2 * PAGE, live: true },
      { length: PAGE, live: true },
    ]);
  });

  test("the order is that of the events, whatever ends first", async () => {
    const trace = new SampleTrace().map(DISK, 0x1_0000, 0x5000, PAGE).map(NIC, 0x1_0000, 0x6000, PAGE);
    const { order } = await read(trace.unmap(NIC, 0x1_0000, PAGE).map(NIC, 0x2_0000, 0x7000, PAGE));
    expect([...order]).toEqual([0, 1, ~1, 2]);
  });
});

describe("lists", () => {
  const list = (values: readonly number[]): string => `{${values.map((value) => `0x${value.toString(16)}`).join(",")}}`;
  const mapList = (trace: SampleTrace, iovas: number[], phys: number[], size = PAGE): SampleTrace =>
    trace.event(
      "dma_map_sg",
      `${DISK} dir=TO_DEVICE nents=${phys.length}/${phys.length} ents=${iovas.length}/${iovas.length} ` +
        `dma_addrs=${list(iovas)} sizes=${list(iovas.map(() => size))} phys_addrs=${list(phys)} attrs=`,
    );
  const unmapList = (trace: SampleTrace, phys: number[]): SampleTrace =>
    trace.event("dma_unmap_sg", `${DISK} dir=TO_DEVICE phys_addrs=${list(phys)} attrs=`);
  const NOTHING_LEFT = { liveAtEnd: 0, ambiguous: 0, unknownStart: 0, endNotRecorded: 0 };

  test("without an IOMMU end by their own unmap; their entries lie where the memory lies", async () => {
    const memory = [0x1030_6000, 0x1000_2000];
    const requests = await read(unmapList(mapList(new SampleTrace(), memory, memory), memory));
    expect(said(requests)).toMatchObject([
      { kind: "scatterlist", live: false, translated: false, segments: memory.map((phys) => [phys, phys, PAGE]) },
    ]);
    expect(requests.columns.iova[requests.rowOf(0)]).toBe(0x1030_6000);
    expect(requests.counts).toMatchObject({ mappings: 1, ...NOTHING_LEFT });
  });

  test("of an untrusted device lie apart, and every entry is unmapped by itself", async () => {
    const [iovas, phys] = [
      [0xfff0_0000, 0xffef_f000, 0xffef_e000],
      [0x1000, 0x5000, 0x9000],
    ];
    const trace = new SampleTrace();
    for (const [i, iova] of iovas.entries()) trace.iommuMap(iova, phys[i]!, PAGE);
    unmapList(mapList(trace, iovas, phys), phys);
    for (const iova of iovas) trace.iommuUnmap(iova, PAGE);
    const requests = await read(trace);
    expect(said(requests)).toMatchObject([
      { kind: "scatterlist", device: DISK, live: false, segments: iovas.map((iova, i) => [iova, phys[i], PAGE]) },
    ]);
    expect(requests.counts).toMatchObject({ mappings: 1, ...NOTHING_LEFT, unmapsOfUnknown: 0 });
  });

  test("that lie apart and whose own unmap is not in the recording are not live, and counted as such once", async () => {
    const [iovas, phys] = [
      [0xfff0_0000, 0xffef_0000],
      [0x1000, 0x5000],
    ];
    const trace = new SampleTrace();
    for (const [i, iova] of iovas.entries()) trace.iommuMap(iova, phys[i]!, PAGE);
    mapList(trace, iovas, phys);
    for (const iova of iovas) trace.iommuUnmap(iova, PAGE);
    expect((await read(trace)).counts).toMatchObject({ mappings: 1, ...NOTHING_LEFT, endNotRecorded: 1 });
  });
});

describe("pages of 16 and 64 KiB", () => {
  test.each([0x4000, 0x1_0000])("one map of %i bytes is that of the smaller mapping inside", async (granule) => {
    const trace = new SampleTrace();
    for (let i = 0; i < 5; i++) {
      const [iova, phys] = [0xff00_0000 - i * granule, 0x7a00_0000 + i * granule];
      trace.iommuMap(iova, phys, granule).mapOnly(DISK, iova + 0x3000, phys + 0x3000, PAGE);
    }
    for (let i = 0; i < 5; i++)
      trace.iommuUnmap(0xff00_0000 - i * granule, granule).unmapOnly(DISK, 0xff00_0000 - i * granule + 0x3000, PAGE);
    const requests = await read(trace);
    expect(requests.counts).toMatchObject({ mappings: 5, ambiguous: 0, liveAtEnd: 0, unknownStart: 0 });
    for (const { length, device, endNs } of requests)
      expect([length, device, endNs === undefined]).toEqual([PAGE, DISK, false]);
  });
});

describe("two devices at one address, on processors of their own", () => {
  test("each unmap is that of the device that it is named for, whatever comes in between", async () => {
    const trace = new SampleTrace().map(DISK, 0x1_0000, 0x5000, PAGE).on(1, "other-2").map(NIC, 0x1_0000, 0x9000, PAGE);
    // The pages go on both processors before either says whose they were.
    trace.on(0, "test-1").iommuUnmap(0x1_0000, PAGE).on(1, "other-2").iommuUnmap(0x1_0000, PAGE);
    trace.on(1, "other-2").unmapOnly(NIC, 0x1_0000, PAGE).on(0, "test-1").unmapOnly(DISK, 0x1_0000, PAGE);
    const requests = await read(trace);
    expect(said(requests)).toMatchObject([
      { device: DISK, live: false },
      { device: NIC, live: false },
    ]);
    expect(requests.counts).toMatchObject({ mappings: 2, liveAtEnd: 0, unknownStart: 0, endNotRecorded: 0 });
  });

  test("a map that waits for its name is not what another device's unmap took", async () => {
    const trace = new SampleTrace().map(DISK, 0x1_0000, 0x5000, PAGE).on(1, "other-2").iommuMap(0x1_0000, 0x9000, PAGE);
    trace.on(0, "test-1").iommuUnmap(0x1_0000, PAGE).on(1, "other-2").mapOnly(NIC, 0x1_0000, 0x9000, PAGE);
    trace.on(0, "test-1").unmapOnly(DISK, 0x1_0000, PAGE);
    const requests = await read(trace);
    expect(said(requests)).toMatchObject([
      { device: DISK, live: false },
      { device: NIC, live: true, translated: true },
    ]);
    expect(requests.counts).toMatchObject({ mappings: 2, ambiguous: 0, liveAtEnd: 1 });
  });
});

describe("a load of one's own", () => {
  test("keeps what it is given, in the order of its times", () => {
    const segments = [
      { iova: 0x1000, phys: 0x5000, length: PAGE },
      { iova: 0x2000, phys: 0x9000, length: PAGE },
    ];
    const requests = Requests.of([
      { device: DISK, kind: "scatterlist", direction: "to-device", segments, startNs: 7, endNs: undefined },
      { segments: segments.slice(1), startNs: 3, endNs: 7, translated: false },
    ]);
    expect(said(requests)).toEqual([
      {
        device: undefined,
        kind: "unattributed",
        length: PAGE,
        segments: [[0x2000, 0x9000, PAGE]],
        live: false,
        translated: false,
      },
      {
        device: DISK,
        kind: "scatterlist",
        length: 2 * PAGE,
        segments: [
          [0x1000, 0x5000, PAGE],
          [0x2000, 0x9000, PAGE],
        ],
        live: true,
        translated: true,
      },
    ]);
    expect([...requests.order]).toEqual([0, ~0, 1]);
    expect(requests.counts).toMatchObject({ mappings: 2, liveAtEnd: 1, ambiguous: 1 });
  });
});
