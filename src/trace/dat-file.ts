/**
 * The metadata of a trace.dat file, versions 6 and 7: what was recorded, in which formats, and where the pages lie.
 *
 * Idea: both versions come to one value, {@link DatFile}; only this file knows that they differ. Version 6 is one
 * sequence; version 7 is a chain of option sections that name the offsets of everything else.
 * Promises: no length or offset is trusted before it is checked against the file. Nothing is read that decoding does not
 * need (symbol tables are skipped). Not for: the pages themselves (cpu-stream.ts); shifting a guest's clock onto its
 * host's (stamps stay the guest's own).
 * Specified by: the trace.dat formats 6 and 7 of trace-cmd 3.
 */
import { type Codecs, type Compression, unpack } from "./codecs.ts";
import { Cursor, fileOfBytes } from "./cursor.ts";
import { damaged, latencyTrace, type TraceDamage, unknownVersion } from "./errors.ts";
import { type EventFormat, type PageFormat, parseEventFormat, parsePageFormat } from "./event-format.ts";
import { type FileInput, readExactly } from "./input.ts";

/** The pages of one CPU of one buffer. */
export interface CpuExtent {
  readonly cpu: number;
  /** Index into {@link DatFile.buffers}. */
  readonly buffer: number;
  readonly offset: number;
  readonly size: number;
  /** The pages are packed in chunks, each with its two sizes before it. */
  readonly chunked: boolean;
  readonly pageSize: number;
}

/** Everything but the events. */
export interface DatFile {
  readonly version: 6 | 7;
  littleEndian: boolean;
  longSize: number;
  compression: Compression;
  page: PageFormat | undefined;
  readonly formats: EventFormat[];
  readonly buffers: string[];
  readonly extents: CpuExtent[];
  /** Task names by process id. */
  readonly tasks: Map<number, string>;
  clock: string | undefined;
  cpus: number | undefined;
  system: string | undefined;
  /** Nanoseconds to add to every stamp. */
  timeOffset: bigint;
  /** Cycles to nanoseconds: `(cycles * multiplier) >> shift`, and `offset`. */
  cycles: { readonly multiplier: number; readonly shift: number; readonly offset: bigint } | undefined;
  /** What the kernel counted as overwritten or dropped. */
  lost: number;
  /** Best effort: what of the metadata could not be read. */
  damage: TraceDamage | undefined;
}

export const DAT_MAGIC: readonly number[] = [0x17, 0x08, 0x44, 0x74, 0x72, 0x61, 0x63, 0x69, 0x6e, 0x67];

const OPTION = {
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
  commandLines: 21,
  bufferText: 22,
} as const;

const LARGEST_PAGE = 1024 * 1024;
const MOST_CPUS = 65536;
const SECTION_HEADER = 16;
/** A damaged file must not be walked header by header. */
const MOST_SECTIONS = 4096;

class DatReader {
  readonly #input: FileInput;
  readonly #codecs: Codecs;
  readonly file: DatFile;
  #filePageSize = 0;
  #extentBytes = 0;
  /** Version 7: where the first section begins; 0 before that is known. */
  #firstSection = 0;

