/** What the kernel's sentences mean: every driver's, in every shape. */
import { describe, expect, test } from "vitest";
import type { IommuFault, KernelFact } from "./facts.ts";
import { KernelMessages } from "./messages.ts";

/** The facts of `lines`, in the order in which they are complete. */
function factsOf(lines: readonly string[]): KernelFact<number>[] {
  const facts: KernelFact<number>[] = [];
  const messages = new KernelMessages<number>((fact) => facts.push(fact));
  for (const [i, line] of lines.entries()) messages.push(line, i);
  messages.settle();
  return facts;
}

/** The one fault of `lines`. */
function faultOf(...lines: string[]): IommuFault<number> {
  const facts = factsOf(lines);
  expect(facts).toHaveLength(1);
  expect(facts[0]!.kind).toBe("fault");
  return facts[0] as IommuFault<number>;
}

const WRITE_5 = "[fault reason 0x05] PTE Write access is not set";

describe("VT-d", () => {
  test.each([
    [
      "7.2",
      `DMAR: [DMA Write NO_PASID] Request device [0000:00:06.0] fault addr 0xfffe000 ${WRITE_5}`,
      "0000:00:06.0",
      0xfffe000n,
      "write",
      5,
      undefined,
    ],
    [
      "7.2, another segment",
      `DMAR: [DMA Read NO_PASID] Request device [0001:3b:1f.7] fault addr 0x1000 [fault reason 0x06] PTE Read access is not set`,
      "0001:3b:1f.7",
      0x1000n,
      "read",
      6,
      undefined,
    ],
    [
      "7.2, with a PASID",
      `DMAR: [DMA Read PASID 0x2a] Request device [0000:00:06.0] fault addr 0x7f0000001000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear`,
      "0000:00:06.0",
      0x7f0000001000n,
      "read",
      0x71,
      0x2a,
    ],
    [
      "5.13",
      "DMAR: [DMA Read NO_PASID] Request device [0x00:0x02.0] fault addr 0x7fff0000 [fault reason 0x06] PTE Read access is not set",
      "0000:00:02.0",
      0x7fff0000n,
      "read",
      6,
      undefined,
    ],
    [
      "5.13, plain device",
      `DMAR: [DMA Write NO_PASID] Request device [00:04.0] fault addr 0xffe31000 ${WRITE_5}`,
      "0000:00:04.0",
      0xffe31000n,
      "write",
      5,
      undefined,
    ],
    [
      "4.20",
      "DMAR: [DMA Write] Request device [00:12.0] PASID ffffffff fault addr 0 [fault reason 05] PTE Write access is not set",
      "0000:00:12.0",
      0n,
      "write",
      5,
      undefined,
    ],
    [
      "4.2",
      "DMAR: [DMA Write] Request device [00:12.0] fault addr 0 [fault reason 05] PTE Write access is not set",
      "0000:00:12.0",
      0n,
      "write",
      5,
      undefined,
    ],
    [
      "4.2, a reason above 9",
      "DMAR: [DMA Read] Request device [03:00.1] fault addr ffe0d000 [fault reason 12] non-zero reserved fields in PTE",
      "0000:03:00.1",
      0xffe0d000n,
      "read",
      12,
      undefined,
    ],
    [
      "3.x",
      "dmar: DMAR:[DMA Read] Request device [02:00.0] fault addr ffe0d000 ",
      "0000:02:00.0",
      0xffe0d000n,
      "read",
      undefined,
      undefined,
    ],
  ])("as %s prints it", (_, line, device, address, access, reasonCode, pasid) => {
    expect(faultOf(line)).toMatchObject({ unit: "vtd", device, address, access, reasonCode, pasid });
  });

  test("takes the reason from a line of its own", () => {
    const fault = faultOf(
      "dmar: DRHD: handling fault status reg 3",
      "dmar: DMAR:[DMA Read] Request device [02:00.0] fault addr ffe0d000 ",
      "DMAR:[fault reason 06] PTE Read access is not set",
    );
    expect(fault).toMatchObject({ reasonCode: 6, reason: "no entry that allows a read" });
  });

  test.each([
    [
      "an absent page",
      ["DMAR: pte level: 2, pte value: 0x0000000079664403", "DMAR: pte level: 1, pte value: 0x0000000000000000"],
      "absent",
    ],
    [
      "an absent table",
      ["DMAR: pte level: 3, pte value: 0x0000000000000000", "DMAR: page table not present at level 2"],
      "absent",
    ],
    ["a read-only page", ["DMAR: pte level: 1, pte value: 0x0000000003a09001"], "read-only"],
    ["a write-only page", ["DMAR: pte level: 1, pte value: 0x0000000003a09002"], "write-only"],
    ["a large page", ["DMAR: pte level: 2, pte value: 0x0000000040000083"], "read-write"],
  ])("reads %s out of the walk behind it", (_, walk, entry) => {
    const line = `DMAR: [DMA Write NO_PASID] Request device [0000:00:06.0] fault addr 0xfffe000 ${WRITE_5}`;
    const head = ["DMAR: Dump dmar0 table entries for IOVA 0xfffe000", "DMAR: root entry: 0x0000000000e37001"];
    expect(faultOf(line, ...head, "something else: in between", ...walk).entry).toBe(entry);
  });

  test("tells a refused interrupt from an access, and has no address for it", () => {
    const line =
      "DMAR: [INTR-REMAP] Request device [f0:1f.7] fault index 0x1a [fault reason 0x26] Blocked an interrupt request due to source-id verification failure";
    expect(faultOf(line)).toMatchObject({
      device: "0000:f0:1f.7",
      address: undefined,
      access: "unknown",
      reasonCode: 0x26,
    });
    const old = line.replace("0x26", "38").replace("0x1a", "1a");
    expect(faultOf(old)).toMatchObject({
      reasonCode: 0x26,
      reason: "the interrupt does not come from the device that its entry names",
    });
  });

  test("says when the device has no tables at all", () => {
    const line =
      "DMAR: [DMA Read NO_PASID] Request device [05:00.0] fault addr 0x1000 [fault reason 0x02] Present bit in context entry is clear";
    expect(faultOf(line)).toMatchObject({ detached: true });
  });
});

