/**
 * The beginning of a text: whether it is a printed trace, which tool wrote it, and what must be known before the first event.
 *
 * Idea: the window is read up to the first event, past any headers and complaints, and looked over where a question can only
 * be answered by more than one line (are stamps differences? are numbers hexadecimal?). Nothing is used up: the reader goes
 * over the same lines again.
 * Promises: at most {@link LONGEST_HEADER} bytes are held; unknown text in front is no more than {@link MOST_UNKNOWN}.
 */
import type { Trace } from "../events.ts";
import { LAST_STAMP, timeBaseFor } from "../timing.ts";
import { asideOf, cpusOf } from "./asides.ts";
import { EVENT, type Front, GRAPH, NOTHING, RECORD } from "./front.ts";
import type { Lines } from "./lines.ts";
import { baseOf } from "./loose-fields.ts";
import { templatesOf } from "./print-formats.ts";
import { Stamp } from "./stamp.ts";
import { SAYS_TIME } from "./who.ts";

/** The first event begins within this, whatever stands in front. */
const LONGEST_HEADER = 1 << 20;
/** Text that is not understood, before the first event. */
const MOST_UNKNOWN = 64 * 1024;
/** What is looked over to answer a question about all lines. */
const LOOKED_OVER = 64 * 1024;
/** Stamps that go back, of so many: differences, not times. */
const BACK_OF = 8;

const decoder = new TextDecoder();

/** What the beginning of a text says. */
export interface TextHead {
  readonly format: Trace["format"];
  readonly cpus: number | undefined;
  /** Whole seconds that times count from. */
  readonly baseSeconds: number;
  /** Stamps are differences to the event before (`perf script --deltatime`). */
  readonly isDifference: boolean;
  /** Call chains stand behind their events, as perf prints them. */
  readonly hasPerfChains: boolean;
  /** The base of addresses without 0x in loose fields. */
  readonly base: 10 | 16;
}

/** Reads the head; undefined: the text is no printed trace. Nothing of `lines` is used up. */
export async function readHead(lines: Lines, front: Front): Promise<TextHead | undefined> {
  let format: Trace["format"] | undefined;
  let cpus: number | undefined;
  let at = 0;
  let unknown = 0;
  let kind = NOTHING;
  let isMarked = false;
  for (;;) {
    while (lines.from + at >= lines.whole && !lines.ended && lines.to - lines.from <= LONGEST_HEADER)
      await lines.fill();
    const start = lines.from + at;
    if (start >= lines.whole) break;
    const newline = lines.endOf(start);
    kind = kindOf(lines.bytes, start, newline, front);
    if (kind !== NOTHING && kind !== RECORD && kind !== GRAPH) break;
    const line = decoder.decode(lines.bytes.subarray(start, Math.min(newline, start + 200)));
    const aside = asideOf(line);
    if (/^# tracer:|^# {2,}TASK|^# +_-+=>/.test(line)) format = "ftrace text";
    else if (/^(?:\s*\S+:\s+)?cpus=\d/.test(line)) {
      format = "trace-cmd report";
      cpus = cpusOf(line);
    } else if (aside.kind === "statistics" && aside.cpus !== undefined && aside.cpus <= 65536) cpus = aside.cpus;
    else if (aside.kind === "lost") isMarked = true;
    else if (aside.kind === "unknown" && kind === NOTHING) unknown += newline + 1 - start;
    if (unknown > MOST_UNKNOWN) break;
    at = newline + 1 - lines.from;
  }
  if (kind === NOTHING || kind === RECORD || kind === GRAPH) {
    if (format === undefined && !isMarked) return undefined;
    return {
      format: format ?? "ftrace text",
      cpus,
      baseSeconds: 0,
      isDifference: false,
      hasPerfChains: false,
      base: 16,
    };
  }
  const { stamp, says } = front;
  const isPerf = lines.bytes.subarray(front.nameStart, front.nameEnd).includes(58);
  const isTimed = (says & SAYS_TIME) !== 0;
  const first = isTimed ? BigInt(stamp.seconds) * 1_000_000_000n + BigInt(stamp.nanoseconds) : 0n;
  const isZero = isTimed && first === 0n;
  const base = first > LAST_STAMP ? 0n : timeBaseFor(first);
  const look = async (): Promise<string> => {
    while (!lines.ended && lines.to - lines.from < at + LOOKED_OVER) await lines.fill();
    return decoder.decode(lines.bytes.subarray(lines.from + at, Math.min(lines.to, lines.from + at + LOOKED_OVER)));
  };
  const payload = decoder.decode(lines.bytes.subarray(front.payload, Math.min(lines.to, front.payload + 64)));
  const isLoose = /^(?:\[FAILED TO PARSE\]|\w+=)/.test(payload);
  return {
    format: isPerf ? "perf script" : (format ?? (front.flags ? "ftrace text" : "trace-cmd report")),
    cpus,
    baseSeconds: Number(base / 1_000_000_000n),
    isDifference: isPerf && isZero && goesBack(await look()),
    hasPerfChains: isPerf,
    base: isLoose ? baseOf(await look()) : 16,
  };
}

/** What a line is, where nothing says yet that this is a trace: a bare name must be that of an event with its payload. */
function kindOf(bytes: Uint8Array, start: number, newline: number, front: Front): number {
  const kind = front.read(bytes, start);
  if (kind !== EVENT || !front.bare) return kind;
  const name = decoder.decode(bytes.subarray(front.nameStart, front.nameEnd));
  const payload = decoder.decode(bytes.subarray(front.payload, Math.min(newline, front.payload + 200)));
  return templatesOf(name).length > 0 && /(?:^| )(?:iova|addrs?|\w+_addrs?)=/.test(payload) ? EVENT : NOTHING;
}

/** Whether the stamps of these lines run backwards too often to be times. */
function goesBack(text: string): boolean {
  const stamp = new Stamp();
  const encoder = new TextEncoder();
  let [last, steps, back] = [-1, 0, 0];
  for (const match of text.matchAll(/ (\d+\.\d{6,9}:) /g)) {
    if (stamp.read(encoder.encode(match[1]), 0) < 0) continue;
    const time = stamp.seconds * 1e9 + stamp.nanoseconds;
    if (last >= 0) steps++;
    if (time < last) back++;
    last = time;
  }
  return back > 0 && back * BACK_OF >= steps;
}
