/**
 * Version 7 of trace.dat: a chain of option sections that name the offsets of everything else, each section packed or not.
 *
 * What is left of a file whose end is missing is found by walking over the sections ({@link DatChain.recover}).
 */
import { unpack } from "./codecs.ts";
import { Cursor, fileOfBytes } from "./cursor.ts";
import { type DatParts, MOST_CPUS, OPTION } from "./dat-parts.ts";
import { damaged, latencyTrace } from "./errors.ts";

const SECTION_HEADER = 16;
/** A damaged file must not be walked header by header. */
const MOST_SECTIONS = 4096;

export class DatChain {
  readonly #parts: DatParts;
  /** Where the first section begins; 0 before that is known. */
  #firstSection = 0;

  constructor(parts: DatParts) {
    this.#parts = parts;
  }

  async read(cursor: Cursor): Promise<void> {
    const compression = await cursor.name("the name of the compression");
    await cursor.name("the version of the compression");
    if (compression !== "none" && compression !== "zlib" && compression !== "zstd" && compression !== "")
      throw damaged(
        cursor.position,
        `expected the compression none, zlib or zstd, found ${JSON.stringify(compression)}`,
      );
    this.#parts.file.compression = compression === "" ? "none" : compression;
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
    await this.#readParts(offsetOf);
    for (const option of buffers) await this.#bufferOption(option);
  }

