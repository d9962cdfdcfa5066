/** The front of a line, in the forms of every tool and option: who, where, when and which event. */
import { describe, expect, test } from "vitest";
import { openAs, rowsOf } from "./read-text.ts";

const UNMAP = "unmap: IOMMU: iova=0x0000000000001000 - 0x0000000000003000 size=8192 unmapped_size=4096";
const UNMAPPED = { iova: 0x1000n, size: 8192n, unmapped_size: 4096n };
/** Fronts as Linux 6.18 prints them, with another event behind. */
const TRACEFS = "# tracer: nop\n#\n";
const LATENCY =
  "# tracer: nop\n#\n# nop latency trace v1.1.5 on 6.18.44\n# --------------------------------------------------------------------\n" +
  "# latency: 0 us, #7/9, CPU#0 | (M:PREEMPT(none) VP:0, KP:0, SP:0 HP:0 #P:2)\n#    -----------------\n";

describe("a line", () => {
  test.each<[string, string, Record<string, unknown>]>([
    // tracefs
    [
      "tracefs",
      `${TRACEFS}              dd-18149   [001] .....  5010.651281: ${UNMAP}`,
      { task: "dd", pid: 18149, cpu: 1, ns: 5010651281000n },
    ],
    [
      "options/record-tgid",
      `${TRACEFS}              dd-18149   (  18149) [000] .....  5010.651281: ${UNMAP}`,
      { task: "dd", pid: 18149, cpu: 0 },
    ],
    [
      "noirq-info",
      `${TRACEFS}    kworker/0:1H-44      [003]   5010.338821: ${UNMAP}`,
      { task: "kworker/0:1H", pid: 44, cpu: 3, ns: 5010338821000n },
    ],
    ["nocontext-info", `${TRACEFS}${UNMAP}`, { task: "", pid: -1, cpu: 0, ns: 0n }],
    [
      "latency-format",
      `${LATENCY}kworker/-44        2d.h1. 51314us#: ${UNMAP}`,
      { task: "kworker/", pid: 44, cpu: 2, ns: 51314000n },
    ],
    [
      "latency-format, at once",
      `${LATENCY}      dd-18139     0..... 72109us : ${UNMAP}`,
      { task: "dd", pid: 18139, cpu: 0, ns: 72109000n },
    ],
    [
      "latency-format, counter",
      `${LATENCY}      dd-18162     1.....    4: ${UNMAP}`,
      { task: "dd", pid: 18162, cpu: 1, ns: 4n },
    ],
    [
      "latency-format, many CPUs",
      `${LATENCY}      dd-18162   127.N.s1    4us+: ${UNMAP}`,
      { task: "dd", pid: 18162, cpu: 127, ns: 4000n },
    ],
    [
      "verbose",
      `${LATENCY}    kworker/0:1H      44   1 0 00000000 00000001 [12aa04ce6] 64.956ms (+3.013ms): ${UNMAP}`,
      { task: "kworker/0:1H", pid: 44, cpu: 1, ns: 64956000n },
    ],
    [
      "verbose, counter",
      `${LATENCY}    kworker/1:1H      79   1 0 00000000 00000001 [000000000000000c] 2 (+1): ${UNMAP}`,
      { task: "kworker/1:1H", pid: 79, cpu: 1, ns: 2n },
    ],
    [
      "verbose, digits only",
      `${LATENCY}              dd   18141   0 0 00000000 00000006 [0000000000000012] 87.527ms (+0.000ms): ${UNMAP}`,
      { task: "dd", pid: 18141, cpu: 0 },
    ],
    [
      "x86-tsc",
      `${TRACEFS}    kworker/0:1H-44      [000] ..... 907568224558863: ${UNMAP}`,
      { cpu: 0, ns: 907568224558863n },
    ],
    [
      "old flags",
      `${TRACEFS}              dd-7     [000] d.h.    12.000001: ${UNMAP}`,
      { task: "dd", pid: 7, ns: 12000001000n },
    ],
    // function graph
    ["function_graph", ` 1)               |  /* ${UNMAP} */`, { cpu: 1, pid: -1, task: "" }],
    ["funcgraph-abstime", `  5010.651281 |   1)               |  /* ${UNMAP} */`, { cpu: 1, ns: 5010651281000n }],
    ["funcgraph-proc", ` 0)   fio-142    |               |    /* ${UNMAP} */`, { cpu: 0, task: "fio", pid: 142 }],
    [
      "abstime, proc, latency",
      `  5010.651281 |   3)   <idle>-0    |  d.h1. |               |  /* ${UNMAP} */`,
      { cpu: 3, task: "<idle>", pid: 0, ns: 5010651281000n },
    ],
    ["nofuncgraph-cpu", `               |  /* ${UNMAP} */`, { cpu: 0, pid: -1, ns: 0n }],
    // trace-cmd
    [
      "trace-cmd",
      `cpus=2\n             fio-142   [001]     8.711564: ${UNMAP}`,
      { task: "fio", pid: 142, cpu: 1, ns: 8711564000n },
    ],
    [
      "an instance",
      `cpus=2\nnvme:             fio-142   [001]     8.711564: ${UNMAP}`,
      { buffer: "nvme", task: "fio", cpu: 1 },
    ],
    [
      "of two files",
      `           a.dat: cpus=2\n           a.dat:               sh-86    [001]    13.025483: ${UNMAP}`,
      { buffer: "a.dat", task: "sh", pid: 86 },
    ],
    [
      "-l -R",
      `cpus=2\n      sh-179     1-0x11   17.295950666:          ${UNMAP}`,
      { task: "sh", pid: 179, cpu: 1, ns: 17295950666n },
    ],
    ["--ts-diff, ns", `cpus=2\n              sh-179   [001]    17.295991987: (+41321) ${UNMAP}`, { ns: 17295991987n }],
    [
      "flags, as trace-cmd 3.2 prints",
      `cpus=2\n              sh-179   [001] d..2.    17.295991: ${UNMAP}`,
      { pid: 179, cpu: 1, ns: 17295991000n },
    ],
    // perf
    [
      "perf",
      `             fio     142 [001]     8.711564: iommu:${UNMAP}`,
      { event: "iommu:unmap", task: "fio", pid: 142, cpu: 1 },
    ],
    [
      "perf, a task with spaces and numbers",
      `      Web 12 - C1     142 [001]     8.711564: iommu:${UNMAP}`,
      { task: "Web 12 - C1", pid: 142 },
    ],
    ["perf, no task", `  142 [001]     8.711564: iommu:${UNMAP}`, { task: "", pid: 142 }],
    ["perf, no process", `          fio:1a [001]     8.711564: iommu:${UNMAP}`, { task: "fio:1a", pid: -1, cpu: 1 }],
    [
      "perf, no process, no CPU",
      `          fio     8.711564: iommu:${UNMAP}`,
      { task: "fio", pid: -1, cpu: 0, ns: 8711564000n },
    ],
    [
      "perf, the event alone",
      `                    iommu:${UNMAP}`,
      { event: "iommu:unmap", task: "", pid: -1, ns: 0n },
    ],
    [
      "perf, period and address",
      `  fio   141/142   [001]     8.711564:          1  iommu:${UNMAP} ffffffff81e2d514 __iommu_unmap+0x10 ([kernel.kallsyms])`,
      { pid: 142, chain: ["__iommu_unmap+0x10"] },
    ],
    ["perf of no process", `           :-1    -1 [003]     8.711564: iommu:${UNMAP}`, { task: ":-1", pid: -1, cpu: 3 }],
  ])("of %s", async (_name, text, expected) => {
    const trace = await openAs(`${text}\n`);
    const rows = await rowsOf(trace);
    expect(rows).toHaveLength(1);
    const { chain: _chain, ...rest } = { chain: [], ...expected };
    expect(rows[0]).toMatchObject({ ...rest, values: UNMAPPED });
    expect(trace.remarks.filter(({ code }) => /unknown/.test(code))).toEqual([]);
  });

  test("of the function graph tracer gives the task that the CPU was last given", async () => {
    const text =
      "# tracer: function_graph\n#\n 1)               |  iommu_map() {\n" +
      ` ------------------------------------------\n 1)   sh-7   =>   kworker-88  \n ------------------------------------------\n\n` +
      ` 1)               |  /* ${UNMAP} */\n 0)               |  /* ${UNMAP} */\n 1) ! 388.115 us  |  }\n 1)   ==========> |\n 1)   <========== |\n`;
    const trace = await openAs(text);
    expect((await rowsOf(trace)).map(({ cpu, task, pid }) => [cpu, task, pid])).toEqual([
      [1, "kworker", 88],
      [0, "", -1],
    ]);
    expect(trace.remarks.filter(({ code }) => code === "unknown-line")).toEqual([]);
    expect(trace.timing.kind).toBe("none");
  });
});