  constructor(input: FileInput, codecs: Codecs, version: 6 | 7) {
    this.#input = input;
    this.#codecs = codecs;
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
      lost: 0,
      damage: undefined,
    };
  }

  #cursor(start: number): Cursor {
    return new Cursor(this.#input, start, this.#input.size, this.file.littleEndian);
  }

  async read(start: number): Promise<void> {
    const head = this.#cursor(start);
    const endian = await head.u8("the byte order");
    const longSize = await head.u8("the size of a long");
    if (endian > 1) throw damaged(start, `expected a byte order of 0 or 1, found ${endian}`);
    if (longSize !== 4 && longSize !== 8) throw damaged(start + 1, `expected longs of 4 or 8 bytes, found ${longSize}`);
    this.file.littleEndian = endian === 0;
    this.file.longSize = longSize;
    const cursor = this.#cursor(head.position);
    this.#filePageSize = await cursor.u32("the page size");
    if (this.file.version === 6) await this.#readSequence(cursor);
    else await this.#readChain(cursor);
  }

  // Version 6: one thing after another.

  async #readSequence(cursor: Cursor): Promise<void> {
    await this.#headers(cursor);
    await this.#ftraceFormats(cursor);
    await this.#eventFormats(cursor);
    cursor.skip(await cursor.u32("the size of the symbols"), "symbols");
    cursor.skip(await cursor.u32("the size of the print formats"), "print formats");
    await this.#commandLines(cursor);
    const cpus = await cursor.u32("the number of CPUs");
    this.file.cpus = cpus;
    let at = cursor.position;
    let kind = await cursor.text(10, "a section name");
    const instances: { offset: number; name: string }[] = [];
    if (kind === "options  \0") {
      for (;;) {
        const id = await cursor.u16("an option");
        if (id === OPTION.done) break;
        const size = await cursor.u32("the size of an option");
        const next = cursor.position + size;
        if (id === OPTION.buffer)
          instances.push({ offset: await cursor.u64("the offset of a buffer"), name: await cursor.name("a buffer") });
        else await this.#option(cursor, id, size);
        if (size > next - cursor.position + cursor.left) cursor.skip(size, "an option");
        cursor.position = next;
      }
      at = cursor.position;
      kind = await cursor.text(10, "a section name");
    }
    if (kind === "latency  \0") throw latencyTrace(at);
    if (kind !== "flyrecord\0") throw damaged(at, `expected "flyrecord", found ${JSON.stringify(kind)}`);
    const pageSize = this.#pageSize(at);
    await this.#cpuTable(cursor, "", cpus, pageSize);
    for (const { offset, name } of instances) {
      const instance = this.#cursor(offset);
      await instance.expect("flyrecord");
      await this.#cpuTable(instance, name, cpus, pageSize);
    }
  }

  #pageSize(at: number): number {
    const page = this.file.page;
    if (!page) throw damaged(at, "expected the description of a ring-buffer page before the pages");
    const size = page.dataOffset + page.dataSize;
    return this.#checkPage(size % 4 === 0 && page.dataSize > 0 ? size : this.#filePageSize, at);
  }

  #checkPage(size: number, at: number): number {
    if (size < 32 || size > LARGEST_PAGE || size % 4 !== 0)
      throw damaged(at, `expected a page size of 32 bytes to ${LARGEST_PAGE}, found ${size}`);
    return size;
  }

  async #cpuTable(cursor: Cursor, name: string, cpus: number, pageSize: number): Promise<void> {
    this.#checkCpus(cpus, cursor.offset);
    const buffer = this.file.buffers.push(name) - 1;
    for (let cpu = 0; cpu < cpus; cpu++) {
      const offset = await cursor.u64("the offset of a CPU's pages");
      const size = await cursor.u64("the size of a CPU's pages");
      if (size > 0) this.#extent({ cpu, buffer, offset, size, chunked: false, pageSize });
    }
  }

  /** Pages of a CPU. All of them together fit into the file, so that memory per CPU is backed by bytes of that CPU. */
  #extent(extent: CpuExtent): void {
    this.#extentBytes += Math.max(0, Math.min(extent.size, this.#input.size - extent.offset));
    if (this.#extentBytes > this.#input.size)
      throw damaged(
        Math.min(extent.offset, this.#input.size),
        `the pages of CPU ${extent.cpu} overlap those of others`,
      );
    this.file.extents.push(extent);
  }

  #checkCpus(cpus: number, at: number): void {
    if (cpus > MOST_CPUS) throw damaged(at, `expected at most ${MOST_CPUS} CPUs, found ${cpus}`);
    if (this.file.buffers.length > 255) throw damaged(at, "expected at most 256 buffers");
  }

  // Version 7: a chain of options that say where things are.

  async #readChain(cursor: Cursor): Promise<void> {
    const compression = await cursor.name("the name of the compression");
    await cursor.name("the version of the compression");
    if (compression !== "none" && compression !== "zlib" && compression !== "zstd" && compression !== "")
      throw damaged(
        cursor.position,
        `expected the compression none, zlib or zstd, found ${JSON.stringify(compression)}`,
      );
    this.file.compression = compression === "" ? "none" : compression;
    const offsetOf = new Map<number, number>();
    const buffers: Cursor[] = [];
    const seen = new Set<number>();
    let next = await cursor.u64("the offset of the options");
    this.#firstSection = cursor.position;
    while (next !== 0) {
      if (seen.has(next)) throw damaged(next, "the chain of option sections runs in a circle");
      seen.add(next);
      next = await this.#optionSection(next, offsetOf, buffers);
    }
    await this.#parts(offsetOf);
    for (const option of buffers) await this.#bufferOption(option);
  }

  /** The formats and names, from the offsets of their sections. */
  async #parts(offsetOf: ReadonlyMap<number, number>): Promise<void> {
    const part = async (id: number, what: string): Promise<Cursor> => {
      const offset = offsetOf.get(id);
      if (offset === undefined) throw damaged(this.#input.size, `expected an option that gives the offset of ${what}`);
      return this.#section(offset, id, what);
    };
    await this.#headers(await part(OPTION.headerInfo, "the headers"));
    await this.#ftraceFormats(await part(OPTION.ftraceEvents, "the formats of ftrace"));
    await this.#eventFormats(await part(OPTION.eventFormats, "the formats of the events"));
    if (offsetOf.has(OPTION.commandLines)) await this.#commandLines(await part(OPTION.commandLines, "the task names"));
  }

  /**
   * A file whose end is missing has lost the options that say where the pages are. The sections still lie one behind the
   * other, and packed pages say themselves how long they are. Pages that are not packed do not: those stay lost.
   */
  async recover(): Promise<void> {
    const file = this.file;
    if (this.#firstSection === 0 || file.extents.length > 0) return;
    file.formats.length = 0;
    file.tasks.clear();
    const offsetOf = new Map<number, number>();
    const buffers: { offset: number; end: number }[] = [];
    let offset = this.#firstSection;
    for (let count = 0; offset + SECTION_HEADER <= this.#input.size && count < MOST_SECTIONS; count++) {
      const cursor = this.#cursor(offset);
      const id = await cursor.u16("a section");
      const packed = ((await cursor.u16("a section's flags")) & 1) !== 0;
      await cursor.u32("a section's description");
      const end = cursor.position + 8 + (await cursor.u64("a section's size"));
      if (id === OPTION.buffer && packed) buffers.push({ offset, end: Math.min(end, this.#input.size) });
      else if (id !== OPTION.done) offsetOf.set(id, offset);
      else if (file.system === undefined) await this.#optionSection(offset, new Map(), []);
      offset = end;
    }
    await this.#parts(offsetOf);
    for (const { offset, end } of buffers) await this.#packedPages(offset, end);
  }

  /** The CPUs of a buffer section, one behind the other at page boundaries, by walking over their chunks. */
  async #packedPages(section: number, end: number): Promise<void> {
    const buffer = this.file.buffers.push("") - 1;
    const pageSize = this.#pageSize(section);
    const align = (offset: number): number => Math.ceil(offset / this.#filePageSize) * this.#filePageSize;
    let start = align(section + SECTION_HEADER);
    for (let cpu = 0; start + 4 <= end && cpu < MOST_CPUS; cpu++) {
      const cursor = this.#cursor(start);
      let size = 0;
      for (let chunks = await cursor.u32("the number of chunks"); chunks > 0 && cursor.left >= 8; chunks--) {
        const packedSize = await cursor.u32("a compressed size");
        cursor.position += 4 + packedSize;
        size += 8 + packedSize;
      }
      if (size > 0) this.#extent({ cpu, buffer, offset: start, size, chunked: true, pageSize });
      start = align(Math.max(cursor.position, start + 4));
    }
  }

  /** A section's data, unpacked where it is packed. */
  async #section(offset: number, id: number, what: string): Promise<Cursor> {
    const cursor = this.#cursor(offset);
    const found = await cursor.u16("a section");
    const flags = await cursor.u16("a section's flags");
    await cursor.u32("a section's description");
    const size = await cursor.u64("a section's size");
    if (found !== id) throw damaged(offset, `expected section ${id} (${what}), found ${found}`);
    if (size > cursor.left) throw damaged(offset, `${what}: expected ${size} bytes, the file has ${cursor.left} more`);
    if ((flags & 1) === 0)
      return new Cursor(this.#input, cursor.position, cursor.position + size, this.file.littleEndian);
    const packedSize = await cursor.u32("a compressed size");
    const unpackedSize = await cursor.u32("an uncompressed size");
    const packed = await cursor.bytes(packedSize, what);
    const bytes = await unpack(this.#codecs, this.file.compression, packed.slice(), unpackedSize, offset);
    return new Cursor(fileOfBytes(what, bytes), 0, bytes.length, this.file.littleEndian, offset);
  }

  async #optionSection(offset: number, offsetOf: Map<number, number>, buffers: Cursor[]): Promise<number> {
    const cursor = await this.#section(offset, OPTION.done, "options");
    for (;;) {
      if (cursor.left <= 0) return 0;
      const id = await cursor.u16("an option");
      const size = await cursor.u32("the size of an option");
      if (id === OPTION.done) return size >= 8 ? cursor.u64("the offset of the next options") : 0;
      const data = await cursor.bytes(size, `option ${id}`);
      const at = cursor.offset;
      const option = new Cursor(fileOfBytes("option", data.slice()), 0, size, this.file.littleEndian, at);
      if (id === OPTION.buffer) buffers.push(option);
      else if (id === OPTION.bufferText) throw latencyTrace(at);
      else if (id >= OPTION.headerInfo && id <= OPTION.commandLines)
        offsetOf.set(id, await option.u64("the offset of a section"));
      else await this.#option(option, id, size);
    }
  }

  async #bufferOption(option: Cursor): Promise<void> {
    const sectionOffset = await option.u64("the offset of a buffer");
    const name = await option.name("the name of a buffer");
    const clock = await option.name("the clock of a buffer");
    const pageSize = this.#checkPage(await option.u32("the page size"), option.offset);
    const cpus = await option.u32("the number of CPUs");
    this.#checkCpus(cpus, option.offset);
    if (clock !== "") this.file.clock ??= clock;
    const section = this.#cursor(sectionOffset);
    const id = await section.u16("a section");
    if (id !== OPTION.buffer) throw damaged(sectionOffset, `expected section 3 (a buffer), found ${id}`);
    const chunked = ((await section.u16("a section's flags")) & 1) !== 0;
    const buffer = this.file.buffers.push(name) - 1;
    for (let i = 0; i < cpus; i++) {
      const cpu = await option.u32("a CPU");
      const offset = await option.u64("the offset of a CPU's pages");
      const size = await option.u64("the size of a CPU's pages");
      if (size > 0) this.#extent({ cpu: cpu & 0xffff, buffer, offset, size, chunked, pageSize });
    }
  }

  // What both versions have.

  async #headers(cursor: Cursor): Promise<void> {
    await cursor.expect("header_page");
    const at = cursor.offset;
    const text = await cursor.text(await cursor.u64("the size of header_page"), "header_page");
    this.file.page = parsePageFormat(text, this.file.longSize, at);
    await cursor.expect("header_event");
    cursor.skip(await cursor.u64("the size of header_event"), "header_event");
  }

  async #ftraceFormats(cursor: Cursor): Promise<void> {
    const count = await cursor.u32("the number of ftrace formats");
    for (let i = 0; i < count; i++) await this.#format(cursor, "ftrace");
  }

  async #eventFormats(cursor: Cursor): Promise<void> {
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

  async #commandLines(cursor: Cursor): Promise<void> {
    const size = await cursor.u64("the size of the task names");
    for (const line of (await cursor.text(size, "task names")).split("\n")) {
      const match = /^(\d+) (.*)$/.exec(line);
      if (match) this.file.tasks.set(Number(match[1]), match[2]!);
    }
  }

  async #option(cursor: Cursor, id: number, size: number): Promise<void> {
    const file = this.file;
    const text = async (): Promise<string> => (await cursor.text(size, `option ${id}`)).replace(/\0[\s\S]*$/, "");
    if (id === OPTION.uname) file.system = (await text()).trim();
    else if (id === OPTION.traceClock) file.clock ??= /\[(\S+)\]/.exec(await text())?.[1];
    else if (id === OPTION.cpuCount && size === 4) file.cpus = await cursor.u32("the number of CPUs");
    else if (id === OPTION.date)
      file.timeOffset += wholeNumber(await text()) * 1000n; // recorded in microseconds
    else if (id === OPTION.offset) file.timeOffset += wholeNumber(await text());
    else if (id === OPTION.cpuStat) {
      for (const match of (await text()).matchAll(/^(?:overrun|commit overrun|dropped events): (\d+)/gm))
        file.lost += Number(match[1]);
    } else if (id === OPTION.tscToNs && size >= 16) {
      const multiplier = await cursor.u32("the clock's multiplier");
      const shift = await cursor.u32("the clock's shift");
      const offset = BigInt(await cursor.u64("the clock's offset"));
      if (multiplier !== 0 && shift < 64) file.cycles = { multiplier, shift, offset };
    }
  }
}

