/** What is given in place of a trace is named for what it is, with what to do next. */
import { describe, expect, test } from "vitest";
import { fileOfBytes } from "./cursor.ts";
import { openTrace } from "./open.ts";

const latin = (text: string, length = 600): Uint8Array => {
  const bytes = new Uint8Array(Math.max(length, text.length));
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
};
const words = (text: string): Uint8Array => new TextEncoder().encode(text);
const at = (offset: number, text: string): Uint8Array => latin("\x01".repeat(offset) + text);

const messageOf = async (bytes: Uint8Array, name = "given"): Promise<string> => {
  const error = await openTrace(fileOfBytes(name, bytes)).then(
    () => undefined,
    (one: { code: string; message: string }) => one,
  );
  expect(error).toMatchObject({ code: "ERR_DMA_TRACE_FORMAT", errno: "EINVAL" });
  return error!.message;
};

describe("bytes", () => {
  test.each<[string, Uint8Array, RegExp]>([
    ["gzip", latin("\x1f\x8b\x08"), /packed by gzip; unpack it first: gunzip < given \| dmalink check -/],
    ["zstd", latin("\x28\xb5\x2f\xfd"), /packed by zstd; .*unzstd/],
    ["xz", latin("\xfd7zXZ\0"), /packed by xz; .*unxz/],
    ["bzip2", latin("BZh91AY&SY"), /packed by bzip2; .*bunzip2/],
    ["lz4", latin("\x04\x22\x4d\x18"), /packed by lz4/],
    ["zip", latin("PK\x03\x04"), /zip archive; .*unzip given/],
    ["tar", at(257, "ustar\x0000"), /tar archive; .*tar xf given/],
    ["7z", latin("7z\xbc\xaf\x27\x1c"), /7z archive/],
    ["vmcore", latin("\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x04\0"), /vmcore.*crash\(8\).*trace dump -t/],
    ["a program", latin("\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0"), /a program or kernel image/],
    ["kdump", latin("KDUMP   \x06"), /crash dump .*kdump.*crash\(8\)/],
    ["flattened kdump", latin("makedumpfile\0"), /makedumpfile -R/],
    ["pcap", latin("\xd4\xc3\xb2\xa1\x02"), /network packets \(pcap\)/],
    ["pcapng", latin("\x0a\x0d\x0d\x0a\x1c"), /pcapng/],
    ["a page-table snapshot", latin("DMASNAP1"), /page-table snapshot; dmalink tables given/],
    ["Parquet", latin("PAR1"), /Parquet/],
    ["a saved QEMU machine", latin("QEVM\0\0\0\x03"), /saved state of a QEMU machine/],
    ["an old perf.data", latin("PERFFILE"), /older than Linux 2\.6\.36/],
    ["LTTng", latin("\xc1\x1f\xfc\xc1"), /LTTng/],
    ["noise", Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919) & 0xff), /binary data of no kind/],
    ["zeros", new Uint8Array(4096), /binary data of no kind/],
  ])("of %s", async (_name, bytes, message) => {
    expect(await messageOf(bytes)).toMatch(message);
  });

  test("of a Perfetto trace are known by its name", async () => {
    expect(await messageOf(latin("\x0a\x10\x00\x01"), "boot.pftrace")).toMatch(
      /Perfetto.*traceconv systrace boot\.pftrace/,
    );
  });
});

describe("a kernel's log", () => {
  test.each([
    ["dmesg", "[    0.000000] Linux version 7.2\n[   13.216945] DMAR: DRHD: handling fault status reg 2\n"],
    ["dmesg -T", "[Mon Nov 30 14:00:01 2026] DMAR: x\n"],
    ["journalctl -k", "Nov 30 14:00:01 host kernel: DMAR: x\n"],
  ])("of %s is opened as what it is", async (_, text) => {
    const trace = await openTrace(fileOfBytes("log", words(text)));
    expect(trace.format).toBe("kernel log");
  });
});

