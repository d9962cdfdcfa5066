/**
 * The kernel's own list of live mappings, in the words of every kernel: debugfs `dma-api/dump`, or the same lines in its log.
 *
 * Idea: what stands behind `idx N` is read by its letters, in any order; what stands before it are a type and two names, of which the
 * form of the line says which is the device: until 2023 the device came first (such lines have `N=` and no `cln=`), since then the
 * driver does, and in a log there is a colon behind the device.
 * Promises: in a list, a line that is no entry is an error with its number; of a log, only the entries are read. A word that is not
 * known leaves that field unknown.
 * Specified by: debugfs `dma-api/dump` of Linux 2.6.30 to 7.2.
 */
import { DIRECTIONS, kernelDirection } from "../base/index.ts";
import { notADmaDump } from "./errors.ts";

/** One mapping that was live. */
export interface DumpEntry {
  readonly device: string;
  /** Empty where the line names none. */
  readonly driver: string;
  /** In the newest kernel's words: "single", "scatter-gather", "coherent", "resource", "phy", "noncoherent"; else as the line says. */
  readonly type: string;
  /** DMA address, bytes. */
  readonly iova: number;
  /** Bytes. */
  readonly length: number;
  /** First byte of memory. */
  readonly phys: number;
  /** The kernel's number; -1: the line does not say, or in a word that is not known. */
  readonly direction: number;
  /** The driver has not asked whether the mapping failed. */
  readonly isUnchecked: boolean;
}

const DIRECTION_WORDS: readonly string[] = DIRECTIONS.map((direction) => `DMA_${kernelDirection(direction)}`);
/** Spellings of older kernels. */
const TYPES: Readonly<Record<string, string>> = { "scather-gather": "scatter-gather" };

/** What stands in front of a line of a log: dmesg with or without a level, journalctl, syslog. */
const LOG_FRONT =
  /^(?:<\d{1,3}>)?\s*(?:\[[^\]\n]{1,60}\]\s+|\w{3} +\d{1,2} [\d:]{8} \S+ kernel: (?:\[ *[\d.]+\] )?|\d{4}-\d\d-\d\d[T ]\S+ \S+ kernel: (?:\[ *[\d.]+\] )?)/;
const ENTRY = /^(.{0,300}?)\s*\bidx (?:\d{1,12}|0x[0-9a-f]{1,8})\s+(.{1,400})$/i;
const FIELD = /\b([A-Za-z]{1,3})=(?:0x)?([0-9a-f]{1,16})\b/gi;

/** Whether the beginning of a file is such a list, and no log that only has some of its lines. */
export function looksLikeDmaDump(head: string): boolean {
  const lines = head.split("\n").filter((line) => line.trim() !== "");
  // The last one may be cut.
  const whole = lines.length > 1 ? lines.slice(0, -1) : lines;
  const entries = whole.filter((line) => entryOf(line.trim()) !== undefined).length;
  return entries > 0 && entries * 2 > whole.length;
}

/**
 * Reads a list, or the entries of a log.
 *
 * @throws DmaError ERR_DMA_DUMP_FORMAT (EINVAL): a line of a list is no entry, with its number; or there is none
 */
export function readDmaDump(text: string): DumpEntry[] {
  const entries: DumpEntry[] = [];
  const lines = text.split("\n");
  for (const [i, line] of lines.entries()) {
    const own = line.trim();
    if (own === "") continue;
    const entry = entryOf(own);
    if (entry) entries.push(entry);
    else if (!LOG_FRONT.test(own)) throw notADmaDump(i + 1, own);
  }
  if (entries.length === 0 && lines.some((line) => line.trim() !== "")) throw notADmaDump(1, lines[0]!.trim());
  return entries;
}

