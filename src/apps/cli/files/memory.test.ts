import { describe, expect, test } from "vitest";
import { endOf } from "../exit-errors.ts";
import type { Progress } from "../terminal/progress.ts";
import { memoryGuarded } from "./memory.ts";

type MemoryState = ReturnType<NonNullable<Parameters<typeof memoryGuarded>[2]>>;

const MIB = 2 ** 20;
const enough: MemoryState = { used: 100 * MIB, free: 4096 * MIB, heapUsed: 50 * MIB, heapLimit: 4096 * MIB };

/** A guard that looks at `state` whenever it is told something; what ended the command. */
function guard(state: MemoryState, ...shares: (number | undefined)[]) {
  let ms = 0;
  const silent: Progress = { say() {}, reached() {}, done() {}, said: () => "" };
  const guarded = memoryGuarded(
    silent,
    "big.dat",
    () => state,
    () => (ms += 1000),
  );
  try {
    for (const share of shares) guarded.reached(share);
  } catch (error) {
    return endOf(error);
  }
  return undefined;
}

describe("memory", () => {
  test("that is enough ends nothing", () => {
    expect(guard(enough, 0.1, 0.5, undefined, 1)).toBeUndefined();
  });

  test("that runs out is one line with what is needed, and exit code 3", () => {
    const end = guard({ ...enough, free: 10 * MIB }, 0.25);
    expect(end?.code).toBe(3);
    expect(end?.message).toBe(
      "big.dat: not enough memory: 100 MiB are used after 25 %, about 400 MiB are needed; take a part of the trace by --from and --to",
    );
  });

  test("of the heap names the option that gives more of it", () => {
    const end = guard({ ...enough, heapUsed: 4000 * MIB }, undefined, 0.01);
    expect(end?.message).toContain("more is needed");
    expect(end?.message).toContain("NODE_OPTIONS=--max-old-space-size=8192");
  });

  test("that an array cannot have is exit code 3 too", () => {
    expect(endOf(new RangeError("Array buffer allocation failed")).code).toBe(3);
    expect(endOf(new RangeError("Invalid count value: -1")).code).toBe(70);
  });
});
