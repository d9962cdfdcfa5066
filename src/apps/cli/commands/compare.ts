/** `dmalink compare TRACE`: what each mapping strategy would cost for a recorded load. */
import { readFileSync } from "node:fs";
import { readRequests } from "../../../analysis/index.ts";
import { DmaError, hex, plural } from "../../../base/index.ts";
import {
  type CompareOptions,
  type CostModel,
  checkReplayOptions,
  compare,
  costOf,
  describeMismatch,
  type NvmeReplay,
  replayAsNvme,
} from "../../../replay/index.ts";
import {
  type CompareReport,
  compareJson,
  compareText,
  kernelCheck,
  WHAT_IF,
  type WhatIf,
} from "../../../report/index.ts";
import { sayDamage, withTrace } from "../files/with-trace.ts";
import { print, printJson, say } from "../terminal/print.ts";

export interface CompareCommandOptions extends Omit<CompareOptions, "nowNs" | "progress" | "cost"> {
  /** A file with prices for the prediction. */
  readonly costFile?: string;
  readonly whatIf?: WhatIf;
  /** The same load once more, as what a driver of such devices sends. */
  readonly as?: "nvme";
  readonly json?: boolean;
  readonly bestEffort?: boolean;
}

/** Prints the comparison for `path`; the exit code: 1 if a byte came out wrong. */
export async function compareCommand(path: string, options: CompareCommandOptions): Promise<number> {
  checkReplayOptions(options);
  const cost = options.costFile === undefined ? undefined : readCost(options.costFile);
  return withTrace(path, options, async (trace, progress) => {
    const requests = await readRequests(trace);
    const asked: CompareOptions = { ...options, ...(cost && { cost }), progress: progress.say };
    const result = compare(requests, { ...asked, nowNs: () => performance.now() * 1e6 });
    const changed = options.whatIf && compare(requests, { ...asked, ...WHAT_IF[options.whatIf].change });
    const nvme = options.as === "nvme" ? await replayAsNvme(requests, asked) : undefined;
    progress.done();
    sayDamage(path, trace);
    const { damage } = trace;
    const kernel = kernelCheck(requests, result, options);
    const report: CompareReport = { path, result, requests, kernel, options, damage, changed, nvme };
    if (options.json) printJson(compareJson(report));
    else print(compareText(report));
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
