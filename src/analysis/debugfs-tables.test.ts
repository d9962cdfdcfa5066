/** Page tables from the text of the Intel IOMMU's debugfs, line by line. */
import { describe, expect, test } from "vitest";
import { looksLikeDebugfsTables, readDebugfsTables } from "./debugfs-tables.ts";

const word = (value: bigint): string => `0x${value.toString(16).padStart(16, "0")}`;
const line = (page: number, ...path: bigint[]): string =>
  `0x${page.toString(16).padStart(13, "0")} |\t${path.map(word).join("\t")}`;
const HEAD = "IOVA_PFN         \tPML5E             \tPML4E             \tPDPE              \tPDE               \tPTE";

describe("domain_translation_struct", () => {
  test("has large pages, read-only pages, and 3, 4 or 5 levels", () => {
    const text = [
      "Device 0000:00:04.0 @0x1000",
      HEAD,
      line(0x200, 0n, 0x2003n, 0x3003n, 0x4000_0083n),
      line(0x400, 0n, 0x2003n, 0x3003n, 0x4003n, 0x7000_0001n),
      "",
      "Device 0000:00:05.0 with pasid 1f @0x9000",
      HEAD,
      line(0x1, 0xa003n, 0xb003n, 0xc003n, 0xd003n, 0x5000_0003n),
    ].join("\n");
    const { devices, mode, rootTable } = readDebugfsTables(text);
    expect({ mode, rootTable }).toEqual({ mode: "legacy", rootTable: 0 });
    expect(devices.map(({ bdf, pasid, levels }) => [bdf, pasid, levels])).toEqual([
      ["0000:00:04.0", undefined, 4],
      ["0000:00:05.0", 0x1f, 5],
    ]);
    expect(devices[0]!.space!.mappings).toMatchObject([
      { iova: 0x200, phys: 0x40000, pages: 512, leafPages: 512, prot: 3 },
      { iova: 0x400, phys: 0x70000, pages: 1, prot: 1 },
    ]);
  });

  test("of a first stage is known by the user bit, as Linux sets it", () => {
    const text = `Device 0000:00:04.0 @0x1000\n${line(0x400, 0n, 0x2027n, 0x3027n, 0x4027n, 0x8000_0000_7000_0067n)}`;
    expect(readDebugfsTables(text).devices[0]).toMatchObject({ mode: "first-stage" });
    expect(readDebugfsTables(text).devices[0]!.space!.mappings).toMatchObject([{ iova: 0x400, phys: 0x70000 }]);
  });

  test("of a device that maps nothing has no mappings, and is there", () => {
    const { devices } = readDebugfsTables(`Device 0000:00:04.0 @0x1000\n${HEAD}\n`);
    expect(devices[0]!.space!.mappings).toEqual([]);
  });
});

describe("dmar_translation_struct", () => {
  const entry = (bdf: string, context: string, rest: string): string =>
    `${bdf}\t${word(0n)}:${word(0x5001n)}\t${context}\t${rest}`;
  const legacy = (low: bigint): string => `${word(0x0102n)}:${word(low)}`;

  test("says the mode of each device: by tables, passed through, refused; in scalable mode by PASID", () => {
    const none = `-1    \t${word(0n)}:${word(0n)}:${word(0n)}`;
    const text = [
      "IOMMU dmar0: Root Table Address: 0x123000",
      "B.D.F\tRoot_entry\t\t\t\tContext_entry\t\t\t\tPASID\tPASID_table_entry",
      entry("00:01.0", legacy(0x9001n), none),
      entry("00:02.0", legacy(0x9009n), none),
      entry("00:03.0", legacy(0x900dn), none),
      entry("00:04.0", legacy(0x7001n), `0     \t${word(0n)}:${word(0x5n)}:${word(0x8000n + 0x89n)}`),
    ].join("\n");
    const { devices, rootTable } = readDebugfsTables(text);
    expect(rootTable).toBe(0x123);
    expect(devices.map(({ bdf, mode }) => `${bdf} ${mode}`)).toEqual([
      "0000:00:01.0 legacy second-stage",
      "0000:00:02.0 legacy pass-through",
      "0000:00:03.0 legacy reserved",
      "0000:00:04.0 scalable second-stage",
    ]);
    expect(devices[3]).toMatchObject({ pasid: 0, domainId: 5, tablesAt: 8 });
    expect(devices[2]!.problems.join()).toContain("requests are refused");
  });
});

describe("other text", () => {
  test("is no such file, and a line that is none is named", () => {
    expect(looksLikeDebugfsTables("hello")).toBe(false);
    expect(looksLikeDebugfsTables("IOMMU dmar0: Root Table Address: 0xde0000\n")).toBe(true);
    expect(() => readDebugfsTables("Device 0000:00:04.0 @0x1000\nhello\n")).toThrow(/line 2/);
    expect(() => readDebugfsTables("Device 0000:00:04.0 @0x1000\n", "0000:00:09.0")).toThrow(/0000:00:04\.0/);
  });
});
