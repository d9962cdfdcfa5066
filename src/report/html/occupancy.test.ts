/** The picture's numbers, held against a slow model. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { RequestColumns } from "../../analysis/index.ts";
import { occupancyOf } from "./occupancy.ts";

describe("an occupancy picture", () => {
  /** Mappings of one page each unless said. */
  function mappingsOf(
    list: readonly (readonly [iova: number, start: number, end: number, length?: number])[],
  ): RequestColumns {
    const mappings = new RequestColumns();
    // Places in the recording: by time, what ends first.
    const steps = list.flatMap(([, start, end], i) => [
      { ns: start, isEnd: false, i },
      ...(end < 0 ? [] : [{ ns: end, isEnd: true, i }]),
    ]);
    steps.sort((a, b) => a.ns - b.ns || Number(b.isEnd) - Number(a.isEnd));
    const place = (i: number, isEnd: boolean): number =>
      steps.findIndex((step) => step.i === i && step.isEnd === isEnd);
    for (const [i, [iova, startNs, end, length = 4096]] of list.entries())
      mappings.add(
        { segments: [{ iova, phys: iova, length }], startNs, endNs: end < 0 ? undefined : end },
        [],
        place(i, false),
        place(i, true),
      );
    return mappings;
  }

  test("is the share of each piece that was mapped, averaged over its time; unused space has no row", () => {
    const mappings = mappingsOf([
      [0x1000, 0, 50],
      [0x1000, 50, 75],
      [0x9000, -1, -1],
    ]);
    const picture = occupancyOf(mappings, Uint32Array.of(0, 1, 2), {
      columns: 2,
      mostRows: 10,
      firstNs: 0,
      lastNs: 100,
    });
    expect(picture.addresses).toEqual([0x9000, 0x1000]);
    expect([...picture.share]).toEqual([1, 1, 1, 0.5]);
    expect([...picture.peakBytes]).toEqual([8192, 8192]);
  });

  test("agrees with a slow model, whatever the mappings", () => {
    const life = fc.tuple(fc.nat(15), fc.nat(99), fc.integer({ min: 1, max: 100 }));
    fc.assert(
      fc.property(fc.array(life, { minLength: 1, maxLength: 12 }), (lives) => {
        // One mapping of a page at a time, so that shares add up to the truth.
        const busy = new Map<number, number>();
        const list = lives
          .map(([page, start, length]) => [page * 4096, start, Math.min(100, start + length)] as const)
          .sort((a, b) => a[1] - b[1])
          .filter(([iova, start, end]) => (busy.get(iova) ?? 0) <= start && busy.set(iova, end));
        const mappings = mappingsOf(list);
        const rows = Uint32Array.from(list.keys());
        const picture = occupancyOf(mappings, rows, { columns: 10, mostRows: 16, firstNs: 0, lastNs: 100 });
        for (const [line, address] of picture.addresses.entries())
          for (let column = 0; column < 10; column++) {
            let mapped = 0;
            for (let ns = column * 10; ns < column * 10 + 10; ns++)
              if (list.some(([iova, start, end]) => iova === address && start <= ns && ns < end)) mapped++;
            expect(picture.share[line * 10 + column]).toBeCloseTo(mapped / 10, 9);
          }
      }),
    );
  });

  test("rows grow until they fit", () => {
    const mappings = mappingsOf(Array.from({ length: 100 }, (_, i) => [i * 4096, 0, 100] as const));
    const picture = occupancyOf(mappings, Uint32Array.from(Array(100).keys()), {
      columns: 1,
      mostRows: 30,
      firstNs: 0,
      lastNs: 100,
    });
    expect([picture.rows, picture.rowBytes]).toEqual([25, 16384]);
    expect([...picture.share].every((value) => value === 1)).toBe(true);
  });
});