/** A number as strtoll reads it; anything else is 0. */
function wholeNumber(text: string): bigint {
  const match = /^\s*([+-]?)(0x[0-9a-f]+|\d+)/i.exec(text);
  if (!match) return 0n;
  return match[1] === "-" ? -BigInt(match[2]!) : BigInt(match[2]!);
}

/**
 * Reads the metadata. With `bestEffort`, what was read before the damage is the answer, and `damage` says what it was.
 * Errors: ERR_DMA_TRACE_DAMAGED, ERR_DMA_TRACE_VERSION, ERR_DMA_TRACE_FORMAT.
 */
export async function readDatFile(input: FileInput, codecs: Codecs, bestEffort: boolean): Promise<DatFile> {
  const head = await readExactly(input, 0, Math.min(32, input.size), "the header");
  const end = head.indexOf(0, DAT_MAGIC.length);
  if (end < 0) {
    if (head.length < 32) throw damaged(head.length, "expected the file version and a zero byte");
    throw unknownVersion(String.fromCharCode(...head.subarray(DAT_MAGIC.length)));
  }
  const version = String.fromCharCode(...head.subarray(DAT_MAGIC.length, end));
  if (version !== "6" && version !== "7") throw unknownVersion(version);
  const reader = new DatReader(input, codecs, version === "6" ? 6 : 7);
  try {
    await reader.read(end + 1);
  } catch (error) {
    const details = (error as { details?: { offset?: number; message?: string } }).details;
    if (!bestEffort || details?.offset === undefined) throw error;
    reader.file.damage = { offset: details.offset, message: details.message ?? (error as Error).message };
    await reader.recover().catch(() => undefined); // the first damage is the one to report
  }
  return reader.file;
}
