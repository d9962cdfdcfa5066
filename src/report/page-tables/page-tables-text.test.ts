/** The text of `dmalink tables` for what snapshots of a healthy machine do not show. */
import { describe, expect, test } from "vitest";
import type { AddressSpace, DeviceTables, Mapping, TableNode, TreeItem, UnitTables } from "../../analysis/index.ts";
import type { IovaPage, PhysPage } from "../../base/index.ts";
import { pageTablesText, type UnitFacts } from "./page-tables-text.ts";

const mapping = (iova: number, phys: number, pages: number, leafPages = 1, prot = 3): Mapping => ({
  iova: iova as IovaPage,
  phys: phys as PhysPage,
  pages,
  leafPages,
  prot,
});

const table = (level: number, index: number, iova: number, items: readonly TreeItem[]): TableNode => ({
  kind: "table",
  index,
  level,
  page: (2 ** 40 - 1 - level) as PhysPage,
  iova: iova as IovaPage,
  items,
});

const space = (fields: Partial<AddressSpace>): AddressSpace => ({
  trees: [table(0, 0, 0, [])],
  mappings: [],
  tablePages: 1,
  missing: [],
  malformed: [],
  repeated: [],
  unmappedPages: 0,
  ...fields,
});

const device = (fields: Partial<AddressSpace>, about: Partial<DeviceTables> = {}): DeviceTables => ({
  bdf: "0000:00:04.0",
  mode: "legacy second-stage",
  levels: 4,
  domainId: 3,
  missing: [],
  problems: [],
  space: space(fields),
  ...about,
});

const UNIT: UnitTables = { mode: "legacy", rootTable: 5 as PhysPage, devices: [], missing: [], leftOut: false };

/** What is said of the unit, before any device. */
const unitText = (facts: UnitFacts, unit: UnitTables): string =>
  pageTablesText(facts, unit, false).split("\n\n")[0]!.trimEnd();

/** What is said of one device. */
const deviceText = (one: DeviceTables, capability: bigint | undefined, tree: boolean): string => {
  const facts = { file: "a.snap", pages: 3, ...(capability !== undefined && { capability }) };
  const text = pageTablesText(facts, { ...UNIT, devices: [one] }, tree);
  return text.slice(text.indexOf("\n\n") + 2).trimEnd();
};

const adviceOf = (mappings: readonly Mapping[], capability?: bigint): string => {
  const text = deviceText(device({ mappings }), capability, false);
  return text
    .slice(text.indexOf("advice") + 6, text.indexOf("\n  IOVA"))
    .replaceAll(/\s+/g, " ")
    .trim();
};

describe("advice", () => {
  test("names what could be larger, and where first", () => {
    expect(adviceOf([mapping(500, 0x40000 + 500, 1200)])).toBe(
      "1,024 leaves of 4 KiB could be 2 of 2 MiB: memory is contiguous and aligned, first at 0x200000 -> 0x40200000.",
    );
  });

  test("names what other addresses would allow, for every size in use", () => {
    expect(adviceOf([mapping(1, 0x40000, 600), mapping(2 ** 18, 2 ** 20, 2 ** 18, 512)])).toBe(
      "512 leaves of 4 KiB could be 1 of 2 MiB at addresses that are aligned to 2 MiB as their memory is. " +
        "512 leaves of 2 MiB could be 1 of 1 GiB: memory is contiguous and aligned, first at 0x40000000 -> 0x100000000.",
    );
  });

  test("is only what the unit can do", () => {
    const only2M = 1n << 34n;
    expect(adviceOf([mapping(2 ** 18, 2 ** 20, 2 ** 18, 512)], only2M)).toMatch(/^none: nowhere/);
    expect(adviceOf([mapping(512, 512, 512)], 0n)).toBe("none: this unit has 4 KiB pages only.");
  });
});

