/** What came of a call: failed, done, or nothing to do; by the kernel's own marks and its width. */
import { describe, expect, test } from "vitest";
import { EIO, ENOMEM, NOTHING_DONE, outcomeOf } from "./calls.ts";
import { fileOfBytes } from "./cursor.ts";
import { fieldPage } from "./events.ts";
import { openTrace } from "./open.ts";
import { SAMPLE_FORMATS } from "./sample-formats.ts";
import { openAs } from "./text/read-text.ts";
import { DatWriter } from "./write-dat.ts";

const D = "0000:00:04.0";

async function outcomesOf(text: string, longBytes?: number): Promise<number[]> {
  const trace = await openAs(
    `cpus=1\n${text
      .split("\n")
      .map((line) => `     fio-7     [000]     1.000000: ${line}\n`)
      .join("")}`,
  );
  const outcomes: number[] = [];
  for await (const batch of trace.batches())
    for (let row = 0; row < batch.count; row++)
      outcomes.push(outcomeOf(trace.types[batch.type[row]!]!, longBytes ?? trace.longBytes)(batch, row));
  return outcomes;
}

describe("a call", () => {
  test.each<[string, string, number]>([
    [
      "an allocation that returned nothing",
      `dma_alloc: ${D} dir=BIDIRECTIONAL dma_addr=0 size=4096 virt_addr=(nil) flags=GFP_KERNEL attrs=`,
      ENOMEM,
    ],
    [
      "… of pages, zeros for a pointer",
      `dma_alloc_pages: ${D} dir=TO_DEVICE dma_addr=0 size=4096 virt_addr=0000000000000000 flags=GFP_KERNEL attrs=`,
      ENOMEM,
    ],
    [
      "… of an older kernel, whose address is what lay there before",
      `dma_alloc: ${D} dma_addr=ffff8000 size=4096 virt_addr=(null) flags=GFP_KERNEL attrs=`,
      ENOMEM,
    ],
    [
      "… by an event of its own",
      `dma_alloc_sgt_err: ${D} dir=TO_DEVICE dma_addr=0 size=4096 virt_addr=(nil) flags=GFP_KERNEL attrs=`,
      ENOMEM,
    ],
    [
      "… in raw fields",
      `dma_alloc:             device=${D} virt_addr=0x0 dma_addr=0 size=4096 flags=3264 dir=0 attrs=0x0`,
      ENOMEM,
    ],
    [
      "an allocation at address 0 that has memory",
      `dma_alloc: ${D} dir=TO_DEVICE dma_addr=0 size=4096 virt_addr=0xffff888000000000 flags=GFP_KERNEL attrs=`,
      0,
    ],
    [
      "an allocation whose pointer is hidden",
      `dma_alloc: ${D} dir=TO_DEVICE dma_addr=1000 size=4096 virt_addr=(____ptrval____) flags=GFP_KERNEL attrs=`,
      0,
    ],
    ["a list, by its errno", `dma_map_sg_err: ${D} dir=TO_DEVICE dma_addrs={0x1} err=-22 attrs=`, -22],
    ["a list, by another", `dma_map_sg_err: ${D} dir=TO_DEVICE dma_addrs={0x1} err=-121 attrs=`, -121],
    [
      "a list, its error in raw fields",
      `dma_map_sg_err:        [FAILED TO PARSE] device=${D} phys_addrs=ARRAY[] err=-12 dir=1 attrs=0x0`,
      -12,
    ],
    ["a free of nothing", `dma_free: ${D} dir=NONE dma_addr=ffb00000 size=65536 virt_addr=(nil) attrs=`, NOTHING_DONE],
    ["a free", `dma_free: ${D} dir=NONE dma_addr=ffb00000 size=65536 virt_addr=0xffffc90000ab0000 attrs=`, 0],
    [
      "a map that answered all ones",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=ffffffffffffffff size=4096 phys_addr=1000 attrs=`,
      EIO,
    ],
    [
      "a map of the older name",
      `dma_map_page: ${D} dir=TO_DEVICE dma_addr=ffffffffffffffff size=4096 phys_addr=1fff attrs=`,
      EIO,
    ],
    [
      "a map at the top of 64 bits",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=fffffffffffff000 size=4096 phys_addr=1000 attrs=`,
      0,
    ],
    [
      "a map of the last byte but one",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=fffffffffffffffe size=1 phys_addr=1ffe attrs=`,
      0,
    ],
    [
      "a map that answered 32 ones, which its memory's place in the page does not fit",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=ffffffff size=4096 phys_addr=1000 attrs=`,
      EIO,
    ],
    [
      "a map of the last byte below 4 GiB",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=ffffffff size=1 phys_addr=1fff attrs=`,
      0,
    ],
  ])("%s", async (_name, line, outcome) => {
    expect(await outcomesOf(line)).toEqual([outcome]);
  });

  test("on a kernel of 32 bits fails with 32 ones, whatever its memory", async () => {
    const line = `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=ffffffff size=1 phys_addr=1fff attrs=`;
    expect(await outcomesOf(line, 4)).toEqual([EIO]);
    expect(await outcomesOf(line, 8)).toEqual([0]);
  });

  test("of a trace.dat is judged by the exact bits", async () => {
    const writer = new DatWriter({ formats: SAMPLE_FORMATS });
    for (const dma_addr of [-1n, -4096n, -2n, 0xffff_ffffn])
      writer.add(
        0,
        1n,
        writer.encode("dma_map_phys", 1, { device: D, dma_addr, size: 4096, dir: 1, phys_addr: 0x1000 }),
      );
    const trace = await openTrace(fileOfBytes("x", writer.finish()));
    expect(trace.longBytes).toBe(8);
    for await (const batch of trace.batches()) {
      const type = trace.types[batch.type[0]!]!;
      const outcome = outcomeOf(type, trace.longBytes);
      expect([0, 1, 2, 3].map((row) => outcome(batch, row))).toEqual([EIO, 0, 0, EIO]);
      const field = type.fields.findIndex(({ name }) => name === "dma_addr");
      expect(fieldPage(batch, 1, field)).toBe(2 ** 52 - 1);
    }
  });
});
