import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type IovaPage, PhysAddr, Random } from "../../base/index.ts";
import { SimulatedUnit, VirtualClock } from "../../hosts/simulated/index.ts";
import { DmaDomain } from "../../iommu/index.ts";
import { amdV1, riscv, type TableLayout, vtdSecondStage, x86_64 } from "../../layouts/pagetable/index.ts";
import { Dma, type PhysVec } from "../index.ts";

const PAGE = 4096;
/** The shortest way ends at 8 TiB of memory: pieces lie on both sides. */
const EIGHT_TIB = 2 ** 43;

function stand(layout: TableLayout) {
  const domain = new DmaDomain({ layout, unit: new SimulatedUnit(), clock: new VirtualClock(), mode: "strict" });
  return { domain, dma: new Dma({ domain }) };
}

/** Pieces of whole pages: mostly single ones, some longer, some that go on from the one before. */
function pieces(random: Random): PhysVec[] {
  const vecs: PhysVec[] = [];
  const oddAt = random.below(40); // before it all are single pages that are apart
  for (let i = 0; i < 40; i++) {
    const before = vecs.at(-1);
    const goesOn = i >= oddAt && random.below(3) === 0 && before !== undefined;
    const high = i >= oddAt && random.below(4) === 0 ? EIGHT_TIB - 4 * PAGE : 0;
    const phys = goesOn ? before.phys + before.length : high + (1 + i * 16 + random.below(8)) * PAGE;
    vecs.push({ phys: PhysAddr(phys), length: i >= oddAt && random.below(4) === 0 ? 3 * PAGE : PAGE });
  }
  return vecs;
}

const lengthOf = (vecs: readonly PhysVec[]): number => vecs.reduce((sum, { length }) => sum + length, 0);

describe.each([
  ["x86-64", x86_64()],
  ["VT-d second stage", vtdSecondStage()],
  ["AMD v1", amdV1()],
  ["RISC-V", riscv()],
] as const)("a vector link on %s", (_, layout) => {
  test("maps the same from a list, from columns, and by one link each", () => {
    const maps = (seed: number): void => {
      const vecs = pieces(Random.fromSeed(seed)).filter(({ phys, length }) => phys + length <= 2 ** layout.outputBits);
      const length = lengthOf(vecs);
      const seen = (["list", "columns", "links"] as const).map((way) => {
        const { dma, domain } = stand(layout);
        const range = dma.tryReserveIova({ length })!;
        const phys = Float64Array.from([...vecs.map((vec) => vec.phys), 0]);
        const lengths = Float64Array.from([...vecs.map((vec) => vec.length), 0]);
        let at = 0;
        if (way === "list") range.linkVecs(0, vecs, "bidirectional");
        else if (way === "columns") range.linkVecs(0, { phys, length: lengths, count: vecs.length }, "bidirectional");
        else
          for (const vec of vecs) {
            range.link(at, vec.phys, vec.length, "bidirectional");
            at += vec.length;
          }
        expect(range.linkedPages).toBe(length / PAGE);
        const first = range.address / PAGE;
        return Array.from({ length: length / PAGE }, (__, page) => domain.lookup((first + page) as IovaPage));
      });
      const wanted = vecs.flatMap((vec) =>
        Array.from({ length: vec.length / PAGE }, (__, page) => vec.phys / PAGE + page),
      );
      expect(seen).toEqual([wanted, wanted, wanted]);
    };
    fc.assert(fc.property(fc.nat(), maps), { numRuns: 12 });
  });

  test("counts what is linked whatever is unlinked and linked again, in any order", () => {
    const random = Random.fromSeed(7);
    const { dma, domain } = stand(layout);
    const range = dma.tryReserveIova({ length: 64 * PAGE })!;
    const linked = new Set<number>();
    for (let step = 0; step < 300; step++) {
      const page = random.below(64);
      if (linked.delete(page)) range.unlink(page * PAGE, PAGE);
      else {
        range.link(page * PAGE, PhysAddr((100 + page * 2) * PAGE), PAGE, "bidirectional");
        linked.add(page);
      }
      expect(range.linkedPages).toBe(linked.size);
    }
    const first = range.address / PAGE;
    range.destroy();
    for (let page = 0; page < 64; page++) expect(domain.lookup((first + page) as IovaPage)).toBe(-1);
  });
});

describe("columns that are none", () => {
  const phys = Float64Array.of(0x5000, 0x7000);
  test.each([
    [{ phys: [0x5000], length: PAGE }, "in place of a list"],
    [{ phys, length: Float64Array.of(PAGE) }, "columns"],
    [{ phys, length: "4096" }, "columns"],
    [{ phys, length: PAGE, count: 3 }, "columns"],
    [{ phys, length: PAGE, count: -1 }, "columns"],
    [{ phys, length: PAGE, count: 0.5 }, "columns"],
    [null, "in place of a list"],
  ])("are refused, and nothing is linked: %j", (columns, words) => {
    const range = stand(x86_64()).dma.tryReserveIova({ length: 4 * PAGE })!;
    expect(() => range.linkVecs(0, columns as never, "to-device")).toThrow(
      expect.objectContaining({ code: "ERR_DMA_LENGTH", errno: "EINVAL", message: expect.stringContaining(words) }),
    );
    expect(range.linkedPages).toBe(0);
  });

  test("or whose piece is no whole page take the way that says what is wrong, and leave nothing", () => {
    const range = stand(x86_64()).dma.tryReserveIova({ length: 4 * PAGE })!;
    const odd = { phys: Float64Array.of(0x5000, 0x7001), length: PAGE };
    expect(() => range.linkVecs(0, odd, "to-device")).toThrow(
      expect.objectContaining({ code: "ERR_DMA_LINK_ALIGNMENT" }),
    );
    const notANumber = { phys: Float64Array.of(0x5000, Number.NaN), length: PAGE };
    expect(() => range.linkVecs(0, notANumber, "to-device")).toThrow(
      expect.objectContaining({ code: "ERR_DMA_ADDRESS" }),
    );
    expect(range.linkedPages).toBe(0);
  });
});
