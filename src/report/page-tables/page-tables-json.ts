/**
 * Page tables as data: `dmalink.tables/1`, written piece by piece.
 *
 * Idea: a snapshot may hold millions of mappings; their text may be longer than a string can be, and need not be in memory
 * whole. Addresses are hex strings, lengths bytes. An address space is written with the first of its devices; the others name
 * that one (`sharedWith`).
 */
import {
  type AddressSpace,
  type DeviceTables,
  leavesBySize,
  type Mapping,
  type MissingPage,
  type UnitTables,
} from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import { addressOf } from "./page-tables-text.ts";

/** Mappings that are in memory as text at a time. */
const JSON_BATCH = 10_000;

/** The whole answer for the snapshot `file`, a piece a call of `write`. */
export function writePageTablesJson(file: string, unit: UnitTables, write: (text: string) => void): void {
  const head = { schema: "dmalink.tables/1", file, mode: unit.mode, rootTable: addressOf(unit.rootTable) };
  write(`${JSON.stringify(head).slice(0, -1)},"devices":[`);
  const first = new Map<AddressSpace, DeviceTables>();
  for (const [i, device] of unit.devices.entries()) {
    const owner = device.space && first.get(device.space);
    if (owner) {
      write(`,\n${JSON.stringify(sharerJson(device, owner))}`);
      continue;
    }
    if (device.space) first.set(device.space, device);
    const mappings = device.space?.mappings ?? [];
    write(`${i === 0 ? "" : ","}\n${JSON.stringify(deviceJson(device)).slice(0, -1)},"mappings":[`);
    for (let at = 0; at < mappings.length; at += JSON_BATCH)
      write((at === 0 ? "" : ",") + JSON.stringify(mappings.slice(at, at + JSON_BATCH).map(mappingJson)).slice(1, -1));
    write("]}");
  }
  const tail = { missing: unit.missing.map(missingJson), leftOut: unit.leftOut };
  write(`],${JSON.stringify(tail).slice(1)}\n`);
}

/** A device in an address space that was written with another one: 65,536 devices may share one of millions of mappings. */
function sharerJson({ space: _space, missing, problems, ...about }: DeviceTables, owner: DeviceTables): object {
  return {
    ...about,
    ...(missing.length > 0 && { missing: missing.map(missingJson) }),
    ...(problems.length > 0 && { problems }),
    sharedWith: { bdf: owner.bdf, ...(owner.pasid !== undefined && { pasid: owner.pasid }) },
  };
}

/** All of a device but its mappings; what went wrong is there only when something did. */
function deviceJson(device: DeviceTables): object {
  const { space, missing, problems, tablesAt, ...about } = device;
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
    ...(tablesAt !== undefined && { tablesAt: addressOf(tablesAt) }),
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
