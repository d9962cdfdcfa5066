/**
 * What a file is that is no trace, and what its owner can do with it.
 *
 * Idea: people give what they have: a crash dump, a capture of packets, a table, a log. A sentence that names it and the
 * next command helps; bytes in hexadecimal do not. The first bytes decide, for a text its first lines.
 * Not for: reading any of these.
 */
import { shown } from "./remarks.ts";

/** What a file is, and the next step; `next` is undefined where there is none to give. */
interface Recognised {
  readonly what: string;
  readonly next: string | undefined;
}

interface Signature {
  readonly at?: number;
  /** As text of Latin-1 characters. */
  readonly bytes: string;
  readonly what: string;
  readonly next?: string;
}

const unpackFirst = (command: string): string => `unpack it first: ${command} < FILE | dmalink check -`;
const CRASH =
  "in crash(8), with its extension trace.so, `trace dump -t trace.dat` takes the recorded events out of it, if any were recorded";
const ANOTHER_TOOL = "record with dmalink record, trace-cmd record or perf record instead";

const SIGNATURES: readonly Signature[] = [
  { bytes: "\x1f\x8b", what: "data packed by gzip", next: unpackFirst("gunzip") },
  { bytes: "\x28\xb5\x2f\xfd", what: "data packed by zstd", next: unpackFirst("unzstd") },
  { bytes: "\xfd7zXZ\0", what: "data packed by xz", next: unpackFirst("unxz") },
  { bytes: "BZh", what: "data packed by bzip2", next: unpackFirst("bunzip2") },
  { bytes: "\x04\x22\x4d\x18", what: "data packed by lz4", next: unpackFirst("unlz4") },
  { bytes: "\x5d\0\0", what: "data packed by lzma", next: unpackFirst("unlzma") },
  { bytes: "PK\x03\x04", what: "a zip archive", next: "unpack it: unzip FILE" },
  { bytes: "7z\xbc\xaf\x27\x1c", what: "a 7z archive", next: "unpack it: 7z x FILE" },
  { at: 257, bytes: "ustar", what: "a tar archive", next: "unpack it: tar xf FILE" },
  {
    bytes: "DMASNAP1",
    what: "a page-table snapshot",
    next: "dmalink tables FILE shows it; beside a trace: --snapshot FILE",
  },
  { bytes: "KDUMP   ", what: "a crash dump of the kernel (kdump, as makedumpfile packs it)", next: CRASH },
  { bytes: "DISKDUMP", what: "a crash dump of the kernel (diskdump)", next: CRASH },
  {
    bytes: "makedumpfile",
    what: "a crash dump of the kernel (makedumpfile, flattened)",
    next: `makedumpfile -R FILE2 < FILE, then ${CRASH}`,
  },
  { bytes: "\xd4\xc3\xb2\xa1", what: "a capture of network packets (pcap)", next: ANOTHER_TOOL },
  { bytes: "\xa1\xb2\xc3\xd4", what: "a capture of network packets (pcap)", next: ANOTHER_TOOL },
  { bytes: "\x4d\x3c\xb2\xa1", what: "a capture of network packets (pcap)", next: ANOTHER_TOOL },
  { bytes: "\x0a\x0d\x0d\x0a", what: "a capture of network packets (pcapng)", next: ANOTHER_TOOL },
  {
    bytes: "PERFFILE",
    what: "a perf.data of a perf older than Linux 2.6.36",
    next: "perf script > FILE.txt with that perf",
  },
  { bytes: "PAR1", what: "a Parquet file", next: "ask it with DuckDB: select * from 'FILE'" },
  { bytes: "SQLite format 3\0", what: "an SQLite database" },
  { bytes: "\xc1\x1f\xfc\xc1", what: "an LTTng trace (CTF)", next: ANOTHER_TOOL },
  { bytes: "\xc1\xfc\x1f\xc1", what: "an LTTng trace (CTF)", next: ANOTHER_TOOL },
  {
    bytes: "QEVM",
    what: "a saved state of a QEMU machine",
    next: "dump-guest-memory in QEMU's monitor writes a dump that crash(8) reads",
  },
  { bytes: "QFI\xfb", what: "a disk image (qcow2)" },
  { bytes: "\x89PNG", what: "a picture (PNG)" },
  { bytes: "%PDF", what: "a PDF document" },
];

/**
 * What the first bytes of a file say. `name` is only looked at for what they do not; `otherwise` is the answer where they
 * say nothing.
 */
export function recognise(head: Uint8Array, name: string, otherwise?: Recognised): Recognised {
  if (head.length === 0) return { what: "an empty file", next: undefined };
  const latin = String.fromCharCode(...head.subarray(0, 512));
  for (const { at = 0, bytes, what, next } of SIGNATURES)
    if (latin.startsWith(bytes, at)) return { what, next: next?.replaceAll("FILE", fileName(name)) };
  if (latin.startsWith("\x7fELF")) return elf(head);
  const text = textOf(head);
  if (text !== undefined) return recogniseText(text, name);
  if (/\.(?:perfetto-trace|pftrace)$/.test(name))
    return {
      what: "a Perfetto trace",
      next: `traceconv systrace ${fileName(name)} FILE.txt takes the ftrace text out of it`,
    };
  return otherwise ?? { what: "binary data of no kind that is known here", next: undefined };
}