describe("AMD-Vi", () => {
  const PAIRS = "domain=0x000c address=0xfffffff0c0 flags=0x0020]";
  test.each([
    ["the device in front", `amdgpu 0000:05:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT ${PAIRS}`, "0000:05:00.0"],
    ["the device inside", `AMD-Vi: Event logged [IO_PAGE_FAULT device=05:00.0 ${PAIRS}`, "0000:05:00.0"],
    ["the segment too", `AMD-Vi: Event logged [IO_PAGE_FAULT device=0001:05:00.0 ${PAIRS}`, "0001:05:00.0"],
    [
      "a driver with a hyphen",
      `xhci_hcd-quirk 0000:0a:00.3: AMD-Vi: Event logged [IO_PAGE_FAULT ${PAIRS}`,
      "0000:0a:00.3",
    ],
  ])("with %s", (_, line, device) => {
    expect(faultOf(line)).toMatchObject({
      unit: "amd",
      device,
      address: 0xfffffff0c0n,
      access: "write",
      domain: 12,
      entry: "absent",
    });
  });

  test("cut in two lines, as kernels of 2017 to 2018 do", () => {
    const fault = faultOf(
      "AMD-Vi: Event logged [",
      "IO_PAGE_FAULT device=05:00.0 domain=0x0012 address=0x00000000ff6101b0 flags=0x0070]",
    );
    expect(fault).toMatchObject({ device: "0000:05:00.0", address: 0xff6101b0n, access: "write", permission: true });
  });

  test.each([
    ["0x0000", "read", "absent", undefined],
    ["0x0020", "write", "absent", undefined],
    ["0x0050", "read", undefined, true],
    ["0x0070", "write", undefined, true],
    ["0x0090", "read", undefined, false],
  ])("decodes flags %s", (flags, access, entry, permission) => {
    const line = `AMD-Vi: Event logged [IO_PAGE_FAULT device=05:00.0 domain=0x000c address=0x1000 flags=${flags}]`;
    expect(faultOf(line)).toMatchObject({ access, entry, permission });
  });

  test("with a PASID", () => {
    const line =
      "AMD-Vi: Event logged [IO_PAGE_FAULT device=05:00.0 pasid=0x00001 address=0x7f0000000000 flags=0x0000]";
    expect(faultOf(line)).toMatchObject({ pasid: 1, address: 0x7f0000000000n });
  });

  test.each([
    ["ILLEGAL_DEV_TABLE_ENTRY device=00:14.0 pasid=0x00000 address=0xfffffffdf8000000 flags=0x0a00", true],
    ["INVALID_DEVICE_REQUEST device=00:00.1 address=0x000000fdf8000020 flags=0x0a00", false],
    ["IOTLB_INV_TIMEOUT device=05:00.0 address=0x1000", false],
  ])("other events: %s", (event, detached) => {
    expect(faultOf(`AMD-Vi: Event logged [${event}]`)).toMatchObject({ access: "unknown", detached });
  });
});

