/** `dmalink compare TRACE`: what each mapping strategy would cost for a recorded load. */
import { readFileSync } from "node:fs";
import { type Requests, readRequests } from "../../analysis/index.ts";
import { DmaError, hex } from "../../base/index.ts";
import {
  type CompareOptions,
  type Comparison,
  type CostModel,
  checkReplayOptions,
  compare,
  costOf,
  describeMismatch,
  type NvmeReplay,
  replayAsNvme,
  type StrategyName,
} from "../../replay/index.ts";
import type { Trace } from "../../trace/index.ts";
import { compareText } from "./compare-text.ts";
import { count, plural } from "./table.ts";
import { print, say } from "./terminal.ts";
import { sayDamage, withTrace } from "./trace.ts";

/** Questions that change one thing. */
export const WHAT_IF: Readonly<Record<WhatIf, Partial<CompareOptions>>> = {
  "huge-pages": { hugePages: true },
  "iova-cache": { largestCached: 1024 },
  lazy: { mode: "lazy" },
};
export type WhatIf = "huge-pages" | "iova-cache" | "lazy";

export interface CompareCommandOptions extends Omit<CompareOptions, "nowNs" | "progress" | "cost"> {
  /** A file with prices for the prediction. */
  readonly costFile?: string;
  readonly whatIf?: WhatIf;
  /** The same load once more, as what a driver of such devices sends. */
  readonly as?: "nvme";
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

/** Everything that is printed, in whatever form. */
export interface Report {
  readonly path: string;
  readonly result: Comparison;
  readonly requests: Requests;
  readonly kernel: KernelCheck | undefined;
  readonly options: CompareCommandOptions;
  readonly damage: Trace["damage"];
  /** The same load with one thing changed. */
  readonly changed: Comparison | undefined;
  readonly nvme: NvmeReplay | undefined;
}

/** Prints the comparison for `path`; the exit code: 1 if a byte came out wrong. */
export async function compareCommand(path: string, options: CompareCommandOptions): Promise<number> {
  checkReplayOptions(options);
  const cost = options.costFile === undefined ? undefined : readCost(options.costFile);
  return withTrace(path, options, async (trace, progress) => {
    const requests = await readRequests(trace);
    const asked: CompareOptions = { ...options, ...(cost && { cost }), progress: progress.say };
    const result = compare(requests, { ...asked, nowNs: () => performance.now() * 1e6 });
    const changed = options.whatIf && compare(requests, { ...asked, ...WHAT_IF[options.whatIf] });
    const nvme = options.as === "nvme" ? await replayAsNvme(requests, asked) : undefined;
    progress.done();
    sayDamage(path, trace);
    const { damage } = trace;
    const kernel = kernelCheck(requests, result, options);
    const report: Report = { path, result, requests, kernel, options, damage, changed, nvme };
    print(options.json ? `${compareJson(report)}\n` : compareText(report));
    const wrong = result.firstMismatch ?? changed?.firstMismatch;
    if (wrong) say(`mismatch under ${wrong.strategy}: ${describeMismatch(wrong)}\n`);
    const broken = nvme && brokenNvme(nvme);
    if (broken !== undefined) say(`as NVMe: ${broken}\n`);
    return wrong || broken !== undefined ? 1 : damage ? 2 : 0;
  });
}

function readCost(file: string): CostModel {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    throw new DmaError("ERR_DMA_INPUT", "EIO", `cannot read ${file}: ${(error as Error).message}`, { file });
  }
  return costOf(text, file);
}

/** The kernel's own invalidations of this load, held against what was counted for the way it mapped. */
export interface KernelCheck {
  readonly unmapEvents: number;
  readonly unmapsOfUnknown: number;
  readonly strategy: StrategyName;
  readonly invalidations: number;
  readonly equal: boolean;
  readonly explanation: string;
}

function kernelCheck(
  requests: Requests,
  result: Comparison,
  { requestCap, hugePages, cachingMode }: CompareCommandOptions,
): KernelCheck | undefined {
  const { unmapEvents, unmapsOfUnknown } = requests.counts;
  if (result.mode !== "strict" || unmapEvents === 0 || requestCap || hugePages || cachingMode) return undefined;
  // NVMe and its like: several segments by two-step, a single one by one-shot. That is what two-step replays.
  const { invalidations } = result.strategies.find(({ name }) => name === "two-step")!;
  const expected = unmapEvents - unmapsOfUnknown;
  const equal = invalidations === expected;
  const seen = unmapsOfUnknown > 0 ? ` (${count(unmapsOfUnknown)} more for what is not in the recording)` : "";
  const explanation = equal
    ? `The kernel unmapped ${plural(expected, "time")} in this recording${seen}, in strict mode as many invalidations; two-step needs the same here.`
    : `The kernel unmapped ${plural(expected, "time")} in this recording${seen}; two-step invalidates ${plural(invalidations, "time")} here. ` +
      `The difference: ${difference(requests)}.`;
  return { unmapEvents, unmapsOfUnknown, strategy: "two-step", invalidations, equal, explanation };
}

function difference({ counts: { mapsOverLive } }: Requests): string {
  return mapsOverLive > 0
    ? `${count(mapsOverLive)} maps lie over live ones, of a second domain that the events do not tell apart`
    : "requests with gaps between their segments, which two-step maps one by one";
}

/** What went wrong first, in words. */
function brokenNvme({ firstMismatch, failed, firstFailure, leaks }: NvmeReplay): string | undefined {
  if (firstMismatch) {
    const { command, request, phys, expected, found } = firstMismatch;
    return found === undefined
      ? `a ${command} of what is no part of request ${request}`
      : `mismatch in the ${command} of request ${request}, physical address ${hex(phys)}: expected ${hex(expected)}, found ${hex(found)}`;
  }
  if (failed > 0) return `${plural(failed, "request")} failed, the first with: ${firstFailure}`;
  return leaks[0] === undefined ? undefined : `not given back: ${leaks.join("; ")}`;
}

function compareJson({ path, result, requests, kernel, options, damage, changed, nvme }: Report): string {
  const { firstMismatch, strategies, mode, ...rest } = result;
  const { iommu = "vtd", seed = 1, cachingMode = false, requestCap, whatIf } = options;
  return JSON.stringify(
    {
      schema: "dmalink.compare/1",
      file: path,
      ...(damage && { damage }),
      iommu,
      mode,
      cachingMode,
      ...(requestCap !== undefined && { requestCap }),
      seed,
      ...rest,
      liveAtStart: requests.counts.unknownStart,
      ambiguous: requests.counts.ambiguous,
      ...(firstMismatch && { firstMismatch }),
      ...(kernel && { kernel }),
      strategies,
      ...(changed && { whatIf: { question: whatIf, ...changed } }),
      ...(nvme && { nvme: nvmeJson(nvme) }),
    },
    null,
    2,
  );
}

function nvmeJson({ firstMismatch, ...rest }: NvmeReplay): object {
  return { ...rest, ...(firstMismatch && { firstMismatch: { ...firstMismatch, phys: hex(firstMismatch.phys) } }) };
}
