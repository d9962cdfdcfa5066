/** The start state: what is live when a recording begins turns "may be" into a verdict. */
import { describe, expect, test } from "vitest";
import type { IovaPage, PhysPage } from "../base/index.ts";
import { DISK, NIC, SampleTrace } from "./findings/sample-trace.ts";
import { parseDmaDump, StartState } from "./start-state.ts";

const PAGE = 4096;
const A = 0xffff_e000;

const DUMP = [
  `nvme ${DISK} phy idx 1023 P=2000 D=ffffe000 L=1000 cln=2000 DMA_FROM_DEVICE dma map error checked attrs=0x0`,
  `nvme ${DISK} coherent idx 1022 P=0x0000000000003000 D=ffffd000 L=18 cln=3000 DMA_BIDIRECTIONAL dma map error check not applicable`,
  `e1000e ${NIC} scatter-gather idx 9 P=5000 D=ffff0000 L=2000 cln=5000 DMA_TO_DEVICE dma map error check not applicable`,
  "",
].join("\n");

describe("a list of live mappings", () => {
  const start = parseDmaDump(DUMP);

  test("lets what it names end without a finding", async () => {
    const trace = new SampleTrace()
      .unmap(DISK, A, PAGE)
      .free(DISK, 0xffff_d000, 24)
      .unmapList(NIC, 0xffff_0000, [{ phys: 0x5000, size: 2 * PAGE }], "TO_DEVICE");
    const { findings, unknownStart } = await trace.check({ start });
    expect(findings).toEqual([]);
    expect(unknownStart).toBe(0);
  });

  test("makes an error of what it does not name", async () => {
    expect(await new SampleTrace().unmap(DISK, 0xffff_0000, PAGE).errors({ start })).toEqual(["unmap-unknown"]);
  });

  test("is held against the size and direction of the unmap", async () => {
    expect(await new SampleTrace().unmap(DISK, A, 512).errors({ start })).toEqual(["size-mismatch"]);
    expect(await new SampleTrace().unmap(DISK, A, PAGE, "TO_DEVICE").errors({ start })).toEqual(["direction-mismatch"]);
  });

  test("refuses a line that is no entry, with its number", () => {
    expect(() => parseDmaDump(`${DUMP}what is this\n`)).toThrowError(
      expect.objectContaining({ code: "ERR_DMA_DUMP_FORMAT", message: expect.stringContaining("line 4") }),
    );
  });
});

describe("a snapshot of page tables", () => {
  const mapping = { iova: (A / PAGE) as IovaPage, phys: 2 as PhysPage, pages: 1, leafPages: 1, prot: 3 };
  const start = StartState.ofPages([{ device: DISK, mappings: [mapping] }]);

  test("lets the end of a page that it holds pass once, and makes an error of others", async () => {
    expect(await new SampleTrace().unmap(DISK, A, PAGE).errors({ start })).toEqual([]);
    expect(await new SampleTrace().unmap(DISK, A - PAGE, PAGE).errors({ start })).toEqual(["unmap-unknown"]);
  });

  test("says nothing of devices that it does not have", async () => {
    expect(await new SampleTrace().unmap(NIC, A, PAGE).errors({ start })).toEqual([]);
  });

  test("goes together with a list", async () => {
    const both = parseDmaDump(DUMP).with(start);
    expect(await new SampleTrace().unmap(DISK, A, PAGE).errors({ start: both })).toEqual([]);
    expect(await new SampleTrace().unmap(NIC, A, PAGE).errors({ start: both })).toEqual(["unmap-unknown"]);
  });
});
