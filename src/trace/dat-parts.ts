/**
 * What trace.dat files of both versions have: formats, task names, options, and where the pages of each CPU lie.
 *
 * Promises: no length or offset is trusted before it is checked against the file.
 */
import type { Codecs } from "./codecs.ts";
import { Cursor } from "./cursor.ts";
import type { CpuExtent, DatFile } from "./dat-metadata.ts";
import { damaged } from "./errors.ts";
import { parseEventFormat, parsePageFormat } from "./event-format.ts";
import type { FileInput } from "./input.ts";

export const OPTION = {
  done: 0,
  date: 1,
  cpuStat: 2,
  buffer: 3,
  traceClock: 4,
  uname: 5,
  offset: 7,
  cpuCount: 8,
  tscToNs: 14,
  headerInfo: 16,
  ftraceEvents: 17,
  eventFormats: 18,
  symbols: 19,
  commandLines: 21,
  bufferText: 22,
} as const;

const LARGEST_PAGE = 1024 * 1024;
export const MOST_CPUS = 65536;
const MOST_BUFFERS = 65535;
/** A symbol table of a whole kernel is a tenth of this. */
const LARGEST_SYMBOLS = 128 * 1024 * 1024;
/** Counts that a text gives stay exact, and sums of them. */
const MOST_LOST = 2 ** 48;
/** 63 bits of nanoseconds. */
const LARGEST_OFFSET = 1n << 62n;

/** Fills in a {@link DatFile}, part by part, as the version's own order has them. */
export class DatParts {
  readonly input: FileInput;
  readonly codecs: Codecs;
  readonly file: DatFile;
  /** Pages begin at multiples of this. */
  filePageSize = 0;

  constructor(input: FileInput, codecs: Codecs, version: 6 | 7) {
    this.input = input;
    this.codecs = codecs;
    this.file = {
      version,
      littleEndian: true,
      longSize: 8,
      compression: "none",
      page: undefined,
      formats: [],
      buffers: [],
      extents: [],
      tasks: new Map(),
      clock: undefined,
      cpus: undefined,
      system: undefined,
      timeOffset: 0n,
      cycles: undefined,
      symbols: undefined,
      lost: 0,
      damage: undefined,
    };
  }

  cursor(start: number): Cursor {
    return new Cursor(this.input, start, this.input.size, this.file.littleEndian);
  }

  /** Byte order and sizes; the cursor is behind them then. */
  async start(at: number): Promise<Cursor> {
    const head = this.cursor(at);
    const endian = await head.u8("the byte order");
    const longSize = await head.u8("the size of a long");
    if (endian > 1) throw damaged(at, `expected a byte order of 0 or 1, found ${endian}`);
    if (longSize !== 4 && longSize !== 8) throw damaged(at + 1, `expected longs of 4 or 8 bytes, found ${longSize}`);
    this.file.littleEndian = endian === 0;
    this.file.longSize = longSize;
    const cursor = this.cursor(head.position);
    this.filePageSize = await cursor.u32("the page size");
    return cursor;
  }

  /** Size of the pages, whose description has been read. */
  pageSize(at: number): number {
    const page = this.file.page;
    if (!page) throw damaged(at, "expected the description of a ring-buffer page before the pages");
    const size = page.dataOffset + page.dataSize;
    return this.checkPage(size % 4 === 0 && page.dataSize > 0 ? size : this.filePageSize, at);
  }

  checkPage(size: number, at: number): number {
    if (size < 32 || size > LARGEST_PAGE || size % 4 !== 0)
      throw damaged(at, `expected a page size of 32 bytes to ${LARGEST_PAGE}, found ${size}`);
    return size;
  }

  /** Pages of a CPU. */
  extent(extent: CpuExtent): void {
    this.file.extents.push(extent);
  }

  /** No two CPUs have the same bytes, so that memory per CPU is backed by bytes of that CPU. */
  checkExtents(): void {
    const [overlap] = this.#overlaps();
    if (overlap)
      throw damaged(
        Math.min(overlap.offset, this.input.size),
        `the pages of CPU ${overlap.cpu} (${overlap.size} bytes) overlap those of others`,
      );
  }

  /** Of a damaged file, what overlaps is left out. */
  dropOverlaps(): void {
    const overlaps = this.#overlaps();
    const { extents } = this.file;
    if (overlaps.size > 0) extents.splice(0, extents.length, ...extents.filter((extent) => !overlaps.has(extent)));
  }