describe("what went wrong", () => {
  test("is told per device, in words and numbers", () => {
    const text = deviceText(
      device(
        {
          mappings: [mapping(0, 0x40000, 2, 1, 2)],
          missing: [{ what: "page table", page: 7 as PhysPage }],
          malformed: [
            {
              kind: "malformed",
              index: 1,
              level: 2,
              iova: 5 as IovaPage,
              entry: 0x83n,
              reason: "no leaf can be at this level",
            },
          ],
          repeated: [{ kind: "repeated", index: 1, level: 2, iova: 5 as IovaPage, page: 6 as PhysPage }],
          unmappedPages: 3,
        },
        { pasid: 0, withoutPasid: true, mode: "scalable nested", secondLevels: 5, problems: ["it is broken"] },
      ),
      undefined,
      false,
    );
    expect(text.split("\n")).toEqual([
      "0000:00:04.0  pasid 0  scalable nested, 4 and 5 levels, domain 3",
      "  pasid       0: also for requests that carry no PASID",
      "  problem     it is broken",
      "  tables      1 page (4 KiB), top at 0xffffffffff000",
      "  mapped      8 KiB in 1 run",
      "  page sizes  4 KiB: 2",
      "  missing     page table 0x7000 is not in the snapshot",
      "  malformed   entry 0x83 for 0x5000: no leaf can be at this level",
      "  repeated    1 pointers to tables met before; followed the first time only",
      "  unmapped    12 KiB of guest memory that the second stage does not map",
      "  advice      none: nowhere do 4 KiB leaves cover an aligned 2 MiB of contiguous",
      "              memory.",
      "  IOVA      memory  length     leaves  access",
      "  0x0   0x40000000   8 KiB  2 x 4 KiB      -w",
    ]);
  });

  test("is told of the unit", () => {
    const facts = { file: "a.snap", pages: 3, status: 0n };
    expect(unitText(facts, UNIT)).toBe(
      "a.snap: 3 pages, root table 0x5000, legacy mode; translation was switched off\nNo device has a context entry.",
    );
    expect(unitText({ file: "a.snap", pages: 3 }, { ...UNIT, mode: "abort" })).toContain("refuses every request");
    const lost = device({ trees: [] });
    expect(unitText(facts, { ...UNIT, devices: [lost] })).toContain(
      "1 device whose tables are not in the snapshot: 0000:00:04.0",
    );
  });
});

test("the widest tree and the widest runs fit in 80 columns", () => {
  const top = 2 ** 52 - 512;
  const phys = (2 ** 40 - 1024) as PhysPage;
  const leaves: TreeItem = {
    kind: "leaves",
    index: 100,
    count: 412,
    iova: top as IovaPage,
    phys,
    leafPages: 1,
    prot: 3,
  };
  const lost = (kind: "missing" | "repeated" | "unreachable"): TreeItem => ({
    kind,
    index: 510,
    level: 0,
    page: phys,
    iova: top as IovaPage,
  });
  const odd: TreeItem = {
    kind: "malformed",
    index: 511,
    level: 0,
    iova: top as IovaPage,
    entry: 2n ** 64n - 1n,
    reason: "",
  };
  const many = Array.from({ length: 30 }, () => leaves);
  let tree = table(0, 511, top, many);
  tree = table(1, 511, top, [tree, lost("missing"), lost("repeated"), lost("unreachable"), odd]);
  for (let level = 2; level < 5; level++) tree = table(level, 511, top, [tree]);
  const wide = device({ trees: [tree, tree], mappings: [mapping(top, phys, 412)] });
  const drawn = deviceText(wide, undefined, true);
  expect(drawn).toContain("         │  └─ ... and 6 more entries and runs (--json for all)");
  expect(drawn).toContain("first stage: PML5 0x");
  for (const text of [drawn, deviceText(wide, undefined, false)])
    for (const line of text.split("\n")) expect(line.length, line).toBeLessThanOrEqual(80);
});
