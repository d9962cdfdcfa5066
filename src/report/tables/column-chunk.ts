/**
 * One column of a row group while it is filled, and its bytes when it is written.
 *
 * Idea: values go into typed arrays as Parquet has them (64-bit numbers as two words, strings as places in a dictionary), so that a
 * column is written by copying it: no object and no bigint a value. Headers are the library's.
 * Promises: what is read back is what was put in, all 64 bits. Not for: nested columns; more than {@link ROWS_PER_GROUP} rows.
 * Specified by: the Apache Parquet format: data pages v2, PLAIN and RLE_DICTIONARY.
 */
import type { ColumnMetaData, Encoding } from "hyparquet";
import type { Writer } from "hyparquet-writer";
import { writePageHeader } from "hyparquet-writer/src/datapage.js";
import { snappyCompress } from "hyparquet-writer/src/snappy.js";
import type { ColumnType, TableColumn } from "./columns.ts";

/** Rows of a group: places in a dictionary need 16 bits at most. */
export const ROWS_PER_GROUP = 65_536;

const TWO_32 = 2 ** 32;
const utf8 = new TextEncoder();

/** How each type is stored. */
const PHYSICAL: Readonly<Record<ColumnType, ColumnMetaData["type"]>> = {
  uint64: "INT64",
  int64: "INT64",
  int32: "INT32",
  string: "BYTE_ARRAY",
  boolean: "BOOLEAN",
};

/** Values of one column, at most {@link ROWS_PER_GROUP}. */
export class ColumnChunk {
  readonly #column: TableColumn;
  /** Two words a 64-bit number, one of another; of a string its place in the dictionary. Those that are there, without gaps. */
  readonly #words: Uint32Array;
  /** A bit a row: it has a value. */
  readonly #present: Uint8Array | undefined;
  #dictionary = new Map<string, number>();
  #rows = 0;
  #values = 0;

  constructor(column: TableColumn) {
    this.#column = column;
    const isLong = PHYSICAL[column.type] === "INT64";
    this.#words = new Uint32Array(ROWS_PER_GROUP * (isLong ? 2 : 1));
    this.#present = column.nullable ? new Uint8Array(ROWS_PER_GROUP / 8) : undefined;
  }

  /** No value. */
  none(): void {
    this.#rows++;
  }