describe("a line that is no event", () => {
  const FRONT = "     fio-7     [000]     1.000000: ";

  test.each([
    ["of the function tracer", "iommu_map <-iommu_dma_map", "function"],
    ["of the function tracer with arguments", "iommu_map(domain=0xffff888, iova=0x1000) <-iommu_dma_map", "function"],
  ])("%s is one of its own kind", async (_name, rest, event) => {
    const trace = await openAs(`${FRONT}${UNMAP}\n${FRONT}${rest}\n`);
    expect((await rowsOf(trace)).map((row) => row.event)).toEqual(["unmap", event]);
  });

  test.each([
    ["a name without its colon", `${FRONT}map                  IOMMU: iova=0x1000`],
    ["a payload without its event", `${FRONT}IOMMU: iova=0x0000000000001000 - 0x0000000000002000 paddr=0x1 size=4096`],
    ["a number for a name", `${FRONT}12: IOMMU: iova=0x1000`],
    ["a delta that does not end", `${FRONT}(+12 map: IOMMU: iova=0x1`],
    ["prose", "and then the disk was gone"],
    ["a log", "[   12.345678] nvme 0000:00:04.0: timeout"],
    ["what a raw tracefs prints", "79 1 5028946509263 type: 2104"],
  ])("%s is counted, and shown with its number", async (_name, line) => {
    const trace = await openAs(`cpus=1\n${FRONT}${UNMAP}\n${line}\n${FRONT}${UNMAP}\n${line}\n`);
    expect(await rowsOf(trace)).toHaveLength(2);
    const [remark] = trace.remarks.filter(({ code }) => code === "unknown-line");
    expect(remark).toMatchObject({ count: 2, line: 3 });
    expect(remark!.message).toMatch(/^2 lines of an unknown form, the first at line 3: /);
    expect(remark!.message).toContain(line.trim().slice(0, 20));
  });

  test.each([
    "libtraceevent: No such file or directory",
    "  Error: expected type 5 but read 4",
    "  [dma:dma_map_sg] bad op token {",
    "Warning:",
    "Check IO/CPU overload!",
    "'trace' not valid for hardware events. Ignoring.",
    "[ perf record: Woken up 1 times to write data ]",
    "trace-cmd: No such file or directory",
    "CPU 3 is empty",
    "##### CPU 1 buffer started ####",
    "          swapper     0 [000]     0.000000: PERF_RECORD_MMAP -1/0: [0xffffffffc0400000(0x8000) @ 0]: x /lib/nvme.ko",
    "          swapper     0 [000]     0.000000: PERF_RECORD_FORK(2:2):(0:0)",
    "",
    "# a comment",
  ])("%j is what the tools say, and no event", async (line) => {
    const trace = await openAs(`${line}\n${FRONT}${UNMAP}\n${line}\n`);
    expect(await rowsOf(trace)).toHaveLength(1);
    expect(trace.remarks).toEqual([]);
  });

  test.each<[string, number, number]>([
    ["CPU:1 [LOST 12 EVENTS]", 12, 12],
    ["CPU:1 [30 EVENTS DROPPED]", 30, 30],
    ["nvme:   CPU:1 [30 EVENTS DROPPED]", 30, 30],
    ["CPU:1 [EVENTS DROPPED]", -1, -1],
    ["Processed 176 events and lost 5 chunks!", -1, -1],
    ["    fio     7 [001]     1.000000: PERF_RECORD_LOST lost 9", 9, 9],
  ])("%j is a mark of lost events, wherever it stands", async (line, count, lost) => {
    for (const text of [`${line}\n${FRONT}${UNMAP}\n`, `${FRONT}${UNMAP}\n${line}\n`]) {
      const trace = await openAs(text);
      const marks = (await rowsOf(trace)).filter(({ event }) => event === "lost_events");
      expect(marks.map(({ values }) => values.count)).toEqual([count]);
      expect(trace.lost).toBe(lost);
    }
  });

  test("may follow a marker whose text has several lines", async () => {
    const trace = await openAs(`${FRONT}tracing_mark_write: hello\nworld\n${FRONT}${UNMAP}\nworld\n`);
    expect((await rowsOf(trace)).map(({ event }) => event)).toEqual(["tracing_mark_write", "unmap"]);
    expect(trace.remarks).toEqual([expect.objectContaining({ code: "unknown-line", count: 1, line: 4 })]);
  });
});