describe("SMMUv3", () => {
  const UNIT = "arm-smmu-v3 70c00000.iommu: ";
  const words = (...values: string[]): string[] => values.map((value) => `${UNIT}\t0x${value}`);

  test("decodes the four words of an event", () => {
    const fault = faultOf(
      `${UNIT}event 0x10 received:`,
      ...words("0000040000000010", "0000020000000000", "00000000ff3cf000", "0000000000000000"),
    );
    expect(fault).toMatchObject({
      unit: "smmu-v3",
      unitName: "70c00000.iommu",
      device: undefined,
      stream: 0x400,
      address: 0xff3cf000n,
      access: "write",
      reason: "F_TRANSLATION, translation fault: nothing is mapped there",
      entry: "absent",
    });
  });

  test.each([
    [
      "a read that was not permitted",
      "0x13",
      ["0000001800000013", "0000000800000000", "0000000012345678", "0000000000000000"],
      { access: "read", permission: true, stream: 0x18 },
    ],
    [
      "a write with a process address space",
      "0x10",
      ["000000300002a810", "0000020000000000", "00007f0012340000", "0000000000000000"],
      { access: "write", pasid: 42, address: 0x7f0012340000n },
    ],
    [
      "an address that is too wide",
      "0x11",
      ["0000003000000011", "0000000800000000", "ffff000012340000", "0000000000000000"],
      { access: "read", address: 0xffff000012340000n },
    ],
    [
      "a stream that is attached to nothing",
      "0x02",
      ["0000ffff00000002", "0000000000000000", "0000000000000000", "0000000000000000"],
      { access: "unknown", address: undefined, detached: true },
    ],
  ])("decodes %s", (_, event, values, expected) => {
    expect(faultOf(`${UNIT}event ${event} received:`, ...words(...values))).toMatchObject(expected);
  });

  test("takes the device from the decoded lines of newer kernels", () => {
    const fault = faultOf(
      "arm-smmu-v3 9050000.smmuv3: event 0x10 received:",
      "arm-smmu-v3 9050000.smmuv3: \t0x0000003000000010",
      "arm-smmu-v3 9050000.smmuv3: \t0x0000020000000000",
      "arm-smmu-v3 9050000.smmuv3: \t0x000000000abcd004",
      "arm-smmu-v3 9050000.smmuv3: \t0x0000000000000000",
      "arm-smmu-v3 9050000.smmuv3: event: F_TRANSLATION client: 0000:00:06.0 sid: 0x30 ssid: 0x0 iova: 0xabcd004 ipa: 0x0",
      'arm-smmu-v3 9050000.smmuv3: unpriv data write s1 "Input address caused fault" stag: 0x0',
    );
    expect(fault).toMatchObject({ device: "0000:00:06.0", stream: 0x30, address: 0xabcd004n, access: "write" });
  });

  test("keeps two units apart that fault at once", () => {
    const other = "arm-smmu-v3 70e00000.iommu: ";
    const facts = factsOf([
      `${UNIT}event 0x10 received:`,
      `${other}event 0x13 received:`,
      `${UNIT}\t0x0000000100000010`,
      `${other}\t0x0000000200000013`,
      `${UNIT}\t0x0000000800000000`,
      `${other}\t0x0000000000000000`,
      `${UNIT}\t0x0000000000001000`,
      `${other}\t0x0000000000002000`,
    ]);
    expect(facts).toMatchObject([
      { stream: 1, address: 0x1000n, access: "read" },
      { stream: 2, address: 0x2000n, access: "write" },
    ]);
  });

  test("tells an event whose words are cut off as what it is", () => {
    expect(faultOf(`${UNIT}event 0x10 received:`)).toMatchObject({
      address: undefined,
      access: "unknown",
      reasonCode: 0x10,
    });
  });
});