describe("a text", () => {
  test.each<[string, string, RegExp]>([
    ["of bpftrace", "Attaching 4 probes...\nmap   0000:04:00.0 0xffe00000 4096\n", /output of bpftrace/],
    [
      "of dma-api/dump",
      "nvme 0000:00:04.0 single idx 12 P=0x1000 D=ffff1000 L=1000 DMA_TO_DEVICE dma map error check not applicable\n",
      /live mappings.*--dma-dump/,
    ],
    [
      "of an older dma-api/dump",
      "nvme 0000:00:04.0 coherent idx 0 P=7ff00 N=7ff D=ffff0000 L=1000 DMA_BIDIRECTIONAL dma map error checked\n",
      /live mappings/,
    ],
    [
      "of debugfs page tables",
      "Device 0000:00:04.0 @0x7a000000\nIOVA_PFN\t\tPML5E\n",
      /page tables of a running machine.*dmalink tables/,
    ],
    [
      "of QEMU's trace points",
      "vtd_inv_desc_iotlb_pages iotlb invalidate addr 0xfff\nvtd_iotlb_page_hit x\n",
      /log of QEMU/,
    ],
    ["of QEMU's trace points with their times", "1234@1700000000.123456:vtd_root_entry x\n", /log of QEMU/],
    [
      "of perf script without the events",
      "   fio 138 [001]    12.306293177: IOMMU: iova=0x1000 - 0x2000 paddr=0x1 size=4096\n",
      /names no events.*perf script -F \+event/,
    ],
    [
      "of payloads alone",
      "IOMMU: iova=0x0000000000001000 - 0x0000000000002000 paddr=0x1 size=4096\n",
      /names no events/,
    ],
    [
      "of perf trace",
      "     0.000 fio/138 iommu:map(iova: 4294672384, paddr: 2147000000, size: 8192)\n",
      /output of perf trace/,
    ],
    [
      "of perf report",
      "# To display the perf.data header info\n# Overhead  Command  Shared Object\n",
      /report of perf/,
    ],
    ["of a histogram", "# event histogram\n#\n{ size: 4096 } hitcount: 12\n", /histogram/],
    ["as a table", "time,device,size\n1,0000:00:04.0,4096\n2,0000:00:04.0,4096\n", /table of 3 columns \(CSV\)/],
    ["as JSON", '{"a": [1, 2]}\n', /JSON/],
    ["as a Chrome trace", '{"traceEvents": []}\n', /JSON \(Chrome, Perfetto\)/],
    ["as a page", "<!DOCTYPE html>\n<html><body>hello</body></html>\n", /page of HTML that holds no trace/],
    ["of strace", 'openat(AT_FDCWD, "/etc/ld.so.cache", O_RDONLY) = 3\n', /output of strace/],
    ["of any other kind", "Dear reader,\nthis is not a trace.\n", /text whose first line is "Dear reader,"/],
    ["with colours", "\x1b[31mred\x1b[0m words\n", /text whose first line is/],
  ])("%s", async (_name, text, message) => {
    const said = await messageOf(words(text));
    expect(said).toMatch(message);
    expect(said).not.toMatch(/\b[0-9a-f]{2} [0-9a-f]{2} [0-9a-f]{2}\b/);
    expect(said).toMatch(/Read are trace\.dat, perf\.data/);
  });

  test("from a pipe is named as well", async () => {
    const stream = (async function* () {
      yield words("Attaching 4 probes...\n");
    })();
    await expect(openTrace({ name: "(standard input)", stream })).rejects.toThrow(/output of bpftrace/);
  });

  test.each(["trace.dat", "perf.data"] as const)("a %s from a pipe says to give a file", async (kind) => {
    const head = kind === "trace.dat" ? "\x17\x08\x44tracing6\0" : "PERFILE2";
    const stream = (async function* () {
      yield latin(head);
    })();
    await expect(openTrace({ name: "pipe", stream })).rejects.toMatchObject({
      code: "ERR_DMA_TRACE_NEEDS_FILE",
      message: expect.stringContaining(kind),
    });
  });
});
