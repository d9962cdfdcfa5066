/**
 * `dmalink tables SNAPSHOT`: what every device of a VT-d unit could reach when the snapshot of its tables was taken.
 *
 * The root table register comes from NAME.json beside NAME.snap[.gz], or from --root. Exit code 0, or 2 for bad input:
 * no snapshot, damage, no such device.
 */
import { readUnitTables, Snapshot } from "../../../analysis/index.ts";
import { DmaError } from "../../../base/index.ts";
import { pageTablesText, writePageTablesJson } from "../../../report/index.ts";
import { badInput, parseRoot, readRegisters, readWhole } from "../files/snapshot.ts";
import { print, say } from "../terminal/print.ts";

export interface TablesOptions {
  /** The root table's address, or the root table register's value. */
  readonly root?: string;
  /** "0000:00:04.0" or "00:04.0". */
  readonly device?: string;
  readonly json?: boolean;
  /** Draw the trees instead of listing what they map. */
  readonly tree?: boolean;
}

/** Prints what `file` holds; the exit code. */
export async function tables(file: string, options: TablesOptions): Promise<number> {
  try {
    const device = options.device === undefined ? undefined : parseDevice(options.device);
    const root = options.root === undefined ? undefined : parseRoot(options.root);
    const snapshot = Snapshot.parse(await readWhole(file)); // its damage is told with the offset
    const registers = root === undefined ? await readRegisters(file) : { root };
    const unit = readUnitTables(snapshot, {
      ...registers,
      ...(device && { device: { bus: device.bus, function: device.function }, segment: device.segment }),
    });
    if (options.json) writePageTablesJson(file, unit, (text) => process.stdout.write(text));
    else print(pageTablesText({ file, pages: snapshot.pageCount, ...registers }, unit, options.tree ?? false));
    return 0;
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    const named = error.message.startsWith(file) || !/SNAPSHOT|TABLES_ROOT/.test(error.code);
    say(`dmalink: ${named ? "" : `${file}: `}${error.message}\n`);
    return 2;
  }
}

function parseDevice(text: string): { segment: number; bus: number; function: number } {
  const match = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])$/i.exec(text);
  const slot = match ? Number.parseInt(match[3]!, 16) : 32;
  if (!match || slot > 31)
    throw badInput(`--device ${text}: a PCI address is needed, like 0000:00:04.0 or 00:04.0`, { device: text });
  return {
    segment: Number.parseInt(match[1] ?? "0", 16),
    bus: Number.parseInt(match[2]!, 16),
    function: slot * 8 + Number(match[4]),
  };
}
