import { describe, expect, test } from "vitest";
import { didYouMean, nearest } from "./did-you-mean.ts";

describe("what was meant", () => {
  test.each([
    ["chek", "check"],
    ["hceck", "check"],
    ["CHECK", "check"],
    ["comapre", "compare"],
    ["comp", "compare"],
    ["--jbos", "--jobs"],
    ["--best", "--best-effort"],
  ])("by %s is %s", (word, meant) =>
    expect(nearest(word, ["check", "compare", "record", "--jobs", "--best-effort"])).toBe(meant),
  );

  test("by a word like none of them is not guessed", () => {
    expect(nearest("frobnicate", ["check", "compare", "record"])).toBeUndefined();
    expect(didYouMean("x", ["check"])).toBe("");
    expect(didYouMean("chek", ["check"])).toBe("; did you mean check?");
  });

  test("is within one step in a short word: a letter changed, left out, added, or swapped with its neighbour", () => {
    for (const word of ["xtats", "tats", "sstats", "tsats", "stats"]) expect(nearest(word, ["stats"])).toBe("stats");
    for (const word of ["xxats", "ats", "st"])
      expect(nearest(word, ["query", "stats"])).toBe(word === "st" ? "stats" : undefined);
  });
});
