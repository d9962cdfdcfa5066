/** Areas against a model: a map from every page to its area. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Area, Areas } from "./areas.ts";

test("every page is found in the area that holds it, whatever was inserted and removed", () => {
  const steps = fc.array(fc.record({ page: fc.nat(60), pages: fc.integer({ min: 1, max: 9 }), remove: fc.boolean() }));
  fc.assert(
    fc.property(steps, (plan) => {
      const areas = new Areas();
      const model = new Map<number, Area>();
      for (const { page, pages, remove } of plan) {
        if (remove) {
          const area = model.get(page);
          if (area === undefined) continue;
          const place = areas.from(page);
          areas.remove(place, place + 1);
          for (let i = 0; i < area.pages; i++) model.delete(area.page + i);
        } else {
          if (Array.from({ length: pages }, (_, i) => model.has(page + i)).some(Boolean)) continue;
          const area = { page, pages, frame: page * 2, prot: 3, issued: true };
          areas.insert(areas.from(page), area);
          for (let i = 0; i < pages; i++) model.set(page + i, area);
        }
        for (let at = 0; at < 80; at++) expect(areas.holding(at)).toBe(model.get(at));
        const inOrder = [...new Set([...model].sort(([a], [b]) => a - b).map(([, area]) => area))];
        expect([...areas]).toEqual(inOrder);
      }
    }),
    { numRuns: 60 },
  );
});
