/**
 * What may be asked of a replay: one place for the rules, for programs and for the command line.
 *
 * Idea: a replay takes minutes, so options that cannot work are refused before it begins. Promises: each message names the
 * option, what was given, and what is needed.
 */
import { Requests } from "../analysis/index.ts";
import { DmaError, given, PAGE_SIZE } from "../base/index.ts";
import { FORMAT_NAMES, type FormatName } from "../layouts/pagetable/index.ts";
import { COST_NAMES, type CostModel } from "./cost.ts";

/** What every replay can be asked. */
export interface ReplayOptions {
  /** Format of the page tables; `vtd-second-stage` unless said. */
  readonly iommu?: FormatName;
  /** When the IOTLB is invalidated; strict unless said. */
  readonly mode?: "strict" | "lazy";
  /** Fixes the bytes that are moved; 1 unless said. */
  readonly seed?: number;
  /** Bytes, whole pages of 4 KiB. */
  readonly requestCap?: number;
  /** Prices for the prediction. */
  readonly cost?: CostModel;
  /** For a progress line. */
  readonly progress?: ReplayProgress;
}

/** Told what a replay is doing: its stage, which share of that is done (0 to 1), and what it is at. */
export type ReplayProgress = (stage: string, share?: number, detail?: string) => void;

const MODES = ["strict", "lazy"];
const quoted = (words: readonly string[]): string => words.map((word) => JSON.stringify(word)).join(", ");

/**
 * Refuses options that no replay can have.
 *
 * @throws DmaError ERR_DMA_REPLAY_OPTIONS (EINVAL)
 */
export function checkReplayOptions({ iommu, mode, seed, requestCap, cost }: ReplayOptions): void {
  if (iommu !== undefined && !FORMAT_NAMES.includes(iommu))
    throw refused("iommu", iommu, `one of ${quoted(FORMAT_NAMES)}`);
  if (mode !== undefined && !MODES.includes(mode)) throw refused("mode", mode, `one of ${quoted(MODES)}`);
  if (seed !== undefined && !Number.isSafeInteger(seed)) throw refused("seed", seed, "a whole number");
  if (requestCap !== undefined) checkRequestCap(requestCap);
  if (cost !== undefined)
    for (const name of COST_NAMES)
      if (!(Number.isFinite(cost[name]) && cost[name] >= 0))
        throw refused(`cost.${name}`, cost[name], "a number of nanoseconds, 0 or more,");
}

/** A piece of less than a page would never come to an end of what it cuts. @throws DmaError ERR_DMA_REPLAY_OPTIONS (EINVAL) */
export function checkRequestCap(requestCap: number): void {
  if (!(Number.isSafeInteger(requestCap) && requestCap > 0 && requestCap % PAGE_SIZE === 0))
    throw refused("requestCap", requestCap, "whole pages of 4 KiB, 4096 bytes or a multiple of them,");
}

/** @throws DmaError ERR_DMA_REPLAY_OPTIONS (EINVAL) unless it is what `readRequests` gives */
export function checkRequests(recorded: Requests): void {
  if (!((recorded as unknown) instanceof Requests))
    throw refused("load", recorded, "what readRequests(trace) gives, once it has resolved,");
}

const refused = (name: string, value: unknown, needed: string): DmaError =>
  new DmaError("ERR_DMA_REPLAY_OPTIONS", "EINVAL", `a ${name} of ${given(value)}: ${needed} is needed`, {
    name,
    value,
  });
