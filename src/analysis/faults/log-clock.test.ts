/** By how much two clocks differ, from lines that are in both. */
import { describe, expect, test } from "vitest";
import { Random } from "../../base/index.ts";
import { LogIndex, OffsetVotes } from "./log-clock.ts";

const OFFSET = 776_181_000;

/** Votes for a log of `lines` that the trace has `OFFSET` later, each with its own delay. */
function votes(
  lines: readonly (readonly [string, number])[],
  delayNs = (_: number): number => 0,
  resolutionNs = 1000,
): OffsetVotes {
  const index = new LogIndex();
  for (const [text, timeNs] of lines) index.add(text, Math.floor(timeNs / resolutionNs) * resolutionNs);
  const found = new OffsetVotes(index, resolutionNs);
  for (const [i, [text, timeNs]] of lines.entries()) found.heard(text, timeNs + OFFSET + delayNs(i));
  return found;
}

describe("the difference of two clocks", () => {
  test("is found from one line that is in both", () => {
    expect(votes([["DMAR: a", 5e9]]).result()).toMatchObject({ offsetNs: OFFSET, lines: 1 });
  });

  test("is found from lines that come again and again", () => {
    const lines = Array.from({ length: 10 }, (_, i): [string, number] => [
      "DMAR: DRHD: handling fault",
      1e9 + i * i * 13e6,
    ]);
    expect(votes(lines).result()?.offsetNs).toBe(OFFSET);
  });

  test("is found although lines reach the trace late", () => {
    const random = Random.fromSeed(7);
    const lines = Array.from({ length: 40 }, (_, i): [string, number] => [`line ${i % 9}`, 1e9 + i * 31e6]);
    const found = votes(lines, () => random.below(300_000)).result();
    expect(Math.abs(found!.offsetNs - OFFSET)).toBeLessThan(300_000);
  });

  test("is as coarse as the log", () => {
    const lines = Array.from({ length: 5 }, (_, i): [string, number] => [`line ${i}`, 100e9 + i * 777e6]);
    const found = votes(lines, undefined, 1e9).result();
    expect(Math.abs(found!.offsetNs - OFFSET)).toBeLessThan(1e9);
    expect(found!.toleranceNs).toBeGreaterThanOrEqual(1e9);
  });

  test("is not made up where no line is in both", () => {
    const found = new OffsetVotes(new LogIndex(), 1000);
    found.heard("DMAR: a", 1e9);
    expect(found.result()).toBeUndefined();
  });

  test("is not made up where two differences fit as well", () => {
    const index = new LogIndex();
    index.add("same", 1e9);
    index.add("same", 3e9);
    const found = new OffsetVotes(index, 1000);
    found.heard("same", 10e9);
    expect(found.result()).toBeUndefined();
  });
});
