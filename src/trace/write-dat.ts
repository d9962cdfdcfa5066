/**
 * Writes small trace.dat files: for tests that need what no recording has (the other byte order, instances, lost
 * events, absolute stamps), and for benchmarks that need many events.
 *
 * Idea: the inverse of the reader, from the same format descriptions. Promises: what version 6 writes, `trace-cmd report`
 * reads. Not for: recording; everything is kept in memory until `finish`.
 * Specified by: the trace.dat formats 6 and 7 of trace-cmd 3.
 */
import { Bytes } from "./bytes.ts";
import { DAT_MAGIC } from "./dat-file.ts";
import { type EventFormat, parseEventFormat } from "./event-format.ts";

export interface DatWriterOptions {
  /** Default 6. */
  readonly version?: 6 | 7;
  readonly littleEndian?: boolean;
  /** Bytes of a sub-buffer: a multiple of 4096. */
  readonly pageSize?: number;
  readonly cpus?: number;
  /** Format descriptions as tracefs prints them, by system. */
  readonly formats: readonly { readonly system: string; readonly text: string }[];
  readonly tasks?: readonly (readonly [pid: number, name: string])[];
  /** Instances besides the main buffer. */
  readonly instances?: readonly string[];
  /** Version 7: packs sections and pages. */
  readonly compression?: { readonly name: "zlib" | "zstd"; readonly pack: (bytes: Uint8Array) => Uint8Array };
  /** Pages in a packed chunk. */
  readonly chunkPages?: number;
  /** The kernel's trace clock; default local. */
  readonly clock?: string;
  /** Further options, by their numbers. */
  readonly extra?: readonly (readonly [id: number, data: Uint8Array])[];
  /** The symbol table, as /proc/kallsyms prints it. Version 6. */
  readonly symbols?: string;
}

/** Values of an event by field name. */
export type EventValues = Readonly<Record<string, number | bigint | string | readonly (number | bigint)[]>>;

const LONG_SIZE = 8;
const PAGE_HEADER = 16;
const LARGEST_DELTA = 1 << 27;
const LONGEST_SHORT = 28 * 4;
const encoder = new TextEncoder();

const HEADER_EVENT = `# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
`;

const headerPage = (pageSize: number): string =>
  [
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;",
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;",
    "\tfield: char overwrite;\toffset:8;\tsize:1;\tsigned:0;",
    `\tfield: char data;\toffset:16;\tsize:${pageSize - PAGE_HEADER};\tsigned:0;`,
    "",
  ].join("\n");

/** The pages of one CPU. */
class Pages {
  readonly bytes: Bytes;
  readonly #little: boolean;
  readonly #pageSize: number;
  /** Offset of the page being filled; -1: none yet. */
  #page = -1;
  #time = 0n;
  #missed: number | undefined;

  constructor(littleEndian: boolean, pageSize: number) {
    this.bytes = new Bytes(littleEndian);
    this.#little = littleEndian;
    this.#pageSize = pageSize;
  }

  /** The next event begins a new page, before which `count` events were lost; -1: nobody knows how many. */
  missed(count: number): void {
    this.close();
    this.#missed = count;
  }

