/**
 * The stretch of time that is looked at: one for all views, so that going from the timeline to the address space stays at the same place.
 *
 * Idea: it is in the URL as seconds since the first event. While it is moved it is a signal; the URL follows when it rests, since browsers take only
 * so many changes of a URL.
 */
import { effect, type ReadonlySignal, signal } from "@preact/signals";
import { move, route } from "./route.ts";
import { opened } from "./session.ts";

/** Nanoseconds since the trace's time base. */
export interface TimeWindow {
  readonly fromNs: number;
  readonly toNs: number;
}

const NOTHING: TimeWindow = { fromNs: 0, toNs: 1 };
/** Below this nothing can be told apart: stamps are whole nanoseconds. */
const LEAST_NS = 20;
const RESTS_MS = 250;

const shown = signal<TimeWindow>(NOTHING);
/** What is looked at. */
export const timeWindow: ReadonlySignal<TimeWindow> = shown;

let resting: ReturnType<typeof setTimeout> | undefined;

/** All of the open trace, with a little room. */
export function wholeTrace(): TimeWindow {
  const checked = opened.value?.checked;
  if (!checked) return NOTHING;
  const { firstNs, lastNs } = checked;
  const room = Math.max((lastNs - firstNs) * 0.01, LEAST_NS);
  return { fromNs: firstNs - room, toNs: lastNs + room };
}

effect(() => {
  const checked = opened.value?.checked;
  if (!checked) return;
  const { from, to } = route.value.at;
  const [a, b] = [Number(from ?? Number.NaN), Number(to ?? Number.NaN)];
  const given = Number.isFinite(a) && Number.isFinite(b) && b > a;
  shown.value = given ? { fromNs: checked.firstNs + a * 1e9, toNs: checked.firstNs + b * 1e9 } : wholeTrace();
});

/** Looks at another stretch; within the trace, and not closer than its stamps tell apart. */
export function look({ fromNs, toNs }: TimeWindow): void {
  const whole = wholeTrace();
  const most = whole.toNs - whole.fromNs;
  const span = Math.min(Math.max(toNs - fromNs, LEAST_NS), most);
  const middle = (fromNs + toNs) / 2;
  const from = Math.min(Math.max(middle - span / 2, whole.fromNs), whole.toNs - span);
  shown.value = { fromNs: from, toNs: from + span };
  clearTimeout(resting);
  resting = setTimeout(writeUrl, RESTS_MS);
}

/** The window as a link has it. */
export function windowAt({ fromNs, toNs }: TimeWindow): { from: string; to: string } {
  const first = opened.value?.checked?.firstNs ?? 0;
  return { from: ((fromNs - first) / 1e9).toFixed(9), to: ((toNs - first) / 1e9).toFixed(9) };
}

function writeUrl(): void {
  const whole = wholeTrace();
  const { fromNs, toNs } = shown.value;
  const all = fromNs <= whole.fromNs && toNs >= whole.toNs;
  move(all ? { from: undefined, to: undefined } : windowAt(shown.value));
}

/** Closer (factor < 1) or farther, around a time. */
export function zoom(factor: number, aroundNs?: number): void {
  const { fromNs, toNs } = shown.value;
  const around = aroundNs ?? (fromNs + toNs) / 2;
  look({ fromNs: around - (around - fromNs) * factor, toNs: around + (toNs - around) * factor });
}

/** Earlier (below 0) or later, by a share of what is shown. */
export function pan(share: number): void {
  const { fromNs, toNs } = shown.value;
  const by = (toNs - fromNs) * share;
  look({ fromNs: fromNs + by, toNs: toNs + by });
}
