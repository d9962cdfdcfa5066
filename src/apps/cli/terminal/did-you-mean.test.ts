import { describe, expect, test } from "vitest";
import { didYouMean, distance, nearest } from "./did-you-mean.ts";

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

  test("a letter changed, left out, added, or swapped is one step", () => {
    expect(["abd", "ab", "abxc", "acb", "abc"].map((word) => distance(word, "abc"))).toEqual([1, 1, 1, 1, 0]);
    expect(distance("", "abc")).toBe(3);
  });
});
