/** Every golden file, every line, by the same runner as `npm run golden`. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, test } from "vitest";
import { goldenFiles, isClean, judgeFile } from "./runner.ts";

/** Folder, what it judges, and how many files must be there. */
const FOLDERS = [
  ["iova", "IOVA allocation, caches and flush queue", 29],
  ["pagetable", "page tables, leaf sizes and Arm geometry", 46],
  ["invalidation", "invalidation commands of VT-d, AMD and Arm", 3],
  ["dma-api", "permissions, the DMA layer, and the running kernel's DMA API", 92],
  ["nvme", "NVMe requests to PRPs and SGLs", 1],
  ["dmabuf", "shared buffers: heaps, user memory, VFIO, peers, importers", 14],
  ["hmm", "processes, HMM and its DMA map", 12],
  ["umem", "user memory of RDMA devices, and its page sizes", 6],
  ["tsm", "security managers of PCI devices", 1],
  ["iommufd", "iommufd: /dev/iommu, by its bytes", 22],
  ["type1", "VFIO: containers, groups, device files", 8],
  ["vfio-mig", "VFIO migration: states, streams, feature calls, logs of writes", 6],
] as const;

for (const [folder, subject, count] of FOLDERS)
  describe(`${subject}: the kernel's answers`, () => {
    const files = goldenFiles(join(import.meta.dirname, folder));
    test(`all ${count} files are here`, () => expect(files).toHaveLength(count));
    for (const file of files)
      test(basename(file, ".jsonl.gz"), { timeout: 120_000 }, async () => {
        const { verdict, failure, pending } = await judgeFile(file);
        expect([failure, pending, verdict?.difference]).toEqual([undefined, undefined, undefined]);
        expect(verdict?.operations).toBeGreaterThan(0);
        expect(verdict?.passed).toBe(verdict?.operations);
        expect(verdict?.notJudged).toEqual({});
      });
  });

describe("the golden runner", () => {
  const folder = mkdtempSync(join(tmpdir(), "dmalink-golden-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const file = (name: string, lines: object[]): string => {
    const path = join(folder, `${name}.jsonl.gz`);
    writeFileSync(path, gzipSync(`${lines.map((line) => JSON.stringify(line)).join("\n")}\n`));
    return path;
  };

  test("an unknown kind is a failure, never skipped", async () => {
    const result = await judgeFile(file("unknown", [{ kind: "astrology", source: "", what: "" }]));
    expect(result.failure).toContain('"astrology"');
    expect(isClean(result)).toBe(false);
  });

  test("a kind that is not built yet is pending, with its subject said", async () => {
    const result = await judgeFile(file("pending", [{ kind: "tides", source: "", what: "" }]), { tides: "the moon" });
    expect(result.pending).toBe("the moon");
    expect(isClean(result)).toBe(true);
  });

  test("a wrong answer is a difference, with its line", async () => {
    const header = { kind: "dma-prot", source: "", what: "" };
    const line = { dir: "TO_DEVICE", coherent: true, attr: "", prot: "W" };
    const result = await judgeFile(file("wrong", [header, line]));
    expect(result.verdict?.difference?.line).toBe(2);
    expect(isClean(result)).toBe(false);
  });

  test("a file that is damaged is a failure", async () => {
    const path = join(folder, "damaged.jsonl.gz");
    writeFileSync(path, "not gzip");
    expect(isClean(await judgeFile(path))).toBe(false);
  });
});
