/** The text reader: every printed form, and what the catalogued events print on every kernel that is read. */
import { describe, expect, test } from "vitest";
import { known } from "../catalogue.ts";
import { fileOfBytes } from "../cursor.ts";
import { type EventBatch, fieldBigint, fieldText, LOST_EVENTS, type Trace } from "../events.ts";
import { type OpenOptions, openTrace } from "../open.ts";

const open = (text: string, options?: OpenOptions): Promise<Trace> =>
  openTrace(fileOfBytes("text", new TextEncoder().encode(text)), options);

function fieldValue(trace: Trace, batch: EventBatch, row: number, field: number): unknown {
  const { kind } = trace.types[batch.type[row]!]!.fields[field]!;
  if (kind === "string") return fieldText(trace, batch, row, field);
  if (kind === "signed") return Number(BigInt.asIntN(64, fieldBigint(batch, row, field)));
  if (kind === "unsigned") return fieldBigint(batch, row, field);
  const at = batch.start[row]! + field * 2;
  const items = { words: batch.words, start: [batch.words[at]!] } as unknown as EventBatch;
  return Array.from({ length: batch.words[at + 1]! }, (_, item) => fieldBigint(items, 0, item));
}

interface Row {
  readonly front: string;
  readonly event: string;
  readonly time: bigint;
  readonly values: Record<string, unknown>;
}

async function rowsOf(trace: Trace): Promise<Row[]> {
  const rows: Row[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      const type = trace.types[batch.type[row]!]!;
      rows.push({
        front: `${trace.buffers[batch.buffer[row]!]}|${trace.strings[batch.task[row]!]}|${batch.pid[row]}|${batch.cpu[row]}`,
        event: type.system === "" ? type.name : `${type.system}:${type.name}`,
        time: trace.timeBase + BigInt(batch.timeNs[row]!),
        values: Object.fromEntries(type.fields.map(({ name }, field) => [name, fieldValue(trace, batch, row, field)])),
      });
    }
  return rows;
}

const rows = async (text: string, options?: OpenOptions): Promise<Row[]> => rowsOf(await open(text, options));
const FRONT = "     fio-7     [000]     1.000000: ";
const values = async (event: string): Promise<Record<string, unknown>> => (await rows(`${FRONT}${event}\n`))[0]!.values;

const UNMAP = "unmap: IOMMU: iova=0x0000000000001000 - 0x0000000000003000 size=8192 unmapped_size=4096";
const UNMAPPED = { iova: 0x1000n, size: 8192n, unmapped_size: 4096n };

