/** Intervals found by start, by content and by touch, against a list that looks at all of them. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Spans } from "./spans.ts";

interface Item {
  readonly start: number;
  readonly length: number;
}

const lengths = fc.oneof(
  fc.integer({ min: 1, max: 64 }),
  fc.integer({ min: 1, max: 20_000 }),
  fc.constantFrom(4096, 8192, 2 ** 21, 2 ** 40 + 1),
);
const starts = fc.oneof(fc.nat(40_000), fc.integer({ min: 2 ** 32 - 9000, max: 2 ** 32 + 9000 }));
const step = fc.record({ start: starts, length: lengths, pick: fc.nat(), adds: fc.integer({ min: 0, max: 2 }) });

test("finds what a look at every interval finds, whatever was added and taken out, duplicates too", () =>
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), fc.array(step, { maxLength: 20 }), (steps, questions) => {
      const spans = new Spans<Item>(
        ({ start }) => start,
        ({ length }) => length,
      );
      const model: Item[] = [];
      for (const { start, length, pick, adds } of steps) {
        const gone = model[pick % (model.length || 1)];
        if (adds === 0 && gone) {
          model.splice(model.indexOf(gone), 1);
          expect([spans.delete(gone), spans.delete(gone)]).toEqual([true, false]);
        } else {
          const item = { start, length };
          model.push(item);
          spans.add(item);
        }
      }
      expect(spans.size).toBe(model.length);
      expect(new Set(spans)).toEqual(new Set(model));
      for (const { start, length } of [...questions, ...model]) {
        const end = start + length;
        const among = (found: readonly Item[], fits: (item: Item) => boolean): void => {
          expect(new Set(found)).toEqual(new Set(model.filter(fits)));
          expect(found).toHaveLength(model.filter(fits).length);
        };
        among(spans.startingAt(start), (item) => item.start === start);
        among(spans.containing(start, length), (item) => item.start <= start && end <= item.start + item.length);
        among(spans.overlapping(start, length), (item) => item.start < end && start < item.start + item.length);
      }
    }),
    { numRuns: 200 },
  ));
