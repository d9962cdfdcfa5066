/** Opens a text as a printed trace. */
import { StringTable } from "../string-table.ts";
import { Front } from "./front.ts";
import { readHead } from "./head.ts";
import { Lines } from "./lines.ts";
import { TextTrace } from "./text-trace.ts";
import { unwrapText } from "./unwrap.ts";

/**
 * Reads up to the first event. `undefined` where the text is no printed trace: `beginning` holds what was read of it.
 * Whatever happens, the stream is closed when the trace is.
 */
export async function openText(
  chunks: AsyncIterable<Uint8Array>,
  bestEffort: boolean,
  batchSize: number,
): Promise<{ readonly trace: TextTrace | undefined; readonly beginning: Uint8Array }> {
  const lines = new Lines(unwrapText(chunks)[Symbol.asyncIterator]());
  try {
    const strings = new StringTable();
    strings.intern("");
    const front = new Front(strings);
    const head = await readHead(lines, front);
    const beginning = lines.bytes.subarray(lines.from, Math.min(lines.to, lines.from + 4096));
    if (head) return { trace: new TextTrace(lines, front, strings, head, bestEffort, batchSize), beginning };
    await lines.close();
    return { trace: undefined, beginning };
  } catch (error) {
    await lines.close();
    throw error;
  }
}
