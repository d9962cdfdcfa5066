/** Call chains: of which event, with which names, in binary and in text. */
import { describe, expect, test } from "vitest";
import { fileOfBytes } from "./cursor.ts";
import { openTrace } from "./open.ts";
import { SAMPLE_FORMATS } from "./sample-formats.ts";
import { openAs, type Row, rowsOf } from "./text/read-text.ts";
import { DatWriter, type DatWriterOptions } from "./write-dat.ts";

const UNMAP = "unmap: IOMMU: iova=0x0000000000001000 - 0x0000000000003000 size=8192 unmapped_size=4096";
const at = (cpu: number, pid: number, rest: string): string =>
  `     fio-${pid}     [00${cpu}] .....     1.000000: ${rest}\n`;

const KERNEL_STACK = {
  system: "ftrace",
  text: `name: kernel_stack\nID: 4\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n
\tfield:int size;\toffset:8;\tsize:4;\tsigned:1;
\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n\nprint fmt: ""\n`,
};
const SYMBOLS = [
  "ffffffff81000000 T _text",
  "ffffffff81200000 t iommu_map_nosync",
  "ffffffff81100000 T nvme_queue_rq\t[nvme]",
  "0000000000000000 A fixed_percpu_data",
  "ffffffffc0000000 t edu_probe\t[edu]",
].join("\n");

class Writer extends DatWriter {
  readonly #little: boolean;

  constructor(options: Partial<DatWriterOptions> = {}) {
    super({ formats: [...SAMPLE_FORMATS, KERNEL_STACK], symbols: SYMBOLS, ...options });
    this.#little = options.littleEndian ?? true;
  }

  event(cpu: number, time: bigint, iova: bigint): void {
    this.add(cpu, time, this.encode("unmap", 7, { iova, size: 1, unmapped_size: 1 }));
  }