  /** Extents that begin inside another. */
  #overlaps(): Set<CpuExtent> {
    const overlaps = new Set<CpuExtent>();
    let end = 0;
    for (const extent of [...this.file.extents].sort((a, b) => a.offset - b.offset))
      if (extent.offset < end) overlaps.add(extent);
      else end = extent.offset + extent.size;
    return overlaps;
  }

  checkCpus(cpus: number, at: number): void {
    if (cpus > MOST_CPUS) throw damaged(at, `expected at most ${MOST_CPUS} CPUs, found ${cpus}`);
    if (this.file.buffers.length > MOST_BUFFERS) throw damaged(at, `expected at most ${MOST_BUFFERS} buffers`);
  }

  /** The symbol table of `size` bytes at the cursor, to be read when it is needed. */
  symbolsAt(cursor: Cursor, size: number): void {
    if (size === 0 || size > LARGEST_SYMBOLS || size > cursor.left) return;
    const { position } = cursor;
    this.file.symbols = async () => {
      cursor.position = position;
      return (await cursor.bytes(size, "the symbols")).slice();
    };
  }

  async headers(cursor: Cursor): Promise<void> {
    await cursor.expect("header_page");
    const at = cursor.offset;
    const text = await cursor.text(await cursor.u64("the size of header_page"), "header_page");
    this.file.page = parsePageFormat(text, this.file.longSize, at);
    await cursor.expect("header_event");
    cursor.skip(await cursor.u64("the size of header_event"), "header_event");
  }

  async ftraceFormats(cursor: Cursor): Promise<void> {
    const count = await cursor.u32("the number of ftrace formats");
    for (let i = 0; i < count; i++) await this.#format(cursor, "ftrace");
  }

  async eventFormats(cursor: Cursor): Promise<void> {
    const systems = await cursor.u32("the number of event systems");
    for (let i = 0; i < systems; i++) {
      const system = await cursor.name("the name of a system");
      const count = await cursor.u32("the number of formats");
      for (let event = 0; event < count; event++) await this.#format(cursor, system);
    }
  }

  async #format(cursor: Cursor, system: string): Promise<void> {
    const size = await cursor.u64("the size of a format");
    const at = cursor.offset;
    this.file.formats.push(parseEventFormat(await cursor.text(size, "a format"), system, this.file.longSize, at));
  }

  async commandLines(cursor: Cursor): Promise<void> {
    const size = await cursor.u64("the size of the task names");
    for (const line of (await cursor.text(size, "task names")).split("\n")) {
      const match = /^(\d+) (.*)$/.exec(line);
      if (match) this.file.tasks.set(Number(match[1]), match[2]!);
    }
  }

  async option(cursor: Cursor, id: number, size: number): Promise<void> {
    const file = this.file;
    const text = async (): Promise<string> => (await cursor.text(size, `option ${id}`)).replace(/\0[\s\S]*$/, "");
    if (id === OPTION.uname) file.system = (await text()).trim();
    else if (id === OPTION.traceClock) file.clock ??= /\[(\S+)\]/.exec(await text())?.[1];
    else if (id === OPTION.cpuCount && size === 4) {
      const at = cursor.offset;
      const cpus = await cursor.u32("the number of CPUs");
      this.checkCpus(cpus, at);
      file.cpus = cpus;
    } else if (id === OPTION.date)
      this.#shiftTimes(wholeNumber(await text()) * 1000n, cursor.offset); // recorded in microseconds
    else if (id === OPTION.offset) this.#shiftTimes(wholeNumber(await text()), cursor.offset);
    else if (id === OPTION.cpuStat) {
      for (const match of (await text()).matchAll(/^(?:overrun|commit overrun|dropped events): (\d{1,20})/gm))
        file.lost = Math.min(MOST_LOST, file.lost + Number(match[1]));
    } else if (id === OPTION.tscToNs && size >= 16) {
      const multiplier = await cursor.u32("the clock's multiplier");
      const shift = await cursor.u32("the clock's shift");
      const offset = BigInt(await cursor.u64("the clock's offset"));
      if (multiplier !== 0 && shift < 64) file.cycles = { multiplier, shift, offset };
    }
  }

  #shiftTimes(nanoseconds: bigint, at: number): void {
    if (nanoseconds > LARGEST_OFFSET || nanoseconds < -LARGEST_OFFSET)
      throw damaged(at, `times are to be shifted by ${nanoseconds} ns, which does not fit into 63 bits`);
    this.file.timeOffset += nanoseconds;
  }
}

/** A number as strtoll reads it; anything else is 0. */
function wholeNumber(text: string): bigint {
  const match = /^\s*([+-]?)(0x[0-9a-f]{1,40}|\d{1,40})/i.exec(text);
  if (!match) return 0n;
  return match[1] === "-" ? -BigInt(match[2]!) : BigInt(match[2]!);
}
