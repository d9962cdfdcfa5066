import { describe, expect, test } from "vitest";
import { visible } from "../../../report/text/index.ts";
import { isColoured, PAINT, styleOf } from "./screen.ts";

const TERMINAL = { isTTY: true, columns: 100 };
const PIPE = {};

describe("colours", () => {
  test.each([
    ["a terminal shows them", TERMINAL, {}, true],
    ["a pipe does not", PIPE, {}, false],
    ["NO_COLOR is heard first", TERMINAL, { NO_COLOR: "1", FORCE_COLOR: "1" }, false],
    ["an empty NO_COLOR says nothing", TERMINAL, { NO_COLOR: "" }, true],
    ["FORCE_COLOR makes a pipe show them", PIPE, { FORCE_COLOR: "1" }, true],
    ["FORCE_COLOR=0 makes a terminal show none", TERMINAL, { FORCE_COLOR: "0" }, false],
    ["a dumb terminal shows none", TERMINAL, { TERM: "dumb" }, false],
  ])("%s", (_, screen, env, expected) => expect(isColoured(screen, env)).toBe(expected));

  test("are line by line, and empty lines have none", () => {
    const { paint } = styleOf(TERMINAL, {});
    expect(paint("error", "one\n\ntwo")).toBe("\x1b[1;31mone\x1b[0m\n\n\x1b[1;31mtwo\x1b[0m");
    expect(styleOf(PIPE, {}).paint("error", "one")).toBe("one");
  });

  test("are all that a text is split at", () => {
    const { paint } = styleOf(TERMINAL, {});
    const parts = `${paint("good", "a\x1b[2Jb")}\x1b[31m`.split(PAINT);
    expect(parts.map((part, i) => (i % 2 === 1 ? part : visible(part))).join("")).toBe(
      "\x1b[32ma\\u001b[2Jb\x1b[0m\\u001b[31m",
    );
  });
});

describe("the width", () => {
  test.each([
    [TERMINAL, {}, 100],
    [PIPE, {}, 80],
    [{ isTTY: true, columns: 20 }, {}, 40],
    [{ isTTY: true, columns: 300 }, {}, 120],
    [{ isTTY: true }, {}, 80],
    [PIPE, { COLUMNS: "60" }, 60],
    [TERMINAL, { COLUMNS: "wide" }, 100],
  ])("of %j with %j is %d", (screen, env, expected) => expect(styleOf(screen, env).width).toBe(expected));
});
