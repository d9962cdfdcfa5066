/** A device's fault, however it is told: whose the address was. */
import { describe, expect, test } from "vitest";
import { KernelLogTrace } from "../../trace/index.ts";

import type { CheckOptions } from "../check-trace.ts";
import { type KernelLog, readKernelLog } from "../faults/log-beside.ts";
import type { Finding } from "./finding.ts";
import { DISK, NIC, SampleTrace } from "./sample-trace.ts";

const CODEC = "1c170000.video-codec";

type Access = "read" | "write";
/** Adds the lines that tell of one fault to a trace. */
type Telling = (trace: SampleTrace, device: string, address: number, access: Access) => SampleTrace;

const hex = (address: number): string => `0x${address.toString(16)}`;
const hex16 = (address: number): string => address.toString(16).padStart(16, "0");
const bdf = (device: string): string => device.slice(5);
const console = (trace: SampleTrace, ...lines: readonly string[]): SampleTrace => {
  for (const line of lines) trace.event("console", line);
  return trace;
};
const vtd = (access: Access): { way: string; code: string; words: string } => ({
  way: access === "read" ? "Read" : "Write",
  code: access === "read" ? "06" : "05",
  words: access === "read" ? "PTE Read access is not set" : "PTE Write access is not set",
});
const rid = (device: string): number =>
  Number.parseInt(device.slice(5, 7), 16) * 256 + Number.parseInt(device.slice(8, 10), 16) * 8 + Number(device.at(-1));

/** Every way in which a PCI device's fault is told; `page`: only its page is. */
const TELLINGS: readonly (readonly [string, Telling])[] = [
  [
    "io_page_fault",
    (trace, device, address, access) =>
      trace.event(
        "io_page_fault",
        `IOMMU:drv ${device} iova=0x${hex16(address)} flags=${access === "read" ? "0x0000" : "0x0001"}`,
      ),
  ],
  [
    "VT-d of 7.2",
    (trace, device, address, access) => {
      const { way, code, words } = vtd(access);
      return console(
        trace,
        "DMAR: DRHD: handling fault status reg 2",
        `DMAR: [DMA ${way} NO_PASID] Request device [${device}] fault addr ${hex(address - (address % 4096))} [fault reason 0x${code}] ${words}`,
      );
    },
  ],
  [
    "VT-d of 5.13",
    (trace, device, address, access) => {
      const { way, code, words } = vtd(access);
      return console(
        trace,
        `DMAR: [DMA ${way} NO_PASID] Request device [0x${device.slice(5, 7)}:0x${device.slice(8)}] fault addr ${hex(address - (address % 4096))} [fault reason 0x${code}] ${words}`,
      );
    },
  ],
  [
    "VT-d of 4.20",
    (trace, device, address, access) => {
      const { way, code, words } = vtd(access);
      return console(
        trace,
        `DMAR: [DMA ${way}] Request device [${bdf(device)}] PASID ffffffff fault addr ${(address - (address % 4096)).toString(16)} [fault reason ${code}] ${words}`,
      );
    },
  ],
  [
    "VT-d of 3.x, in two lines",
    (trace, device, address, access) => {
      const { way, code, words } = vtd(access);
      return console(
        trace,
        `dmar: DMAR:[DMA ${way}] Request device [${bdf(device)}] fault addr ${(address - (address % 4096)).toString(16)} `,
        `DMAR:[fault reason ${code}] ${words}`,
      );
    },
  ],
  [
    "AMD with the device in front",
    (trace, device, address, access) =>
      console(
        trace,
        `drv ${device}: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c address=${hex(address)} flags=${access === "read" ? "0x0050" : "0x0070"}]`,
      ),
  ],
  [
    "AMD with the device inside",
    (trace, device, address, access) =>
      console(
        trace,
        `AMD-Vi: Event logged [IO_PAGE_FAULT device=${bdf(device)} domain=0x000c address=${hex(address)} flags=${access === "read" ? "0x0050" : "0x0070"}]`,
      ),
  ],
  [
    "AMD in two lines",
    (trace, device, address, access) =>
      console(
        trace,
        "AMD-Vi: Event logged [",
        `IO_PAGE_FAULT device=${bdf(device)} domain=0x000c address=0x${hex16(address)} flags=${access === "read" ? "0x0050" : "0x0070"}]`,
      ),
  ],
  [
    "SMMUv3 with its decoded lines",
    (trace, device, address, access) =>
      console(
        trace,
        "arm-smmu-v3 9050000.smmuv3: event 0x13 received:",
        `arm-smmu-v3 9050000.smmuv3: \t0x${rid(device).toString(16).padStart(8, "0")}00000013`,
        `arm-smmu-v3 9050000.smmuv3: \t0x${access === "read" ? "0000000800000000" : "0000000000000000"}`,
        `arm-smmu-v3 9050000.smmuv3: \t0x${hex16(address)}`,
        "arm-smmu-v3 9050000.smmuv3: \t0x0000000000000000",
        `arm-smmu-v3 9050000.smmuv3: event: F_PERMISSION client: ${device} sid: ${hex(rid(device))} ssid: 0x0 iova: ${hex(address)} ipa: 0x0`,
        `arm-smmu-v3 9050000.smmuv3: unpriv data ${access} s1 "Input address caused fault" stag: 0x0`,
      ),
  ],
  [
    "SMMUv3 of raw words alone",
    (trace, device, address, access) =>
      console(
        trace,
        "arm-smmu-v3 70c00000.iommu: event 0x13 received:",
        `arm-smmu-v3 70c00000.iommu: \t0x${rid(device).toString(16).padStart(8, "0")}00000013`,
        `arm-smmu-v3 70c00000.iommu: \t0x${access === "read" ? "0000000800000000" : "0000000000000000"}`,
        `arm-smmu-v3 70c00000.iommu: \t0x${hex16(address)}`,
        "arm-smmu-v3 70c00000.iommu: \t0x0000000000000000",
      ),
  ],
  [
    "SMMUv2",
    (trace, device, address, access) =>
      console(
        trace,
        `arm-smmu 15000000.iommu: Unhandled context fault: fsr=0x408, iova=${hex(address)}, fsynr=${access === "read" ? "0x540003" : "0x540013"}, cbfrsynra=${hex(rid(device))}, cb=10`,
      ),
  ],
  [
    "virtio-iommu",
    (trace, device, address, access) =>
      console(
        trace,
        `virtio_iommu virtio0: page fault from EP ${rid(device)} at ${hex(address)} [${access === "read" ? "R" : "W"}]`,
      ),
  ],
];

