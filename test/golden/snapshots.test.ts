/**
 * Snapshots of a real kernel's tables: what is decoded equals, entry by entry, what everybody else says of that moment.
 *
 * Four witnesses: the program that took the snapshot, the kernel's own dumps, iommufd's list of mappings, and the replay
 * of every map and unmap since before the driver was loaded (snapshots/README.md).
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type DeviceTables,
  leavesBySize,
  type Mapping,
  readUnitTables,
  Snapshot,
  type TableNode,
  type UnitTables,
  wordsAt,
} from "../../src/analysis/index.ts";
import { DmaError } from "../../src/base/index.ts";
import {
  CONTEXT_ENTRY,
  decodeEntry,
  encodeEntry,
  PASID_ENTRY,
  ROOT_ENTRY,
  SCALABLE_CONTEXT_ENTRY,
  SCALABLE_ROOT_ENTRY,
  type Structure,
  translationOfContext,
  translationOfPasid,
} from "../../src/layouts/vtd/index.ts";

const folder = join(import.meta.dirname, "snapshots");
const names = readdirSync(folder)
  .filter((file) => file.endsWith(".snap.gz"))
  .map((file) => file.replace(".snap.gz", ""))
  .sort();

interface Leaf {
  readonly iova: string;
  readonly phys: string;
  readonly size: number;
  readonly read: boolean;
  readonly write: boolean;
  readonly entry: string;
}

interface Described {
  readonly registers: { readonly rtaddr: string };
  readonly mode: string;
  readonly pages: readonly { readonly addr: string; readonly role: string; readonly bdf?: string }[];
  readonly devices: readonly {
    readonly bdf: string;
    readonly domainId: number;
    readonly levels: number;
    readonly tableRoot: string;
    readonly leaves: readonly Leaf[];
    readonly ranges: readonly Omit<Leaf, "entry">[];
  }[];
}

interface Scene {
  readonly described: Described;
  readonly bytes: Uint8Array;
  readonly snapshot: Snapshot;
  readonly unit: UnitTables;
}

const text = (file: string): string => gunzipSync(readFileSync(join(folder, file))).toString();
const hex = (page: number): string => `0x${(BigInt(page) << 12n).toString(16)}`;
const pageOf = (address: string | bigint): number => Number(BigInt(address) >> 12n);

function load(name: string): Scene {
  const described = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8")) as Described;
  const bytes = gunzipSync(readFileSync(join(folder, `${name}.snap.gz`)));
  const snapshot = Snapshot.parse(bytes);
  const unit = readUnitTables(snapshot, { root: BigInt(described.registers.rtaddr), isRegister: true });
  return { described, bytes, snapshot, unit };
}

const deviceOf = (unit: UnitTables, bdf: string): DeviceTables => {
  const [device, ...others] = unit.devices.filter((one) => one.bdf === bdf);
  expect(others).toEqual([]);
  return device!;
};

/** 4 KiB page -> 4 KiB page. */
function pagesOf(mappings: readonly Mapping[]): Map<number, number> {
  const pages = new Map<number, number>();
  for (const { iova, phys, pages: length } of mappings) for (let i = 0; i < length; i++) pages.set(iova + i, phys + i);
  return pages;
}

const ascending = (pages: ReadonlyMap<number, number>): [number, number][] => [...pages].sort(([a], [b]) => a - b);

/** Every leaf, one by one, with the entries that lead to it, top first, as 64-bit words. */
function* leavesOf(snapshot: Snapshot, table: TableNode, above: bigint[] = []): Generator<[number, bigint[]]> {
  for (const item of table.items) {
    const entry = (index: number): bigint => wordsAt(snapshot, table.page, index, 1)[0]!;
    if (item.kind === "table") yield* leavesOf(snapshot, item, [...above, entry(item.index)]);
    else if (item.kind === "leaves")
      for (let i = 0; i < item.count; i++) yield [item.iova + i * item.leafPages, [...above, entry(item.index + i)]];
  }
}

test("there are snapshots of both modes", () => {
  expect(names).toEqual(["fl-inflight", "legacy-idle", "legacy-inflight", "legacy-iommufd-2m"]);
});

