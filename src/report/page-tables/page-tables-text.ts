/**
 * What `dmalink tables` shows to people: lines that fit, addresses in hex, sizes with their units.
 *
 * Long lists end with how many more there are. Not for: programs, which have --json.
 */
import {
  type AddressSpace,
  type DeviceTables,
  leavesBySize,
  type Mapping,
  superpageAdvice,
  type TableNode,
  type TreeItem,
  type UnitTables,
} from "../../analysis/index.ts";
import { bytes, count, plural } from "../../base/index.ts";
import { unitLeafSizes } from "../../layouts/vtd/index.ts";
import { PLAIN, type Style } from "../text/style.ts";
import { labelled, textTable, wrapLines } from "../text/text-table.ts";

/** What is known about the unit besides its tables. */
export interface UnitFacts {
  /** As it was named. */
  readonly file: string;
  /** Pages in the snapshot. */
  readonly pages: number;
  /** It is no snapshot of memory, but what debugfs printed. */
  readonly isDebugfs?: boolean;
  /** Its Capability register, where it is known. */
  readonly capability?: bigint;
  /** Its Global Status register, where it is known. */
  readonly status?: bigint;
}

const RUN_LIMIT = 16;
const ITEM_LIMIT = 24;
const TRANSLATION_ENABLED = 1n << 31n;

/** A page number as its byte address; exact for all 64-bit addresses. */
export const addressOf = (page: number): string => `0x${(BigInt(page) << 12n).toString(16)}`;

const size = (pages: number): string => bytes(pages * 4096);
const access = (prot: number): string => `${prot & 1 ? "r" : "-"}${prot & 2 ? "w" : "-"}`;

/** Nothing of this device's tables is in the snapshot, so there is nothing to show but its name. */
const isElsewhere = (device: DeviceTables): boolean =>
  device.space ? device.space.trees.length === 0 : device.missing.length > 0;

/** The whole answer: the unit, then every device whose tables are in the snapshot; `tree` draws trees instead of lists. */
export function pageTablesText(facts: UnitFacts, unit: UnitTables, tree: boolean, style: Style = PLAIN): string {
  const devices = unit.devices.filter((device) => !isElsewhere(device));
  const first = new Map<AddressSpace, DeviceTables>();
  const texts = devices.map((device) => {
    const owner = device.space && first.get(device.space);
    if (device.space && !owner) first.set(device.space, device);
    return deviceText(device, facts.capability, tree, style, owner);
  });
  return [unitText(facts, unit, style), ...texts].map((text) => `${text}\n`).join("\n");
}

/** The snapshot as a whole, and what of it could not be followed. */
function unitText(facts: UnitFacts, unit: UnitTables, { width }: Style): string {
  const off = facts.status !== undefined && (facts.status & TRANSLATION_ENABLED) === 0n;
  const root = unit.rootTable === 0 ? "" : `, root table ${addressOf(unit.rootTable)}, ${unit.mode} mode`;
  const top = unit.mode === "SMMUv3" ? `stream table ${addressOf(unit.rootTable)}, SMMUv3` : root.slice(2);
  const lines = wrapLines(
    facts.isDebugfs
      ? `${facts.file}: debugfs of a running machine, ${plural(unit.devices.length, "device")}${root}`
      : `${facts.file}: ${count(facts.pages)} pages, ${top || `root table 0x0, ${unit.mode} mode`}` +
          `${off ? "; translation was switched off" : ""}`,
    width,
  );
  if (unit.mode === "abort") lines.push("The unit refuses every request: there are no tables to follow.");
  const lost = [...new Set(unit.devices.filter(isElsewhere).map((device) => device.bdf))];
  if (lost.length > 0)
    lines.push(
      ...wrapLines(
        `${lost.length} ${lost.length === 1 ? "device" : "devices"} whose tables are not in the snapshot: ${lost.join(", ")}`,
        width,
      ),
    );
  for (const { what, page } of unit.missing)
    lines.push(...wrapLines(`not in the snapshot: ${what}, ${addressOf(page)}`, width));
  if (unit.leftOut) lines.push(`There are more devices and PASIDs; the first ${count(unit.devices.length)} were read.`);
  if (unit.devices.length === 0 && unit.mode !== "abort") lines.push("No device has a context entry.");
  return lines.join("\n");
}

