/** The files that say what was mapped when a recording began. */
import {
  type DeviceTables,
  looksLikeDebugfsTables,
  parseDmaDump,
  readDebugfsTables,
  Snapshot,
  StartState,
  spend,
  type TableBudget,
  tableBudget,
  unitTables,
} from "../../../analysis/index.ts";
import { DmaError, PAGE_SIZE } from "../../../base/index.ts";
import { readText } from "../files/input.ts";
import { parseRoot, readRegisters, readWhole, textHead } from "../files/snapshot.ts";

/** Lists of live mappings have a line of about 150 bytes each. */
const DUMP_LIMIT = 256 * 1024 * 1024;

/**
 * Reads a copy of debugfs `dma-api/dump`, a snapshot of page tables (with NAME.json beside it, or `root`), or both.
 *
 * @throws DmaError ERR_DMA_INPUT, ERR_DMA_DUMP_FORMAT, ERR_DMA_SNAPSHOT_*, ERR_DMA_TABLES_*, naming the file
 */
export async function readStartState(
  dmaDump: string | undefined,
  snapshot: string | undefined,
  root: string | undefined,
): Promise<StartState> {
  let state: StartState | undefined;
  if (dmaDump !== undefined)
    state = await named(dmaDump, async () => parseDmaDump(await readText(dmaDump, DUMP_LIMIT)));
  if (snapshot !== undefined) {
    const pages = await named(snapshot, () => readPages(snapshot, root));
    state = state ? state.with(pages) : pages;
  }
  return state!;
}

async function readPages(file: string, root: string | undefined): Promise<StartState> {
  const bytes = await readWhole(file);
  if (looksLikeDebugfsTables(textHead(bytes)))
    return ofDevices(readDebugfsTables(new TextDecoder().decode(bytes)).devices, tableBudget(bytes.length / PAGE_SIZE));
  const tables = Snapshot.parse(bytes);
  const registers = root === undefined ? await readRegisters(file) : { root: parseRoot(root) };
  return ofDevices(unitTables(tables, registers).devices, tableBudget(tables.pageCount));
}

/** Each device gets all of its space, which it may share: a budget bounds what that comes to. */
function ofDevices(devices: readonly DeviceTables[], budget: TableBudget): StartState {
  const pages = devices.flatMap(({ bdf, space }) => {
    if (!space) return [];
    spend(budget, space.mappings.length);
    return [{ device: bdf, mappings: space.mappings }];
  });
  return StartState.ofPages(pages);
}

/** Puts the file's name into what goes wrong with it. */
async function named<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof DmaError) || error.message.includes(file)) throw error;
    throw new DmaError(error.code, error.errno, `${file}: ${error.message}`, error.details);
  }
}