describe("SMMUv2", () => {
  test.each([
    [
      "5.x",
      "arm-smmu 15000000.iommu: Unhandled context fault: fsr=0x402, iova=0xfd7ff000, fsynr=0x540003, cbfrsynra=0x19c3, cb=10",
      0xfd7ff000n,
      "read",
      0x19c3,
    ],
    [
      "4.x, without the stream",
      "arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402, iova=0xff3cf000, fsynr=0x300013, cb=3",
      0xff3cf000n,
      "write",
      undefined,
    ],
    [
      "Qualcomm's",
      "qcom-iommu-ctx 1e30000.iommu-ctx: Unhandled context fault: fsr=0x2, iova=0x0000000000001000, fsynr=0x10, cb=0",
      0x1000n,
      "write",
      undefined,
    ],
  ])("as %s prints it", (_, line, address, access, stream) => {
    expect(faultOf(line)).toMatchObject({
      unit: "smmu-v2",
      address,
      access,
      stream,
      entry: "absent",
      reason: "translation fault: nothing is mapped there",
    });
  });

  test("with the decoded lines behind it", () => {
    const fault = faultOf(
      "arm-smmu 15000000.iommu: Unhandled context fault: fsr=0x402, iova=0xd65504710, fsynr=0x100011, cbfrsynra=0x0, cb=6",
      "arm-smmu 15000000.iommu: FSR    = 00000402 [Format=2 TF], SID=0x60",
      "arm-smmu 15000000.iommu: FSYNR0 = 00100011 [S1CBNDX=16 WNR PLVL=1]",
    );
    expect(fault).toMatchObject({ address: 0xd65504710n, access: "write", stream: 0x60 });
  });

  test("a permission fault", () => {
    const line =
      "arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x408, iova=0x1003000, fsynr=0x13, cbfrsynra=0x0, cb=0";
    expect(faultOf(line)).toMatchObject({ permission: true, access: "write" });
  });

  test("a stream that is attached to nothing", () => {
    const fault = faultOf(
      "arm-smmu 12000000.iommu: Unexpected global fault, this could be serious",
      "arm-smmu 12000000.iommu: \tGFSR 0x00000002, GFSYNR0 0x00000002, GFSYNR1 0x00000056, GFSYNR2 0x00000000",
    );
    expect(fault).toMatchObject({ stream: 0x56, access: "write", detached: true, address: undefined });
    const blocked =
      'arm-smmu 12000000.iommu: Blocked unknown Stream ID 0x56; boot with "arm-smmu.disable_bypass=0" to allow, but this may have security implications';
    expect(faultOf(blocked)).toMatchObject({ stream: 0x56, detached: true });
  });
});

