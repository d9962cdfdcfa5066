/**
 * `dmalink tables SNAPSHOT`: what every device of a VT-d unit could reach when the snapshot of its tables was taken.
 *
 * The root table register comes from NAME.json beside NAME.snap[.gz], or from --root. Exit code 0, or 2 for bad input:
 * no snapshot, damage, no such device.
 */
import { readFile } from "node:fs/promises";
import {
  type DeviceTables,
  leavesBySize,
  type Mapping,
  type MissingPage,
  readUnitTables,
  Snapshot,
  type UnitTables,
} from "../../analysis/index.ts";
import { DmaError, hex } from "../../base/index.ts";
import { openInput } from "./input.ts";
import { addressOf, deviceText, isElsewhere, type UnitFacts, unitText } from "./tables-text.ts";
import { print, say } from "./terminal.ts";

export interface TablesOptions {
  /** The root table's address, or the root table register's value. */
  readonly root?: string;
  /** "0000:00:04.0" or "00:04.0". */
  readonly device?: string;
  readonly json?: boolean;
  /** Draw the trees instead of listing what they map. */
  readonly tree?: boolean;
}

/** Snapshots are read as a whole: 1 GiB holds a quarter of a million table pages. */
const SIZE_LIMIT = 2 ** 30;

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
    if (options.json) writeJson(file, unit);
    else writeText({ file, pages: snapshot.pageCount, ...registers }, unit, options.tree ?? false);
    return 0;
  } catch (error) {
    if (!(error instanceof DmaError)) throw error;
    const named = error.message.startsWith(file) || !/SNAPSHOT|TABLES_ROOT/.test(error.code);
    say(`dmalink: ${named ? "" : `${file}: `}${error.message}\n`);
    return 2;
  }
}

const badInput = (message: string, details: object): DmaError =>
  new DmaError("ERR_DMA_INPUT", "EINVAL", message, details);

export async function readWhole(file: string): Promise<Uint8Array> {
  const source = await openInput(file);
  try {
    const { input } = source;
    if (!("stream" in input)) return await input.read(0, 16); // a trace.dat: its head is enough to refuse it
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const part of input.stream) {
      size += part.length;
      if (size > SIZE_LIMIT)
        throw badInput(`${file}: more than ${SIZE_LIMIT} bytes unpacked, which no snapshot of tables has`, { file });
      parts.push(part.slice());
    }
    return Buffer.concat(parts, size);
  } finally {
    await source.close();
  }
}

export interface Registers {
  readonly root: bigint;
  readonly isRegister?: boolean;
  readonly capability?: bigint;
  readonly status?: bigint;
}

/** `NAME.json` beside `NAME.snap` or `NAME.snap.gz`. */
export async function readRegisters(file: string): Promise<Registers> {
  const path = `${file.replace(/\.gz$/, "").replace(/\.snap$/, "")}.json`;
  const cure = "give the root table's address with --root 0x…";
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch {
    throw badInput(`${path} is not there, which would say where the root table is: ${cure}`, { path });
  }
  let registers: Record<string, unknown> | undefined;
  try {
    registers = (JSON.parse(text) as { registers?: Record<string, unknown> } | null)?.registers;
  } catch (error) {
    throw badInput(`${path} is not JSON (${(error as Error).message.replaceAll(/\s+/g, " ")}): mend it, or ${cure}`, {
      path,
    });
  }
  const value = (name: string): bigint | undefined => {
    const given = registers?.[name];
    return typeof given === "string" && /^0x[0-9a-f]{1,16}$/i.test(given) ? BigInt(given) : undefined;
  };
  const root = value("rtaddr");
  if (root === undefined)
    throw badInput(`${path} has no registers.rtaddr like "0xdea400": mend it, or ${cure}`, { path });
  const capability = value("cap");
  const status = value("gsts");
  return {
    root,
    isRegister: true,
    ...(capability !== undefined && { capability }),
    ...(status !== undefined && { status }),
  };
}

export function parseRoot(text: string): bigint {
  const digits = String(text); // a command line may have made a number of it
  const value = /^(0x[0-9a-f]+|[0-9]+)$/i.test(digits) ? BigInt(digits) : -1n;
  if (value < 0n || value >= 1n << 64n || (value & 0x3ffn) !== 0n)
    throw badInput(`--root ${digits}: an address of a page is needed, like 0xdea000, or the register, like 0xdea400`, {
      root: digits,
    });
  return value;
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

/** Mappings that are in memory as text at a time. */
const JSON_BATCH = 10_000;

/** In pieces, because the text of all mappings may be longer than a string can be. */
function writeJson(file: string, unit: UnitTables): void {
  const out = process.stdout;
  const head = { schema: "dmalink.tables/1", file, mode: unit.mode, rootTable: addressOf(unit.rootTable) };
  out.write(`${JSON.stringify(head).slice(0, -1)},"devices":[`);
  for (const [i, device] of unit.devices.entries()) {
    const mappings = device.space?.mappings ?? [];
    out.write(`${i === 0 ? "" : ","}\n${JSON.stringify(deviceJson(device)).slice(0, -1)},"mappings":[`);
    for (let at = 0; at < mappings.length; at += JSON_BATCH)
      out.write(
        (at === 0 ? "" : ",") + JSON.stringify(mappings.slice(at, at + JSON_BATCH).map(mappingJson)).slice(1, -1),
      );
    out.write("]}");
  }
  const tail = { missing: unit.missing.map(missingJson), leftOut: unit.leftOut };
  out.write(`],${JSON.stringify(tail).slice(1)}\n`);
}

/** All of a device but its mappings; what went wrong is there only when something did. */
function deviceJson(device: DeviceTables): object {
  const { space, missing, problems, ...about } = device;
  const lists = {
    missing: [...missing, ...(space?.missing ?? [])].map(missingJson),
    problems,
    malformed: (space?.malformed ?? []).map(({ iova, entry, reason }) => ({
      iova: addressOf(iova),
      entry: hex(entry),
      reason,
    })),
    repeated: (space?.repeated ?? []).map(({ iova, page }) => ({ iova: addressOf(iova), address: addressOf(page) })),
  };
  return {
    ...about,
    tablePages: space?.tablePages ?? 0,
    pageSizes: Object.fromEntries(
      space ? leavesBySize(space).map(({ leafPages, leaves }) => [leafPages * 4096, leaves]) : [],
    ),
    ...Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0)),
    ...(space && space.unmappedPages > 0 && { unmappedPages: space.unmappedPages }),
  };
}

const mappingJson = ({ iova, phys, pages, leafPages, prot }: Mapping): object => ({
  iova: addressOf(iova),
  phys: addressOf(phys),
  length: pages * 4096,
  pageSize: leafPages * 4096,
  read: (prot & 1) !== 0,
  write: (prot & 2) !== 0,
});

const missingJson = ({ what, page }: MissingPage): object => ({ what, address: addressOf(page) });

function writeText(facts: UnitFacts, unit: UnitTables, tree: boolean): void {
  print(`${unitText(facts, unit)}\n`);
  for (const device of unit.devices)
    if (!isElsewhere(device)) print(`\n${deviceText(device, facts.capability, tree)}\n`);
}
