/** A kernel log as a trace: what it went through, and which file is one. */
import { describe, expect, test } from "vitest";
import { fieldNumber, fieldText } from "../events.ts";
import { looksLikeKernelLog } from "./detect.ts";
import { KernelLogTrace } from "./log-trace.ts";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function* inPieces(data: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}

interface Read {
  readonly trace: KernelLogTrace;
  readonly messages: readonly string[];
  readonly lines: readonly number[];
  readonly times: readonly number[];
}

async function read(data: Uint8Array | string, size = 1 << 16, batchSize = 4096): Promise<Read> {
  const trace = new KernelLogTrace(inPieces(typeof data === "string" ? bytes(data) : data, size), batchSize);
  const messages: string[] = [];
  const lines: number[] = [];
  const times: number[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++) {
      messages.push(fieldText(trace, batch, row, 0));
      lines.push(fieldNumber(batch, row, 1));
      times.push(Number(trace.timeBase) + batch.timeNs[row]!);
    }
  return { trace, messages, lines, times };
}

describe("a kernel log", () => {
  const LOG = "[    1.000000] one\n[    1.500000] two\n\n[    2.000000] three\n";

  test("is console events with their lines and times", async () => {
    const { trace, messages, lines, times } = await read(LOG);
    expect(trace).toMatchObject({ format: "kernel log", clock: "dmesg", resolutionNs: 1000 });
    expect(messages).toEqual(["one", "two", "three"]);
    expect(lines).toEqual([1, 2, 4]);
    expect(times).toEqual([1e9, 1.5e9, 2e9]);
  });

  test.each([1, 2, 3, 7, 16])("is the same in chunks of %i bytes and batches of two", async (size) => {
    expect(await read(LOG, size, 2)).toMatchObject({ messages: ["one", "two", "three"], lines: [1, 2, 4] });
  });

  test.each([
    ["CR LF", LOG.replaceAll("\n", "\r\n"), [1, 2, 4]],
    ["LF CR", LOG.replaceAll("\n", "\n\r"), [1, 2, 4]],
    ["CR CR LF", LOG.replaceAll("\n", "\r\r\n"), [1, 2, 4]],
    ["CR alone", LOG.replaceAll("\n", "\r"), [1, 1, 1]],
    ["colours", LOG.replace("one", "\u001b[33mo\u001b[0mne"), [1, 2, 4]],
    ["zero bytes", LOG.replace("two", "t\0wo"), [1, 2, 4]],
    ["no last newline", LOG.trimEnd(), [1, 2, 4]],
  ])("may have %s", async (_, text, lines) => {
    expect(await read(text, 5)).toMatchObject({ messages: ["one", "two", "three"], lines });
  });

  test("may be UTF-16", async () => {
    const units = Uint16Array.from(`\ufeff${LOG}`, (character) => character.charCodeAt(0));
    expect((await read(new Uint8Array(units.buffer), 3)).messages).toEqual(["one", "two", "three"]);
  });

  test("without times has none, and says so", async () => {
    const { trace, times } = await read("DMAR: one\nDMAR: two\n");
    expect(trace).toMatchObject({ clock: "none", resolutionNs: 0 });
    expect(times).toEqual([0, 0]);
  });

  test("over two boots goes on from where the first ended", async () => {
    const { times } = await read("[  100.000000] one\n[  101.000000] two\n[    1.000000] three\n[    2.000000] four\n");
    expect(times).toEqual([100e9, 101e9, 101e9, 102e9]);
  });

  test("counts the lines of other programs, and leaves them out", async () => {
    const text =
      "Oct 25 12:25:45 box kernel: one\nOct 25 12:25:46 box sshd[12]: hello\nOct 25 12:25:47 box kernel: two\n";
    const { trace, messages } = await read(text);
    expect(messages).toEqual(["one", "two"]);
    expect(trace.otherLines).toBe(1);
  });

  test("takes a line of a megabyte, and no more of it than it needs", async () => {
    const { messages } = await read(`[    1.000000] ${"x".repeat(1 << 20)}\n[    2.000000] two\n`, 4096);
    expect(messages[0]!.length).toBeLessThan(1 << 17);
    expect(messages[1]).toBe("two");
  });
});