describe("other units", () => {
  test.each([
    [
      "virtio",
      "virtio_iommu virtio0: page fault from EP 48 at 0xffff000 []",
      { device: "0000:00:06.0", stream: 48, address: 0xffff000n, access: "unknown" },
    ],
    [
      "virtio",
      "virtio_iommu virtio0: domain fault from EP 8 at 0x1000 [W]",
      { device: "0000:00:01.0", address: 0x1000n, access: "write" },
    ],
    ["virtio", "virtio_iommu virtio0: unknown fault from EP 8 [R]", { address: undefined, access: "read" }],
    [
      "rockchip",
      "rk_iommu ff650800.iommu: Page fault at 0x0000000004382010 of type write",
      { unitName: "ff650800.iommu", address: 0x4382010n, access: "write", entry: "absent" },
    ],
    [
      "rockchip",
      "rk_iommu ff930300.iommu: Page fault at 0x00af1000 of type read",
      { address: 0xaf1000n, access: "read" },
    ],
    [
      "mediatek",
      "mtk-iommu 10205000.iommu: fault type=0x5 iova=0xff600000 pa=0x0 master=0x7(larb=0, port=1) layer=0 write",
      { stream: 7, address: 0xff600000n, access: "write" },
    ],
    [
      "mediatek",
      "mtk-iommu 10205000.iommu: fault type=0x280 iova=0x1500000 pa=0x0 larb=4 port=3 layer=1 read",
      { address: 0x1500000n, access: "read" },
    ],
    [
      "exynos",
      "exynos-sysmmu 11200000.sysmmu: 11c00000.codec: [READ] PAGE FAULT occurred at 0x20000000",
      { device: "11c00000.codec", address: 0x20000000n, access: "read" },
    ],
    [
      "exynos",
      "exynos-sysmmu 14650000.sysmmu: 14500000.mixer: PAGE FAULT occurred at 0x40207000",
      { device: "14500000.mixer", address: 0x40207000n, access: "unknown" },
    ],
    [
      "tegra",
      "tegra-mc 70019000.memory-controller: display0a: read @0xfe056b40: EMEM address decode error (SMMU translation error [--S])",
      { device: "display0a", address: 0xfe056b40n, access: "read" },
    ],
    [
      "dart",
      "apple-dart 231304000.iommu: translation fault: status:0x80000008 stream:1 code:0x8 (PTE invalid) at 0x10000000",
      { stream: 1, address: 0x10000000n, reason: "translation fault: PTE invalid" },
    ],
    [
      "ipmmu",
      "ipmmu-vmsa e67b0000.mmu: Unhandled fault: status 0x00002001 iova 0x70003000",
      { unitName: "e67b0000.mmu", address: 0x70003000n },
    ],
    [
      "sun50i",
      "sun50i-iommu 30f0000.iommu: Page fault for 0x00000000ffc00000 (master 1, dir wr)",
      { stream: 1, address: 0xffc00000n, access: "write" },
    ],
    [
      "omap",
      "omap-iommu 55082000.mmu: 55082000.mmu: errs:0x00000002 da:0x80000000 pgd:0x(ptrval) *pgd:px(ptrval)",
      { address: 0x80000000n },
    ],
    [
      "riscv",
      "riscv-iommu 10010000.iommu: Fault 15 devid: 0x8 iotval: 1000 iotval2: 0",
      { stream: 8, address: 0x1000n, access: "write", reason: "page fault of a write" },
    ],
  ])("%s: %s", (unit, line, expected) => {
    expect(faultOf(line)).toMatchObject({ unit, ...expected });
  });

  test("a graphics unit's own page tables are told apart", () => {
    const facts = factsOf([
      "amdgpu 0000:03:00.0: amdgpu: [gfxhub0] no-retry page fault (src_id:0 ring:24 vmid:3 pasid:32771, for process glxgears pid 1 thread x pid 2)",
      "amdgpu 0000:03:00.0: amdgpu:   in page starting at address 0x00007f1200000000 from client 0x1b (UTCL2)",
      "amdgpu 0000:03:00.0: amdgpu: VM_L2_PROTECTION_FAULT_STATUS:0x00301031",
      "amdgpu 0000:03:00.0: amdgpu: \t MORE_FAULTS: 0x1",
    ]);
    expect(facts).toMatchObject([{ kind: "fault", unit: "gpu", address: 0x7f1200000000n }]);
  });
});