const fileName = (name: string): string => (/^[\w./-]+$/.test(name) ? name : "FILE");

function elf(head: Uint8Array): Recognised {
  const type = head[5] === 2 ? head[17] : head[16];
  return type === 4
    ? { what: "a dump of memory in ELF form (vmcore, or a core of a program)", next: `of a kernel: ${CRASH}` }
    : { what: "a program or kernel image (ELF)", next: undefined };
}

/** The beginning as text, if it is one: no zeros, hardly any control characters. */
function textOf(head: Uint8Array): string | undefined {
  let odd = 0;
  for (const byte of head) {
    if (byte === 0) return undefined;
    if (byte < 32 && byte !== 9 && byte !== 10 && byte !== 13 && byte !== 27) odd++;
  }
  if (odd * 50 > head.length) return undefined;
  const text = new TextDecoder().decode(head);
  let wrong = 0;
  for (const character of text) if (character === "\ufffd") wrong++;
  return wrong * 20 > text.length ? undefined : text;
}

interface TextKind {
  /** Of the first lines. */
  readonly form: RegExp;
  readonly what: string;
  readonly next?: string;
}

/** Kinds of text by what their first lines hold; the first that fits. Each form is anchored or without repeats that nest. */
const TEXTS: readonly TextKind[] = [
  { form: /^Attaching \d+ probes?\.\.\./m, what: "the output of bpftrace", next: ANOTHER_TOOL },
  {
    form: /^(?:<\d+>)?\[ *\d+\.\d{6}\]|^\[\w{3} \w{3} [ \d]\d [\d:]{8} \d{4}\]|^\w{3} [ \d]\d [\d:]{8} \S+ kernel: |^\S+T[\d:.,+-]+ \S+ kernel: /m,
    what: "a kernel log",
    next: "dmalink check FILE reads what it says of DMA; beside a trace: --kernel-log FILE",
  },
  {
    form: /\bidx \d+ P=\S+ (?:N=\S+ )?D=\S+ L=\S+/,
    what: "a list of live mappings (debugfs dma-api/dump)",
    next: "dmalink check FILE shows what is live, two of them what came and went; beside a trace: --dma-dump FILE",
  },
  {
    form: /^(?:Device \S+ (?:with pasid \S+ )?@0x[0-9a-f]+|IOVA_PFN\s|Root Table Address:|IOMMU dmar\d+: Root Table Address)/m,
    what: "page tables of a running machine (debugfs, domain_translation_struct or dmar_translation_struct)",
    next: "dmalink tables FILE shows them; beside a trace: --snapshot FILE",
  },
  {
    form: /^(?:\d+@\d+\.\d+:)?(?:vtd|virtio_iommu|smmuv3|amdvi|iommu|pci_nvme|vfio|dma)_\w+ /m,
    what: "a log of QEMU: its own trace points, on the device's side",
    next: "record in the guest: dmalink record, trace-cmd record or perf record",
  },
  {
    form: /IOMMU: iova=0x|\bdir=\w+ dma_addr=/,
    what: "a printed trace that names no events",
    next: "perf script -F +event,+trace prints them",
  },
  {
    form: /^ *[\d.]+ (?:\( *[\d.]+ ms\):)? *\S+\/\d+ [\w:]+\(/m,
    what: "the output of perf trace",
    next: "perf record, then perf script > FILE.txt",
  },
  {
    form: /^# Overhead +|^ Performance counter stats for/m,
    what: "a report of perf",
    next: "perf script > FILE.txt prints the events",
  },
  {
    form: /^# event histogram|^\{ \w.*\} hitcount:/m,
    what: "a histogram of tracefs, which holds no events",
    next: ANOTHER_TOOL,
  },
  {
    form: /^\s*[{[][\s\S]*"traceEvents"/,
    what: "a trace in JSON (Chrome, Perfetto)",
    next: "give the trace it was made from",
  },
  {
    form: /^\s*\{[\s\S]*"(?:\$schema|runs)"[\s\S]*sarif/,
    what: "a SARIF report",
    next: "give the trace it was made from",
  },
  { form: /^\s*\{\s*"schema": ?"dmalink/, what: "a report of dmalink itself", next: "give the trace it was made from" },
  { form: /^\s*[{[]/, what: "JSON" },
  { form: /^\s*<(?:!doctype html|html)/i, what: "a page of HTML that holds no trace (systrace pages do)" },
  { form: /^\s*<\?xml|^\s*<\w+[ >]/, what: "XML" },
  { form: /^\w+\(.*\) += /m, what: "the output of strace", next: ANOTHER_TOOL },
];

function recogniseText(text: string, name: string): Recognised {
  const head = text.slice(0, 4096);
  for (const { form, what, next } of TEXTS)
    if (form.test(head)) return { what, next: next?.replaceAll("FILE", fileName(name)) };
  const lines = head.split("\n").filter((line) => line.trim() !== "");
  const [first = ""] = lines;
  for (const separator of [",", ";", "\t"]) {
    const columns = first.split(separator).length;
    if (columns > 2 && lines.length > 2 && lines.slice(1, 3).every((line) => line.split(separator).length === columns))
      return { what: `a table of ${columns} columns (CSV)`, next: "give the trace it was made from" };
  }
  return { what: `text whose first line is ${JSON.stringify(shown(first))}`, next: undefined };
}
