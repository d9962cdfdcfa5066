/**
 * What a printed trace may be wrapped in: another encoding of its characters, or a page of HTML.
 *
 * Idea: a filter over the stream. UTF-16 (what PowerShell's `>` writes) becomes UTF-8; of a systrace page, lines outside
 * the trace become empty ones, so that a line keeps its number.
 * Promises: linear; memory is one chunk and one line. Specified by: the byte order marks of Unicode; the pages of Android's
 * systrace, `<script class="trace-data" type="application/text">`.
 */

const NEWLINE = 10;
const LESS = 60;
/** A line of HTML that is longer is no tag. */
const LONGEST_TAG = 4096;
/** What decides is within this. */
const LOOKED_AT = 1024;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The text inside, as UTF-8. */
export async function* unwrapText(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const iterator = chunks[Symbol.asyncIterator]();
  try {
    let head: Uint8Array = new Uint8Array(0);
    while (head.length < LOOKED_AT) {
      const next = await iterator.next();
      if (next.done) break;
      head = head.length === 0 ? next.value.slice() : joined(head, next.value);
    }
    const rest = async function* (): AsyncGenerator<Uint8Array> {
      yield head;
      for (let next = await iterator.next(); !next.done; next = await iterator.next()) yield next.value;
    };
    const encoding = encodingOf(head);
    const text = encoding === "utf-8" ? rest() : recoded(rest(), encoding);
    if (encoding === "utf-8" && isBom8(head)) head = head.subarray(3);
    const beginning = decoder.decode(head.subarray(0, LOOKED_AT));
    yield* /^\s*<(?:!doctype html|html)/i.test(beginning) ? scriptsOf(text) : text;
  } finally {
    await iterator.return?.();
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a);
  both.set(b, a.length);
  return both;
}

const isBom8 = (head: Uint8Array): boolean => head[0] === 0xef && head[1] === 0xbb && head[2] === 0xbf;

/** By the byte order mark, or by the zeros that every other byte of plain text is. */
function encodingOf(head: Uint8Array): "utf-8" | "utf-16le" | "utf-16be" {
  if (head[0] === 0xff && head[1] === 0xfe) return "utf-16le";
  if (head[0] === 0xfe && head[1] === 0xff) return "utf-16be";
  const zeros = (from: number): boolean => {
    for (let at = from; at < 32; at += 2) if (head[at] !== 0 || head[at ^ 1] === 0) return false;
    return head.length >= 32;
  };
  return zeros(1) ? "utf-16le" : zeros(0) ? "utf-16be" : "utf-8";
}

async function* recoded(
  chunks: AsyncIterable<Uint8Array>,
  encoding: "utf-16le" | "utf-16be",
): AsyncGenerator<Uint8Array> {
  const reader = new TextDecoder(encoding);
  for await (const chunk of chunks) {
    const text = reader.decode(chunk, { stream: true });
    if (text !== "") yield encoder.encode(text);
  }
  const last = reader.decode();
  if (last !== "") yield encoder.encode(last);
}

/** The lines inside the scripts that hold trace data; for every other line an empty one. */
async function* scriptsOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let isInside = false;
  /** The beginning of a line that went on in the next chunk; what is longer than a tag is not kept. */
  let line: Uint8Array = new Uint8Array(0);
  let isLong = false;
  for await (const chunk of chunks) {
    let from = 0;
    while (from < chunk.length) {
      const end = chunk.indexOf(NEWLINE, from);
      const isWhole = end >= 0;
      const part = chunk.subarray(from, isWhole ? end + 1 : chunk.length);
      from += part.length;
      if (isLong || line.length + part.length > LONGEST_TAG) {
        if (isInside) {
          if (line.length > 0) yield line;
          yield part;
        } else if (isWhole) yield EMPTY_LINE;
        line = EMPTY;
        isLong = !isWhole;
        continue;
      }
      line = joined(line, part);
      if (!isWhole) continue;
      const tag = line.includes(LESS) ? decoder.decode(line) : "";
      const ends = isInside && tag.includes("</script>");
      if (isInside && !ends) yield line;
      else yield EMPTY_LINE;
      if (ends) isInside = false;
      else if (/<script\b[^>]*\bclass=["']?trace-data\b/i.test(tag) && !tag.includes("</script>")) isInside = true;
      line = EMPTY;
    }
  }
  if (line.length > 0) yield isInside ? line : EMPTY_LINE;
}

const EMPTY = new Uint8Array(0);
const EMPTY_LINE = new Uint8Array([NEWLINE]);
