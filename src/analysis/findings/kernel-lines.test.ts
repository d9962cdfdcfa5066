/** What the kernel itself says of DMA, explained: its own checks, full bounce pools, addresses beyond a mask. */
import { describe, expect, test } from "vitest";
import { DISK, NIC, SampleTrace } from "./sample-trace.ts";

const said = (...lines: readonly string[]): SampleTrace => {
  const trace = new SampleTrace().map(DISK, 0xffff_e000, 0x2000, 4096);
  for (const line of lines) trace.event("console", line);
  return trace;
};

describe("the kernel's own DMA checks", () => {
  const NUMBERS = "[device address=0x00000000fffcb000] [size=1522 bytes]";
  test.each([
    ["tries to free DMA memory it has not allocated", "unmaps what is not mapped", "keep the address"],
    ["frees DMA memory with wrong function", "does not belong to the map", "Pairs belong together"],
    ["failed to check map error", "never asks whether the map failed", "dma_mapping_error"],
    ["syncs DMA memory outside allocated range", "syncs past the end", "no more than was mapped"],
  ])("%s: what it means, and what to do", async (sentence, meaning, advice) => {
    const found = await said(`DMA-API: e1000e ${NIC}: device driver ${sentence} ${NUMBERS}`).findings("dma-api-report");
    expect(found).toMatchObject([{ severity: "error", device: NIC, iova: 0xfffcb000 }]);
    expect(found[0]!.message).toContain(meaning);
    expect(found[0]!.advice).toContain(advice);
  });

  test("are told once for each kind and device, with how often and who mapped", async () => {
    const line = `DMA-API: e1000e ${NIC}: device driver tries to free DMA memory it has not allocated ${NUMBERS}`;
    const chain = [
      "DMA-API: Mapped at:",
      " debug_dma_map_phys+0x41/0x50",
      " e1000_alloc_rx_buffers+0x12a/0x2c0 [e1000e]",
    ];
    const found = await said(line, ...chain, line, line).findings("dma-api-report");
    expect(found).toHaveLength(1);
    expect(found[0]!.message).toContain("3 times");
    expect(found[0]!.message).toContain("Mapped by e1000_alloc_rx_buffers");
  });

  test("that ran out of entries are a warning: they are off from here on", async () => {
    const found = await said("DMA-API: debugging out of memory - disabling").findings("dma-api-report");
    expect(found).toMatchObject([{ severity: "warning" }]);
  });
});

describe("a full bounce pool", () => {
  const full = (size: number, used: number): string =>
    `ahci ${DISK}: swiotlb buffer is full (sz: ${size} bytes), total 32768 (slots), used ${used} (slots)`;

  test("says its size, the share in use, and the largest piece", async () => {
    const [finding] = await said(full(4096, 32760), full(65536, 32768)).findings("bounce-pool-full");
    expect(finding).toMatchObject({ severity: "error", device: DISK, length: 65536 });
    expect(finding!.message).toContain("2 mappings failed");
    expect(finding!.message).toContain("64 MiB was 100 % in use");
  });

  test("of which little is in use has its free slots apart", async () => {
    const [finding] = await said(full(65536, 3487)).findings("bounce-pool-full");
    expect(finding!.message).toContain("11 % in use");
    expect(finding!.message).toContain("free slots lie apart");
  });

  test("can never take a piece of more than 256 KiB, and that is said", async () => {
    const [finding] = await said(full(536576, 100)).findings("bounce-pool-full");
    expect(finding!.message).toContain("It is larger than 256 KiB");
    expect(finding!.advice).toContain("dma_max_mapping_size");
  });
});

describe("addresses that the device cannot drive", () => {
  test("are found from its width, before they fault", async () => {
    const trace = new SampleTrace().map(DISK, 0xffff_e000, 0x2000, 4096).map(DISK, 0x0fff_e000, 0x4000, 4096);
    trace.map(NIC, 0xffff_e000, 0x6000, 4096).map(DISK, 0xffff_0000, 0x8000, 2048);
    const found = await trace.findings("beyond-device-width", { deviceBits: new Map([[DISK, 28]]) });
    expect(found).toMatchObject([{ device: DISK, iova: 0xffff_e000, evidence: [{ what: "mapped" }] }]);
    expect(found[0]!.message).toContain("2 mappings of it (6 KiB) lie beyond");
    expect(found[0]!.message).toContain("would arrive as 0xfffe000");
  });

  test("are nobody's business where no width is given, or all fits", async () => {
    const trace = new SampleTrace().map(DISK, 0xffff_e000, 0x2000, 4096);
    expect(await trace.findings("beyond-device-width")).toEqual([]);
    expect(await trace.findings("beyond-device-width", { deviceBits: new Map([[DISK, 32]]) })).toEqual([]);
  });

  test("are told by the kernel of memory that it could not bounce", async () => {
    const line = `ahci ${DISK}: DMA addr 0x0000000140898000+536576 overflow (mask ffffffff, bus limit 0).`;
    const [finding] = await said(line, line).findings("beyond-device-width");
    expect(finding).toMatchObject({ device: DISK, iova: 0x140898000, length: 536576 });
    expect(finding!.message).toContain("2 mappings failed");
  });
});
