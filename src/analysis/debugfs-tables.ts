/**
 * Page tables of a running machine, as the Intel IOMMU's debugfs prints them: `domain_translation_struct` (every mapped page with the
 * entry of each level) and `dmar_translation_struct` (root, context and PASID entries). Either alone, or both one behind the other.
 *
 * Idea: each line shows the entries on the way to one page, and an entry says where the next table lies: so the tables themselves are put
 * together again, as far as they map something, and read as those of a snapshot are.
 * Promises: a line that is none is an error with its number. Not known: entries that map nothing; the rest of a PASID entry.
 * Specified by: debugfs of Linux 5.4 to 7.2, `iommu/intel/`; VT-d specification, chapters 3 and 9.
 */
import { PAGE_SIZE, type PhysPage } from "../base/index.ts";
import {
  CONTEXT_ENTRY,
  decodeEntry,
  PASID_ENTRY,
  ROOT_ENTRY,
  translationOfContext,
  translationOfPasid,
  type VtdTranslation,
} from "../layouts/vtd/index.ts";
import { type AddressSpace, readAddressSpace } from "./address-space.ts";
import { deviceNotFound, notDebugfsTables } from "./errors.ts";
import type { TableSource } from "./snapshot.ts";
import type { DeviceTables, UnitTables } from "./tables.ts";

/** The tables that lines show, page by page. */
class Tables implements TableSource {
  readonly #pages = new Map<number, Int32Array>();

  get count(): number {
    return this.#pages.size;
  }

  set(page: number, index: number, entry: bigint): void {
    let words = this.#pages.get(page);
    if (!words) {
      words = new Int32Array(1024);
      this.#pages.set(page, words);
    }
    words[index * 2] = Number(BigInt.asIntN(32, entry));
    words[index * 2 + 1] = Number(BigInt.asIntN(32, entry >> 32n));
  }

  has(page: PhysPage): boolean {
    return this.#pages.has(page);
  }

  low(page: PhysPage, index: number): number {
    return this.#pages.get(page)?.[index * 2] ?? 0;
  }

  high(page: PhysPage, index: number): number {
    return this.#pages.get(page)?.[index * 2 + 1] ?? 0;
  }
}

/** The top of the tables of a device, as `domain_translation_struct` names it. */
interface Domain {
  readonly device: string;
  readonly pasid: number | undefined;
  readonly table: number;
  /** 0: nothing is mapped. */
  levels: number;
  isFirstStage: boolean;
}

/** What the text holds. */
export interface DebugfsTables extends UnitTables {
  /** Tables that were put together. */
  readonly tablePages: number;
}

const HEADS =
  /^(?:Device \S+ (?:with pasid \S+ )?@0x[0-9a-f]+|IOVA_PFN\s|IOMMU \S+: Root Table Address|Root Table Address:)/m;
