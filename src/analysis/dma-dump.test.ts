/** The kernel's list of live mappings in the words of every kernel. */
import { describe, expect, test } from "vitest";
import { groupDumps, looksLikeDmaDump, readDmaDump } from "./dma-dump.ts";

const OLD =
  "0000:00:19.0 e1000e single idx 12 P=1a2b3000 N=1a2b3 D=ffff0000 L=5f2 DMA_FROM_DEVICE dma map error checked";
const OF_2023 =
  "e1000e 0000:00:19.0 single idx 12 P=0x000000001a2b3000 N=1a2b3 D=ffff0000 L=5f2 cln=0x0000000000068acc DMA_FROM_DEVICE dma map error checked";
const NEW =
  "e1000e 0000:00:19.0 phy idx 12 P=0x000000001a2b3000 D=ffff0000 L=5f2 cln=0x0000000000068acc DMA_FROM_DEVICE dma map error not checked attrs=0x0";
const LOG =
  "[   77.123456] e1000e 0000:00:19.0: single idx 12 P=0x000000001a2b3000 D=ffff0000 L=5f2 cln=0x68acc DMA_FROM_DEVICE dma map error checked";

describe("an entry", () => {
  test("of every kernel and of its log names the device, not the driver", () => {
    for (const line of [OLD, OF_2023, NEW, LOG, `<6>${LOG}`, `Oct 25 12:25:45 box kernel: ${LOG.slice(15)}`])
      expect(readDmaDump(line), line).toMatchObject([
        { device: "0000:00:19.0", driver: "e1000e", iova: 0xffff0000, length: 0x5f2, phys: 0x1a2b3000, direction: 2 },
      ]);
    expect(readDmaDump(NEW)[0]!.isUnchecked).toBe(true);
  });

  test("has the kernel's own spelling, fields in any order, words that are not known", () => {
    const [entry] = readDmaDump("ee14.sd sdhi scather-gather idx 1 D=1000 L=2000 P=5000 N=5 DMA_SIDEWAYS what else");
    expect(entry).toMatchObject({
      device: "ee14.sd",
      type: "scatter-gather",
      iova: 0x1000,
      phys: 0x5000,
      direction: -1,
    });
    expect(readDmaDump("0000:00:19.0 single idx 1 P=1 D=2 L=3 DMA_TO_DEVICE")[0]).toMatchObject({
      device: "0000:00:19.0",
      driver: "",
      direction: 1,
    });
  });
});

describe("a list", () => {
  test("with a line that is none is refused with its number; of a log, other lines are passed over", () => {
    expect(() => readDmaDump(`${NEW}\nhello\n`)).toThrow(/line 2/);
    expect(readDmaDump(`[   77.1] e1000e: NIC Link is Up\n${LOG}\n`)).toHaveLength(1);
    expect(() => readDmaDump("[   77.1] e1000e: NIC Link is Up\n")).toThrow(/line 1/);
  });

  test("is told from a log that only has some of its lines", () => {
    expect(looksLikeDmaDump(`${NEW}\n${NEW}\n${NEW.slice(0, 40)}`)).toBe(true);
    expect(looksLikeDmaDump(`[ 1.0] a\n[ 1.1] b\n[ 1.2] c\n${LOG}\n[ 1.3] d\n`)).toBe(false);
    expect(looksLikeDmaDump("hello\n")).toBe(false);
  });

  test("and a later one: what came, what went, what stayed, equal entries each by itself", () => {
    const at = (iova: string): string => NEW.replace("ffff0000", iova);
    const [group] = groupDumps(
      readDmaDump([at("1000"), at("2000"), at("2000")].join("\n")),
      readDmaDump([at("2000"), at("3000")].join("\n")),
    );
    expect(group!.came.map(({ iova }) => iova)).toEqual([0x1000, 0x2000]);
    expect(group!.went.map(({ iova }) => iova)).toEqual([0x3000]);
    expect([group!.before!.count, group!.after.count]).toEqual([2, 3]);
  });
});
