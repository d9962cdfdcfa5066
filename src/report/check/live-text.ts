/** What is live when a trace ends, for people. */
import type { LiveAtEnd } from "../../analysis/index.ts";
import { bytes, count, duration, hex, plural } from "../../base/index.ts";
import type { Style } from "../text/style.ts";
import { paragraph, textTable } from "../text/text-table.ts";

/** Mappings that are printed; `--json` has all. */
const SHOWN = 30;

/** The list as lines: first who made how many, where that was recorded, then one by one. */
export function liveText(live: readonly LiveAtEnd[], { paint, width }: Style): string[] {
  const all = live.reduce((sum, { length }) => sum + length, 0);
  const title = `live at the end: ${plural(live.length, "mapping")} (${bytes(all)})`;
  const lines = ["", paint("strong", title)];
  if (live.length === 0) return lines;
  lines.push(...byCaller(live));
  const rows = live
    .slice(0, SHOWN)
    .map((one) => [
      one.device ?? "unknown",
      one.isDirect ? `${one.kind}, direct` : one.kind,
      hex(one.iova),
      bytes(one.length),
      one.startNs === undefined ? `over ${duration(one.ageNs)}` : duration(one.ageNs),
      one.typicalNs === undefined ? "-" : duration(one.typicalNs),
      one.startNs === undefined ? "before the recording" : `${one.task}-${one.pid}`,
      ...(one.site === undefined ? [] : [one.site]),
    ]);
  const columns = ["device", "kind", "address", "size", "age", "of its kind", "mapped by"];
  const isCalled = rows.some((row) => row.length > columns.length);
  const filled = rows.map((row) => (isCalled && row.length === columns.length ? [...row, ""] : row));
  lines.push(
    ...textTable(isCalled ? [...columns, "in"] : columns, filled)
      .split("\n")
      .map((line) => `  ${line}`),
  );
  if (live.length > SHOWN) lines.push(`  ... and ${count(live.length - SHOWN)} more; --json lists them`);
  lines.push(
    ...paragraph(
      "Oldest first, by how long their own kind lives (of its kind: half of those that ended lived no longer). Not every one is a leak: rings and pools stay as long as their driver.",
      width,
      "  ",
    ),
  );
  return lines;
}

/** Groups by the code that mapped. */
function byCaller(live: readonly LiveAtEnd[]): string[] {
  const groups = new Map<string, { count: number; bytes: number }>();
  for (const { site, length } of live) {
    if (site === undefined) continue;
    const group = groups.get(site) ?? { count: 0, bytes: 0 };
    groups.set(site, group);
    group.count++;
    group.bytes += length;
  }
  if (groups.size === 0) return [];
  const rows = [...groups]
    .sort(([, a], [, b]) => b.count - a.count)
    .slice(0, SHOWN)
    .map(([site, group]) => [count(group.count), bytes(group.bytes), site]);
  return [
    ...textTable(["live", "bytes", "mapped in"], rows)
      .split("\n")
      .map((line) => `  ${line}`),
    "",
  ];
}