describe("lines that were kept back", () => {
  test.each([
    ["dmar_fault: 375 callbacks suppressed", 375],
    ["amd_iommu_report_page_fault: 96 callbacks suppressed", 96],
    ["arm_smmu_context_fault: 83 callbacks suppressed", 83],
  ])("are counted: %s", (line, count) => {
    expect(factsOf([line])).toMatchObject([{ kind: "suppressed", count }]);
  });

  test("of others are none of ours", () => {
    expect(factsOf(["net_ratelimit: 12 callbacks suppressed"])).toEqual([]);
  });
});

describe("the kernel's own DMA checks", () => {
  const report = (words: string): string => `DMA-API: e1000e 0000:00:05.0: ${words}`;
  const NUMBERS = "[device address=0x00000000fffcb000] [size=1522 bytes]";

  test.each([
    [`device driver tries to free DMA memory it has not allocated ${NUMBERS}`, "free-unknown"],
    [
      "device driver frees DMA memory with different size [device address=0x00000000fffcb000] [map size=1522 bytes] [unmap size=54 bytes]",
      "different-size",
    ],
    [
      `device driver frees DMA memory with wrong function ${NUMBERS} [mapped as single] [unmapped as page]`,
      "wrong-function",
    ],
    [
      `device driver frees DMA memory with different direction ${NUMBERS} [mapped with DMA_TO_DEVICE] [unmapped with DMA_FROM_DEVICE]`,
      "different-direction",
    ],
    [`device driver failed to check map error${NUMBERS} [mapped as single]`, "map-error-unchecked"],
    [`device driver tries to sync DMA memory it has not allocated ${NUMBERS}`, "sync-unknown"],
    [
      "device driver syncs DMA memory outside allocated range [device address=0x00000000fffcb000] [allocation size=1522 bytes] [sync offset+size=4096]",
      "sync-outside",
    ],
  ])("%s", (words, misuse) => {
    expect(factsOf([report(words)])).toMatchObject([
      { kind: "dma-api", misuse, driver: "e1000e", device: "0000:00:05.0", address: 0xfffcb000n, size: 1522 },
    ]);
  });

  test("with who mapped, where that follows", () => {
    const facts = factsOf([
      "WARNING: CPU: 0 PID: 12 at kernel/dma/debug.c:1017 check_unmap+0x1a3/0x700",
      report(`device driver tries to free DMA memory it has not allocated ${NUMBERS}`),
      "DMA-API: Mapped at:",
      " debug_dma_map_phys+0x41/0x50",
      " dma_map_page_attrs+0x1f/0x30",
      " e1000_alloc_rx_buffers+0x12a/0x2c0 [e1000e]",
      "usb 1-1: new high-speed USB device",
      " not_a_frame_of_it+0x1/0x2",
    ]);
    expect(facts).toMatchObject([{ mappedAt: ["debug_dma_map_phys", "dma_map_page_attrs", "e1000_alloc_rx_buffers"] }]);
  });

  test("with the entry that was left at a release, and CPU addresses printed with 0x twice", () => {
    const facts = factsOf([
      "DMA-API: nvme 0000:00:04.0: device driver has pending DMA allocations while released from device [count=3]",
      "One of leaked entries details: [device address=0x00000000ffff0000] [size=4096 bytes] [mapped with DMA_BIDIRECTIONAL] [mapped as coherent]",
    ]);
    expect(facts).toMatchObject([{ misuse: "unbound-with-live", address: 0xffff0000n, size: 4096 }]);
  });

  test("are no reports when they start", () => {
    expect(
      factsOf(["DMA-API: preallocated 65536 debug entries", "DMA-API: debugging enabled by kernel config"]),
    ).toEqual([]);
  });
});

