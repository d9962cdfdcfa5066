/**
 * The head of a trace.dat around pages that a kernel recorded: for a recorder that has no trace-cmd beside it.
 *
 * Idea: the kernel's ring-buffer pages go into the file as they are, one CPU after the other; everything before them
 * (formats, task names, where the pages lie) is known when the recording is over and fits in memory. Version 6, which
 * `trace-cmd report` and KernelShark read as well. Promises: the bytes of the head alone; the caller appends the pages.
 * Not for: events made from values (write-dat.ts). Specified by: the trace.dat format 6 of trace-cmd 3.
 */
import { Bytes } from "./bytes.ts";
import { DAT_MAGIC } from "./dat-file.ts";

/** Pages of a ring buffer as the kernel writes them, for files that the recorder makes. */
export interface RecordedPages {
  /** Byte order of the machine that recorded. */
  readonly littleEndian: boolean;
  /** Bytes of the kernel's `long`: 4 or 8. */
  readonly longSize: 4 | 8;
  /** `events/header_page` of tracefs, as read. */
  readonly headerPage: string;
  /** `events/header_event` of tracefs, as read. */
  readonly headerEvent: string;
  /** The `format` file of every event that may be in the pages. */
  readonly formats: readonly {
    /** Its folder: `dma`, `iommu`, … */
    readonly system: string;
    /** The file, as read. */
    readonly text: string;
  }[];
  /** `saved_cmdlines`: a line "PID NAME" each. */
  readonly tasks: string;
  /** `/proc/kallsyms`, where stacks were recorded: the names of the functions. Empty: not needed. */
  readonly symbols?: string;
  /** `trace_clock`: the chosen one in brackets. */
  readonly clock: string;
  /** Kernel release and machine, in words. */
  readonly system: string;
  /** By number: the pages of each. */
  readonly cpus: readonly {
    /** Bytes of its pages: whole sub-buffers. */
    readonly size: number;
    /** Its `stats`: entries, overrun, dropped events. */
    readonly stats: string;
  }[];
}

/** Where pages begin in the file. */
const ALIGNMENT = 4096;
const OPTION = { cpuStat: 2, traceClock: 4, uname: 5 } as const;
const encoder = new TextEncoder();
const aligned = (offset: number): number => Math.ceil(offset / ALIGNMENT) * ALIGNMENT;

/** Everything before the first page, padded so that the pages of CPU 0 follow it; every CPU's pages begin at a multiple of 4 KiB. */
export function recordedHead(pages: RecordedPages): Uint8Array {
  const head = new Bytes(pages.littleEndian);
  head.raw(new Uint8Array(DAT_MAGIC)).text("6\0");
  head
    .u8(pages.littleEndian ? 0 : 1)
    .u8(pages.longSize)
    .u32(ALIGNMENT);
  head.text("header_page\0").sized(pages.headerPage).text("header_event\0").sized(pages.headerEvent).u32(0);
  const systems = new Map<string, string[]>();
  for (const { system, text } of pages.formats) systems.set(system, [...(systems.get(system) ?? []), text]);
  head.u32(systems.size);
  for (const [system, texts] of systems) {
    head.text(`${system}\0`).u32(texts.length);
    for (const text of texts) head.sized(text);
  }
  const symbols = encoder.encode(pages.symbols ?? "");
  head.u32(symbols.length).raw(symbols).u32(0).sized(pages.tasks).u32(pages.cpus.length); // no print formats
  head.text("options  \0");
  const option = (id: number, text: string): void => {
    const bytes = encoder.encode(`${text}\0`);
    head.u16(id).u32(bytes.length).raw(bytes);
  };
  option(OPTION.traceClock, pages.clock);
  option(OPTION.uname, pages.system);
  for (const [cpu, { stats }] of pages.cpus.entries()) option(OPTION.cpuStat, `CPU: ${cpu}\n${stats}`);
  head.u16(0).text("flyrecord\0");
  let at = aligned(head.length + pages.cpus.length * 16);
  for (const { size } of pages.cpus) {
    head.u64(at).u64(size);
    at = aligned(at + size);
  }
  return head.fill(aligned(head.length) - head.length).taken();
}

/** Bytes to write after the pages of a CPU so that the next one's begin where the head says. */
export const pagePadding = (size: number): number => aligned(size) - size;
