/** What a caller may say when it opens a controller, and what it is told. */
import type { Clock } from "../../platform/index.ts";
import type { DmaOps } from "../block/index.ts";
import { badOption } from "./errors.ts";

/** How a controller is driven. */
export interface NvmeOptions {
  /** Time: for waiting, time-outs and polling. */
  readonly clock: Clock;
  /** I/O queues asked for; as many as there are vectors beside the admin queue's, but at most 4, unless said. */
  readonly queues?: number;
  /** Commands in flight on each I/O queue, at most 1023; 127 unless said. */
  readonly queueDepth?: number;
  /** A command may take this long; 30 s unless said. Then it is aborted, and after as long again the controller is reset. */
  readonly timeoutMs?: number;
  /** Later tries of a command that failed for a reason that may pass; 5 unless said. */
  readonly retries?: number;
  /** Mean segment from which on SGLs are used, bytes; 32 KiB unless said, 0 for never. */
  readonly sglThreshold?: number;
  /** Requests as long as the device can take, not as the IOVA caches like best. False unless said. */
  readonly largeRequests?: boolean;
  /** Put submission queues into the controller's memory, if it has some for that. False unless said. */
  readonly submissionQueuesInCmb?: boolean;
  /** Blocks of descriptor memory of each size; no limit unless said. */
  readonly descriptorLimit?: number;
  /** How often to look for completions if the device has no interrupts; 0.05 ms unless said. */
  readonly pollMs?: number;
  /** Another way to memory than two steps: for comparing (`consumers/block/older-ops.ts`). */
  readonly ops?: DmaOps;
  /** Called for each asynchronous event of the controller. */
  readonly onEvent?: (event: NvmeEvent) => void;
}

/** Each number: from, to, whole or not. What a clock can wait for is 24 days. */
const NUMBERS: readonly (readonly [name: keyof NvmeOptions, from: number, to: number, whole: boolean])[] = [
  ["queues", 1, 65_535, true],
  ["queueDepth", 1, 1023, true],
  ["timeoutMs", 1, 2 ** 31 - 1, false],
  ["retries", 0, 1_000_000, true],
  ["sglThreshold", 0, Number.MAX_SAFE_INTEGER, true],
  ["descriptorLimit", 0, Number.MAX_SAFE_INTEGER, true],
  ["pollMs", Number.MIN_VALUE, 2 ** 31 - 1, false],
];
const FUNCTIONS: readonly (keyof NvmeOptions)[] = ["onEvent"];

/** @throws DmaError ERR_DMA_NVME_OPTION (EINVAL): an option is none of what it may be; nothing is changed */
export function checkOptions(options: NvmeOptions): void {
  if (typeof options !== "object" || options === null) throw badOption("options", options, "an object with a clock");
  const { clock } = options;
  if (typeof clock?.nowMs !== "function" || typeof clock.after !== "function")
    throw badOption("clock", clock, "a clock, such as the host's");
  for (const [name, from, to, whole] of NUMBERS) {
    const value: unknown = options[name];
    if (value === undefined) continue;
    if (typeof value !== "number" || !(value >= from && value <= to) || (whole && !Number.isInteger(value)))
      throw badOption(
        name,
        value,
        `a ${whole ? "whole " : ""}number ${from > 0 && from < 1 ? "above 0" : `from ${from}`} to ${to}`,
      );
  }
  for (const name of FUNCTIONS)
    if (options[name] !== undefined && typeof options[name] !== "function")
      throw badOption(name, options[name], "a function");
}

/** An asynchronous event: type, what of it, and the log page that says more. */
export interface NvmeEvent {
  /** What kind of event (NVM Express base specification 2.0, figure of asynchronous event types). */
  readonly type: number;
  /** Which event of that kind. */
  readonly information: number;
  /** Log page to read for more. */
  readonly logPage: number;
}

/** What happened that should not have, counted instead of thrown. */
export class NvmeWarnings {
  /** Completions for a command that was not in flight. */
  notInFlight = 0;
  /** Completions with the id of an earlier command in the same slot. */
  staleGeneration = 0;
  /** Completions with an id that no slot has. */
  unknownTag = 0;
  /** Commands that ran out of time. */
  timeouts = 0;
  /** Resets of the controller. */
  resets = 0;
  /** Requests that found no address space or descriptor and were tried again. */
  requeued = 0;
  /** Commands tried again after a status or a reset. */
  retries = 0;
  /** Callbacks of the caller that threw: the driver goes on. */
  callbacks = 0;
}
