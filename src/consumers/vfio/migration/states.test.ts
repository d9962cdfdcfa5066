/** The state machine, from every state to every other, for every device there can be. */
import { describe, expect, test } from "vitest";
import { MIGRATION_STATES, type MigrationState } from "../../../layouts/uapi/index.ts";
import { codeOfState, hasState, isSaving, nextState, pathBetween, stateOfCode } from "./states.ts";

/** The arcs that drivers know. Ways are made of these, in any device that has both ends. */
const ARCS: readonly (readonly [MigrationState, MigrationState])[] = (
  [
    ["running", "running-p2p"],
    ["running-p2p", "stop"],
    ["running", "stop"],
    ["stop", "stop-copy"],
    ["stop", "resuming"],
    ["running", "pre-copy"],
    ["running-p2p", "pre-copy-p2p"],
    ["pre-copy", "pre-copy-p2p"],
  ] as const
).flatMap(([a, b]) => [[a, b] as const, [b, a] as const]);
/** What leads out of copying into the last copy leads nowhere back. */
const ONE_WAY: typeof ARCS = [
  ["pre-copy-p2p", "stop-copy"],
  ["pre-copy", "stop-copy"],
];

/** Arcs of a device: with p2p states nobody jumps past them. */
const arcsOf = (flags: number): typeof ARCS =>
  [...ARCS, ...ONE_WAY].filter(
    ([from, to]) =>
      hasState(flags, from) &&
      hasState(flags, to) &&
      ((flags & 2) === 0 || !["running>stop", "stop>running", "pre-copy>stop-copy"].includes(`${from}>${to}`)),
  );

/** Steps of the shortest way on which nothing is given out that nobody asked for; undefined: there is none. */
function shortest(from: MigrationState, to: MigrationState, flags: number): number | undefined {
  let at = new Set([from]);
  for (let steps = 0; steps < 8; steps++) {
    if (at.has(to)) return steps;
    const next = new Set<MigrationState>();
    for (const [a, b] of arcsOf(flags))
      if (at.has(a) && (b === to || !isSaving(b) || (isSaving(from) && isSaving(to)))) next.add(b);
    at = next;
  }
  return undefined;
}

const STATES = MIGRATION_STATES.filter((state) => state !== "error");

describe.each([1, 3, 5, 7])("a device with flags %i", (flags) => {
  const own = STATES.filter((state) => hasState(flags, state));
  const pairs = own.flatMap((from) => own.map((to) => [from, to] as const));

  test.each(pairs)("from %s to %s takes arcs that exist, and no more than it must", (from, to) => {
    const path = pathBetween(from, to, flags);
    const isRefused = from === "stop-copy" && (to === "pre-copy" || to === "pre-copy-p2p");
    expect(path?.length).toBe(isRefused ? undefined : shortest(from, to, flags));
    if (!path) return;
    const arcs = arcsOf(flags).map((arc) => arc.join(">"));
    [from, ...path].slice(0, -1).forEach((state, i) => {
      expect(arcs).toContain(`${state}>${path[i]}`);
    });
    // A session has one file: no other begins or ends on the way.
    for (const state of path.slice(0, -1)) expect(isSaving(state) && !(isSaving(from) && isSaving(to))).toBe(false);
    expect(path.slice(0, -1)).not.toContain("resuming");
  });

  test("neither begins nor ends in a state that it does not have, or in error", () => {
    for (const foreign of MIGRATION_STATES.filter((state) => state === "error" || !hasState(flags, state)))
      for (const other of MIGRATION_STATES) {
        expect(nextState(foreign, other, flags)).toBeUndefined();
        expect(nextState(other, foreign, flags)).toBeUndefined();
        expect(pathBetween(foreign, other, flags)).toBeUndefined();
      }
  });
});

test("a device that cannot stop and copy has no states", () => {
  for (const flags of [0, 2, 4, 6])
    for (const from of MIGRATION_STATES)
      for (const to of MIGRATION_STATES) expect(nextState(from, to, flags)).toBeUndefined();
});

test("before a stop the device runs once more: the way out of pre-copy leads through running", () =>
  expect(pathBetween("pre-copy", "stop", 7)).toEqual(["running", "running-p2p", "stop"]));

test("codes are the header's", () => {
  expect(MIGRATION_STATES.map(codeOfState)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect([stateOfCode(3), stateOfCode(8)]).toEqual(["stop-copy", undefined]);
});