  close(): void {
    if (this.#page < 0) return;
    let commit = this.bytes.length - this.#page - PAGE_HEADER;
    if (this.#missed !== undefined) {
      commit += 0x8000_0000;
      const room = this.#pageSize - (this.bytes.length - this.#page);
      if (this.#missed >= 0 && room >= LONG_SIZE) {
        commit += 0x4000_0000;
        this.bytes.u64(this.#missed);
      }
      this.#missed = undefined;
    }
    this.bytes.setU64(this.#page + 8, commit);
    this.bytes.fill(this.#page + this.#pageSize - this.bytes.length);
    this.#page = -1;
  }

  add(time: bigint, record: Uint8Array, absolute: boolean): void {
    const size = record.length > LONGEST_SHORT ? 8 + record.length : 4 + record.length;
    // Eight bytes for a time extend, eight for the count of missed events.
    if (this.#page >= 0 && this.bytes.length - this.#page + size + 16 > this.#pageSize) this.close();
    if (this.#page < 0) {
      this.#page = this.bytes.length;
      this.bytes.u64(time).u64(0);
      this.#time = time;
    }
    let delta = time - this.#time;
    if (absolute || delta >= LARGEST_DELTA || delta < 0n) {
      const stamp = absolute ? time : delta;
      this.#header(absolute ? 31 : 30, Number(stamp & 0x7ff_ffffn));
      this.bytes.u32(Number((stamp >> 27n) & 0xffff_ffffn));
      delta = 0n;
    }
    this.#time = time;
    if (record.length > LONGEST_SHORT) {
      this.#header(0, Number(delta));
      this.bytes.u32(record.length + 4);
    } else this.#header(record.length / 4, Number(delta));
    this.bytes.raw(record);
  }

  #header(kind: number, delta: number): void {
    this.bytes.u32(this.#little ? ((delta << 5) | kind) >>> 0 : ((kind << 27) | delta) >>> 0);
  }
}

export class DatWriter {
  readonly #options: DatWriterOptions;
  readonly #little: boolean;
  readonly #pageSize: number;
  readonly #cpus: number;
  readonly #formats: EventFormat[];
  /** By buffer, then by CPU. */
  readonly #pages: Pages[][];

  constructor(options: DatWriterOptions) {
    this.#options = options;
    this.#little = options.littleEndian ?? true;
    this.#pageSize = options.pageSize ?? 4096;
    this.#cpus = options.cpus ?? 1;
    this.#formats = options.formats.map(({ system, text }) => parseEventFormat(text, system, LONG_SIZE, 0));
    this.#pages = ["", ...(options.instances ?? [])].map(() =>
      Array.from({ length: this.#cpus }, () => new Pages(this.#little, this.#pageSize)),
    );
  }

  /** The bytes of an event, from its values; a field without a value is 0 or empty. */
  encode(name: string, pid: number, values: EventValues): Uint8Array {
    const format = this.#formats.find((one) => one.name === name)!;
    const fields = [...format.common, ...format.fields];
    const size = Math.max(...fields.map((field) => field.offset + field.size));
    const record = new Bytes(this.#little).fill((size + 3) & ~3);
    const put = (at: number, bytes: number, value: number | bigint): void => {
      const big = BigInt.asUintN(64, BigInt(value));
      const target = record.taken();
      for (let i = 0; i < bytes; i++)
        target[at + (this.#little ? i : bytes - 1 - i)] = Number((big >> BigInt(i * 8)) & 0xffn);
    };
    for (const field of fields) {
      const given =
        field.name === "common_type" ? format.id : field.name === "common_pid" ? pid : (values[field.name] ?? 0);
      if (field.shape === "scalar") {
        put(field.offset, field.size, given as number | bigint);
        continue;
      }
      const fixed = field.shape === "fixed";
      const items =
        typeof given === "string"
          ? [...encoder.encode(given), ...(fixed ? [] : [0])]
          : Array.isArray(given)
            ? given
            : [];
      let at = field.offset;
      if (!fixed) {
        at = record.length;
        record.fill(items.length * field.itemSize);
        const from = field.shape === "relative" ? field.offset + 4 : 0;
        put(field.offset, 4, (items.length * field.itemSize * 65536 + at - from) >>> 0);
      }
      items.forEach((item, i) => {
        put(at + i * field.itemSize, field.itemSize, item);
      });
    }
    record.fill((4 - (record.length % 4)) % 4);
    return record.taken();
  }

  /** Appends an event; times of one CPU do not run backwards. `absolute`: with a stamp of its own. */
  add(cpu: number, time: bigint, record: Uint8Array, buffer = 0, absolute = false): void {
    this.#pages[buffer]![cpu]!.add(time, record, absolute);
  }

  /** Ends the CPU's page, and says that `count` events were lost before the next one; -1: an unknown number. */
  missed(cpu: number, count: number, buffer = 0): void {
    this.#pages[buffer]![cpu]!.missed(count);
  }

  finish(): Uint8Array {
    for (const cpus of this.#pages) for (const pages of cpus) pages.close();
    const file = new Bytes(this.#little);
    file.raw(new Uint8Array(DAT_MAGIC)).text(`${this.#options.version ?? 6}\0`);
    file
      .u8(this.#little ? 0 : 1)
      .u8(LONG_SIZE)
      .u32(4096);
    if (this.#options.version === 7) this.#sections(file);
    else this.#sequence(file);
    return file.taken();
  }

  #headers(to: Bytes): Bytes {
    return to.text("header_page\0").sized(headerPage(this.#pageSize)).text("header_event\0").sized(HEADER_EVENT);
  }

  #eventFormats(to: Bytes): Bytes {
    const systems = new Map<string, string[]>();
    for (const { system, text } of this.#options.formats) {
      const texts = systems.get(system);
      if (texts) texts.push(text);
      else systems.set(system, [text]);
    }
    to.u32(systems.size);
    for (const [system, texts] of systems) {
      to.text(`${system}\0`).u32(texts.length);
      for (const text of texts) to.sized(text);
    }
    return to;
  }

  get #taskNames(): string {
    return (this.#options.tasks ?? []).map(([pid, name]) => `${pid} ${name}\n`).join("");
  }

  /** Appends the pages of a buffer at page boundaries, and fills in where they are. */
  #place(file: Bytes, buffer: number, table: number, step: number): void {
    this.#pages[buffer]!.forEach(({ bytes }, cpu) => {
      file.fill((4096 - (file.length % 4096)) % 4096);
      const start = file.length;
      const size = this.#options.version === 7 && this.#options.compression ? this.#chunks(file, bytes.taken()) : -1;
      if (size < 0) file.raw(bytes.taken());
      file.setU64(table + cpu * step, start);
      file.setU64(table + cpu * step + 8, size < 0 ? bytes.length : size);
    });
  }

  #sequence(file: Bytes): void {
    this.#headers(file).u32(0);
    const symbols = encoder.encode(this.#options.symbols ?? "");
    this.#eventFormats(file).u32(symbols.length).raw(symbols).u32(0).sized(this.#taskNames).u32(this.#cpus);
    file.text("options  \0");
    const clock = encoder.encode(`[${this.#options.clock ?? "local"}] boot\0`);
    file.u16(4).u32(clock.length).raw(clock);
    for (const [id, data] of this.#options.extra ?? []) file.u16(id).u32(data.length).raw(data);
    const places: number[] = [];
    for (const name of this.#options.instances ?? []) {
      const bytes = encoder.encode(`${name}\0`);
      file.u16(3).u32(8 + bytes.length);
      places.push(file.length);
      file.u64(0).raw(bytes);
    }
    file.u16(0);
    for (let buffer = 0; buffer < this.#pages.length; buffer++) {
      if (buffer > 0) file.setU64(places[buffer - 1]!, file.length);
      file.text("flyrecord\0");
      const table = file.length;
      file.fill(this.#cpus * 16);
      this.#place(file, buffer, table, 16);
    }
  }

  #sections(file: Bytes): void {
    file.text(`${this.#options.compression?.name ?? "none"}\0`).text("1\0");
    const first = file.length;
    file.u64(0);
    const options = new Bytes(this.#little);
    const part = (id: number, data: Bytes): void => {
      options.u16(id).u32(8).u64(file.length);
      this.#section(file, id, data.taken());
    };
    part(16, this.#headers(new Bytes(this.#little)));
    part(17, new Bytes(this.#little).u32(0));
    part(18, this.#eventFormats(new Bytes(this.#little)));
    part(21, new Bytes(this.#little).sized(this.#taskNames));
    this.#pages.forEach((cpus, buffer) => {
      const section = file.length;
      file
        .u16(3)
        .u16(this.#options.compression ? 1 : 0)
        .u32(0)
        .u64(0);
      const table = new Bytes(this.#little).fill(cpus.length * 16);
      const scratch = file.length;
      file.raw(table.taken()); // where the pages are is known only after they are placed
      this.#place(file, buffer, scratch, 16);
      file.setU64(section + 8, file.length - section - 16);
      const name = encoder.encode(
        `${buffer === 0 ? "" : this.#options.instances![buffer - 1]!}\0${this.#options.clock ?? "local"}\0`,
      );
      options.u16(3).u32(8 + name.length + 8 + cpus.length * 20);
      options.u64(section).raw(name).u32(this.#pageSize).u32(cpus.length);
      const placed = file.taken();
      cpus.forEach((_pages, cpu) => {
        options.u32(cpu).raw(placed.slice(scratch + cpu * 16, scratch + cpu * 16 + 16));
      });
    });
    for (const [id, data] of this.#options.extra ?? []) options.u16(id).u32(data.length).raw(data);
    options.u16(0).u32(8).u64(0);
    file.setU64(first, file.length);
    this.#section(file, 0, options.taken());
  }

  #section(file: Bytes, id: number, data: Uint8Array): void {
    const packed = this.#options.compression?.pack(data);
    file
      .u16(id)
      .u16(packed ? 1 : 0)
      .u32(0)
      .u64(packed ? packed.length + 8 : data.length);
    if (packed) file.u32(packed.length).u32(data.length).raw(packed);
    else file.raw(data);
  }

  #chunks(file: Bytes, pages: Uint8Array): number {
    const step = this.#pageSize * (this.#options.chunkPages ?? 10);
    const count = Math.ceil(pages.length / step);
    file.u32(count);
    const start = file.length;
    for (let at = 0; at < pages.length; at += step) {
      const chunk = pages.subarray(at, at + step);
      const packed = this.#options.compression!.pack(chunk);
      file.u32(packed.length).u32(chunk.length).raw(packed);
    }
    return file.length - start; // as recorders count: without the number of chunks
  }
}
