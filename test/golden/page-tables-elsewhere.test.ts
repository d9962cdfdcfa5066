/** Page tables that are no VT-d snapshot: an SMMUv3's, and what debugfs prints of a VT-d unit, held against other witnesses. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { type Mapping, readDebugfsTables, readSmmuTables, readUnitTables, Snapshot } from "../../src/analysis/index.ts";

const SMMU = join(import.meta.dirname, "smmu");
const SNAPSHOTS = join(import.meta.dirname, "snapshots");
const unpacked = (folder: string, file: string): Uint8Array =>
  new Uint8Array(gunzipSync(readFileSync(join(folder, file))));
const textOf = (file: string): string => new TextDecoder().decode(unpacked(SNAPSHOTS, file));

interface Leaf {
  readonly iova: string;
  readonly phys: string;
  readonly size: number;
  readonly read: boolean;
  readonly write: boolean;
}

describe("an SMMUv3", () => {
  const truth = JSON.parse(readFileSync(join(SMMU, "arm64-tables-inflight.json"), "utf8")) as {
    registers: { strtabBase: string; strtabBaseCfg: string };
    devices: { bdf: string; streamId: string; asid: number; leaves: Leaf[] }[];
  };
  const registers = {
    strtabBase: BigInt(truth.registers.strtabBase),
    strtabBaseCfg: BigInt(truth.registers.strtabBaseCfg),
  };
  const read = (device?: { segment: number; bus: number; function: number }) =>
    readSmmuTables(Snapshot.parse(unpacked(SMMU, "arm64-tables-inflight.snap.gz")), registers, device);

  test("is followed from its registers down to every page of each stream", () => {
    const { devices } = read();
    for (const { bdf, streamId, leaves } of truth.devices) {
      const own = devices.find((device) => device.bdf === bdf)!;
      expect(own).toMatchObject({ mode: "SMMUv3 stage 1", stream: Number(streamId), levels: 4 });
      expect(pagesOf(own.space!.mappings)).toEqual(
        leaves.map(({ iova, phys, read: r, write: w }) => [Number(iova) / 4096, Number(phys) / 4096, r, w]),
      );
    }
  });

  test("says of other streams that their tables are not there, and refuses a device that has none", () => {
    const others = read().devices.filter(({ bdf }) => !truth.devices.some((device) => device.bdf === bdf));
    for (const { missing, space } of others) expect(missing.length + (space?.missing.length ?? 0)).toBeGreaterThan(0);
    expect(() => read({ segment: 0, bus: 1, function: 0 })).toThrow(/0000:01:00\.0/);
  });
});

describe("debugfs", () => {
  const names = readdirSync(SNAPSHOTS).filter((file) => file.endsWith(".debugfs.txt.gz"));

  test.each(names)("%s maps what the snapshot of the same moment does, and is of the same domain", (file) => {
    const [name] = file.split(".");
    const bdf = file.split(".")[1]!.replace("-", ":").replace("-", ":").concat(".", file.split(".")[2]!);
    const { registers } = JSON.parse(readFileSync(join(SNAPSHOTS, `${name}.json`), "utf8")) as {
      registers: { rtaddr: string };
    };
    const snapshot = Snapshot.parse(unpacked(SNAPSHOTS, `${name}.snap.gz`));
    const unit = readUnitTables(snapshot, { root: BigInt(registers.rtaddr), isRegister: true });
    const own = unit.devices.find((device) => device.bdf === bdf && device.space)!;
    const printed = readDebugfsTables(textOf(`${name}.dmar.txt.gz`) + textOf(file)).devices.find(
      (device) => device.bdf === bdf,
    )!;
    expect(pagesOf(printed.space!.mappings)).toEqual(pagesOf(own.space!.mappings));
    expect([printed.mode, printed.domainId, printed.levels]).toEqual([own.mode, own.domainId, own.levels]);
    expect(printed.space!.tablePages).toBe(own.space!.tablePages);
  });
});

/** Page by page. */
const pagesOf = (mappings: readonly Mapping[]): unknown[] =>
  mappings.flatMap(({ iova, phys, pages, prot }) =>
    Array.from({ length: pages }, (_, i) => [iova + i, phys + i, (prot & 1) !== 0, (prot & 2) !== 0]),
  );