for (const name of names)
  describe(name, () => {
    const scene = load(name);
    const { described, snapshot, unit } = scene;

    test("mode, devices, domains, levels and table pages are those described beside it", () => {
      expect(unit.mode).toBe(described.mode);
      for (const { bdf, domainId, levels, tableRoot } of described.devices) {
        const device = deviceOf(unit, bdf);
        expect(device).toMatchObject({ domainId, levels, problems: [] });
        expect(device.mode).toBe(described.mode === "scalable" ? "scalable first-stage" : "legacy second-stage");
        expect(hex(device.space!.trees[0]!.page)).toBe(tableRoot);
        expect(device.space).toMatchObject({ missing: [], malformed: [], repeated: [], unmappedPages: 0 });
        const tables = described.pages.filter((page) => page.role === "table" && page.bdf === bdf);
        expect(device.space!.tablePages).toBe(tables.length);
      }
      expect(snapshot.pageCount).toBe(described.pages.length);
    });

    test("leaves and ranges are those described beside it", () => {
      for (const { bdf, leaves, ranges } of described.devices) {
        const { space } = deviceOf(unit, bdf);
        const mine = space!.mappings.flatMap(({ iova, phys, pages, leafPages, prot }) =>
          Array.from({ length: pages / leafPages }, (_, i) => ({
            iova: hex(iova + i * leafPages),
            phys: hex(phys + i * leafPages),
            size: leafPages * 4096,
            read: (prot & 1) !== 0,
            write: (prot & 2) !== 0,
          })),
        );
        expect(mine).toEqual(leaves.map(({ iova, phys, size, read, write }) => ({ iova, phys, size, read, write })));
        const runs = space!.mappings.map(({ iova, phys, pages, prot }) => ({
          iova: hex(iova),
          phys: hex(phys),
          size: pages * 4096,
          read: (prot & 1) !== 0,
          write: (prot & 2) !== 0,
        }));
        expect(runs).toEqual(ranges);
        expect(leavesBySize(space!).reduce((sum, size) => sum + size.leaves, 0)).toBe(leaves.length);
      }
    });

    test("every entry on the way to every leaf is the one in the kernel's dump", () => {
      for (const { bdf, leaves } of described.devices) {
        const rows = [
          ...text(`${name}.${bdf.replaceAll(":", "-")}.debugfs.txt.gz`).matchAll(/^(0x[0-9a-f]+) \|\s+(.*)$/gm),
        ].map((row): [number, bigint[]] => [
          Number(BigInt(row[1]!)),
          row[2]!
            .trim()
            .split(/\s+/)
            .map(BigInt)
            .filter((entry) => entry !== 0n),
        ]);
        const mine = deviceOf(unit, bdf).space!.trees.flatMap((tree) => [...leavesOf(snapshot, tree)]);
        expect(mine).toEqual(rows);
        expect(rows.length).toBe(leaves.length);
      }
    });

    test("every device of the kernel's dump is found, with the same domain and tables", () => {
      const rows = [...text(`${name}.dmar.txt.gz`).matchAll(/^([0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\s+(.*)$/gm)].map(
        (row) => {
          const [root, context, , pasid] = row[2]!.trim().split(/\s+/);
          const words = (column: string): bigint[] => column.split(":").map(BigInt).reverse();
          return { bdf: `0000:${row[1]}`, root: words(root!), context: words(context!), pasid: words(pasid!) };
        },
      );
      expect(rows.length).toBeGreaterThan(5);
      const same = <T extends object>(structure: Structure<T>, words: readonly bigint[]): T => {
        const value = decodeEntry(structure, words);
        expect(encodeEntry(structure, value)).toEqual(words);
        return value;
      };
      const known = rows.filter(({ bdf }) => unit.devices.some((device) => device.bdf === bdf));
      expect(unit.devices.map((device) => device.bdf)).toEqual(known.map(({ bdf }) => bdf));
      if (unit.mode === "legacy") expect(known).toEqual(rows);
      for (const { bdf, root, context, pasid } of known) {
        const device = deviceOf(unit, bdf);
        if (unit.mode === "legacy") {
          same(ROOT_ENTRY, root);
          const entry = same(CONTEXT_ENTRY, context);
          expect(device.domainId).toBe(entry.domainId);
          const translation = translationOfContext(entry);
          const top = device.space!.trees[0] ?? device.space!.missing[0];
          expect(translation).toEqual({ kind: "second-stage", second: { table: top!.page, levels: device.levels } });
          continue;
        }
        same(SCALABLE_ROOT_ENTRY, root);
        const entry = same(SCALABLE_CONTEXT_ENTRY, [...context, 0n, 0n]);
        if (device.pasid === undefined) {
          expect(device.missing).toEqual([{ what: "PASID directory", page: entry.pasidDirectory }]);
          continue;
        }
        const pasidEntry = same(PASID_ENTRY, [...pasid, 0n, 0n, 0n, 0n, 0n]);
        expect(device).toMatchObject({ pasid: 0, withoutPasid: true, domainId: pasidEntry.domainId });
        const top = device.space!.trees[0]!;
        expect(translationOfPasid(pasidEntry)).toEqual({
          kind: "first-stage",
          first: { table: top.page, levels: device.levels },
        });
      }
      for (const { bdf, root } of rows.filter((row) => !known.includes(row))) {
        expect(Number.parseInt(bdf.slice(8, 10), 16)).toBeGreaterThanOrEqual(16);
        const { upperContextTable } = decodeEntry(SCALABLE_ROOT_ENTRY, root);
        expect(unit.missing).toEqual([{ what: "context table of 0000:00:10.0 to 1f.7", page: upperContextTable }]);
      }
    });

    const iommufd = join(folder, `${name}.mappings.json`);
    if (existsSync(iommufd))
      test("iommufd's mappings are all there", () => {
        const given = JSON.parse(readFileSync(iommufd, "utf8")) as {
          iova: string;
          phys: string[];
        }[];
        const mine = pagesOf(deviceOf(unit, described.devices[0]!.bdf).space!.mappings);
        let checked = 0;
        for (const { iova, phys } of given)
          for (const [i, page] of phys.entries()) {
            expect(mine.get(pageOf(iova) + i)).toBe(pageOf(page));
            checked++;
          }
        expect(checked).toBeGreaterThan(1000);
        // the list leaves out 16 KiB that the kernel's own dump of the tables has
        for (const { iova, phys } of given) for (const i of phys.keys()) mine.delete(pageOf(iova) + i);
        expect([...mine.keys()]).toEqual([0x30000, 0x30001, 0x30002, 0x30003]);
      });

    if (existsSync(join(folder, `${name}.trace.txt.gz`)))
      test("what the trace's maps and unmaps leave live is what is mapped", () => {
        const lines = text(`${name}.trace.txt.gz`).split("\n");
        // an IOMMU event names no device; its task does, in the DMA event beside it. A task without one reads the disk.
        const deviceOfTask = new Map<string, string>();
        for (const line of lines) {
          const named = /^\s*(\S+)\s.*: dma_\w+: (\S+) /.exec(line);
          if (!named) continue;
          expect(deviceOfTask.get(named[1]!) ?? named[2]).toBe(named[2]);
          deviceOfTask.set(named[1]!, named[2]!);
        }
        const live = new Map(described.devices.map(({ bdf }) => [bdf, new Map<number, number>()]));
        for (const line of lines) {
          const event =
            /^\s*(\S+)\s.*: (map|unmap): +IOMMU: iova=(0x[0-9a-f]+) - (0x[0-9a-f]+)(?: paddr=(0x[0-9a-f]+))?/.exec(
              line,
            );
          if (!event) continue;
          const pages = live.get(deviceOfTask.get(event[1]!) ?? described.devices[0]!.bdf)!;
          const start = pageOf(event[3]!);
          for (let i = 0; start + i < pageOf(event[4]!); i++)
            if (event[2] === "map") {
              expect(pages.has(start + i)).toBe(false);
              pages.set(start + i, pageOf(event[5]!) + i);
            } else expect(pages.delete(start + i)).toBe(true);
        }
        for (const { bdf } of described.devices)
          expect(ascending(pagesOf(deviceOf(unit, bdf).space!.mappings))).toEqual(ascending(live.get(bdf)!));
      });

    test("the mode is recognised without the register's mode bits", () => {
      const { rootTable } = unit;
      expect(readUnitTables(snapshot, { root: BigInt(rootTable) << 12n })).toEqual(unit);
    });

    test("with any bytes changed or cut off it gives an answer or says where it is damaged", () =>
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.nat(scene.bytes.length - 1), fc.nat(255)), { maxLength: 40 }),
          fc.nat(scene.bytes.length),
          fc.boolean(),
          (changes, length, cut) => {
            const bytes = scene.bytes.slice(0, cut ? length : undefined);
            for (const [offset, value] of changes) if (offset < bytes.length) bytes[offset] = value;
            try {
              readUnitTables(Snapshot.parse(bytes), { root: BigInt(described.registers.rtaddr) });
            } catch (error) {
              expect(error).toBeInstanceOf(DmaError);
            }
          },
        ),
        { numRuns: 100 },
      ));
  });