/** One device, or PASID, with its mappings or its tree; what it shares with `owner` was shown there. */
function deviceText(
  device: DeviceTables,
  capability: bigint | undefined,
  tree: boolean,
  { width, paint }: Style,
  owner?: DeviceTables,
): string {
  const { space } = device;
  const levels =
    device.levels === 0 ? "" : `, ${device.levels}${device.secondLevels ? ` and ${device.secondLevels}` : ""} levels`;
  const lines = [
    paint(
      "strong",
      `${device.bdf}  ${device.pasid === undefined ? "" : `pasid ${device.pasid}  `}${device.mode}${levels}` +
        `${device.domainId === undefined ? "" : `, domain ${device.domainId}`}`,
    ),
  ];
  const row = (label: string, text: string): void => {
    lines.push(...labelled(`  ${label}`, text, width, 14));
  };
  if (device.stream !== undefined) row("stream", `0x${device.stream.toString(16)}`);
  if (device.withoutPasid) row("pasid", `${device.pasid}: also for requests that carry no PASID`);
  for (const problem of device.problems) row("problem", problem);
  if (device.tablesAt !== undefined)
    row("tables", `at ${addressOf(device.tablesAt)}; what they map is in domain_translation_struct`);
  if (!space) return lines.join("\n");
  if (owner) {
    row(
      "tables",
      `those of ${owner.bdf}${owner.pasid === undefined ? "" : ` pasid ${owner.pasid}`}: one address space`,
    );
    return lines.join("\n");
  }
  const runs = space.mappings.length;
  const pages = space.mappings.reduce((sum, mapping) => sum + mapping.pages, 0);
  row(
    "tables",
    `${count(space.tablePages)} ${space.tablePages === 1 ? "page" : "pages"} (${size(space.tablePages)}), top at ${tops(space.trees)}`,
  );
  row("mapped", runs === 0 ? "nothing" : `${size(pages)} in ${count(runs)} ${runs === 1 ? "run" : "runs"}`);
  if (runs > 0) row("page sizes", leavesBySize(space).map(leavesText).join(" · "));
  const missing = [...device.missing, ...space.missing];
  for (const { page, what } of missing.slice(0, RUN_LIMIT))
    row("missing", `${what} ${addressOf(page)} is not in the snapshot`);
  more(missing.length, RUN_LIMIT, "missing tables", (text) => row("", text));
  for (const { iova, entry, reason } of space.malformed.slice(0, RUN_LIMIT))
    row("malformed", `entry 0x${entry.toString(16)} for ${addressOf(iova)}: ${reason}`);
  more(space.malformed.length, RUN_LIMIT, "malformed entries", (text) => row("", text));
  if (space.repeated.length > 0)
    row("repeated", `${count(space.repeated.length)} pointers to tables met before; followed the first time only`);
  if (space.unmappedPages > 0)
    row("unmapped", `${size(space.unmappedPages)} of guest memory that the second stage does not map`);
  row("advice", adviceText(device, space.mappings, capability));
  if (tree) for (const top of space.trees) lines.push(...drawTree(top, space.trees));
  else if (runs > 0) lines.push(...runLines(space.mappings));
  return lines.join("\n");
}

const tops = (trees: readonly TableNode[]): string => trees.map((tree) => addressOf(tree.page)).join(" and ");

const leavesText = ({ leafPages, leaves }: { leafPages: number; leaves: number }): string =>
  `${size(leafPages)}: ${count(leaves)}`;

