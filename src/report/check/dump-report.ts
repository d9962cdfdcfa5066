/**
 * The kernel's list of live mappings as an answer: what is live, by device and type; of two lists, what came and what went.
 *
 * Not for: a verdict. A list alone does not say how old its entries are; one that grows from list to list does.
 */
import type { DumpEntry, DumpGroup } from "../../analysis/index.ts";
import { bytes, count, hex, plural } from "../../base/index.ts";
import { directionWord } from "../recording.ts";
import { PLAIN, type Style } from "../text/style.ts";
import { paragraph, textTable } from "../text/text-table.ts";

/** Entries of one group that are printed; `--json` has all. */
const SHOWN = 5;

const listed = (list: readonly DumpEntry[], what: string): string[] => [
  ...list
    .slice(0, SHOWN)
    .map(
      ({ iova, length, phys, direction }) =>
        `    ${what} ${hex(iova)}  ${bytes(length)}${phys < 0 ? "" : `  memory ${hex(phys)}`}${direction < 0 ? "" : `  ${directionWord(direction) ?? ""}`}`,
    ),
  ...(list.length > SHOWN ? [`    ... and ${count(list.length - SHOWN)} more that ${what}; --json lists them`] : []),
];

/** For people. `files`: one, or the earlier and the later one. */
export function dumpText(files: readonly string[], groups: readonly DumpGroup[], style: Style = PLAIN): string {
  const isTwo = files.length > 1;
  const sum = (of: (group: DumpGroup) => number): number => groups.reduce((all, group) => all + of(group), 0);
  const devices = new Set(groups.map(({ device }) => device)).size;
  const live = `${plural(
    sum(({ after }) => after.count),
    "mapping",
  )} (${bytes(sum(({ after }) => after.bytes))}) of ${plural(devices, "device")} live`;
  const before = isTwo ? `, ${count(sum((group) => group.before!.count))} before` : "";
  const lines = paragraph(`${files.join(" -> ")}: list of live mappings (dma-api/dump), ${live}${before}`, style.width);
  const grown = groups.filter((group) => group.before && group.after.count > group.before.count);
  if (isTwo)
    lines.push(
      ...paragraph(
        grown.length === 0
          ? "Nothing grew."
          : grown
              .map(
                ({ device, driver, type, before: from, after: to }) =>
                  `${count(to.count - from!.count)} more of ${device}${driver === "" ? "" : ` (${driver})`}, ${type}: ${count(from!.count)} -> ${count(to.count)}, ${bytes(to.bytes - from!.bytes)}${to.bytes < from!.bytes ? " less" : " more"}`,
              )
              .join("; "),
        style.width,
      ).map((line) => style.paint(grown.length === 0 ? "good" : "warning", line)),
    );
  const head = ["device", "driver", "type", ...(isTwo ? ["before"] : []), "live", "bytes", "largest"];
  const rows = groups.map(({ device, driver, type, before: from, after }) => [
    device,
    driver,
    type,
    ...(isTwo ? [count(from!.count)] : []),
    count(after.count),
    bytes(after.bytes),
    bytes(after.largest),
  ]);
  lines.push("", ...textTable(head, rows).split("\n"));
  for (const { device, type, came, went } of groups)
    if (came.length + went.length > 0)
      lines.push(
        "",
        `  ${device}, ${type}: ${count(came.length)} came, ${count(went.length)} went`,
        ...listed(came, "came"),
        ...listed(went, "went"),
      );
  const next = isTwo
    ? "Mappings that only ever come are a leak: record what the driver maps with --stacks (dmalink record) to see which code does; the list as --dma-dump beside that trace judges its unmaps too."
    : "One list does not say how old its entries are. Take another one later and give both: dmalink check BEFORE AFTER. Beside a trace: --dma-dump FILE.";
  lines.push("", ...paragraph(next, style.width));
  return `${lines.join("\n")}\n`;
}

/** For programs: `dmalink.dump/1`. Addresses are hex strings, lengths bytes. */
export const dumpJson = (files: readonly string[], groups: readonly DumpGroup[]): object => ({
  schema: "dmalink.dump/1",
  files,
  groups: groups.map(({ device, driver, type, before, after, came, went }) => ({
    device,
    driver: driver === "" ? null : driver,
    type,
    before: before ?? null,
    after,
    came: came.map(entryJson),
    went: went.map(entryJson),
  })),
});

const entryJson = ({ iova, length, phys, direction, isUnchecked }: DumpEntry): object => ({
  iova: hex(iova),
  length,
  phys: phys < 0 ? null : hex(phys),
  direction: direction < 0 ? null : (directionWord(direction) ?? null),
  unchecked: isUnchecked,
});