const DEVICE = /^Device (\S{1,64}) (?:with pasid (?:0x)?([0-9a-f]{1,5}) )?@(?:0x)?([0-9a-f]{1,16})$/i;
const UNIT = /^IOMMU (\S{1,32}): (?:Root Table Address: ?(?:0x)?([0-9a-f]{1,16})|DMA Remapping is not enabled)/i;
const PAGE = /^(?:0x)?([0-9a-f]{1,14})\s*\|((?:\s+(?:0x)?[0-9a-f]{1,16}){2,5})$/i;
const ENTRY =
  /^([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\s+(?:0x)?([0-9a-f]{1,16}):(?:0x)?([0-9a-f]{1,16})\s+(?:0x)?([0-9a-f]{1,16}):(?:0x)?([0-9a-f]{1,16})(?:\s+(-?\d{1,7})\s+(?:0x)?([0-9a-f]{1,16}):(?:0x)?([0-9a-f]{1,16}):(?:0x)?([0-9a-f]{1,16}))?$/i;
/** Column heads, and what the files say where there is nothing. */
const TITLES = /^(?:IOVA_PFN\s|B\.D\.F\s|Root Table Address:|No device|Invalid|DMA Remapping is not enabled|\(null\))/i;

const PRESENT = 3n;
const LARGE = 0x80n;
const USER = 4n;
const ADDRESS = 0x000f_ffff_ffff_f000n;

/** Whether the beginning of a file is such a text. */
export const looksLikeDebugfsTables = (head: string): boolean => HEADS.test(head);

/**
 * Reads such a text; `device` ("0000:00:04.0"): this one alone.
 *
 * @throws DmaError ERR_DMA_SNAPSHOT_DAMAGED (EINVAL): a line is none, with its number; ERR_DMA_TABLES_DEVICE (ENODEV)
 */
export function readDebugfsTables(text: string, device?: string): DebugfsTables {
  const tables = new Tables();
  const domains: Domain[] = [];
  const entries: { bdf: string; words: string[] }[] = [];
  let rootTable = 0;
  let open: Domain | undefined;
  for (const [i, line] of text.split("\n").entries()) {
    const own = line.trim();
    if (own === "") continue;
    const page = PAGE.exec(own);
    if (page && open) {
      addPage(tables, open, Number.parseInt(page[1]!, 16), page[2]!.trim().split(/\s+/).map(wordOf));
      continue;
    }
    const top = DEVICE.exec(own);
    if (top) {
      const pasid = top[2] === undefined ? undefined : Number.parseInt(top[2], 16);
      const table = Number(BigInt(`0x${top[3]}`) / BigInt(PAGE_SIZE));
      open = { device: top[1]!, pasid, table, levels: 0, isFirstStage: false };
      domains.push(open);
      continue;
    }
    const unit = UNIT.exec(own);
    if (unit) {
      if (unit[2] !== undefined && rootTable === 0) rootTable = Math.floor(Number.parseInt(unit[2], 16) / PAGE_SIZE);
      continue;
    }
    const entry = ENTRY.exec(own);
    if (entry) entries.push({ bdf: `0000:${entry[1]!.toLowerCase()}`, words: entry.slice(2) });
    else if (!TITLES.test(own)) throw notDebugfsTables(i + 1, own);
  }
  const all = devicesOf(tables, domains, entries);
  const devices = device === undefined ? all : all.filter(({ bdf }) => bdf === device);
  if (device !== undefined && devices.length === 0)
    throw deviceNotFound(device, [...new Set(all.map(({ bdf }) => bdf))]);
  const isScalable = all.some(({ mode }) => mode.startsWith("scalable"));
  const mode = isScalable ? ("scalable" as const) : ("legacy" as const);
  return { mode, rootTable: rootTable as PhysPage, devices, missing: [], leftOut: false, tablePages: tables.count };
}

const wordOf = (digits: string): bigint => BigInt(/^0x/i.test(digits) ? digits : `0x${digits}`);

/** Columns of a line; behind the entry of a large page there are none. */
const COLUMNS = 5;

/** Puts the entries on the way to one page, the top one first, into their tables. */
function addPage(tables: Tables, domain: Domain, page: number, shown: readonly bigint[]): void {
  const path = [...shown, ...new Array<bigint>(COLUMNS - shown.length).fill(0n)];
  const first = path.findIndex((entry) => entry !== 0n);
  if (first < 0) return;
  const levels = path.length - first;
  if (domain.levels === 0) {
    domain.levels = levels;
    // Linux sets the user bit in every first-stage entry; in the second stage it would be "execute", which Linux never sets.
    domain.isFirstStage = (path[first]! & USER) !== 0n;
  }
  let table = domain.table;
  for (let at = first; at < path.length; at++) {
    const entry = path[at]!;
    const level = path.length - 1 - at;
    tables.set(table, Math.floor(page / 512 ** level) % 512, entry);
    if ((entry & PRESENT) === 0n || (level > 0 && (entry & LARGE) !== 0n)) return;
    table = Number((entry & ADDRESS) / BigInt(PAGE_SIZE));
  }
}

function devicesOf(
  tables: Tables,
  domains: readonly Domain[],
  entries: readonly { readonly bdf: string; readonly words: readonly string[] }[],
): DeviceTables[] {
  const spaces = new Map<number, AddressSpace>();
  const byTable = new Map(domains.map((domain) => [domain.table, domain]));
  const spaceOf = (domain: Domain): AddressSpace => {
    let space = spaces.get(domain.table);
    if (!space) {
      const root = { table: domain.table as PhysPage, levels: (domain.levels === 0 ? 4 : domain.levels) as 3 | 4 | 5 };
      if (domain.levels === 0) tables.set(domain.table, 0, 0n); // a table that maps nothing
      space = readAddressSpace(
        tables,
        domain.isFirstStage ? { kind: "first-stage", first: root } : { kind: "second-stage", second: root },
      );
      spaces.set(domain.table, space);
    }
    return space;
  };
  const devices: DeviceTables[] = [];
  const seen = new Set<string>();
  for (const { bdf, words } of entries) {
    const [rootHigh, rootLow, high, low, pasid, third, second, first] = words;
    const root = decodeEntry(ROOT_ENTRY, [wordOf(rootLow!), wordOf(rootHigh!)]);
    const context = [wordOf(low!), wordOf(high!)];
    const isPasid = pasid !== undefined && Number(pasid) >= 0;
    const entry = isPasid ? pasidEntryOf([first!, second!, third!]) : undefined;
    const translation = entry ? translationOfPasid(entry) : translationOfContext(decodeEntry(CONTEXT_ENTRY, context));
    const domainId = entry ? entry.domainId : decodeEntry(CONTEXT_ENTRY, context).domainId;
    const table = tableOf(translation);
    const domain = table === undefined ? undefined : byTable.get(table);
    seen.add(`${bdf} ${isPasid ? pasid : ""}`);
    devices.push({
      bdf,
      ...(isPasid && { pasid: Number(pasid) }),
      mode: `${isPasid ? "scalable" : "legacy"} ${translation.kind}`,
      domainId,
      levels: levelsOf(translation),
      ...(domain && { space: spaceOf(domain) }),
      ...(!domain && table !== undefined && { tablesAt: table as PhysPage }),
      missing: [],
      problems: [
        ...(root.present || isPasid ? [] : ["the root entry is not present: requests are refused"]),
        ...(translation.kind === "reserved" ? [`${translation.reason}: requests are refused`] : []),
      ],
    });
  }
  for (const domain of domains) {
    if (seen.has(`${domain.device} ${domain.pasid ?? ""}`)) continue;
    devices.push({
      bdf: domain.device,
      ...(domain.pasid !== undefined && { pasid: domain.pasid }),
      mode: domain.isFirstStage ? "first-stage" : "second-stage",
      levels: domain.levels,
      space: spaceOf(domain),
      missing: [],
      problems: [],
    });
  }
  return devices;
}

/** A PASID entry of which the first three of eight words are known; the others say nothing of the page tables. */
const pasidEntryOf = (words: readonly string[]) => decodeEntry(PASID_ENTRY, [...words.map(wordOf), 0n, 0n, 0n, 0n, 0n]);

/** The table that a request meets first. */
function tableOf(translation: VtdTranslation): number | undefined {
  if (translation.kind === "second-stage") return translation.second.table;
  if (translation.kind === "first-stage" || translation.kind === "nested") return translation.first.table;
  return undefined;
}

function levelsOf(translation: VtdTranslation): number {
  if (translation.kind === "second-stage") return translation.second.levels;
  if (translation.kind === "first-stage" || translation.kind === "nested") return translation.first.levels;
  return 0;
}
