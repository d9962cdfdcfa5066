/** A clock that moves when told: what it refuses, so that one wrong number does not stop all time. */
import { expect, test } from "vitest";
import { VirtualClock } from "./index.ts";

const refused = expect.objectContaining({ code: "ERR_DMA_SIM_TIME", errno: "EINVAL" });

test.each([Number.NaN, "5", undefined, null, 5n])(
  "a time of %s is refused, and later timers run all the same",
  (ms) => {
    const clock = new VirtualClock();
    expect(() => clock.after(ms as number, () => undefined)).toThrow(refused);
    expect(() => clock.advanceTo(ms as number)).toThrow(refused);
    let ran = 0;
    clock.after(2, () => ran++);
    clock.advance(3);
    expect([clock.nowMs(), ran, clock.pending]).toEqual([3, 1, 0]);
  },
);

test("nobody moves on to the end of time; a timer that is never due may wait", () => {
  const clock = new VirtualClock();
  clock.after(Number.POSITIVE_INFINITY, () => undefined);
  expect(() => clock.advance(Number.POSITIVE_INFINITY)).toThrow(refused);
  clock.advance(1);
  expect([clock.nowMs(), clock.pending]).toEqual([1, 1]);
});