describe("a text", () => {
  const LINE = `             fio-142   [001]     8.711564: ${UNMAP}\n`;
  const utf16 = (text: string, littleEndian: boolean, mark: boolean): Uint8Array => {
    const bytes = new Uint8Array((text.length + (mark ? 1 : 0)) * 2);
    const view = new DataView(bytes.buffer);
    for (const [i, character] of [...(mark ? "\ufeff" : ""), ...text].entries())
      view.setUint16(i * 2, character.charCodeAt(0), littleEndian);
    return bytes;
  };
  const page = (inside: string): string =>
    `<!DOCTYPE html>\n<html>\n<script>var a = 1 < 2;</script>\n<script class="trace-data" type="application/text">\n${inside}</script>\n</html>\n`;

  test.each<[string, string | Uint8Array]>([
    ["as UTF-8 with a mark", `\ufeff${LINE}${LINE}`],
    ["as UTF-16, little-endian, as PowerShell writes it", utf16(`${LINE}${LINE}`, true, true)],
    ["as UTF-16, big-endian", utf16(`${LINE}${LINE}`, false, true)],
    ["as UTF-16 without a mark", utf16(`${LINE}${LINE}`, true, false)],
    ["with Windows' line ends", `${LINE}${LINE}`.replaceAll("\n", "\r\n")],
    ["in a systrace page", page(`# tracer: nop\n#\n${LINE}${LINE}`)],
    [
      "in two scripts of a systrace page",
      page(`${LINE}</script>\n<script class="trace-data" type="application/text">\n${LINE}`),
    ],
  ])("%s is read", async (_name, text) => {
    const rows = await rowsOf(await openAs(text));
    expect(rows.map(({ values }) => values)).toEqual([UNMAPPED, UNMAPPED]);
  });

  test("in a page keeps the numbers of its lines", async () => {
    const trace = await openAs(page(`${LINE}what is this\n${LINE}`));
    await rowsOf(trace);
    expect(trace.remarks).toEqual([expect.objectContaining({ code: "unknown-line", line: 6 })]);
  });

  test("is the same whatever its chunks", async () => {
    const text =
      `CPU:0 [LOST 3 EVENTS]\n${LINE}\n\tffffffff81e2d514 iommu_unmap+0x1 ([kernel.kallsyms])\n\n${LINE}odd\n`.repeat(
        20,
      );
    const whole = await rowsOf(await openAs(text));
    const { openTrace } = await import("../open.ts");
    for (const size of [1, 3, 64, 300]) {
      const bytes = new TextEncoder().encode(text);
      const stream = (async function* () {
        for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
      })();
      expect(await rowsOf(await openTrace({ name: "pipe", stream }))).toEqual(whole);
    }
  });
});
