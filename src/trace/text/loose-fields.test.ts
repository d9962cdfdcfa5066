/** Payloads that no print format fits: what libtraceevent and tracefs print field by field, and other kernels' formats. */
import { describe, expect, test } from "vitest";
import { known } from "../catalogue.ts";
import { openAs, type Row, rowsOf } from "./read-text.ts";

const FRONT = "     fio-7     [000]     1.000000: ";
const D = "0000:00:04.0";
const bytes = (...items: readonly (readonly [bigint | number, 4 | 8])[]): string =>
  `ARRAY[${items
    .flatMap(([item, size]) => Array.from({ length: size }, (_, i) => Number((BigInt(item) >> BigInt(i * 8)) & 0xffn)))
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join(", ")}]`;

async function read(
  ...payloads: readonly string[]
): Promise<{ rows: Row[]; remarks: readonly string[]; isKnown: boolean[] }> {
  const trace = await openAs(`cpus=1\n${payloads.map((payload) => `${FRONT}${payload}\n`).join("")}`);
  const rows = await rowsOf(trace);
  return {
    rows,
    remarks: trace.remarks.map(({ code, message }) => `${code}: ${message}`),
    isKnown: rows.map(({ event }) => trace.types.some((type) => type.name === event && known(type) !== undefined)),
  };
}

describe("raw fields", () => {
  test.each<[string, string, Record<string, unknown>]>([
    [
      "trace-cmd report -R prints as the format does: hexadecimal without 0x",
      `dma_map_phys:          device=${D} phys_addr=69e3040 dma_addr=ffffb040 size=1522 dir=2 attrs=0x420`,
      { device: D, phys_addr: 0x69e3040n, dma_addr: 0xffffb040n, size: 1522n, dir: 2n, attrs: 0x420n },
    ],
    [
      "trace-cmd report -R, an unmap: the field is called addr",
      `dma_unmap_phys:        device=${D} addr=fffb0000 size=4096 dir=1 attrs=0x0`,
      { device: D, addr: 0xfffb0000n, size: 4096n, dir: 1n, attrs: 0n },
    ],
    [
      "trace-cmd report -R, the iommu",
      "map:                   iova=0x00000000fffff000 paddr=0x000000007eebe000 size=4096",
      { iova: 0xfffff000n, paddr: 0x7eebe000n, size: 4096n },
    ],
    [
      "an older trace-cmd prints them in decimal",
      `dma_map_phys:          device=${D} phys_addr=1048576 dma_addr=4294963200 size=4096 dir=2 attrs=0x0`,
      { device: D, phys_addr: 0x100000n, dma_addr: 0xfffff000n, size: 4096n, dir: 2n, attrs: 0n },
    ],
    [
      "[FAILED TO PARSE] with lists as bytes",
      `dma_map_sg:           [FAILED TO PARSE] device=${D} full_nents=2 full_ents=1 truncated=0 phys_addrs=${bytes([0x12000000, 8], [0x3_4000_0000n, 8])} dma_addrs=${bytes([0xffe00000, 8])} lengths=${bytes([0x2000, 4])} dir=2 attrs=0x0`,
      {
        device: D,
        full_nents: 2,
        full_ents: 1,
        truncated: 0n,
        phys_addrs: [0x12000000n, 0x3_4000_0000n],
        dma_addrs: [0xffe00000n],
        lengths: [0x2000n],
        dir: 2n,
        attrs: 0n,
      },
    ],
    [
      "[FAILED TO PARSE], numbers in decimal",
      `dma_alloc_sgt:         [FAILED TO PARSE] device=${D} phys_addrs=${bytes([0x1000, 8])} dma_addr=4294959104 size=8192 dir=0 flags=3264 attrs=0x0`,
      { device: D, phys_addrs: [0x1000n], dma_addr: 0xffffe000n, size: 8192n, dir: 0n, flags: "3264", attrs: 0n },
    ],
    [
      "tracefs options/fields",
      `dma_unmap_sg: device=${D} addrs=00,00,00,12,00,00,00,00 dir=0x2 (2) attrs=0x100 (256)`,
      { device: D, addrs: [0x12000000n], dir: 2n, attrs: 256n },
    ],
    [
      "tracefs options/fields, an address at the top of 64 bits",
      `dma_map_phys: device=${D} phys_addr=0x1000 (4096) dma_addr=0xfffffffffffff000 (-4096) size=0x1000 (4096) dir=0x1 (1) attrs=0x0 (0)`,
      { device: D, phys_addr: 0x1000n, dma_addr: 0xffff_ffff_ffff_f000n, size: 4096n, dir: 1n, attrs: 0n },
    ],
    [
      "tracefs options/fields, bytes",
      `swiotlb_bounced: dev_name=${D} dma_mask=0xffffffff (4294967295) dev_addr=0x236a000 (37134336) size=0x1000 (4096) force=(1)`,
      { dev_name: D, dma_mask: 0xffff_ffffn, dev_addr: 0x236a000n, size: 4096n, force: 1n },
    ],
  ])("%s", async (_name, payload, expected) => {
    const { rows, remarks, isKnown } = await read(payload);
    expect(rows[0]!.values).toEqual(expected);
    expect(remarks).toEqual([]);
    expect(isKnown).toEqual([true]);
  });

  test("a letter among the digits of any address says that all are hexadecimal", async () => {
    const { rows } = await read(
      `dma_map_phys:          device=${D} phys_addr=1048576 dma_addr=10000000 size=4096 dir=2 attrs=0x0`,
      `dma_map_phys:          device=${D} phys_addr=7eebe000 dma_addr=20000000 size=4096 dir=2 attrs=0x0`,
    );
    expect(rows.map(({ values }) => values.dma_addr)).toEqual([0x10000000n, 0x20000000n]);
  });

  test("a list whose bytes are no whole items is unknown, and the event is not followed", async () => {
    const { rows, remarks } = await read(
      `dma_unmap_sg:          [FAILED TO PARSE] device=${D} addrs=ARRAY[00, 10] dir=2 attrs=0x0`,
    );
    expect(rows[0]!.values).not.toHaveProperty("addrs");
    expect(remarks).toEqual([
      expect.stringMatching(/^unknown-form: dma_unmap_sg: 1 event is in a form that is not known.*line 2/),
    ]);
  });
});

