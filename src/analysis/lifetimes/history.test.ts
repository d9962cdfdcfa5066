/** The history against a map, and its bound. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { HISTORY_LIMIT, History, type Place } from "./history.ts";

const place = (timeNs: number): Place => ({ timeNs, cpu: 3, pid: 70_000, task: 9, type: 300, site: 5 });

test("gives the last end of every address, whole", () => {
  const ends = fc.array(fc.tuple(fc.integer({ min: 0, max: 70_000 }), fc.integer({ min: 0, max: 9 }), fc.nat(1 << 20)));
  fc.assert(
    fc.property(ends, (steps) => {
      const history = new History();
      const model = new Map<string, number>();
      steps.forEach(([space, page, time]) => {
        history.ended(space, page * 2 ** 45, time, time % 2 === 0 ? place(time) : undefined, place(time + 1));
        model.set(`${space} ${page}`, time);
      });
      for (const [key, time] of model) {
        const [space, page] = key.split(" ").map(Number) as [number, number];
        const index = history.find(space, page * 2 ** 45);
        expect(history.lengthOf(index)).toBe(time);
        expect(history.startOf(index)).toEqual(time % 2 === 0 ? place(time) : undefined);
        expect(history.endOf(index)).toEqual(place(time + 1));
        expect([history.spaceOf(index), history.iovaOf(index)]).toEqual([space, page * 2 ** 45]);
        expect(history.startNsOf(index)).toBe(time % 2 === 0 ? time : -1);
        expect(history.endNsOf(index)).toBe(time + 1);
      }
      const all = Array.from({ length: history.count }, (_, nth) => history.indexAt(nth));
      expect(new Set(all).size).toBe(model.size);
    }),
  );
});

test("forgets what ended long ago when it is full, and never what ended last", () => {
  const history = new History();
  const many = HISTORY_LIMIT * 3;
  for (let i = 1; i <= many; i++) {
    history.ended(0, i * 4096, i, undefined, place(i));
    if (history.lengthOf(history.find(0, i * 4096)) !== i) expect.fail(`the end just told of ${i} is not found`);
  }
  let [kept, late] = [0, 0];
  for (let i = 1; i <= many; i++) {
    if (history.find(0, i * 4096) < 0) continue;
    kept++;
    if (i > many - HISTORY_LIMIT / 4) late++;
  }
  expect(kept).toBeLessThanOrEqual(HISTORY_LIMIT);
  expect(late).toBeGreaterThan((HISTORY_LIMIT / 4) * 0.97);
});
