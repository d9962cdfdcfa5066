/**
 * The metadata of a perf.data file: which events were recorded, how a sample of each is laid out, and the formats of their
 * fields.
 *
 * Idea: the formats are those of a trace.dat (perf writes the same parts, in the same order), so the same reader takes them.
 * Both forms come to one value: a file with a directory, and what `perf record -o -` writes to a pipe, where everything is a
 * record.
 * Promises: no offset or size is trusted before it is checked against the file.
 * Specified by: tools/perf/Documentation/perf.data-file-format.txt, `struct perf_event_attr`, Linux 4.1 to 7.2.
 */
import { DEFAULT_CODECS } from "../codecs.ts";
import { Cursor, fileOfBytes } from "../cursor.ts";
import { DAT_MAGIC } from "../dat-file.ts";
import type { DatFile } from "../dat-metadata.ts";
import { DatParts } from "../dat-parts.ts";
import { damaged } from "../errors.ts";
import type { FileInput } from "../input.ts";
import { SampleLayout } from "./sample-layout.ts";

const MAGIC = "PERFILE2";
const SWAPPED = "2ELIFREP";
const HEADER_BYTES = 104;
/** The header of a pipe: magic and size. */
const PIPE_HEADER_BYTES = 16;
const FEATURES = 256;
const FEATURE = { tracingData: 1, osRelease: 4, arch: 6, cpus: 7 } as const;
/** Bytes of the attributes of one event that are needed, and at most. */
const LEAST_ATTR = 64;
const MOST_ATTR = 4096;
const MOST_EVENTS = 65536;
const MOST_IDS = 1 << 20;
/** An event of the kernel's tracepoints. */
const TRACEPOINT = 2;

export interface PerfFile {
  readonly littleEndian: boolean;
  /** Where the records lie. */
  readonly dataOffset: number;
  readonly dataEnd: number;
  /** Formats of the fields, in trace.dat's terms; empty before they were met. */
  formats: DatFile | undefined;
  readonly layouts: Layouts;
  osRelease: string | undefined;
  arch: string | undefined;
  cpus: number | undefined;
}

/** How the samples of each event are laid out. */
class Layouts {
  /** The first event's; of records whose id says nothing. */
  first: SampleLayout | undefined;
  /** By the id of an event on one CPU, as its two words. */
  readonly #byId = new Map<string, SampleLayout>();
  #events = 0;

  add(layout: SampleLayout, ids: readonly (readonly [number, number])[], at: number): void {
    if (++this.#events > MOST_EVENTS || this.#byId.size + ids.length > MOST_IDS)
      throw damaged(at, `expected at most ${MOST_EVENTS} events with ${MOST_IDS} ids`);
    this.first ??= layout;
    for (const [low, high] of ids) this.#byId.set(`${high} ${low}`, layout);
  }

  of(low: number, high: number): SampleLayout | undefined {
    return this.#byId.get(`${high} ${low}`);
  }
}

const textAt = (head: Uint8Array): string => String.fromCharCode(...head.subarray(0, MAGIC.length));

/** Is this the beginning of a perf.data file, of a file or of a pipe? */
export const isPerfData = (head: Uint8Array): boolean => textAt(head) === MAGIC || textAt(head) === SWAPPED;

/** Reads the metadata. Errors: ERR_DMA_TRACE_DAMAGED. */
export async function readPerfFile(input: FileInput): Promise<PerfFile> {
  const head = await input.read(0, MAGIC.length);
  const littleEndian = textAt(head) === MAGIC;
  const cursor = new Cursor(input, MAGIC.length, input.size, littleEndian);
  const size = await cursor.u64("the size of the header");
  const file = {
    littleEndian,
    formats: undefined,
    layouts: new Layouts(),
    osRelease: undefined,
    arch: undefined,
    cpus: undefined,
  };
  if (size === PIPE_HEADER_BYTES) return { ...file, dataOffset: PIPE_HEADER_BYTES, dataEnd: input.size };
  if (size < HEADER_BYTES) throw damaged(MAGIC.length, `expected a header of ${HEADER_BYTES} bytes, found ${size}`);
  const attrSize = await cursor.u64("the size of an event's attributes");
  const attrs = await sectionAt(cursor, input, "the events");
  const data = await sectionAt(cursor, input, "the records", true);
  cursor.position += 16; // a section that is not written any more
  const features = (await cursor.bytes(FEATURES / 8, "the features")).slice();
  const perf: PerfFile = { ...file, dataOffset: data.offset, dataEnd: Math.min(input.size, data.offset + data.size) };
  await readEvents(perf, input, attrs, attrSize);
  if (data.size === 0) throw damaged(40, "the recording was not finished: perf did not write how many bytes it holds");
  await readFeatures(perf, input, data.offset + data.size, features);
  return perf;
}

interface Section {
  readonly offset: number;
  readonly size: number;
}

async function sectionAt(cursor: Cursor, input: FileInput, what: string, mayBeCut = false): Promise<Section> {
  const at = cursor.position;
  const offset = await cursor.u64(`the offset of ${what}`);
  const size = await cursor.u64(`the size of ${what}`);
  if (offset > input.size || (!mayBeCut && offset + size > input.size))
    throw damaged(at, `${what}: ${size} bytes at offset ${offset}, the file ends at ${input.size}`);
  return { offset, size };
}

/** Attributes and ids of the events: fixed bytes of the attributes, then where the ids are. */
async function readEvents(perf: PerfFile, input: FileInput, attrs: Section, attrSize: number): Promise<void> {
  const own = attrSize - 16;
  if (own < LEAST_ATTR || own > MOST_ATTR)
    throw damaged(attrs.offset, `expected attributes of ${LEAST_ATTR} to ${MOST_ATTR} bytes an event, found ${own}`);
  for (let at = attrs.offset; at + attrSize <= attrs.offset + attrs.size; at += attrSize) {
    const cursor = new Cursor(input, at, input.size, perf.littleEndian);
    const layout = layoutOf((await cursor.bytes(own, "the attributes of an event")).slice(), perf.littleEndian, at);
    const ids = await sectionAt(cursor, input, "the ids of an event");
    perf.layouts.add(
      layout,
      await idsAt(new Cursor(input, ids.offset, ids.offset + ids.size, perf.littleEndian), ids.size / 8),
      at,
    );
  }
}

async function idsAt(cursor: Cursor, count: number): Promise<[number, number][]> {
  const ids: [number, number][] = [];
  if (count > MOST_IDS) throw damaged(cursor.offset, `expected at most ${MOST_IDS} ids, found ${count}`);
  for (let i = 0; i + 1 <= count; i++) ids.push(await cursor.words("an id"));
  return ids;
}

/** How the samples of an event are laid out, by its `struct perf_event_attr`. */
function layoutOf(attr: Uint8Array, littleEndian: boolean, at: number): SampleLayout {
  if (attr.length < LEAST_ATTR) throw damaged(at, `expected the attributes of an event, found ${attr.length} bytes`);
  const view = new DataView(attr.buffer, attr.byteOffset, attr.length);
  const type = view.getUint32(0, littleEndian);
  const config = view.getUint32(littleEndian ? 8 : 12, littleEndian);
  // The flags are a bit field: its bits count from the other end in the other byte order.
  const flag = (bit: number): boolean =>
    littleEndian
      ? ((attr[40 + (bit >>> 3)]! >>> (bit & 7)) & 1) === 1
      : ((attr[40 + (bit >>> 3)]! >>> (7 - (bit & 7))) & 1) === 1;
  const clockid = flag(25) && attr.length >= 96 ? view.getInt32(92, littleEndian) : undefined;
  return new SampleLayout({
    tracepoint: type === TRACEPOINT ? config : -1,
    sampleType: view.getUint32(littleEndian ? 24 : 28, littleEndian),
    readFormat: view.getUint32(littleEndian ? 32 : 36, littleEndian),
    hasIdOnAll: flag(18),
    clockid,
  });
}

/** The attributes that a pipe carries as a record: their own bytes, then ids to the end. Answers false where that is not so. */
export async function addPipedEvent(perf: PerfFile, bytes: Uint8Array, at: number): Promise<void> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const size = bytes.length >= 8 ? view.getUint32(4, perf.littleEndian) : 0;
  if (size < LEAST_ATTR || size > bytes.length)
    throw damaged(at, `expected the attributes of an event, found ${bytes.length} bytes`);
  const layout = layoutOf(bytes.subarray(0, size), perf.littleEndian, at);
  const ids = new Cursor(fileOfBytes("ids", bytes), size, bytes.length, perf.littleEndian, at);
  perf.layouts.add(layout, await idsAt(ids, Math.floor((bytes.length - size) / 8)), at);
}

