/**
 * The strategies for a trace that lies in files: what `dmalink compare` does and says, in a worker of its own.
 *
 * Not for: prices; the page multiplies the counts with them by itself (replay's `predict`), so a slider needs no replay.
 */
import { readRequests, recordedMachine } from "../../../analysis/index.ts";
import { plural } from "../../../base/index.ts";
import type { FormatName } from "../../../layouts/pagetable/index.ts";
import { type CompareOptions, type Comparison, compareInSteps, describeMismatch } from "../../../replay/index.ts";
import { type ComparedAs, compareJson, compareText, kernelCheck, WHAT_IF, type WhatIf } from "../../../report/index.ts";
import { openTrace } from "../../../trace/index.ts";
import type { Tell } from "../frame/calls.ts";
import { blobInput, unpacked } from "./open-file.ts";

/** What is compared, and on which machine. */
export interface CompareAsked {
  readonly trace: File;
  readonly iommu: FormatName;
  /** As it was recorded unless given. */
  readonly mode?: "strict" | "lazy";
  readonly requestCap?: number;
  readonly whatIf?: WhatIf;
}

/** What came of it. */
export interface CompareAnswer {
  /** As the command prints it. */
  readonly text: string;
  /** `dmalink.compare/2`. */
  readonly json: object;
  readonly result: Comparison;
  /** With one thing changed. */
  readonly changed: Comparison | undefined;
  /** A byte that came out wrong: then nothing else counts. */
  readonly wrong: string | undefined;
}

/** Replays the load under every strategy. */
export async function compareStrategies(asked: CompareAsked, tell: Tell): Promise<CompareAnswer> {
  const { trace: file, iommu, mode: given, requestCap, whatIf } = asked;
  const { blob } = await unpacked(file, tell);
  const trace = await openTrace(blobInput(file.name, blob), { bestEffort: true });
  const requests = await readRequests(trace, { progress: (events) => tell(`reading: ${plural(events, "event")}`) });
  const machine = recordedMachine(requests);
  const mode = given ?? machine.mode ?? "strict";
  const how: ComparedAs & CompareOptions = {
    iommu,
    mode,
    seed: 1,
    cachingMode: given === undefined && machine.cachingMode,
    ...(requestCap !== undefined && { requestCap }),
  };
  const options: CompareOptions = { ...how, progress: (stage, share) => tell(stage, share) };
  const result = toEnd(compareInSteps(requests, options));
  const changed = whatIf && toEnd(compareInSteps(requests, { ...options, ...WHAT_IF[whatIf].change }));
  const report = {
    path: file.name,
    result,
    requests,
    kernel: kernelCheck(requests, result, how),
    options: { ...how, ...(whatIf && { whatIf }) },
    damage: trace.damage,
    changed,
    nvme: undefined,
  };
  const mismatch = result.firstMismatch ?? changed?.firstMismatch;
  return {
    text: compareText(report),
    json: compareJson(report),
    result,
    changed,
    wrong: mismatch && describeMismatch(mismatch),
  };
}

function toEnd<T>(work: Generator<void, T>): T {
  let next = work.next();
  while (!next.done) next = work.next();
  return next.value;
}