describe("the bounce pool", () => {
  test.each([
    [
      "rtl8192ee 0000:05:00.0: swiotlb buffer is full (sz: 4000 bytes), total 32768 (slots), used 32768 (slots)",
      { driver: "rtl8192ee", device: "0000:05:00.0", size: 4000, totalSlots: 32768, usedSlots: 32768 },
    ],
    [
      "dwc3 38200000.dwc3: swiotlb buffer is full (sz: 16384 bytes)",
      { device: "38200000.dwc3", size: 16384, totalSlots: undefined },
    ],
    ["DMA: Out of SW-IOMMU space for 9100 bytes at device 0000:02:00.0", { device: "0000:02:00.0", size: 9100 }],
  ])("full: %s", (line, expected) => {
    expect(factsOf([line])).toMatchObject([{ kind: "bounce-full", ...expected }]);
  });

  test("counts the two lines that older kernels print as one", () => {
    const facts = factsOf([
      "rtl8821ae 0000:02:00.0: swiotlb buffer is full (sz: 9100 bytes)",
      "DMA: Out of SW-IOMMU space for 9100 bytes at device 0000:02:00.0",
      "dwc3 38200000.dwc3: swiotlb buffer is full (sz: 16384 bytes)",
      "dwc3 38200000.dwc3: DMA: Out of SW-IOMMU space for 16384 bytes ",
    ]);
    expect(facts).toHaveLength(2);
  });

  test.each([
    "v3d fec00000.v3d: overflow 0x0000000040898000+536576 of DMA mask 7ffffffff bus mask 3fffffff",
    "v3d fec00000.v3d: DMA addr 0x0000000040898000+536576 overflow (mask 7ffffffff, bus limit 3fffffff).",
  ])("an address beyond the mask: %s", (line) => {
    expect(factsOf([line])).toMatchObject([
      { kind: "mask-overflow", device: "fec00000.v3d", address: 0x40898000n, size: 536576, mask: 0x7ffffffffn },
    ]);
  });
});

describe("a line that nobody knows", () => {
  test.each([
    "DMAR: VT-d detected Invalidation Time-out Error: SID 0",
    "AMD-Vi: Completion-Wait loop timed out",
    "arm-smmu-v3 9050000.smmuv3: CMDQ timeout",
    "some-new-iommu 1234.mmu: Translation error at 0x1000",
  ])("is handed on if it speaks of an IOMMU's trouble: %s", (line) => {
    expect(factsOf([line])).toMatchObject([{ kind: "unknown", text: line }]);
  });

  test.each([
    "DMAR: IOMMU enabled",
    "DMAR: dmar0: Using Queued invalidation",
    "DMAR: Host address width 48",
    "iommu: Default domain type: Translated",
    "pci 0000:00:04.0: Adding to iommu group 1",
    "AMD-Vi: Interrupt remapping enabled",
    "arm-smmu-v3 9050000.smmuv3: allocated 32768 entries for evtq",
    "software IO TLB: SWIOTLB bounce buffer size adjusted to 2MB",
    "EXT4-fs error (device sda1): ext4_find_entry",
    "Kernel command line: intel_iommu=on error=panic",
  ])("is nobody's business if all is well: %s", (line) => {
    expect(factsOf([line])).toEqual([]);
  });
});

test("a message costs its length, whatever is in it", () => {
  const pieces = [
    "DMAR: ",
    "[DMA Read ",
    "0000:00:",
    "AMD-Vi: [",
    "device=",
    "=",
    "a=b ",
    "event: F_X client: ",
    "[READ] A",
    "DMA-API: x y: ",
    "FAULT occurred at ",
  ];
  const started = performance.now();
  for (const piece of pieces)
    factsOf([piece.repeat(Math.ceil(60_000 / piece.length)), `DMAR: iommu ${piece.repeat(9000)} fault`]);
  expect(performance.now() - started).toBeLessThan(30_000);
});
