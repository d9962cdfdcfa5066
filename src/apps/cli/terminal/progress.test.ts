import { describe, expect, test } from "vitest";
import { progressLine } from "./progress.ts";

/** A terminal of `columns` and a clock that is set by hand. */
function terminal(columns = 80, isTTY = true) {
  const made = {
    isTTY,
    columns,
    now: 0,
    written: "",
    write(text: string) {
      made.written += text;
    },
  };
  const progress = progressLine(made, () => made.now);
  const shown = (): string => made.written.split("\r\x1b[K").at(-1)!;
  return { made, progress, shown };
}

describe("the line of progress", () => {
  test("is not there for what takes less than a second, nor where no terminal is", () => {
    const { made, progress } = terminal();
    progress.say("reading a");
    made.now = 999;
    progress.reached(0.5);
    progress.done();
    expect(made.written).toBe("");
    const pipe = terminal(80, false);
    pipe.made.now = 5000;
    pipe.progress.say("reading a");
    expect(pipe.made.written).toBe("");
  });

  test("says the stage, the share, a count, and the time left as if the rest were as quick", () => {
    const { made, progress, shown } = terminal();
    progress.say("reading a.dat");
    made.now = 2000;
    progress.reached(0.25, "1,234 events");
    expect(shown()).toBe("reading a.dat: 25 %, 1,234 events, 6 s left");
    made.now = 100_000;
    progress.reached(0.5);
    expect(shown()).toBe("reading a.dat: 50 %, 1,234 events, 1 min 40 s left");
    made.now = 7_200_000;
    progress.reached(0.5);
    expect(shown()).toContain("2 h 0 min left");
    progress.done();
    expect(shown()).toBe("");
  });

  test("begins anew with each stage, and guesses nothing from its first moments", () => {
    const { made, progress, shown } = terminal();
    made.now = 10_000;
    progress.say("replaying");
    expect(shown()).toBe("replaying ...");
    made.now = 10_200;
    progress.reached(0.9);
    expect(shown()).toBe("replaying: 90 %");
    made.now = 11_000;
    progress.reached(undefined, "7 MiB");
    expect(shown()).toBe("replaying: 90 %, 7 MiB, 1 s left");
  });

  test("is drawn ten times a second at most, in one line of the terminal, with nothing that it would obey", () => {
    const { made, progress, shown } = terminal(40);
    made.now = 2000;
    progress.say(`reading ${"a".repeat(60)}\n\x1b[2J`);
    const { written } = made;
    made.now = 2050;
    progress.reached(0.1);
    expect(made.written).toBe(written);
    made.now = 2100;
    progress.reached(0.2);
    expect(made.written).not.toBe(written);
    expect(shown().length).toBeLessThan(40);
    progress.say("\x1b[2J\n");
    expect(shown()).toBe("\\u001b[2J\\u000a ...");
  });
});