async function readFeatures(perf: PerfFile, input: FileInput, at: number, features: Uint8Array): Promise<void> {
  // Written as words of 64 bits, in the file's byte order.
  const has = (bit: number): boolean => {
    const byte = perf.littleEndian ? bit >>> 3 : (bit >>> 6) * 8 + 7 - ((bit >>> 3) & 7);
    return ((features[byte]! >>> (bit & 7)) & 1) === 1;
  };
  const cursor = new Cursor(input, at, input.size, perf.littleEndian);
  for (let bit = 0; bit < FEATURES; bit++) {
    if (!has(bit)) continue;
    const section = await sectionAt(cursor, input, `feature ${bit}`);
    const part = new Cursor(input, section.offset, section.offset + section.size, perf.littleEndian);
    if (bit === FEATURE.tracingData) perf.formats = await readFormats(input, section.offset, perf.littleEndian);
    else if (bit === FEATURE.osRelease) perf.osRelease = await text(part);
    else if (bit === FEATURE.arch) perf.arch = await text(part);
    else if (bit === FEATURE.cpus) {
      await part.u32("the number of CPUs");
      const online = await part.u32("the number of CPUs online");
      if (online > 0 && online <= 65536) perf.cpus = online;
    }
  }
}

async function text(cursor: Cursor): Promise<string> {
  const length = await cursor.u32("the length of a string");
  return (await cursor.text(Math.min(length, cursor.left), "a string")).replace(/\0[\s\S]*$/, "");
}

/** The formats of the events, as the parts of a trace.dat up to its task names. */
export async function readFormats(input: FileInput, at: number, littleEndian: boolean): Promise<DatFile> {
  const parts = new DatParts(input, DEFAULT_CODECS, 6);
  parts.file.littleEndian = littleEndian;
  const cursor = parts.cursor(at);
  const magic = await cursor.bytes(DAT_MAGIC.length, "the tracing data");
  if (!DAT_MAGIC.every((byte, i) => magic[i] === byte)) throw damaged(at, "expected the tracing data of perf");
  const version = await cursor.name("the version of the tracing data");
  const rest = await parts.start(cursor.position);
  await parts.headers(rest);
  await parts.ftraceFormats(rest);
  await parts.eventFormats(rest);
  const symbols = await rest.u32("the size of the symbols");
  parts.symbolsAt(parts.cursor(rest.position), symbols);
  rest.skip(symbols, "symbols");
  rest.skip(await rest.u32("the size of the print formats"), "print formats");
  if (Number.parseFloat(version) >= 0.6) await parts.commandLines(rest);
  return parts.file;
}