const faults = async (trace: SampleTrace, options: CheckOptions = {}): Promise<readonly Finding[]> =>
  trace.findings("device-fault", options);

describe.each(TELLINGS)("a fault told by %s", (_, tell) => {
  test("of a live mapping in the wrong direction", async () => {
    const read = new SampleTrace().map(DISK, 0xfffe1000, 0x8000, 2048, "FROM_DEVICE").wait(10_000);
    expect(await faults(tell(read, DISK, 0xfffe1000, "read"))).toMatchObject([
      {
        severity: "error",
        device: DISK,
        fault: { access: "read", count: 1 },
        mapping: { relation: "live", cause: "wrong-direction", iova: 0xfffe1000, direction: 2, endedNs: undefined },
      },
    ]);
    const write = new SampleTrace().map(DISK, 0xfffe1000, 0x8000, 2048, "TO_DEVICE").wait(10_000);
    expect(await faults(tell(write, DISK, 0xfffe1000, "write"))).toMatchObject([
      { device: DISK, fault: { access: "write" }, mapping: { relation: "live", cause: "wrong-direction" } },
    ]);
  });

  test("of a mapping that has ended, by whom and when", async () => {
    const trace = new SampleTrace()
      .map(DISK, 0xfffe1000, 0x8000, 4096)
      .wait(1000)
      .on(1, "closer-7")
      .unmap(DISK, 0xfffe1000, 4096)
      .wait(1600);
    const found = await faults(tell(trace, DISK, 0xfffe1000, "write"));
    expect(found).toMatchObject([
      {
        device: DISK,
        mapping: {
          relation: "ended",
          cause: "used-after-unmap",
          iova: 0xfffe1000,
          mappedBy: "test-1",
          endedBy: "closer-7",
        },
      },
    ]);
    expect(found[0]!.evidence.map(({ what }) => what)).toEqual(["mapped", "unmapped", "fault"]);
    expect(found[0]!.message).toContain("by closer-7");
  });

  test("behind a mapping", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffe1800, 0x8800, 2048).wait(100);
    expect(await faults(tell(trace, DISK, 0xfffe2000, "write"))).toMatchObject([
      { mapping: { relation: "near", cause: "past-the-end", iova: 0xfffe1800, distanceBytes: 0, side: "behind" } },
    ]);
  });

  test("of an address that lost its upper bits", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffff000, 0x8000, 512).wait(100);
    expect(await faults(tell(trace, DISK, 0x0ffff000, "write"))).toMatchObject([
      { mapping: { relation: "cut", cause: "address-cut", iova: 0xfffff000, bits: 28 } },
    ]);
  });

  test("of an address that was never mapped, and of 0", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffff000, 0x8000, 512).wait(100);
    expect(await faults(tell(trace, DISK, 0x5432_1000, "write"))).toMatchObject([
      { fault: { address: 0x5432_1000n }, mapping: { relation: "never", cause: "unexplained", iova: undefined } },
    ]);
    const zero = new SampleTrace().map(DISK, 0xfffff000, 0x8000, 512).wait(100);
    for (let i = 0; i < 50; i++) tell(zero.wait(300), DISK, 0, "write");
    expect(await faults(zero)).toMatchObject([
      { fault: { address: 0n, count: 50 }, mapping: { relation: "never", cause: "no-address" } },
    ]);
  });

  test("of a device that maps nothing, at an address of another's", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffff000, 0x8000, 512).map(NIC, 0xffff0000, 0x9000, 512).wait(100);
    tell(trace, "0000:00:1f.6", 0xffff0000, "write");
    // Told by a number that no device of the recording has, it is joined by the address alone; else it is not the device's own.
    expect(await faults(trace)).toMatchObject([{ mapping: { device: NIC, iova: 0xffff0000 } }]);
  });
});

