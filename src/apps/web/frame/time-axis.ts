/** The time axis: round steps, in the trace's own stamps. */
import { secondsOf } from "../../../report/index.ts";
import { opened } from "./session.ts";
import type { TimeWindow } from "./time-window.ts";

/** The trace's own stamp of a time, in seconds, with as many digits as `stepNs` needs. */
export function stampOf(ns: number, stepNs: number = 1): string {
  const digits = Math.min(9, Math.max(0, Math.ceil(-Math.log10(stepNs / 1e9) - 1e-9)));
  return secondsOf(ns, opened.value?.overview.trace.timeBase ?? 0n).toFixed(digits);
}

/** A length of time between marks of the axis, of which `most` fit: 1, 2 or 5 of a decade, nanoseconds. */
export function stepOf({ fromNs, toNs }: TimeWindow, most: number): number {
  const rough = (toNs - fromNs) / Math.max(most, 1);
  const decade = 10 ** Math.floor(Math.log10(rough));
  return Math.max(1, decade * ([1, 2, 5, 10].find((n) => n * decade >= rough) ?? 10));
}

/** Times of the marks. */
export function ticksOf(window: TimeWindow, stepNs: number): number[] {
  const base = Number((opened.value?.overview.trace.timeBase ?? 0n) % 1_000_000_000_000n);
  const ticks: number[] = [];
  const first = Math.ceil((window.fromNs + base) / stepNs) * stepNs - base;
  for (let at = first; at < window.toNs && ticks.length < 400; at += stepNs) ticks.push(at);
  return ticks;
}