describe("a line of text", () => {
  test.each([
    ["trace-cmd report", `             fio-142   [001]     8.711564: ${UNMAP}`, "|fio|142|1", 8_711_564_000n],
    ["ftrace text", `             fio-142   [001] d.h2.    33.280851: ${UNMAP}`, "|fio|142|1", 33_280_851_000n],
    ["ftrace text", `   fio-142   (    142) [001] .....    33.280851: ${UNMAP}`, "|fio|142|1", 33_280_851_000n],
    ["ftrace text", `   fio-142   (-------) [001] .....    33.280851: ${UNMAP}`, "|fio|142|1", 33_280_851_000n],
    ["perf script", `             fio     142 [001]     8.711564: iommu:${UNMAP}`, "|fio|142|1", 8_711_564_000n],
    ["perf script", `   fio   141/142   [001]     8.711564:          1  iommu:${UNMAP}`, "|fio|142|1", 8_711_564_000n],
    [
      "trace-cmd report",
      `  kworker/u8:0-h-12 [127] 1700000000.123456789: ${UNMAP}`,
      "|kworker/u8:0-h|12|127",
      1_700_000_000_123_456_789n,
    ],
    ["trace-cmd report", `   a b: [1] -5-99    [003]     0.000001: ${UNMAP}`, "|a b: [1] -5|99|3", 1000n],
    ["trace-cmd report", `nvme:             fio-142   [001]     8.711564: ${UNMAP}`, "nvme|fio|142|1", 8_711_564_000n],
    ["trace-cmd report", `          <idle>-0     [000]     123456: ${UNMAP}`, "|<idle>|0|0", 123_456n],
  ])("of %s: %s", async (format, line, front, time) => {
    const trace = await open(`${line}\n`);
    expect(trace.format).toBe(format);
    const [row] = await rowsOf(trace);
    expect(row).toMatchObject({ front, time, values: UNMAPPED });
    expect(row!.event).toBe(format === "perf script" ? "iommu:unmap" : "unmap");
  });

  test("may end as Windows ends lines", async () => {
    expect(
      await rows(`${FRONT}${UNMAP}\r\n${FRONT}dma_free_sgt: d dir=NONE dma_addr=0 size=0 phys_addrs={}\r\n`),
    ).toHaveLength(2);
  });

  test("that says events were lost becomes an event", async () => {
    const trace = await open(
      `cpus=2\n${FRONT}${UNMAP}\nCPU:1 [LOST 12 EVENTS]\nCPU:0 [30 EVENTS DROPPED]\nCPU:0 [EVENTS DROPPED]\n${FRONT}${UNMAP}\n`,
    );
    expect((await rowsOf(trace)).map(({ event, values: { count } }) => [event, count])).toEqual([
      ["unmap", undefined],
      [LOST_EVENTS, 12],
      [LOST_EVENTS, 30],
      [LOST_EVENTS, -1],
      ["unmap", undefined],
    ]);
    expect(trace.lost).toBe(42);
  });

  test("that is a comment, a stack or the rest of a marker is passed over", async () => {
    const text = `# tracer: nop\n#\n# entries-in-buffer/entries-written: 3/10   #P:4\n#\n${FRONT}${UNMAP}\n => iommu_unmap\n##### CPU 1 buffer started ####\n${FRONT}tracing_mark_write: hello\nworld\n${FRONT}${UNMAP}\n`;
    const trace = await open(text);
    expect((await rowsOf(trace)).map(({ event }) => event)).toEqual(["unmap", "tracing_mark_write", "unmap"]);
    expect(trace.lost).toBe(7);
    expect(trace.cpus).toBe(4);
  });
});