describe("a device without a requester id", () => {
  test.each([
    ["io_page_fault", "io_page_fault", `IOMMU:codec ${CODEC} iova=0x00000000f0034a00 flags=0x0001`],
    ["exynos", "console", `exynos-sysmmu 11200000.sysmmu: ${CODEC}: [WRITE] PAGE FAULT occurred at 0xf0034a00`],
    [
      "tegra",
      "console",
      `tegra-mc 70019000.memory-controller: ${CODEC}: write @0xf0034a00: EMEM address decode error (SMMU translation error [--S])`,
    ],
  ])("by name: %s", async (_, event, payload) => {
    const trace = new SampleTrace()
      .map(CODEC, 0xf0030000, 0x88000000, 65536)
      .wait(1000)
      .unmap(CODEC, 0xf0030000, 65536)
      .wait(1600);
    expect(await faults(trace.event(event, payload))).toMatchObject([
      {
        device: CODEC,
        fault: { access: "write", address: 0xf0034a00n },
        mapping: { relation: "ended", lengthBytes: 65536 },
      },
    ]);
  });

  test.each([
    ["rockchip", "rk_iommu ff650800.iommu: Page fault at 0xf0034a00 of type write", "a device of ff650800.iommu"],
    [
      "mediatek",
      "mtk-iommu 10205000.iommu: fault type=0x5 iova=0xf0034a00 pa=0x0 master=0x70007(larb=0, port=1) layer=0 write",
      "stream 0x70007 of 10205000.iommu",
    ],
    [
      "SMMUv2",
      "arm-smmu 15000000.iommu: Unhandled context fault: fsr=0x402, iova=0xf0034a00, fsynr=0x10, cbfrsynra=0x19c3, cb=10",
      "stream 0x19c3 of 15000000.iommu",
    ],
  ])("not by name: joined with whoever had the address: %s", async (_, line, device) => {
    const trace = new SampleTrace()
      .map(CODEC, 0xf0030000, 0x88000000, 65536)
      .wait(1000)
      .unmap(CODEC, 0xf0030000, 65536)
      .wait(1600);
    expect(await faults(trace.event("console", line))).toMatchObject([
      { device, mapping: { relation: "ended", device: CODEC } },
    ]);
  });
});