describe("a log as records", () => {
  const JOURNAL = {
    __REALTIME_TIMESTAMP: "1698229545123456",
    __MONOTONIC_TIMESTAMP: "20000000",
    _SOURCE_MONOTONIC_TIMESTAMP: "19972738",
    SYSLOG_IDENTIFIER: "kernel",
    PRIORITY: "3",
    MESSAGE: "DMAR: one",
  };
  test.each([
    [
      "journalctl -o json",
      `${JSON.stringify(JOURNAL)}\n${JSON.stringify({ ...JOURNAL, SYSLOG_IDENTIFIER: "sshd", MESSAGE: "no" })}\n`,
      "dmesg",
      19_972_738_000,
    ],
    [
      "journalctl -o json, the message as bytes",
      `${JSON.stringify({ ...JOURNAL, MESSAGE: [...bytes("DMAR: one")] })}\n`,
      "dmesg",
      19_972_738_000,
    ],
    [
      "journalctl -o export",
      `${Object.entries(JOURNAL)
        .map(([name, value]) => `${name}=${value}`)
        .join("\n")}\n\n`,
      "dmesg",
      19_972_738_000,
    ],
    [
      "journalctl -o verbose",
      `Wed 2023-10-25 12:25:45.123456 CEST [s=abc;i=1]\n${Object.entries(JOURNAL)
        .map(([name, value]) => `    ${name}=${value}`)
        .join("\n")}\n`,
      "dmesg",
      19_972_738_000,
    ],
    [
      "dmesg --json",
      `{\n   "dmesg": [\n      {\n         "pri": 3,\n         "time":    19.972738,\n         "msg": "DMAR: one"\n      }\n   ]\n}\n`,
      "dmesg",
      19_972_738_000,
    ],
  ])("is read from %s", async (_, text, clock, timeNs) => {
    const { trace, messages, times } = await read(text);
    expect(messages.filter((message) => message !== "")).toEqual(["DMAR: one"]);
    expect(trace.clock).toBe(clock);
    expect(times.at(-1)).toBe(timeNs);
  });
});

describe("what a file is", () => {
  test.each([
    ["dmesg", "[    0.000000] Linux version 6.12\n", "fronts"],
    ["dmesg -T", "[Wed Oct 25 12:25:45 2023] x\n", "fronts"],
    ["journalctl", "-- Journal begins at Mon --\nOct 25 12:25:45 box kernel: x\n", "fronts"],
    [
      "a console capture that begins with firmware",
      `SeaBIOS (version 1.16)\r\nBooting...\r\n[    0.000000] Linux version 6.12\r\n`,
      "fronts",
    ],
    ["journalctl -o json", '{"MESSAGE":"x","_TRANSPORT":"kernel"}\n', "fronts"],
    [
      "journalctl -o cat",
      "DMAR: DRHD: handling fault status reg 2\nDMAR: [DMA Write NO_PASID] Request device [00:04.0] fault addr 0xffe31000 [fault reason 0x05] PTE Write access is not set\n",
      "sentences",
    ],
    ["a trace", "cpus=4\n  fio-1 [000] 1.000000: map: IOMMU: iova=0x1000\n", "no"],
    [
      "a trace with the kernel's lines",
      "  fio-1   [000]     1.000000: console:              DMAR: [DMA Write NO_PASID] Request device [00:04.0] fault addr 0x1000\n",
      "no",
    ],
    ["a table", "2023-10-25 12:25:45, 1, 2\n2023-10-25 12:25:46, 1, 2\n", "no"],
    ["prose", "We saw a fault of the IOMMU yesterday.\n", "no"],
    ["nothing", "", "no"],
  ])("%s", (_, text, expected) => {
    expect(looksLikeKernelLog(bytes(text))).toBe(expected);
  });
});
