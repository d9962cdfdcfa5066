/** Cases from the field: the right answer to each. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  type CheckResult,
  checkTrace,
  type Finding,
  groupDumps,
  parseDmaDump,
  readDebugfsTables,
  readDmaDump,
} from "../../src/analysis/index.ts";
import { bytesInput, KernelLogTrace, looksLikeKernelLog, openTrace } from "../../src/trace/index.ts";

const FOLDER = join(import.meta.dirname, "cases");

const bytesOf = (file: string): Uint8Array =>
  existsSync(join(FOLDER, file))
    ? readFileSync(join(FOLDER, file))
    : gunzipSync(readFileSync(join(FOLDER, `${file}.gz`)));
const textOf = (file: string): string => new TextDecoder().decode(bytesOf(file));

async function resultOf(file: string, options: Parameters<typeof checkTrace>[1] = {}): Promise<CheckResult> {
  const bytes = bytesOf(file);
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    yield bytes;
  };
  const isLog = looksLikeKernelLog(bytes) !== "no";
  const trace = isLog ? new KernelLogTrace(chunks(), 4096) : await openTrace(bytesInput(file, bytes));
  return checkTrace(trace, options);
}

const findingsOf = async (file: string): Promise<readonly Finding[]> =>
  (await resultOf(file)).findings.filter(({ severity }) => severity === "error");

describe("faults in a trace", () => {
  test("a device reads what was mapped for it to write", async () => {
    expect(await findingsOf("07b-wrong-direction-io-page-fault.txt")).toMatchObject([
      {
        rule: "device-fault",
        device: "0000:06:00.0",
        confidence: "certain",
        fault: { access: "read", count: 1, address: 0xfff8e000n, source: "io_page_fault" },
        mapping: {
          relation: "live",
          cause: "wrong-direction",
          iova: 0xfff8e000,
          direction: 2,
          mappedBy: "avb_daemon-1422",
        },
      },
    ]);
  });

  test("a device uses what was unmapped 1.6 ms before", async () => {
    const [finding, ...others] = await findingsOf("11-use-after-unmap.txt");
    expect(others).toEqual([]);
    expect(finding).toMatchObject({
      device: "1c170000.video-codec",
      fault: { access: "write", address: 0xf0034a00n },
      mapping: {
        relation: "ended",
        iova: 0xf0030000,
        lengthBytes: 65536,
        mappedBy: "gst-launch-1.0-933",
        endedBy: "gst-launch-1.0-933",
      },
    });
    expect(finding!.message).toContain("unmapped 1.61 ms before by gst-launch-1.0-933");
  });

  test("200 faults at address 0 are one finding", async () => {
    expect(await findingsOf("12-flood-at-zero.txt")).toMatchObject([
      {
        device: "0000:00:12.0",
        fault: { access: "write", address: 0n, count: 200 },
        mapping: { relation: "never", cause: "no-address" },
      },
    ]);
  });
});

describe("faults in a kernel's log", () => {
  test.each([
    ["09-amdgpu-dmesg.txt", "0000:05:00.0", "write", 0xfffffff0c0n, 5],
    ["59-journalctl.txt", "0000:00:04.0", "write", 0xffe31000n, 1],
    ["61-smmuv3-dmesg.txt", "stream 0x400 of 70c00000.iommu", "write", 0xff3cf000n, 1],
    ["62-smmuv2-dmesg.txt", "stream 0x19c3 of 15000000.iommu", "read", 0xfd7ff000n, 1],
  ])(
    "%s: who, what, which address, how often, and what to record next",
    async (file, device, access, address, count) => {
      const found = await findingsOf(file);
      expect(found).toMatchObject([
        { rule: "device-fault", device, fault: { access, address, count, source: "kernel-log" } },
      ]);
      expect(found[0]!.advice).toContain("--kernel-log");
    },
  );

  test("the SMMU's words are decoded", async () => {
    for (const file of ["61-smmuv3-dmesg.txt", "62-smmuv2-dmesg.txt"])
      expect((await findingsOf(file))[0]!.fault!.reason).toContain("translation fault");
  });
});

describe("misuse in a trace", () => {
  test("a piece of 512 KiB can never be bounced", async () => {
    const [finding, ...others] = await findingsOf("05-swiotlb-piece-too-large.txt");
    expect(others).toEqual([]);
    expect(finding).toMatchObject({ rule: "bounce-pool-full", length: 512 * 1024 });
    expect(finding!.message).toContain("larger than 256 KiB");
  });

  test("an attribute that no catalogue has leaves the rest of the file read", async () => {
    const found = await findingsOf("25-attribute-of-a-newer-kernel.txt");
    expect(found.map(({ rule, iova }) => [rule, iova])).toEqual([
      ["leak", 0xfffe_b000],
      ["size-mismatch", 0xfff0_3000],
    ]);
  });

  test("failed allocations are counted with their sizes, and nothing of them is live", async () => {
    const { failed, mappings, liveAtEnd, findings } = await resultOf("26-allocation-failed.txt");
    expect({ failed, mappings, liveAtEnd }).toEqual({ failed: 12, mappings: 1, liveAtEnd: 0 });
    expect(findings.map(({ message }) => message)).toEqual([
      expect.stringContaining("6 allocations of 4 MiB"),
      expect.stringContaining("6 allocations of 2 MiB"),
    ]);
  });

  test("freeing nothing is allowed", async () => {
    expect((await resultOf("27-free-of-null.txt")).findings).toEqual([]);
  });

  test("map and unmap without an end address: one page of a row stays", async () => {
    expect(await findingsOf("29-iommu-map-up-to-5.15.txt")).toMatchObject([
      { rule: "leak", iova: 0x11_1000, length: 4096 },
    ]);
  });

  test("addresses at the top of 64 bits are addresses", async () => {
    const found = await findingsOf("40-addresses-above-2-53.txt");
    expect(found.map(({ rule }) => rule).sort()).toEqual(["leak", "size-mismatch"]);
  });

  test("a list is unmapped with fewer entries", async () => {
    expect(await findingsOf("43-unmap-sg-fewer-entries.txt")).toMatchObject([
      { rule: "entry-count", device: "0000:00:1f.2" },
    ]);
  });

  test("a sync goes beyond its mapping, and one comes after the unmap", async () => {
    expect(await findingsOf("66-sync-outside.txt")).toMatchObject([
      { rule: "sync-outside", iova: 0xffd0_4000, length: 4096 },
      { rule: "sync-outside", iova: 0xffd0_7000, length: 1024 },
    ]);
  });

  test("coherent memory is ended by a page's unmap", async () => {
    expect(await findingsOf("69-wrong-function.txt")).toMatchObject([{ rule: "wrong-function", iova: 0xffa0_6000 }]);
  });

  test("the finding names the code that mapped", async () => {
    const [finding] = await findingsOf("90-stacktrace-leak.txt");
    expect(finding!.caller).toMatch(/^nvme_prep_rq ← nvme_queue_rq/);
    expect(finding!.message).toContain("by nvme_prep_rq ← nvme_queue_rq");
  });
});

describe("lists of live mappings", () => {
  const [before, after] = ["14-sdhi-dump-before.txt", "14-sdhi-dump-after.txt"];

  test("alone say what is live, two of them what came: three scatterlists of one device", () => {
    expect(groupDumps(readDmaDump(textOf(after)))).toMatchObject([{ device: "ee140000.sd", after: { count: 5 } }]);
    const [group, ...others] = groupDumps(readDmaDump(textOf(after)), readDmaDump(textOf(before)));
    expect(others).toEqual([]);
    expect(group).toMatchObject({
      device: "ee140000.sd",
      driver: "renesas_sdhi_internal_dmac",
      type: "scatter-gather",
      before: { count: 2 },
      after: { count: 5 },
    });
    expect([group!.came.length, group!.went.length]).toEqual([3, 0]);
  });

  test("beside a trace are what was mapped at its start", async () => {
    const start = parseDmaDump(textOf(before));
    const { findings, unknownStart } = await resultOf("14-sdhi-trace.txt", { start });
    expect(findings.filter(({ severity }) => severity === "error")).toEqual([]);
    expect(unknownStart).toBe(0);
  });
});

describe("page tables as debugfs prints them", () => {
  const [contexts, pages] = ["101-dmar-translation-struct.txt", "101-domain-translation-struct.txt"];

  test("of one device: every page, put together to tables", () => {
    const { devices, tablePages } = readDebugfsTables(textOf(pages));
    expect(tablePages).toBe(4);
    expect(devices).toMatchObject([{ bdf: "0000:00:04.0", mode: "second-stage", levels: 4 }]);
    const mappings = devices[0]!.space!.mappings;
    expect(mappings.reduce((sum, one) => sum + one.pages, 0)).toBe(44);
    expect(mappings[0]).toMatchObject({ iova: 0xfffc0, phys: 0x77328, pages: 16, prot: 3 });
  });

  test("of a unit: devices, domains and where their tables lie; with the other file, what they map", () => {
    const alone = readDebugfsTables(textOf(contexts));
    expect(alone).toMatchObject({ mode: "legacy", rootTable: 0xde0 });
    expect(alone.devices).toHaveLength(10);
    expect(alone.devices[1]).toMatchObject({ bdf: "0000:00:04.0", domainId: 3, levels: 4, tablesAt: 0xdee });
    const both = readDebugfsTables(textOf(contexts) + textOf(pages));
    expect(both.devices).toHaveLength(10);
    expect(both.devices[1]!.space?.mappings[0]).toMatchObject({ iova: 0xfffc0 });
  });
});