describe("mappings that no event names a device for", () => {
  const fault = (trace: SampleTrace, address: number, entry?: string): SampleTrace => {
    trace.event(
      "console",
      `DMAR: [DMA Write NO_PASID] Request device [${DISK}] fault addr ${hex(address)} [fault reason 0x05] x`,
    );
    return entry === undefined ? trace : trace.event("console", `DMAR: pte level: 1, pte value: 0x${entry}`);
  };

  test("are live, have ended, or lie beside, of whoever made them", async () => {
    const trace = new SampleTrace().on(0, "vm-7").iommuMap(0xffff000, 0x8000, 4096).wait(300_000);
    fault(trace, 0xffff000, "0000000000008001").wait(300_000).iommuUnmap(0xffff000, 4096).wait(300_000);
    fault(trace, 0xffff000).wait(300_000).iommuMap(0xfff0000, 0x9000, 4096).wait(1000);
    fault(trace, 0xfff1000).wait(1000).iommuUnmap(0xfff0000, 4096);
    fault(trace, 0x345_6000);
    const found = await faults(trace);
    expect(found.map(({ mapping }) => [mapping!.relation, mapping!.mappedBy])).toEqual([
      ["live", "vm-7"],
      ["ended", "vm-7"],
      ["near", "vm-7"],
      ["never", undefined],
    ]);
    expect(found[0]!.message).toContain("it may not allow a write");
  });
});

test("an unmap that comes later, of nothing, does not make an address live", async () => {
  const trace = new SampleTrace()
    .map(DISK, 0xfffe1000, 0x8000, 4096)
    .wait(100)
    .unmap(DISK, 0xfffe1000, 4096)
    .wait(100_000);
  trace.event("io_page_fault", `IOMMU:drv ${DISK} iova=0x00000000fffe1000 flags=0x0001`).wait(100_000);
  expect(await faults(trace.unmap(DISK, 0xfffe1000, 4096))).toMatchObject([{ mapping: { relation: "ended" } }]);
  const never = new SampleTrace().map(DISK, 0xfffe1000, 0x8000, 4096);
  never.event("io_page_fault", `IOMMU:drv ${DISK} iova=0x0000000054321000 flags=0x0001`).wait(100);
  expect(await faults(never.unmapOnly(DISK, 0x5432_1000, 4096))).toMatchObject([{ mapping: { relation: "never" } }]);
});

