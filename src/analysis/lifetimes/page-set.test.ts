/** The page set against a set of page numbers, which is obviously right. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { PageSet } from "./page-set.ts";

const range = fc.record({
  space: fc.integer({ min: 0, max: 2 }),
  page: fc.oneof(fc.integer({ min: 0, max: 3000 }), fc.integer({ min: 2 ** 40, max: 2 ** 40 + 3000 })),
  pages: fc.oneof(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 1600 })),
});
const step = fc.tuple(fc.constantFrom("add", "remove", "clear" as const), range);

test("holds exactly the pages that were added and not removed, by space", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), fc.array(range, { maxLength: 20 }), (steps, questions) => {
      const set = new PageSet();
      const model = new Set<string>();
      for (const [what, { space, page, pages }] of steps) {
        if (what === "clear" && pages > 3) continue; // seldom
        if (what === "clear") {
          set.clear();
          model.clear();
          continue;
        }
        set[what](space, page, pages);
        for (let at = page; at < page + pages; at++)
          if (what === "add") model.add(`${space} ${at}`);
          else model.delete(`${space} ${at}`);
      }
      for (const { space, page, pages } of questions) {
        let expected = false;
        for (let at = page; at < page + pages; at++) expected ||= model.has(`${space} ${at}`);
        expect(set.overlaps(space, page, pages)).toBe(expected);
      }
    }),
  );
});

test("removes a range of any size without walking through it", () => {
  const set = new PageSet();
  set.add(0, 5, 10);
  set.add(1, 5, 10);
  set.remove(0, 0, 2 ** 50);
  expect(set.overlaps(0, 0, 100)).toBe(false);
  expect(set.overlaps(1, 0, 100)).toBe(true);
});