function runLines(mappings: readonly Mapping[]): string[] {
  const rows = mappings
    .slice(0, RUN_LIMIT)
    .map(({ iova, phys, pages, leafPages, prot }) => [
      `  ${addressOf(iova)}`,
      addressOf(phys),
      size(pages),
      `${count(pages / leafPages)} x ${size(leafPages)}`,
      access(prot),
    ]);
  const lines = textTable(["  IOVA", "memory", "length", "leaves", "access"], rows).split("\n");
  more(mappings.length, RUN_LIMIT, "runs", (text) => lines.push(`  ${text}`));
  return lines;
}

function adviceText(device: DeviceTables, mappings: readonly Mapping[], capability: bigint | undefined): string {
  const stage = device.mode.endsWith("second-stage") ? "second" : "first";
  const leafSizes = capability === undefined ? [0, 9, 18] : unitLeafSizes(capability, stage);
  if (leafSizes.length === 1) return "none: this unit has 4 KiB pages only.";
  const advice = superpageAdvice(mappings, leafSizes);
  if (advice.length === 0) return "none: nowhere do 4 KiB leaves cover an aligned 2 MiB of contiguous memory.";
  return advice
    .map(({ leafPages, couldBePages, fits, first, misplaced }) => {
      const small = size(leafPages);
      const large = size(couldBePages);
      const now = (leaves: number): string => `${count((leaves * couldBePages) / leafPages)} leaves of ${small}`;
      const parts: string[] = [];
      if (first)
        parts.push(
          `${now(fits)} could be ${count(fits)} of ${large}: memory is contiguous and aligned, ` +
            `first at ${addressOf(first.iova)} -> ${addressOf(first.phys)}.`,
        );
      if (misplaced > 0)
        parts.push(
          `${now(misplaced)} could be ${count(misplaced)} of ${large} at addresses that are ` +
            `aligned to ${large} as their memory is.`,
        );
      return parts.join(" ");
    })
    .join(" ");
}

/** Names of tables by level, as the specifications have them. */
const TABLE_NAMES = ["PT", "PD", "PDPT", "PML4", "PML5"];

function drawTree(top: TableNode, trees: readonly TableNode[]): string[] {
  const stage = trees.length < 2 ? "" : trees[0] === top ? "first stage: " : "second stage: ";
  const lines = [`${stage}${TABLE_NAMES[top.level]} ${addressOf(top.page)}`];
  drawItems(top.items, "", lines);
  return lines;
}

function drawItems(items: readonly TreeItem[], indent: string, lines: string[]): void {
  const shown = items.slice(0, ITEM_LIMIT);
  for (const [i, item] of shown.entries()) {
    const last = i === items.length - 1;
    lines.push(`${indent}${last ? "└─" : "├─"} ${itemText(item)}`);
    if (item.kind === "table") drawItems(item.items, `${indent}${last ? "  " : "│ "} `, lines);
  }
  more(items.length, ITEM_LIMIT, "entries and runs", (text) => lines.push(`${indent}└─ ${text}`));
}

function itemText(item: TreeItem): string {
  const at = (index: number): string => `[${index}]`;
  if (item.kind === "leaves") {
    const { index, iova, phys, leafPages, prot } = item;
    const range = item.count === 1 ? at(index) : `[${index}..${index + item.count - 1}]`;
    return `${range} ${count(item.count)} x ${size(leafPages)}  ${addressOf(iova)} -> ${addressOf(phys)}  ${access(prot)}`;
  }
  if (item.kind === "malformed")
    return `${at(item.index)} 0x${item.entry.toString(16)}  ${addressOf(item.iova)}  malformed`;
  const table = `${at(item.index)} ${TABLE_NAMES[item.level]} ${addressOf(item.page)}`;
  const why = { table: "", missing: "  missing", repeated: "  met before", unreachable: "  not mapped" };
  return `${table}  from ${addressOf(item.iova)}${why[item.kind]}`;
}

function more(total: number, limit: number, what: string, add: (text: string) => void): void {
  if (total > limit) add(`... and ${count(total - limit)} more ${what} (--json for all)`);
}