describe("a catalogued event in text", () => {
  const D = "0000:00:04.0";
  test.each<[string, string, Record<string, unknown>]>([
    [
      "dma_map_phys",
      `${D} dir=TO_DEVICE dma_addr=ffffffffffffffff size=4096 phys_addr=123456789abc attrs=SKIP_CPU_SYNC|MMIO`,
      { device: D, phys_addr: 0x123456789abcn, dma_addr: 2n ** 64n - 1n, size: 4096n, dir: 1n, attrs: 0x420n },
    ],
    [
      "dma_map_page",
      `${D} dir=BIDIRECTIONAL dma_addr=0 size=1 phys_addr=0 attrs=`,
      { device: D, phys_addr: 0n, dma_addr: 0n, size: 1n, dir: 0n, attrs: 0n },
    ],
    [
      "dma_unmap_resource",
      `${D} dir=FROM_DEVICE dma_addr=10 size=2 attrs=CACHELINES_OVERLAP|0x10000`,
      { device: D, addr: 16n, size: 2n, dir: 2n, attrs: 0x10800n },
    ],
    [
      "dma_alloc",
      `${D} dir=BIDIRECTIONAL dma_addr=fffff000 size=4096 virt_addr=0xffffc900000e1000 flags=GFP_KERNEL|__GFP_ZERO attrs=`,
      {
        device: D,
        virt_addr: 0xffffc900000e1000n,
        dma_addr: 0xfffff000n,
        size: 4096n,
        flags: "GFP_KERNEL|__GFP_ZERO",
        dir: 0n,
        attrs: 0n,
      },
    ],
    [
      "dma_alloc",
      `${D} dma_addr=0 size=64 virt_addr=(nil) flags=GFP_ATOMIC attrs=NO_WARN`,
      { device: D, virt_addr: 0n, dma_addr: 0n, size: 64n, flags: "GFP_ATOMIC", attrs: 256n },
    ],
    [
      "dma_free",
      `${D} dir=NONE dma_addr=0 size=0 virt_addr=(nil) attrs=`,
      { device: D, virt_addr: 0n, dma_addr: 0n, size: 0n, dir: 3n, attrs: 0n },
    ],
    [
      "dma_alloc_sgt",
      `${D} dir=TO_DEVICE dma_addr=1000 size=8192 phys_addrs={0x1000,0x5000} flags=GFP_KERNEL attrs=`,
      {
        device: D,
        phys_addrs: [0x1000n, 0x5000n],
        dma_addr: 0x1000n,
        size: 8192n,
        dir: 1n,
        flags: "GFP_KERNEL",
        attrs: 0n,
      },
    ],
    [
      "dma_free_sgt",
      `${D} dir=TO_DEVICE dma_addr=1000 size=8192 phys_addrs={}`,
      { device: D, phys_addrs: [], dma_addr: 0x1000n, size: 8192n, dir: 1n },
    ],
    [
      "dma_map_sg",
      `${D} dir=TO_DEVICE nents=128/200 ents=2/2 [TRUNCATED] dma_addrs={0x1000,0xffffffffffffffff} sizes={0x10,0x20} phys_addrs={0x7} attrs=`,
      {
        device: D,
        full_nents: 200,
        full_ents: 2,
        truncated: 1n,
        phys_addrs: [7n],
        dma_addrs: [0x1000n, 2n ** 64n - 1n],
        lengths: [16n, 32n],
        dir: 1n,
        attrs: 0n,
      },
    ],
    [
      "dma_map_sg",
      `${D} dir=TO_DEVICE dma_addrs={0x1} sizes={0x2} phys_addrs={0x3} attrs=`,
      { device: D, phys_addrs: [3n], dma_addrs: [1n], lengths: [2n], dir: 1n, attrs: 0n },
    ],
    [
      "dma_map_sg_err",
      `${D} dir=TO_DEVICE dma_addrs={0x1} err=-22 attrs=`,
      { device: D, phys_addrs: [1n], err: -22, dir: 1n, attrs: 0n },
    ],
    [
      "dma_unmap_sg",
      `${D} dir=FROM_DEVICE phys_addrs={0x1,0x2} attrs=PRIVILEGED`,
      { device: D, addrs: [1n, 2n], dir: 2n, attrs: 512n },
    ],
    [
      "dma_sync_single_for_cpu",
      `${D} dir=FROM_DEVICE dma_addr=ab size=12`,
      { device: D, dma_addr: 0xabn, size: 12n, dir: 2n },
    ],
    [
      "dma_sync_sg_for_device",
      `${D} dir=TO_DEVICE dma_addrs={0x1} sizes={0x1000}`,
      { device: D, dma_addrs: [1n], lengths: [0x1000n], dir: 1n },
    ],
    [
      "map",
      "IOMMU: iova=0xfffffffffffff000 - 0x0000000000000000 paddr=0x000000007a561000 size=4096",
      { iova: 0xfffffffffffff000n, paddr: 0x7a561000n, size: 4096n },
    ],
    [
      "io_page_fault",
      `IOMMU:nvme ${D} iova=0x0000000000001000 flags=0x0001`,
      { device: D, driver: "nvme", iova: 0x1000n, flags: 1 },
    ],
    ["add_device_to_group", `IOMMU: groupID=3 device=${D}`, { gid: 3, device: D }],
    ["attach_device_to_domain", `IOMMU: device=${D}`, { device: D }],
    [
      "swiotlb_bounced",
      `dev_name: ${D} dma_mask=ffffffffffffffff dev_addr=236a000 size=4096 FORCE`,
      { dev_name: D, dma_mask: 2n ** 64n - 1n, dev_addr: 0x236a000n, size: 4096n, force: 1n },
    ],
    [
      "dma_iova_try_alloc",
      `(ffffffff81e326a4 <- ffffffff81a83a1d) dev="${D}" state=0xffff88807a058178 addr=0xfff80000 phys=0x2313000 size=131072 ret=1`,
      { dev: D, state: 0xffff88807a058178n, addr: 0xfff80000n, phys: 0x2313000n, size: 131072n, ret: 1n },
    ],
    [
      "dma_iova_unlink",
      `(dma_iova_unlink+0x4/0x340) dev="${D}" state=0x1 addr=0x2 offset=0 size=18446744073709551615 dir=2 attrs=0x400`,
      { dev: D, state: 1n, addr: 2n, offset: 0n, size: 2n ** 64n - 1n, dir: 2n, attrs: 1024n },
    ],
  ])("%s %s", async (name, payload, expected) => {
    expect(await values(`${name}: ${payload}`)).toEqual(expected);
    const trace = await open(`${FRONT}${name}: ${payload}\n`);
    for await (const _batch of trace.batches());
    const type = trace.types.find((one) => one.name === name)!;
    if (!/sg_err|_group|attach/.test(name)) expect(known(type)).toBeDefined();
  });

  test("with a word that is not known has that field unknown, and is read", async () => {
    const text = `${FRONT}${UNMAP}\n${FRONT}dma_map_phys: 0000:00:04.0 dir=SIDEWAYS dma_addr=1 size=1 phys_addr=1 attrs=\n`;
    const trace = await open(text);
    const all = await rowsOf(trace);
    expect(all[1]!.values).toEqual({ device: "0000:00:04.0", dma_addr: 1n, size: 1n, phys_addr: 1n, attrs: 0n });
    expect(trace.remarks).toEqual([
      expect.objectContaining({
        code: "unknown-value",
        count: 1,
        line: 2,
        message: expect.stringContaining("dir=SIDEWAYS"),
      }),
    ]);
  });
});