  /** The formats and names, from the offsets of their sections. */
  async #readParts(offsetOf: ReadonlyMap<number, number>): Promise<void> {
    const part = async (id: number, what: string): Promise<Cursor> => {
      const offset = offsetOf.get(id);
      if (offset === undefined)
        throw damaged(this.#parts.input.size, `expected an option that gives the offset of ${what}`);
      return this.#section(offset, id, what);
    };
    await this.#parts.headers(await part(OPTION.headerInfo, "the headers"));
    await this.#parts.ftraceFormats(await part(OPTION.ftraceEvents, "the formats of ftrace"));
    await this.#parts.eventFormats(await part(OPTION.eventFormats, "the formats of the events"));
    if (offsetOf.has(OPTION.commandLines))
      await this.#parts.commandLines(await part(OPTION.commandLines, "the task names"));
    const symbols = offsetOf.get(OPTION.symbols);
    if (symbols !== undefined)
      this.#parts.file.symbols = async () => {
        const cursor = await this.#section(symbols, OPTION.symbols, "the symbols");
        return (await cursor.bytes(await cursor.u32("the size of the symbols"), "the symbols")).slice();
      };
  }

  /**
   * A file whose end is missing has lost the options that say where the pages are. The sections still lie one behind the
   * other, and packed pages say themselves how long they are. Pages that are not packed do not: those stay lost.
   */
  async recover(): Promise<void> {
    const file = this.#parts.file;
    if (this.#firstSection === 0 || file.extents.length > 0) return;
    file.formats.length = 0;
    file.tasks.clear();
    const offsetOf = new Map<number, number>();
    const buffers: { offset: number; end: number }[] = [];
    let offset = this.#firstSection;
    for (let count = 0; offset + SECTION_HEADER <= this.#parts.input.size && count < MOST_SECTIONS; count++) {
      const cursor = this.#parts.cursor(offset);
      const id = await cursor.u16("a section");
      const packed = ((await cursor.u16("a section's flags")) & 1) !== 0;
      await cursor.u32("a section's description");
      const end = cursor.position + 8 + (await cursor.u64("a section's size"));
      if (id === OPTION.buffer && packed) buffers.push({ offset, end: Math.min(end, this.#parts.input.size) });
      else if (id !== OPTION.done) offsetOf.set(id, offset);
      else if (file.system === undefined) await this.#optionSection(offset, new Map(), []);
      offset = end;
    }
    await this.#readParts(offsetOf);
    for (const { offset, end } of buffers) await this.#packedPages(offset, end);
  }

  /** The CPUs of a buffer section, one behind the other at page boundaries, by walking over their chunks. */
  async #packedPages(section: number, end: number): Promise<void> {
    const buffer = this.#parts.file.buffers.push("") - 1;
    const pageSize = this.#parts.pageSize(section);
    const align = (offset: number): number => Math.ceil(offset / this.#parts.filePageSize) * this.#parts.filePageSize;
    let start = align(section + SECTION_HEADER);
    for (let cpu = 0; start + 4 <= end && cpu < MOST_CPUS; cpu++) {
      const cursor = this.#parts.cursor(start);
      let size = 0;
      for (let chunks = await cursor.u32("the number of chunks"); chunks > 0 && cursor.left >= 8; chunks--) {
        const packedSize = await cursor.u32("a compressed size");
        cursor.position += 4 + packedSize;
        size += 8 + packedSize;
      }
      if (size > 0) this.#parts.extent({ cpu, buffer, offset: start, size, chunked: true, pageSize });
      start = align(Math.max(cursor.position, start + 4));
    }
  }

  /** A section's data, unpacked where it is packed. */
  async #section(offset: number, id: number, what: string): Promise<Cursor> {
    const cursor = this.#parts.cursor(offset);
    const found = await cursor.u16("a section");
    const flags = await cursor.u16("a section's flags");
    await cursor.u32("a section's description");
    const size = await cursor.u64("a section's size");
    if (found !== id) throw damaged(offset, `expected section ${id} (${what}), found ${found}`);
    if (size > cursor.left) throw damaged(offset, `${what}: expected ${size} bytes, the file has ${cursor.left} more`);
    if ((flags & 1) === 0)
      return new Cursor(this.#parts.input, cursor.position, cursor.position + size, this.#parts.file.littleEndian);
    const packedSize = await cursor.u32("a compressed size");
    const unpackedSize = await cursor.u32("an uncompressed size");
    const packed = await cursor.bytes(packedSize, what);
    const bytes = await unpack(this.#parts.codecs, this.#parts.file.compression, packed.slice(), unpackedSize, offset);
    return new Cursor(fileOfBytes(what, bytes), 0, bytes.length, this.#parts.file.littleEndian, offset);
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
      const option = new Cursor(fileOfBytes("option", data.slice()), 0, size, this.#parts.file.littleEndian, at);
      if (id === OPTION.buffer) buffers.push(option);
      else if (id === OPTION.bufferText) throw latencyTrace(at);
      else if (id >= OPTION.headerInfo && id <= OPTION.commandLines)
        offsetOf.set(id, await option.u64("the offset of a section"));
      else await this.#parts.option(option, id, size);
    }
  }

  async #bufferOption(option: Cursor): Promise<void> {
    const sectionOffset = await option.u64("the offset of a buffer");
    const name = await option.name("the name of a buffer");
    const clock = await option.name("the clock of a buffer");
    const pageSize = this.#parts.checkPage(await option.u32("the page size"), option.offset);
    const cpus = await option.u32("the number of CPUs");
    this.#parts.checkCpus(cpus, option.offset);
    if (clock !== "") this.#parts.file.clock ??= clock;
    const section = this.#parts.cursor(sectionOffset);
    const id = await section.u16("a section");
    if (id !== OPTION.buffer) throw damaged(sectionOffset, `expected section 3 (a buffer), found ${id}`);
    const chunked = ((await section.u16("a section's flags")) & 1) !== 0;
    const buffer = this.#parts.file.buffers.push(name) - 1;
    for (let i = 0; i < cpus; i++) {
      const cpu = await option.u32("a CPU");
      const offset = await option.u64("the offset of a CPU's pages");
      const size = await option.u64("the size of a CPU's pages");
      if (size > 0) this.#parts.extent({ cpu: cpu & 0xffff, buffer, offset, size, chunked, pageSize });
    }
  }
}