function entryOf(line: string): DumpEntry | undefined {
  const match = ENTRY.exec(line.replace(LOG_FRONT, ""));
  if (!match) return undefined;
  const [, names, rest] = match as unknown as [string, string, string];
  const fields = new Map<string, number>();
  for (const [, letter, digits] of rest.matchAll(FIELD))
    fields.set(letter!.toLowerCase(), Number.parseInt(digits!, 16));
  const [phys, iova, length] = [fields.get("p"), fields.get("d"), fields.get("l")];
  if (iova === undefined || length === undefined) return undefined;
  const isOld = fields.has("n") && !fields.has("cln");
  const owner = ownerOf(names, isOld);
  if (!owner) return undefined;
  return {
    ...owner,
    iova,
    length,
    phys: phys ?? -1,
    direction: DIRECTION_WORDS.indexOf(/\bDMA_[A-Z_]+\b/.exec(rest)?.[0] ?? ""),
    isUnchecked: /\bmap error not checked\b/.test(rest),
  };
}

/** The words before `idx`: device, driver and type. */
function ownerOf(names: string, isOld: boolean): Pick<DumpEntry, "device" | "driver" | "type"> | undefined {
  const words = names
    .replace(/^.*DMA-API:\s*/, "")
    .split(/\s+/)
    .filter((word) => word !== "");
  const type = words.pop();
  if (type === undefined || words.length === 0) return undefined;
  const said = { type: TYPES[type.toLowerCase()] ?? type.toLowerCase() };
  const last = words.at(-1)!;
  if (last.endsWith(":") && last.length > 1) return { device: last.slice(0, -1), driver: words.at(-2) ?? "", ...said };
  const [first, second] = words.slice(-2);
  if (second === undefined) return { device: first!, driver: "", ...said };
  return isOld ? { device: first!, driver: second, ...said } : { device: second, driver: first!, ...said };
}

/** Mappings that a list has of one device and type; bytes. */
export interface DumpSum {
  readonly count: number;
  readonly bytes: number;
  readonly largest: number;
}

/** What one device has of one type. */
export interface DumpGroup {
  readonly device: string;
  readonly driver: string;
  readonly type: string;
  /** In the first list and in the second; `undefined`: there is one list. */
  readonly before: DumpSum | undefined;
  readonly after: DumpSum;
  /** Only in the second list, and only in the first. */
  readonly came: readonly DumpEntry[];
  readonly went: readonly DumpEntry[];
}

/** What is live, by device and type, those with the most (with two lists: that grew most) first. */
export function groupDumps(after: readonly DumpEntry[], before?: readonly DumpEntry[]): DumpGroup[] {
  const keyOf = ({ device, type }: DumpEntry): string => `${device}\n${type}`;
  const groups = new Map<string, { before: DumpEntry[]; after: DumpEntry[] }>();
  const add = (list: readonly DumpEntry[], when: "before" | "after"): void => {
    for (const entry of list) {
      const group = groups.get(keyOf(entry)) ?? { before: [], after: [] };
      groups.set(keyOf(entry), group);
      group[when].push(entry);
    }
  };
  add(before ?? [], "before");
  add(after, "after");
  const sum = (list: readonly DumpEntry[]): DumpSum => ({
    count: list.length,
    bytes: list.reduce((all, { length }) => all + length, 0),
    largest: list.reduce((most, { length }) => Math.max(most, length), 0),
  });
  const result = [...groups.values()].map((group): DumpGroup => {
    const { device, driver, type } = (group.after[0] ?? group.before[0])!;
    return {
      device,
      driver,
      type,
      before: before && sum(group.before),
      after: sum(group.after),
      came: before ? without(group.after, group.before) : [],
      went: before ? without(group.before, group.after) : [],
    };
  });
  const grown = (group: DumpGroup): number => group.after.count - (group.before?.count ?? 0);
  return result.sort((a, b) => grown(b) - grown(a) || b.after.bytes - a.after.bytes);
}

/** Entries of `list` that `others` does not have; the same address and memory twice counts twice. */
function without(list: readonly DumpEntry[], others: readonly DumpEntry[]): DumpEntry[] {
  const keyOf = ({ iova, length, phys, direction }: DumpEntry): string => `${iova} ${length} ${phys} ${direction}`;
  const left = new Map<string, number>();
  for (const other of others) left.set(keyOf(other), (left.get(keyOf(other)) ?? 0) + 1);
  return list.filter((entry) => {
    const count = left.get(keyOf(entry)) ?? 0;
    if (count > 0) left.set(keyOf(entry), count - 1);
    return count === 0;
  });
}