  /** A whole number; of a 64-bit column any that a double holds exactly, less than 2^64. */
  number(value: number): void {
    const at = this.#next();
    if (PHYSICAL[this.#column.type] !== "INT64") {
      this.#words[at] = value;
      return;
    }
    const high = Math.floor(value / TWO_32);
    this.#words[at * 2] = value - high * TWO_32;
    this.#words[at * 2 + 1] = high;
  }

  /** A 64-bit number by its halves. */
  halves(low: number, high: number): void {
    const at = this.#next();
    this.#words[at * 2] = low;
    this.#words[at * 2 + 1] = high;
  }

  /** A 64-bit number, exact; a negative one as its two's complement. */
  bigint(value: bigint): void {
    this.halves(Number(BigInt.asUintN(32, value)), Number(BigInt.asUintN(32, value >> 32n)));
  }

  text(value: string): void {
    const found = this.#dictionary.get(value);
    const place = found ?? this.#dictionary.size;
    if (found === undefined) this.#dictionary.set(value, place);
    this.#words[this.#next()] = place;
  }

  boolean(value: boolean): void {
    this.#words[this.#next()] = value ? 1 : 0;
  }

  #next(): number {
    const row = this.#rows++;
    if (this.#present) this.#present[row >> 3] = this.#present[row >> 3]! | (1 << (row & 7));
    return this.#values++;
  }

  /** Writes what it holds and is empty again; what the file's footer says of it. */
  write(writer: Writer): { readonly meta_data: ColumnMetaData; readonly file_offset: bigint } {
    const { name, type } = this.#column;
    const start = writer.offset;
    let uncompressed = 0;
    let dictionaryAt: bigint | undefined;
    if (type === "string") {
      dictionaryAt = BigInt(start);
      uncompressed += this.#writeDictionary(writer);
    }
    const encoding: Encoding = type === "string" ? "RLE_DICTIONARY" : "PLAIN";
    const dataAt = BigInt(writer.offset);
    uncompressed += this.#writePage(writer, encoding);
    const rows = this.#rows;
    this.#clear();
    return {
      meta_data: {
        type: PHYSICAL[type],
        encodings: type === "string" ? ["PLAIN", "RLE", encoding] : ["RLE", encoding],
        path_in_schema: [name],
        codec: "SNAPPY",
        num_values: BigInt(rows),
        total_compressed_size: BigInt(writer.offset - start),
        total_uncompressed_size: BigInt(uncompressed),
        data_page_offset: dataAt,
        ...(dictionaryAt !== undefined && { dictionary_page_offset: dictionaryAt }),
      },
      file_offset: BigInt(start),
    };
  }

  #writeDictionary(writer: Writer): number {
    const texts = [...this.#dictionary.keys()].map((text) => utf8.encode(text));
    const bytes = new Uint8Array(texts.reduce((sum, text) => sum + 4 + text.length, 0));
    const view = new DataView(bytes.buffer);
    let at = 0;
    for (const text of texts) {
      view.setUint32(at, text.length, true);
      bytes.set(text, at + 4);
      at += 4 + text.length;
    }
    const packed = snappyCompress(bytes);
    const before = writer.offset;
    writePageHeader(writer, {
      type: "DICTIONARY_PAGE",
      uncompressed_page_size: bytes.length,
      compressed_page_size: packed.length,
      dictionary_page_header: { num_values: texts.length, encoding: "PLAIN" },
    });
    const header = writer.offset - before;
    writer.appendBytes(packed);
    return header + bytes.length;
  }

  #writePage(writer: Writer, encoding: Encoding): number {
    const levels = this.#present ? bitPacked(this.#present.subarray(0, Math.ceil(this.#rows / 8))) : new Uint8Array(0);
    const bytes = this.#bytes();
    const packed = snappyCompress(bytes);
    const before = writer.offset;
    writePageHeader(writer, {
      type: "DATA_PAGE_V2",
      uncompressed_page_size: levels.length + bytes.length,
      compressed_page_size: levels.length + packed.length,
      data_page_header_v2: {
        num_values: this.#rows,
        num_nulls: this.#rows - this.#values,
        num_rows: this.#rows,
        encoding,
        definition_levels_byte_length: levels.length,
        repetition_levels_byte_length: 0,
        is_compressed: true,
      },
    });
    const header = writer.offset - before;
    writer.appendBytes(levels);
    writer.appendBytes(packed);
    return header + levels.length + bytes.length;
  }

  /** The values as a page has them. Typed arrays are little-endian where JavaScript runs, as Parquet is. */
  #bytes(): Uint8Array {
    const values = this.#values;
    const words = this.#words;
    switch (this.#column.type) {
      case "uint64":
      case "int64":
        return new Uint8Array(words.buffer, 0, values * 8);
      case "int32":
        return new Uint8Array(words.buffer, 0, values * 4);
      case "boolean": {
        const bits = new Uint8Array(Math.ceil(values / 8));
        for (let i = 0; i < values; i++) bits[i >> 3] = bits[i >> 3]! | (words[i]! << (i & 7));
        return bits;
      }
      case "string": {
        // A whole byte or two for each place, though fewer bits would do: nothing needs to be shifted.
        const width = this.#dictionary.size <= 256 ? 1 : 2;
        const places = new Uint8Array(Math.ceil(values / 8) * 8 * width);
        if (width === 1) for (let i = 0; i < values; i++) places[i] = words[i]!;
        else {
          const wide = new Uint16Array(places.buffer);
          for (let i = 0; i < values; i++) wide[i] = words[i]!;
        }
        const packed = bitPacked(places, width * 8);
        const page = new Uint8Array(packed.length + 1);
        page[0] = width * 8;
        page.set(packed, 1);
        return page;
      }
    }
  }

  #clear(): void {
    this.#present?.fill(0);
    this.#dictionary = new Map();
    this.#rows = 0;
    this.#values = 0;
  }
}

/** One run of bit-packed values, `bits` each, eight at a time: its length in front. */
function bitPacked(values: Uint8Array, bits = 1): Uint8Array {
  const head: number[] = [];
  let groups = (values.length / bits) * 2 + 1; // eight values of n bits are n bytes
  for (; groups >= 128; groups = Math.floor(groups / 128)) head.push((groups % 128) + 128);
  head.push(groups);
  const run = new Uint8Array(head.length + values.length);
  run.set(head);
  run.set(values, head.length);
  return run;
}