describe("a print format of another kernel", () => {
  test.each<[string, string, Record<string, unknown>]>([
    [
      "5.15: map without the end",
      "map: IOMMU: iova=0x0000000000100000 paddr=0x0000000220000000 size=4096",
      { iova: 0x100000n, paddr: 0x220000000n, size: 4096n },
    ],
    [
      "5.15: unmap without the end",
      "unmap: IOMMU: iova=0x0000000000100000 size=4096 unmapped_size=4096",
      { iova: 0x100000n, size: 4096n, unmapped_size: 4096n },
    ],
    [
      "5.4: the Intel driver's own map",
      `map_single: dev=${D} dev_addr=0xffffe000 phys_addr=0x12345000 size=4096`,
      { dev_name: D, dev_addr: 0xffffe000n, phys_addr: 0x12345000n, size: 4096n },
    ],
    [
      "5.4: its unmap",
      `bounce_unmap_single: dev=${D} dev_addr=0xffffe000 size=4096`,
      { dev_name: D, dev_addr: 0xffffe000n, size: 4096n },
    ],
    [
      "5.10: a bounce that may not be",
      `swiotlb_bounced: dev_name: ${D} dma_mask=ffffffff dev_addr=236a000 size=4096 NO_FORCE`,
      { dev_name: D, dma_mask: 0xffffffffn, dev_addr: 0x236a000n, size: 4096n, force: 0n },
    ],
    [
      "6.12-rc: dma_alloc by its memory",
      `dma_alloc: ${D} dma_addr=fffff000 size=4096 phys_addr=12345000 flags=GFP_KERNEL attrs=`,
      { device: D, phys_addr: 0x12345000n, dma_addr: 0xfffff000n, size: 4096n, flags: "GFP_KERNEL", attrs: 0n },
    ],
    [
      "a field more",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=1000 size=16 phys_addr=2000 attrs= domain=7`,
      { device: D, dir: 1n, dma_addr: 0x1000n, size: 16n, phys_addr: 0x2000n, attrs: 0n },
    ],
    [
      "a field less",
      `dma_map_phys: ${D} dma_addr=1000 size=16 phys_addr=2000 attrs=MMIO`,
      { device: D, dma_addr: 0x1000n, size: 16n, phys_addr: 0x2000n, attrs: 1024n },
    ],
    [
      "another order",
      `dma_unmap_phys: ${D} size=16 dma_addr=1000 dir=NONE attrs=`,
      { device: D, addr: 0x1000n, size: 16n, dir: 3n, attrs: 0n },
    ],
    [
      "a pointer that is hidden",
      `dma_free: ${D} dir=NONE dma_addr=1000 size=16 virt_addr=(____ptrval____) attrs=`,
      { device: D, dir: 3n, dma_addr: 0x1000n, size: 16n, attrs: 0n },
    ],
    [
      "an old kernel's null pointer",
      `dma_free: ${D} dir=NONE dma_addr=1000 size=16 virt_addr=          (null) attrs=`,
      { device: D, dir: 3n, dma_addr: 0x1000n, size: 16n, virt_addr: 0n, attrs: 0n },
    ],
    [
      "a list in decimals",
      `dma_unmap_sg: ${D} dir=TO_DEVICE phys_addrs=4096 8192 attrs=`,
      { device: D, addrs: [4096n, 8192n], dir: 1n, attrs: 0n },
    ],
    [
      "an empty list",
      `dma_unmap_sg: ${D} dir=TO_DEVICE phys_addrs= attrs=`,
      { device: D, addrs: [], dir: 1n, attrs: 0n },
    ],
    [
      "a list with spaces",
      `dma_unmap_sg: ${D} dir=TO_DEVICE phys_addrs={0x1000, 0x2000} attrs=`,
      { device: D, addrs: [0x1000n, 0x2000n], dir: 1n, attrs: 0n },
    ],
  ])("%s", async (_name, payload, expected) => {
    const { rows, remarks, isKnown } = await read(payload);
    expect(rows[0]!.values).toEqual(expected);
    expect(isKnown).toEqual([true]);
    expect(remarks).toEqual([]);
  });
});

describe("what is not known", () => {
  test.each([
    [
      "an attribute",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=1000 size=16 phys_addr=2000 attrs=MMIO|NEXT_YEARS`,
      "attrs=NEXT_YEARS",
      true,
    ],
    [
      "an attribute alone",
      `dma_unmap_phys: ${D} dir=TO_DEVICE dma_addr=1000 size=16 attrs=NEXT_YEARS`,
      "attrs=NEXT_YEARS",
      true,
    ],
    [
      "a direction",
      `dma_map_phys: ${D} dir=SIDEWAYS dma_addr=1000 size=16 phys_addr=2000 attrs=`,
      "dir=SIDEWAYS",
      true,
    ],
    [
      "an address",
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=(hidden) size=16 phys_addr=2000 attrs=`,
      "dma_map_phys",
      false,
    ],
    ["a size", `map: IOMMU: iova=0x1000 - 0x2000 paddr=0x1000 size=many`, "map", false],
    ["everything", `dma_map_phys: mapped it all`, "dma_map_phys", false],
  ])(
    "%s: the event is read without it, and followed if the rest says enough",
    async (_name, payload, subject, isFollowed) => {
      const { rows, remarks } = await read(payload, payload);
      expect(rows).toHaveLength(2);
      expect(remarks).toHaveLength(1);
      expect(remarks[0]).toContain(subject);
      expect(remarks[0]).toMatch(
        isFollowed ? /^unknown-value: .* 2 times, the first at line 2/ : /^unknown-form: .*2 events/,
      );
    },
  );

  test("keeps the attributes that are known", async () => {
    const { rows } = await read(
      `dma_map_phys: ${D} dir=TO_DEVICE dma_addr=1000 size=16 phys_addr=2000 attrs=MMIO|NEXT|0x8000`,
    );
    expect(rows[0]!.values.attrs).toBe(0x8400n);
  });

  test("is not an event of another system that has the same name", async () => {
    const trace = await openAs(
      `   fio   7 [000]  1.000000: mine:map: IOMMU nothing\n   fio   7 [000]  1.000000: kprobes:unmap: (here) a=1\n`,
    );
    expect((await rowsOf(trace)).map(({ event }) => event)).toEqual(["mine:map", "kprobes:unmap"]);
    expect(trace.remarks).toEqual([]);
  });
});
