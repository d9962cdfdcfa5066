/** Page tables of a snapshot or of debugfs text, read in the worker: what `dmalink tables` does. */
import {
  type AddressSpace,
  looksLikeDebugfsTables,
  type Mapping,
  readDebugfsTables,
  registersOf,
  Snapshot,
  type TableNode,
  type UnitTables,
  unitTables,
} from "../../../analysis/index.ts";
import { DmaError } from "../../../base/index.ts";
import { pageTablesText } from "../../../report/index.ts";
import type { Tell } from "../frame/calls.ts";
import { unpacked } from "../trace/open-file.ts";

/** The files: a snapshot with the JSON of its registers, or debugfs text. */
export interface TableFiles {
  readonly tables: File;
  readonly registers?: File;
}

/** One device's tables, as the page draws them. */
export interface DeviceFacts {
  readonly name: string;
  readonly mode: string;
  readonly domainId: number | undefined;
  readonly tablePages: number;
  readonly problems: readonly string[];
  readonly trees: readonly TableNode[];
  readonly mappings: readonly Mapping[];
  /** Its tables are those of another device, shown there. */
  readonly sharedWith: string | undefined;
}

/** What a file of tables holds. */
export interface TablesAnswer {
  readonly name: string;
  readonly mode: string;
  readonly devices: readonly DeviceFacts[];
  /** As the command prints it. */
  readonly text: string;
}

/** Snapshots are read whole. */
const MOST_BYTES = 2 ** 30;
const HEAD_BYTES = 4096;

/**
 * Reads one file of tables.
 *
 * @throws DmaError: it is none, or its registers are not known
 */
export async function readTables({ tables: file, registers }: TableFiles, tell: Tell): Promise<TablesAnswer> {
  const { blob } = await unpacked(file, tell);
  const bad = (message: string): DmaError => new DmaError("ERR_DMA_INPUT", "EINVAL", `${file.name}: ${message}`, {});
  if (blob.size > MOST_BYTES) throw bad("longer than any snapshot of tables");
  const bytes = new Uint8Array(await blob.arrayBuffer());
  tell("following the tables");
  if (looksLikeDebugfsTables(new TextDecoder().decode(bytes.subarray(0, HEAD_BYTES)))) {
    const unit = readDebugfsTables(new TextDecoder().decode(bytes));
    return answer(
      file.name,
      unit,
      pageTablesText({ file: file.name, pages: unit.tablePages, isDebugfs: true }, unit, false),
    );
  }
  const snapshot = Snapshot.parse(bytes);
  if (!registers)
    throw bad(
      "open the JSON with its registers together with it (NAME.json beside NAME.snap): it says where the root table is",
    );
  const known = registersOf(JSON.parse(await registers.text()));
  if (!known) throw bad(`${registers.name} has neither registers.rtaddr nor an SMMU's strtabBase and strtabBaseCfg`);
  const unit = unitTables(snapshot, known);
  return answer(file.name, unit, pageTablesText({ file: file.name, pages: snapshot.pageCount, ...known }, unit, false));
}

function answer(name: string, unit: UnitTables, text: string): TablesAnswer {
  const owners = new Map<AddressSpace, string>();
  const devices = unit.devices.map(({ bdf, pasid, mode, domainId, problems, space }): DeviceFacts => {
    const device = pasid === undefined ? bdf : `${bdf} PASID ${pasid}`;
    const sharedWith = space && owners.get(space);
    if (space && sharedWith === undefined) owners.set(space, device);
    const own = sharedWith === undefined ? space : undefined;
    return {
      name: device,
      mode,
      domainId,
      problems,
      sharedWith,
      tablePages: space?.tablePages ?? 0,
      trees: own?.trees ?? [],
      mappings: own?.mappings ?? [],
    };
  });
  return { name, mode: unit.mode, devices, text };
}
