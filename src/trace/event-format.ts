/**
 * Format descriptions: what a trace file says itself about the layout of its events and pages.
 *
 * Idea: the description is read once into a field list; decoding then follows offsets, sizes and signs, and never the
 * print format, which is for people. Specified by: the tracefs format files as recorded in trace.dat, Linux 6.12 to 7.2.
 */
import { damaged } from "./errors.ts";

/** Where the bytes of a field are. */
type FieldShape =
  /** 1, 2, 4 or 8 bytes at the offset. */
  | "scalar"
  /** `size` bytes at the offset; 0: up to the end of the event. */
  | "fixed"
  /** A word at the offset says where, counted from the start of the event. */
  | "dynamic"
  /** The same, counted from the end of that word. */
  | "relative";

export interface FormatField {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly signed: boolean;
  readonly shape: FieldShape;
  /** Items of characters. */
  readonly text: boolean;
  /** Bytes of an item, for lists. */
  readonly itemSize: number;
}

export interface EventFormat {
  readonly system: string;
  readonly name: string;
  readonly id: number;
  /** Fields that every event begins with (`common_pid`, …). */
  readonly common: readonly FormatField[];
  readonly fields: readonly FormatField[];
}

/** Where a ring-buffer page keeps its parts. */
export interface PageFormat {
  readonly timestampOffset: number;
  readonly commitOffset: number;
  readonly commitSize: number;
  readonly dataOffset: number;
  readonly dataSize: number;
}

/** No sub-buffer, and so no event, is longer. */
const LONGEST_PAGE = 1024 * 1024;
const MOST_FIELDS = 512;
/** A declaration is a type and a name; what is longer is not looked at. */
const LONGEST_FIELD = 4096;
const FIELD = /^\s*field:([^;]+);\s*offset:(\d{1,9});\s*size:(\d{1,9});(?:\s*signed:(\d+);)?/;

function itemSizeOf(type: string, longSize: number): number {
  if (/\*/.test(type)) return longSize;
  if (/\b(?:__)?[us]8\b|\bu?int8_t\b|\bchar\b|\bbool\b/.test(type)) return 1;
  if (/\b(?:__)?[us]16\b|\bu?int16_t\b|\bshort\b|\b__[lb]e16\b/.test(type)) return 2;
  if (/\b(?:__)?[us]64\b|\bu?int64_t\b|\blong long\b|\b__[lb]e64\b/.test(type)) return 8;
  if (/\blong\b|\bs?size_t\b|\buintptr_t\b/.test(type)) return longSize;
  return 4;
}

function fieldOf(line: string, longSize: number, at: number): FormatField | undefined {
  if (line.length > LONGEST_FIELD)
    throw damaged(at, `a field's line of ${line.length} characters: ${line.trim().slice(0, 60)}`);
  const match = FIELD.exec(line);
  if (!match) return undefined;
  const offset = Number(match[2]);
  const size = Number(match[3]);
  const signed = match[4] === "1";
  let declaration = match[1]!.trim();
  if (offset + size > LONGEST_PAGE) throw damaged(at, `a field at ${offset} of ${size} bytes: ${declaration}`);
  let shape: FieldShape | undefined;
  const located = /^__(data|rel)_loc\s+/.exec(declaration);
  if (located && size === 4) {
    shape = located[1] === "data" ? "dynamic" : "relative";
    declaration = declaration.slice(located[0].length);
  }
  const open = declaration.indexOf("[");
  const close = declaration.indexOf("]", open);
  const brackets = open >= 0 && close > open ? declaration.slice(open + 1, close) : undefined;
  const plain = withoutBrackets(declaration).trim();
  const name = nameAtEnd(plain);
  if (name === "") throw damaged(at, `expected the name of a field, found ${JSON.stringify(declaration.slice(0, 80))}`);
  const type = plain.slice(0, plain.length - name.length).trim();
  shape ??= brackets !== undefined || ![1, 2, 4, 8].includes(size) ? "fixed" : "scalar";
  const length = brackets === undefined ? Number.NaN : Number.parseInt(brackets, 10);
  const even = shape === "fixed" && length > 0 && size % length === 0 && [1, 2, 4, 8].includes(size / length);
  return {
    name,
    offset,
    size,
    signed,
    shape,
    text: shape !== "scalar" && /\bchar\b/.test(type) && !/\bunsigned\b|\*/.test(type),
    itemSize: even ? size / length : brackets !== undefined || located ? itemSizeOf(type, longSize) : 1,
  };
}

/** A declaration with each `[…]` as a space. */
function withoutBrackets(declaration: string): string {
  let plain = "";
  let at = 0;
  for (;;) {
    const open = declaration.indexOf("[", at);
    const close = open < 0 ? -1 : declaration.indexOf("]", open);
    if (close < 0) return plain + declaration.slice(at);
    plain += `${declaration.slice(at, open)} `;
    at = close + 1;
  }
}

/** The identifier that a text ends with; "" where it ends with none. */
function nameAtEnd(text: string): string {
  let from = text.length;
  while (from > 0 && /\w/.test(text[from - 1]!)) from--;
  while (from < text.length && /\d/.test(text[from]!)) from++;
  return text.slice(from);
}

/** Reads one format description. Errors: ERR_DMA_TRACE_DAMAGED, naming `at`. */
export function parseEventFormat(text: string, system: string, longSize: number, at: number): EventFormat {
  const name = /^name:\s*(\S+)/m.exec(text)?.[1];
  const id = /^ID:\s*(\d+)/m.exec(text)?.[1];
  if (!name || !id || Number(id) > 0xffff)
    throw damaged(at, `expected the description of an event, found ${JSON.stringify(text.slice(0, 60))}`);
  const end = text.indexOf("\nprint fmt:");
  const fields: FormatField[] = [];
  for (const line of (end < 0 ? text : text.slice(0, end)).split("\n")) {
    const field = fieldOf(line, longSize, at);
    if (field) fields.push(field);
  }
  if (fields.length > MOST_FIELDS) throw damaged(at, `expected at most ${MOST_FIELDS} fields, found ${fields.length}`);
  const isCommon = (field: FormatField): boolean => field.name.startsWith("common_");
  return {
    system,
    name,
    id: Number(id),
    common: fields.filter(isCommon),
    // Where a probe sits is an address in the kernel's code: the same in every event, and no text form gives it exactly.
    fields: fields.filter((field) => !isCommon(field) && !field.name.startsWith("__probe_")),
  };
}

/** Reads the description of a ring-buffer page. Errors: ERR_DMA_TRACE_DAMAGED, naming `at`. */
export function parsePageFormat(text: string, longSize: number, at: number): PageFormat {
  const fields = new Map<string, FormatField>();
  for (const line of text.split("\n")) {
    const field = fieldOf(line, longSize, at);
    if (field) fields.set(field.name, field);
  }
  const timestamp = fields.get("timestamp");
  const commit = fields.get("commit");
  const data = fields.get("data");
  if (
    timestamp?.size !== 8 ||
    !commit ||
    (commit.size !== 4 && commit.size !== 8) ||
    !data ||
    timestamp.offset % 4 !== 0 ||
    commit.offset % 4 !== 0 ||
    data.offset % 4 !== 0 ||
    data.offset < Math.max(timestamp.offset + 8, commit.offset + commit.size)
  )
    throw damaged(at, "expected timestamp, commit and data in the description of a ring-buffer page");
  return {
    timestampOffset: timestamp.offset,
    commitOffset: commit.offset,
    commitSize: commit.size,
    dataOffset: data.offset,
    dataSize: data.size,
  };
}