describe("what is counted", () => {
  const io = (trace: SampleTrace, address: number, flags = 1): SampleTrace =>
    trace.event("io_page_fault", `IOMMU:drv ${DISK} iova=0x${hex16(address)} flags=0x000${flags}`);

  test("a fault that two sources tell is one", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffe1000, 0x8000, 4096, "TO_DEVICE").wait(100);
    for (let i = 0; i < 3; i++) {
      io(trace.wait(1000), 0xfffe1000);
      trace.event(
        "console",
        `drv ${DISK}: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c address=0xfffe1000 flags=0x0070]`,
      );
    }
    expect(await faults(trace)).toMatchObject([{ fault: { count: 3, source: "io_page_fault", writes: 3 } }]);
  });

  test("a stretch of addresses is one finding, with its first and last time", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffff000, 0x8000, 512);
    for (let i = 0; i < 30; i++) io(trace.wait(1000), 0x4000_0000 + i * 4096, i % 2);
    io(trace, 0x7000_0000);
    const [stretch, far, ...none] = await faults(trace);
    expect(none).toEqual([]);
    expect(stretch!.fault).toMatchObject({
      address: 0x4000_0000n,
      lengthBytes: 30 * 4096,
      count: 30,
      reads: 15,
      writes: 15,
    });
    expect(stretch!.fault!.lastNs! - stretch!.fault!.firstNs!).toBe(29 * 1_001_000);
    expect(far!.fault).toMatchObject({ address: 0x7000_0000n, count: 1 });
  });

  test("two causes at one address are two findings", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffe1000, 0x8000, 4096, "TO_DEVICE").wait(100);
    io(trace, 0xfffe1000).wait(100).unmap(DISK, 0xfffe1000, 4096, "TO_DEVICE").wait(300_000);
    io(trace, 0xfffe1000, 0);
    expect((await faults(trace)).map(({ mapping }) => mapping!.relation)).toEqual(["live", "ended"]);
  });

  test("a flood of many places stays bounded, and all of it is told", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffff000, 0x8000, 512);
    for (let i = 0; i < 1500; i++) io(trace, 0x10_0000_0000 + i * 0x1000_0000);
    const { findings, summary } = await trace.check({ rules: ["device-fault"] });
    expect(findings).toHaveLength(1000);
    expect(summary["device-fault"]).toBe(1001);
    expect(trace.text.split("io_page_fault").length - 1).toBe(1500);
  });

  test("lines that the kernel kept back are said", async () => {
    const trace = new SampleTrace().map(DISK, 0xfffff000, 0x8000, 512);
    trace.event("console", "dmar_fault: 375 callbacks suppressed");
    trace.event(
      "console",
      `DMAR: [DMA Write NO_PASID] Request device [${DISK}] fault addr 0x1000000 [fault reason 0x05] PTE Write access is not set`,
    );
    const result = await trace.check();
    expect(result.kernel.suppressed).toEqual({ dmar_fault: 375 });
    expect(result.findings[0]!.message).toContain("as far as the kernel printed it");
  });

  test("a line about an IOMMU's trouble that is not understood is shown", async () => {
    const trace = new SampleTrace()
      .map(DISK, 0xfffff000, 0x8000, 512)
      .event("console", "AMD-Vi: Completion-Wait loop timed out");
    expect((await trace.check()).kernel.unknown).toEqual({
      count: 1,
      first: [{ text: "AMD-Vi: Completion-Wait loop timed out", line: undefined }],
    });
  });
});

