/**
 * Not enough memory, said before the machine ends the program: one line, with what is needed.
 *
 * Idea: whoever works tells how much is done; at those moments memory is looked at, at most five times a second. What is used now
 * and the share that is done give what all of it would need. Not for: a limit of address space (ulimit -v), which ends V8 itself.
 */
import { getHeapStatistics } from "node:v8";
import { bytes } from "../../../base/index.ts";
import { EnvironmentError } from "../exit-errors.ts";
import type { Progress } from "../terminal/progress.ts";

const LOOKED_EVERY_MS = 200;
/** What must be left: one column more may be made before the next look. */
const LEAST_FREE = 48 * 1024 * 1024;
const LEAST_HEAP_SHARE = 0.06;
/** With less behind it, what all of it needs is a guess. */
const KNOWN_FROM = 0.05;

/** What a machine has, in bytes. */
interface MemoryState {
  readonly used: number;
  /** Of the machine, or of the control group. */
  readonly free: number;
  /** Of the heap that V8 lets itself have. */
  readonly heapUsed: number;
  readonly heapLimit: number;
}

function now(): MemoryState {
  const heap = getHeapStatistics();
  return {
    used: process.memoryUsage.rss(),
    // Node 20.19 has it; its types do not.
    free: (process as unknown as { availableMemory?: () => number }).availableMemory?.() ?? Number.POSITIVE_INFINITY,
    heapUsed: heap.used_heap_size,
    heapLimit: heap.heap_size_limit,
  };
}

/** `progress`, which ends the command by an EnvironmentError when memory runs out. */
export function memoryGuarded(
  progress: Progress,
  path: string,
  state: () => MemoryState = now,
  nowMs: () => number = () => performance.now(),
): Progress {
  let [lookedAt, share] = [nowMs(), 0];
  return {
    ...progress,
    reached(part, detail) {
      progress.reached(part, detail);
      if (part !== undefined) share = part;
      const at = nowMs();
      if (at - lookedAt < LOOKED_EVERY_MS) return;
      lookedAt = at;
      const memory = state();
      const inHeap = memory.heapUsed > memory.heapLimit * (1 - LEAST_HEAP_SHARE);
      if (!inHeap && memory.free > LEAST_FREE) return;
      throw notEnough(path, memory, share, inHeap);
    },
  };
}

/** One line: what was used, what is needed, what helps. */
function notEnough(path: string, { used, heapLimit }: MemoryState, share: number, inHeap: boolean): EnvironmentError {
  const needed =
    share >= KNOWN_FROM ? `about ${bytes(Math.ceil(used / Math.min(share, 1)))} are needed` : "more is needed";
  const heap = Math.ceil((heapLimit * 2) / 2 ** 20);
  return new EnvironmentError(
    `${path}: not enough memory: ${bytes(used)} are used after ${Math.floor(share * 100)} %, ${needed}; ` +
      `take a part of the trace by --from and --to${inHeap ? `, or more of the machine: NODE_OPTIONS=--max-old-space-size=${heap}` : ""}`,
  );
}
