/** Cases from the field: the right answer to each. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkTrace, type Finding } from "../../src/analysis/index.ts";
import { bytesInput, KernelLogTrace, looksLikeKernelLog, openTrace } from "../../src/trace/index.ts";

const FOLDER = join(import.meta.dirname, "cases");

async function findingsOf(file: string): Promise<readonly Finding[]> {
  const bytes = readFileSync(join(FOLDER, file));
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    yield bytes;
  };
  const isLog = looksLikeKernelLog(bytes) !== "no";
  const trace = isLog ? new KernelLogTrace(chunks(), 4096) : await openTrace(bytesInput(file, bytes));
  return (await checkTrace(trace)).findings.filter(({ severity }) => severity === "error");
}

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
