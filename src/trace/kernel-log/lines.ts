/**
 * The lines of a kernel log, from bytes: whatever it went through on its way here.
 *
 * Idea: a console capture ends its lines with CR LF, LF CR or CR alone, holds colours and zero bytes, and may have been saved as
 * UTF-16; all that is taken off here, so that nothing behind knows of it. Promises: memory is one chunk and one line; a line is cut
 * at {@link LONGEST_LINE}, and the rest of it dropped.
 */

/** Characters of a line that are read; the kernel prints at most 1,024 a record. */
const LONGEST_LINE: number = 64 * 1024;

interface LogLine {
  /** Counted from 1, as an editor does. */
  readonly number: number;
  /** Never empty. */
  readonly text: string;
}

/** Colours and cursor movements of a terminal, and zero bytes. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const ESCAPES = /\u001b(?:\[[0-9;?]{0,32}[@-~]|[()][0-9A-B]|[=>])|\0/g;

/** The lines of `chunks`, empty ones left out. */
export async function* logLines(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<LogLine> {
  let decoder: Decoder | undefined;
  let rest = "";
  let number = 1;
  for await (const chunk of chunks) {
    decoder ??= decoderFor(chunk);
    const text = decoder.decode(chunk, { stream: true });
    let from = 0;
    for (let newline = text.indexOf("\n"); newline >= 0; newline = text.indexOf("\n", from)) {
      yield* piecesOf(rest + text.slice(from, newline), number++);
      rest = "";
      from = newline + 1;
    }
    if (rest.length < LONGEST_LINE) rest += text.slice(from, from + LONGEST_LINE);
  }
  yield* piecesOf(rest + (decoder?.decode() ?? ""), number);
}

function* piecesOf(line: string, number: number): Generator<LogLine> {
  for (const piece of line.includes("\r") ? line.split("\r") : [line]) {
    const text = piece.slice(0, LONGEST_LINE).replace(ESCAPES, "");
    if (text.trim() !== "") yield { number, text };
  }
}

/** By the mark at the beginning; without one, UTF-8, in which a byte that is none becomes U+FFFD. */
function decoderFor(head: Uint8Array): Decoder {
  if (head[0] === 0xff && head[1] === 0xfe) return new TextDecoder("utf-16le");
  if (head[0] === 0xfe && head[1] === 0xff) return new TextDecoder("utf-16be");
  return new TextDecoder();
}

type Decoder = InstanceType<typeof TextDecoder>;
