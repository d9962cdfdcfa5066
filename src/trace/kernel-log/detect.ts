/**
 * Is this a kernel log? By its first lines: what stands in front of them, or what they say.
 *
 * Idea: no trace's line begins with `[   12.345678]`, `<3>`, `kern  :err` or a date, a host and a program; so one such line among the first
 * decides, whatever a console capture holds before it. A log without any fronts is known by its sentences alone.
 */

import { LogFronts } from "./line-front.ts";
import { KernelMessages } from "./messages.ts";
import { LogRecords } from "./records.ts";

/** Bytes at the beginning that are looked at. */
export const LOG_HEAD_BYTES: number = 64 * 1024;
const MOST_LINES = 400;

/** Lines with which traces begin. */
const TRACE = /^(?:cpus=\d|# tracer:|version = \d|#\s+TASK-PID|#\s+_-----=>)/;
/** A line in the middle of which an event stands: the CPU, a time with a colon behind, or the event by its name. */
const TRACE_LINE =
  /\[\d{3}\]\s+(?:\S+\s+)?\d+\.\d{6,9}: |\d\.\d{3,9}: +(?:\d+ +)?[A-Za-z_]\w*(?::\w+)?: |(?:\s|printk:)console: /;

/**
 * What the first bytes of a file look like: `fronts`: lines of a log for sure; `sentences`: lines without fronts, some of which the
 * kernel prints of DMA (ask this only of what is no trace); `no`.
 */
export function looksLikeKernelLog(head: Uint8Array): "fronts" | "sentences" | "no" {
  const utf16 = (head[0] === 0xff && head[1] === 0xfe) || (head[0] === 0xfe && head[1] === 0xff);
  const decoder = new TextDecoder(utf16 ? (head[0] === 0xff ? "utf-16le" : "utf-16be") : "utf-8");
  const text = decoder.decode(head.subarray(0, LOG_HEAD_BYTES));
  const fronts = new LogFronts();
  const records = new LogRecords();
  let facts = 0;
  const messages = new KernelMessages<number>(({ kind }) => {
    if (kind !== "unknown") facts++;
  });
  for (const [i, line] of text.split(/[\r\n]+/, MOST_LINES).entries()) {
    if (TRACE.test(line) || TRACE_LINE.test(line)) return "no";
    if (line.length > 4096) continue;
    const record = records.read(line);
    if (typeof record === "object" && record.kernel) return "fronts";
    const front = fronts.read(line);
    if (front.sure && front.kernel) return "fronts";
    messages.push(front.message, i);
  }
  messages.settle();
  return facts > 0 ? "sentences" : "no";
}