  stack(cpu: number, time: bigint, frames: readonly bigint[], size: number = frames.length): void {
    const record = new Uint8Array(16 + frames.length * 8);
    const view = new DataView(record.buffer);
    view.setUint16(0, 4, this.#little);
    view.setInt32(4, 7, this.#little);
    view.setUint32(8, size, this.#little);
    for (const [i, frame] of frames.entries()) view.setBigUint64(16 + i * 8, frame, this.#little);
    this.add(cpu, time, record);
  }

  read(batchSize?: number): Promise<Row[]> {
    return openTrace(fileOfBytes("x", this.finish()), batchSize ? { batchSize } : {}).then(rowsOf);
  }
}

const chainsOf = (rows: readonly Row[]): [bigint, string][] =>
  rows.map(({ values, chain }) => [values.iova as bigint, chain.join(" < ")]);

describe("a stack in a trace.dat", () => {
  test.each([true, false])("has the names of the file's symbols, little-endian %s", async (littleEndian) => {
    const writer = new Writer({ littleEndian });
    writer.event(0, 1n, 1n);
    writer.stack(0, 2n, [0xffffffff81200010n, 0xffffffff81100abcn, 0xffffffffc0000001n, 0xffffffffd0000000n, 0x10n]);
    expect(chainsOf(await writer.read())).toEqual([
      [1n, "iommu_map_nosync < nvme_queue_rq < edu_probe < 0xffffffffd0000000 < 0x10"],
    ]);
  });

  test("ends where its size says, or the record, or the filling of an old kernel's array", async () => {
    const writer = new Writer();
    const frame = 0xffffffff81200010n;
    writer.event(0, 1n, 1n);
    writer.stack(0, 2n, [frame, frame, frame], 2);
    writer.event(0, 3n, 2n);
    writer.stack(0, 4n, [frame], 1000);
    writer.event(0, 5n, 3n);
    writer.stack(0, 6n, [frame, 0xffff_ffff_ffff_ffffn, frame]);
    writer.event(0, 7n, 4n);
    writer.stack(0, 8n, []);
    expect((await writer.read()).map(({ chain }) => chain.length)).toEqual([2, 1, 1, 0]);
  });

  test.each([2, 3, 4096])("belongs to the last event of its CPU that has none, batches of %d", async (batchSize) => {
    const writer = new Writer({ cpus: 2 });
    const [task, irq, other] = [0xffffffff81200000n, 0xffffffff81100000n, 0xffffffffc0000000n];
    writer.event(0, 10n, 1n); // a task maps,
    writer.event(0, 11n, 2n); // an interrupt comes before its stack is recorded,
    writer.stack(0, 12n, [irq]); // with an event and a stack of its own,
    writer.stack(0, 13n, [task]);
    writer.event(1, 11n, 3n); // while another CPU goes on
    writer.stack(1, 14n, [other]);
    const rows = await writer.read(batchSize);
    expect(new Map(chainsOf(rows))).toEqual(
      new Map([
        [1n, "iommu_map_nosync"],
        [2n, "nvme_queue_rq"],
        [3n, "edu_probe"],
      ]),
    );
  });

  test("without an event is said", async () => {
    const writer = new Writer();
    writer.stack(0, 1n, [0xffffffff81200000n]);
    writer.event(0, 2n, 1n);
    const trace = await openTrace(fileOfBytes("x", writer.finish()));
    expect(chainsOf(await rowsOf(trace))).toEqual([[1n, ""]]);
    expect(trace.remarks).toEqual([expect.objectContaining({ code: "chain-without-event", count: 1 })]);
  });

  test("that is the same as another is kept once", async () => {
    const writer = new Writer();
    for (let i = 0n; i < 1000n; i++) {
      writer.event(0, i * 2n, i);
      writer.stack(0, i * 2n + 1n, [0xffffffff81200000n + (i % 7n), 0xffffffff81100000n + (i % 3n)]);
    }
    const trace = await openTrace(fileOfBytes("x", writer.finish()));
    const rows = await rowsOf(trace);
    expect(new Set(rows.map(({ chain }) => chain.join()))).toEqual(new Set(["iommu_map_nosync,nvme_queue_rq"]));
    expect(trace.chains).toHaveLength(2);
  });
});

describe("a stack in text", () => {
  test.each<[string, string, string[]]>([
    [
      "of tracefs",
      `${at(0, 7, UNMAP)}${at(0, 7, "<stack trace>")} => iommu_unmap\n => nvme_unmap_data\n`,
      ["iommu_unmap", "nvme_unmap_data"],
    ],
    [
      "of tracefs with places and addresses",
      `${at(0, 7, UNMAP)}${at(0, 7, "<stack trace>")} => trace_event_raw_event_unmap+0x1/0x2 <ffffffff81b36462>\n => iommu_unmap+0xcf/0x1b0 <ffffffff81b47d7f>\n`,
      ["iommu_unmap"],
    ],
    [
      "of trace-cmd",
      `${at(0, 7, UNMAP)}${at(0, 7, "kernel_stack:         <stack trace >")}=> iommu_unmap (ffffffff81636942)\n=> nvme_irq (ffffffffc0000001)\n`,
      ["iommu_unmap", "nvme_irq"],
    ],
    [
      "of trace-cmd without its plugin",
      `${at(0, 7, UNMAP)}${at(0, 7, "kernel_stack:         \t=> iommu_unmap")}\t=> nvme_irq\n`,
      ["iommu_unmap", "nvme_irq"],
    ],
    [
      "of trace-cmd -R",
      `${at(0, 7, UNMAP)}${at(0, 7, "kernel_stack:          size=2 caller=ARRAY[42, 69, 63, 81, ff, ff, ff, ff, 01, 00, 00, c0, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff, ff]")}`,
      ["0xffffffff81636942", "0xffffffffc0000001"],
    ],
    [
      "of perf",
      `fio 7 [000] 1.000000: iommu:${UNMAP}\n\tffffffff81e2d514 iommu_unmap+0x144 ([kernel.kallsyms])\n\tffffffffc04540b8 [unknown] ([nvme])\n\t          101829 syscall+0x19 (/lib/libc.so.6)\n\t               0 [unknown] ([unknown])\n\n`,
      ["iommu_unmap", "0xffffffffc04540b8 [nvme]"],
    ],
    [
      "of perf with addresses alone",
      `fio 7 [000] 1.000000: iommu:${UNMAP}\n\tffffffff81e2d514\n\tffffffffc04540b8\n\n`,
      ["0xffffffff81e2d514", "0xffffffffc04540b8"],
    ],
    [
      "of perf with names alone",
      `fio 7 [000] 1.000000: iommu:${UNMAP}\n\tiommu_unmap\n\tnvme_irq\n\n`,
      ["iommu_unmap", "nvme_irq"],
    ],
    [
      "of perf, its file sent through Windows",
      `fio 7 [000] 1.000000: iommu:${UNMAP}\r\n\tffffffff81e2d514 iommu_unmap+0x144 ([kernel.kallsyms])\r\n\r\n`,
      ["iommu_unmap"],
    ],
  ])("%s belongs to the event above", async (_name, text, chain) => {
    const trace = await openAs(`${text}${text}`);
    const rows = await rowsOf(trace);
    expect(rows.map((row) => row.chain)).toEqual([chain, chain]);
    expect(trace.remarks).toEqual([]);
    expect(trace.chains).toHaveLength(2);
  });

  test("belongs to its CPU's event, whatever other CPUs print between", async () => {
    const text =
      at(0, 7, UNMAP) +
      at(1, 8, UNMAP) +
      at(0, 7, "<stack trace>") +
      " => a\n => b\n" +
      at(1, 8, "<stack trace>") +
      " => c\n";
    for (const batchSize of [2, 3, 100])
      expect((await rowsOf(await openAs(text, { batchSize }))).map(({ chain }) => chain)).toEqual([["a", "b"], ["c"]]);
  });

  test("of user space is left out", async () => {
    const trace = await openAs(
      `${at(0, 7, UNMAP)}${at(0, 7, "<user stack trace>")} =>  <00007f5cbaa8b350>\n${at(0, 7, UNMAP)}`,
    );
    expect((await rowsOf(trace)).map(({ chain }) => chain)).toEqual([[], []]);
    expect(trace.remarks).toEqual([]);
  });

  test("whose event is not in the file is said", async () => {
    const trace = await openAs(`${at(0, 7, "<stack trace>")} => a\n${at(0, 7, UNMAP)}`);
    expect((await rowsOf(trace)).map(({ chain }) => chain)).toEqual([[]]);
    expect(trace.remarks).toEqual([expect.objectContaining({ code: "chain-without-event", count: 1, line: 1 })]);
  });
});
