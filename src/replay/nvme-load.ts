/**
 * A recorded load as a disk would see it: which requests can be NVMe commands, and why the others cannot.
 *
 * Idea: an NVMe command moves whole blocks, and its memory lies at multiples of 4 bytes. What a driver shares with its device
 * for long (coherent memory) is moved by no command. Promises: what is left out is counted, each request once.
 */
import type { Request, Requests } from "../analysis/index.ts";
import { PAGE_SIZE } from "../base/index.ts";
import { type Plan, planOf } from "./plan.ts";

/** Bytes of a logical block of the disk. */
export const BLOCK_BYTES = 512;
/** Addresses and lengths of pieces of memory are multiples of this: what the block layer asks for NVMe. */
const MEMORY_ALIGNMENT = 4;

/** Requests that are no commands, by reason. */
export interface LeftOut {
  /** Coherent memory: mapped for long, and moved by no command. */
  readonly coherent: number;
  /** Not whole blocks of 512 bytes. */
  readonly notBlocks: number;
  /** A piece of memory does not begin or end at a multiple of 4. */
  readonly misaligned: number;
  /** No memory of a machine, or more than 256 MiB at once. The first page of memory is nobody's: Linux never gives it out. */
  readonly notMemory: number;
}

interface NvmeLoad {
  readonly plan: Plan;
  readonly leftOut: LeftOut;
  /** Requests that may go either way, or of which the recording does not say. */
  readonly bothWays: number;
}

export function nvmeLoadOf(recorded: Requests, options: { readonly hugePages?: boolean } = {}): NvmeLoad {
  const leftOut = { coherent: 0, notBlocks: 0, misaligned: 0, notMemory: 0 };
  for (const request of recorded) {
    const reason = obstacleOf(request);
    if (reason) leftOut[reason]++;
  }
  const noCommand = leftOut.coherent + leftOut.notBlocks + leftOut.misaligned + leftOut.notMemory;
  const plan = planOf(recorded, { ...options, leaveOut: (request) => obstacleOf(request) !== undefined });
  let bothWays = 0;
  for (const { direction } of plan.loads) if (direction === "bidirectional") bothWays++;
  return { plan, leftOut: { ...leftOut, notMemory: leftOut.notMemory + plan.leftOut - noCommand }, bothWays };
}

function obstacleOf({ kind, length, segments }: Request): keyof LeftOut | undefined {
  if (kind === "coherent") return "coherent";
  if (length % BLOCK_BYTES !== 0) return "notBlocks";
  const isAligned = segments.every(
    (segment) => segment.phys % MEMORY_ALIGNMENT === 0 && segment.length % MEMORY_ALIGNMENT === 0,
  );
  if (!isAligned) return "misaligned";
  return segments.some(({ phys }) => phys < PAGE_SIZE) ? "notMemory" : undefined;
}