describe("any other event in text", () => {
  test("gives its pairs, numbers as numbers", async () => {
    expect(await values('probe_x: (here+0x1/0x2) a=-5 b=0xff c="two words" d={0x1,0x2} e=')).toEqual({
      a: -5,
      b: 255n,
      c: "two words",
      d: "{0x1,0x2}",
      e: "",
    });
    expect(await values("nvme_sq: [FAILED TO PARSE] ctrl_id=0 disk=nvme0c0n1")).toEqual({
      ctrl_id: 0,
      disk: "nvme0c0n1",
    });
  });

  test("gives one string where it is not pairs", async () => {
    const payload = "259,0 R 4096 () 524280 + 8 0x2,0,4 [busybox]";
    expect(await values(`block_rq_issue:       ${payload}`)).toEqual({ text: payload });
  });

  test("with other fields than before is another type of the same name", async () => {
    const text = `${FRONT}x: a=1\n${FRONT}x: a=1 b=2\n${FRONT}x: a=word\n${FRONT}x: a=7\n`;
    expect((await rows(text)).map((row) => row.values)).toEqual([{ a: 1 }, { a: 1, b: 2 }, { a: "word" }, { a: 7 }]);
  });
});

describe("text that ends without a newline", () => {
  test("is cut: the last line is not trusted", async () => {
    await expect(rows(`${FRONT}${UNMAP}\n${FRONT}${UNMAP}`)).rejects.toMatchObject({ code: "ERR_DMA_TRACE_DAMAGED" });
    expect(await rows(`${FRONT}${UNMAP}\n${FRONT}${UNMAP}`, { bestEffort: true })).toHaveLength(1);
  });
});
