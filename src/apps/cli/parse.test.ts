/** What words ask for, by a command made for it. */
import { describe, expect, test } from "vitest";
import { type Command, command } from "./command.ts";
import { file, flag, list, oneOf, size, time, wholeNumber, withDefault } from "./options.ts";
import { commandIn, parseCall } from "./parse.ts";

const OPTIONS = {
  output: withDefault("out.dat", file("where", { short: "o" })),
  bestEffort: flag("go on"),
  device: list("NAME", "only these"),
  jobs: wholeNumber("at once", 1),
  mode: oneOf("MODE", "how", ["strict", "lazy"]),
  cap: size("at most"),
  for: time("how long"),
};
const made = (more: Partial<Command> = {}): Command => ({
  ...command({
    name: "work",
    summary: "works",
    description: "It works.",
    arguments: [{ name: "TRACE", meaning: "a trace" }],
    options: OPTIONS,
    examples: [],
    run: async () => 0,
  }),
  ...more,
});
const parsed = (...words: string[]) => parseCall(words, made())!;
const refusal = (words: string[], more: Partial<Command> = {}): string => {
  try {
    parseCall(words, made(more));
  } catch (error) {
    return (error as Error).message;
  }
  return "taken";
};

describe("the words of a command", () => {
  test("are options by name, in any order, and arguments as they were typed", () => {
    const { arguments: words, options } = parsed("--jobs=007", "0x10", "-o", "1e3", "--best-effort");
    expect(words).toEqual(["0x10"]);
    expect(options).toMatchObject({ jobs: 7, output: "1e3", bestEffort: true, device: [], mode: undefined });
  });

  test("what is not given is the default", () => expect(parsed("x").options).toMatchObject({ output: "out.dat" }));

  test("a switch does not take the word behind it, and may be said to be off", () => {
    expect(parsed("--best-effort", "x")).toMatchObject({ arguments: ["x"], options: { bestEffort: true } });
    expect(parsed("--best-effort=false", "x").options).toMatchObject({ bestEffort: false });
    expect(refusal(["--best-effort=maybe", "x"])).toBe("--best-effort is a switch and takes no value");
  });

  test("a list is given again and again, or with commas", () =>
    expect(parsed("x", "--device", "a", "--device=b,c").options).toMatchObject({ device: ["a", "b", "c"] }));

  test("a value may begin with a dash and a digit, a name behind an option is no value of it", () => {
    expect(refusal(["x", "--jobs", "-1"])).toBe("--jobs -1: a whole number from 1 on is needed");
    expect(refusal(["x", "--output", "--jobs"])).toBe(
      "--output needs a value: --output FILE, or --output=--jobs if that is it",
    );
    expect(parsed("x", "--output=--jobs").options).toMatchObject({ output: "--jobs" });
    expect(refusal(["x", "-o"])).toBe("-o needs a value: -o FILE");
  });

  test('"-" is standard input, behind -- too; what is behind -- is no option', () => {
    expect(parsed("-").arguments).toEqual(["(standard input)"]);
    expect(parsed("--", "-").arguments).toEqual(["(standard input)"]);
    expect(parsed("--", "--jobs").arguments).toEqual(["--jobs"]);
  });

  test("behind -- of a command that runs another are that one's words, untouched", () => {
    const call = parseCall(["x", "--", "dd", "-o", "--help", "-"], made({ runs: true }))!;
    expect([call.arguments, call.behind]).toEqual([["x"], ["dd", "-o", "--help", "-"]]);
  });

  test("help is asked for wherever it stands, but not behind --", () => {
    expect(parseCall(["x", "--jobs", "1", "-h"], made())).toBeUndefined();
    expect(parseCall(["--help"], made())).toBeUndefined();
    expect(parseCall(["--", "--help"], made())?.arguments).toEqual(["--help"]);
  });

  test.each([
    [["x", "--jbos", "1"], "work has no option --jbos; did you mean --jobs?"],
    [["x", "--nothing-like-it"], "work has no option --nothing-like-it"],
    [["x", "-x"], "work has no option -x"],
    [["x", "--jobs", "1", "--jobs", "2"], "--jobs is given 2 times, with 1 and 2: once is enough"],
    [["x", "--mode", "fast"], "--mode fast: one of strict, lazy is needed"],
    [["x", "--cap", "0"], "--cap 0: a size such as 128K or 20M is needed"],
    [["x", "--for", "soon"], "--for soon: a time such as 10s, 500ms or 2m is needed"],
    [[], "work needs a TRACE"],
    [["a", "b"], "work takes TRACE, and b is one word too many"],
  ])("%j: %s", (words, message) => expect(refusal(words)).toBe(message));

  test("too many words of a command that runs another: where they go", () =>
    expect(refusal(["ls"], { arguments: [], runs: true })).toBe(
      "work takes no argument, and ls is one word too many; a command goes behind --: dmalink work -- ls",
    ));

  test("sizes are in powers of two, times in milliseconds", () => {
    expect(parsed("x", "--cap", "128KiB", "--for", "1.5s").options).toMatchObject({ cap: 131_072, for: 1500 });
    expect(parsed("x", "--cap", "20m", "--for", "2m").options).toMatchObject({ cap: 20 * 2 ** 20, for: 120_000 });
  });
});

describe("the command", () => {
  const commands = [made(), made({ name: "rest" })];
  test("is the first word that names one, options may stand before it", () => {
    expect(commandIn(["--json", "rest", "work"], commands)).toMatchObject({
      command: { name: "rest" },
      rest: ["--json", "work"],
    });
  });
  test("is not behind --", () => expect(commandIn(["x", "--", "work"], commands).command).toBeUndefined());
});