describe("a kernel log beside the trace", () => {
  const log = (text: string): Promise<KernelLog> => {
    const chunks = async function* (): AsyncGenerator<Uint8Array> {
      yield new TextEncoder().encode(text);
    };
    return readKernelLog(new KernelLogTrace(chunks(), 64));
  };
  const FAULT = `DMAR: [DMA Write NO_PASID] Request device [${DISK}] fault addr 0xfffe1000 [fault reason 0x05] PTE Write access is not set`;
  /** Mapped at 1.000 s, unmapped at 1.001 s, and again, to the device, from 2 s to 3 s. */
  const trace = (...lines: readonly string[]): SampleTrace => {
    const sample = new SampleTrace().map(DISK, 0xfffe1000, 0x8000, 4096).wait(998);
    sample.unmap(DISK, 0xfffe1000, 4096).wait(500_000);
    for (const line of lines) sample.event("console", line);
    return sample
      .wait(500_000)
      .map(DISK, 0xfffe1000, 0x8000, 4096, "TO_DEVICE")
      .wait(1_000_000)
      .unmap(DISK, 0xfffe1000, 4096, "TO_DEVICE");
  };

  test.each([
    ["dmesg", `[    0.600000] usb 1-1: new device\n[    0.900000] ${FAULT}\n`],
    ["dmesg -x", `kern  :info  : [    0.600000] usb 1-1: new device\nkern  :err   : [    0.900000] ${FAULT}\n`],
    [
      "journalctl -o short-monotonic",
      `[    0.600000] box kernel: usb 1-1: new device\n[    0.900000] box kernel: ${FAULT}\n`,
    ],
    [
      "journalctl -o short-iso-precise",
      `2023-10-25T12:25:45.600000+0200 box kernel: usb 1-1: new device\n2023-10-25T12:25:45.900000+0200 box kernel: ${FAULT}\n`,
    ],
    ["a console capture", `\r\n[    0.600000] usb 1-1: new device\r\n[    0.900000] ${FAULT}\r\n`],
  ])("is joined by time where a line is in both: %s", async (_, text) => {
    const kernelLog = await log(text);
    const { findings, kernel } = await trace("usb 1-1: new device").check({ rules: ["device-fault"], kernelLog });
    expect(kernel.clock).toMatchObject({ how: "found", lines: 1 });
    expect(findings).toMatchObject([
      { fault: { source: "kernel-log", count: 1 }, mapping: { relation: "ended", confidence: "certain" } },
    ]);
    expect(findings[0]!.evidence.at(-1)).toMatchObject({
      event: "kernel log",
      text: FAULT,
      line: text.startsWith("\r") ? 3 : 2,
    });
  });

  test.each([
    [0.6, "ended", "used-after-unmap"],
    [1.9, "live", "wrong-direction"],
  ])("is joined by the difference that is given: %d s", async (offsetS, relation, cause) => {
    const kernelLog = await log(`[    0.900000] ${FAULT}\n`);
    const { findings } = await trace().check({ rules: ["device-fault"], kernelLog, kernelLogOffsetNs: offsetS * 1e9 });
    expect(findings).toMatchObject([{ mapping: { relation, cause } }]);
  });

  test("without a line in both is joined by address alone, and says so", async () => {
    const kernelLog = await log(`[    0.900000] ${FAULT}\n`);
    const { findings, kernel } = await trace().check({ rules: ["device-fault"], kernelLog });
    expect(kernel.clock).toEqual({ how: "unknown" });
    expect(findings[0]!.message).toContain("cannot be compared");
    expect(findings[0]!.confidence).not.toBe("certain");
    expect(findings[0]!.mapping!.iova).toBe(0xfffe1000);
  });

  test("from before the recording is joined by address alone, and says so", async () => {
    const kernelLog = await log(`[    0.900000] ${FAULT}\n`);
    const { findings } = await trace().check({ rules: ["device-fault"], kernelLog, kernelLogOffsetNs: -60e9 });
    expect(findings[0]!.message).toContain("before the recording began");
  });

  test("counts what the trace tells itself once", async () => {
    const kernelLog = await log(`[    0.600000] ${FAULT}\n[    0.600400] ${FAULT}\n[   90.000000] ${FAULT}\n`);
    const sample = trace(FAULT, FAULT);
    const { findings, kernel } = await sample.check({ rules: ["device-fault"], kernelLog });
    expect(kernel.clock).toMatchObject({ how: "found" });
    expect(findings.reduce((sum, { fault }) => sum + fault!.count, 0)).toBe(3);
  });
});

describe("a log alone", () => {
  const alone = async (text: string): Promise<Finding[]> => {
    const chunks = async function* (): AsyncGenerator<Uint8Array> {
      yield new TextEncoder().encode(text);
    };
    const { checkTrace } = await import("../check-trace.ts");
    return [...(await checkTrace(new KernelLogTrace(chunks(), 64))).findings];
  };

  test.each([
    ["dmesg", "[  318.745242] "],
    ["journalctl", "Oct 25 12:25:45 box kernel: "],
    ["dmesg -T", "[Wed Oct 25 12:25:45 2023] "],
    ["no front at all", ""],
  ])("says who, what, where and how often, and what to record: %s", async (_, front) => {
    const line = (address: string): string =>
      `${front}amdgpu 0000:05:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000c address=${address} flags=0x0020]\n`;
    const found = await alone(line("0xfffffff0c0") + line("0xffffffe0c0") + line("0xfffffff7c0"));
    expect(found).toMatchObject([
      { rule: "device-fault", device: "0000:05:00.0", fault: { access: "write", count: 3, source: "kernel-log" } },
    ]);
    expect(found[0]!.mapping).toBeUndefined();
    expect(found[0]!.advice).toContain("dmalink record");
  });

  test("tells a wrong direction from the tables that the kernel printed", async () => {
    const found = await alone(
      "[    1.0] DMAR: [DMA Write NO_PASID] Request device [00:04.0] fault addr 0xffe31000 [fault reason 0x05] PTE Write access is not set\n[    1.1] DMAR: pte level: 1, pte value: 0x0000000003a09001\n",
    );
    expect(found[0]!.message).toContain("in the wrong direction");
  });
});
