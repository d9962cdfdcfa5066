/** Lists of live mappings (debugfs `dma-api/dump`) given to `check` in place of traces. */
import { stat } from "node:fs/promises";
import { type DumpEntry, groupDumps, looksLikeDmaDump, readDmaDump } from "../../../analysis/index.ts";
import { DmaError } from "../../../base/index.ts";
import { dumpJson, dumpText } from "../../../report/index.ts";
import { openInput, readText } from "../files/input.ts";
import { STANDARD_INPUT } from "../files/standard-input.ts";
import { answerStyle, print, printJson } from "../terminal/print.ts";

/** Bytes by which a list is told from anything else. */
const HEAD_BYTES = 4096;
/** Lists have a line of about 150 bytes a mapping. */
const LIMIT = 256 * 1024 * 1024;

/** Whether `path` is such a list. What can be read once only, a pipe or standard input, is not looked at. */
export async function isDmaDump(path: string): Promise<boolean> {
  if (path === STANDARD_INPUT || !(await isFile(path))) return false;
  try {
    const source = await openInput(path);
    try {
      const { input } = source;
      if (!("stream" in input)) return false;
      for await (const part of input.stream)
        return looksLikeDmaDump(Buffer.from(part.subarray(0, HEAD_BYTES)).toString("utf8"));
      return false;
    } finally {
      await source.close();
    }
  } catch (error) {
    if (error instanceof DmaError) return false; // what it is, and why it cannot be read, the check of a trace says
    throw error;
  }
}

async function isFile(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch {
    return false; // the check of a trace says what is wrong with it
  }
}

/**
 * One list: what is live. Two: what came and what went; exit code 1 if a device has more of a type than before.
 *
 * @throws DmaError ERR_DMA_DUMP_FORMAT: a line is no entry
 */
export async function checkDumps(paths: readonly string[], devices: readonly string[], json: boolean): Promise<number> {
  const lists: DumpEntry[][] = [];
  for (const path of paths)
    lists.push((await entriesOf(path)).filter((entry) => devices.length === 0 || devices.includes(entry.device)));
  const groups = paths.length === 1 ? groupDumps(lists[0]!) : groupDumps(lists[1]!, lists[0]!);
  if (json) printJson(dumpJson(paths, groups));
  else print(dumpText(paths, groups, answerStyle()));
  return groups.some(({ before, after }) => before !== undefined && after.count > before.count) ? 1 : 0;
}

async function entriesOf(path: string): Promise<DumpEntry[]> {
  try {
    return readDmaDump(await readText(path, LIMIT));
  } catch (error) {
    if (!(error instanceof DmaError) || error.message.includes(path)) throw error;
    throw new DmaError(error.code, error.errno, `${path}: ${error.message}`, error.details);
  }
}
