/**
 * What is live when a trace ends: every mapping that no event ends, with who made it.
 *
 * Idea: a rule calls few of them a leak, and who hunts one wants to see the others too. The oldest first, measured by how long its own kind
 * lives: a descriptor ring is old and well, a packet of that age is not. Not for: judging; the rule `leak` does that.
 */
import { PAGE_SIZE } from "../base/index.ts";
import type { Overdue } from "./findings/overdue.ts";
import type { CallSites } from "./lifetimes/call-sites.ts";
import type { IommuMatcher } from "./lifetimes/iommu-matcher.ts";
import type { Ledger } from "./lifetimes/ledger.ts";
import { DIRECT, KINDS, type Kind, type LifetimeTable, NO_DEVICE, PAGES_GONE } from "./lifetimes/table.ts";

/** One mapping that is live at the end. */
export interface LiveAtEnd {
  /** `undefined`: no event names it. */
  readonly device: string | undefined;
  readonly kind: Kind;
  /** DMA address and length, bytes. */
  readonly iova: number;
  readonly length: number;
  /** First byte of memory; `undefined`: unknown. */
  readonly phys: number | undefined;
  /** The kernel's number; 255: no event says. */
  readonly direction: number;
  /** The address is the memory's: nothing needs to be given back. */
  readonly isDirect: boolean;
  /** Nanoseconds since the trace's time base; `undefined`: before the recording. */
  readonly startNs: number | undefined;
  /** From there to the trace's end, at least. */
  readonly ageNs: number;
  /** What half of its kind that ended lived at most; `undefined`: too few of its kind ended. */
  readonly typicalNs: number | undefined;
  readonly task: string;
  readonly pid: number;
  /** Who called, where that was recorded, and all of the driver's functions that led there. */
  readonly site: string | undefined;
  readonly code: readonly string[] | undefined;
}

/** Where the list is taken from. */
interface LiveSource {
  readonly table: LifetimeTable;
  readonly iommu: IommuMatcher;
  readonly overdue: Overdue;
  readonly sites: CallSites;
  readonly strings: readonly string[];
  readonly firstNs: number;
  readonly lastNs: number;
  /** Which are asked for; `undefined`: all. */
  readonly selects: Ledger["selects"];
}

/** All that is live now; before the table is given up. */
export function liveAtEnd(source: LiveSource): readonly LiveAtEnd[] {
  const { table, iommu, overdue, sites, strings, firstNs, lastNs, selects } = source;
  const list: LiveAtEnd[] = [];
  const caller = (site: number): Pick<LiveAtEnd, "site" | "code"> => ({
    site: site === 0 ? undefined : sites.texts[site],
    code: sites.codeAt(site),
  });
  for (let row = 0; row < table.used; row++) {
    if (!table.isLive(row) || (table.flags[row]! & PAGES_GONE) !== 0) continue;
    const startNs = table.startNs[row]!;
    const device = table.device[row]!;
    if (selects && !selects(device, table.task[row]!, table.pid[row]!, table.cpu[row]!)) continue;
    list.push({
      device: device === NO_DEVICE ? undefined : table.devices[device],
      kind: KINDS[table.kind[row]!]!,
      iova: table.iova[row]!,
      length: table.reserved[row]!,
      phys: table.phys[row]! < 0 ? undefined : table.phys[row]!,
      direction: table.direction[row]!,
      isDirect: table.reached[row] === DIRECT,
      startNs: startNs < 0 ? undefined : startNs,
      ageNs: lastNs - (startNs < 0 ? firstNs : startNs),
      typicalNs: overdue.typicalNs(row),
      task: startNs < 0 ? "" : (strings[table.task[row]!] ?? ""),
      pid: table.pid[row]!,
      ...caller(table.site[row]!),
    });
  }
  const { waiting } = iommu;
  for (const run of waiting.runs()) {
    const first = run[0]!;
    if (selects && !selects(NO_DEVICE, waiting.task[first]!, waiting.pid[first]!, waiting.cpu[first]!)) continue;
    list.push({
      device: undefined,
      kind: "unattributed",
      iova: waiting.page[first]! * PAGE_SIZE,
      length: run.reduce((sum, piece) => sum + waiting.pages[piece]!, 0) * PAGE_SIZE,
      phys: waiting.phys[first]!,
      direction: 0xff,
      isDirect: false,
      startNs: waiting.startNs[first]!,
      ageNs: lastNs - waiting.startNs[first]!,
      typicalNs: undefined,
      task: strings[waiting.task[first]!] ?? "",
      pid: waiting.pid[first]!,
      ...caller(waiting.site[first]!),
    });
  }
  const relative = ({ ageNs, typicalNs }: LiveAtEnd): number =>
    typicalNs === undefined ? 0 : ageNs / Math.max(1, typicalNs);
  return list.sort((a, b) => Number(a.isDirect) - Number(b.isDirect) || relative(b) - relative(a) || b.ageNs - a.ageNs);
}
