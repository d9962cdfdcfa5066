/** A comparison as data: `dmalink.compare/2`. Lengths are bytes, times nanoseconds, addresses hex strings. */
import { type RecordedMachine, recordedMachine } from "../../analysis/index.ts";
import { hex } from "../../base/index.ts";
import type { NvmeReplay } from "../../replay/index.ts";
import { selectionJson } from "../wording.ts";
import type { CompareReport } from "./compare-report.ts";

/** The whole answer: an entry a trace, which is one. */
export function compareJson(report: CompareReport): object {
  const { path, result, requests, kernel, options, damage, changed, nvme, selection } = report;
  const { firstMismatch, strategies, mode, ...rest } = result;
  const { iommu = "vtd-second-stage", seed = 1, cachingMode = false, requestCap, whatIf } = options;
  const about = {
    file: path,
    ...(damage && { damage }),
    ...selectionJson(selection),
    iommu,
    mode,
    cachingMode,
    ...(requestCap !== undefined && { requestCap }),
    seed,
    ...rest,
    liveAtStart: requests.counts.unknownStart,
    ambiguous: requests.counts.ambiguous,
    recorded: recordedJson(recordedMachine(requests)),
    ...(firstMismatch && { firstMismatch }),
    ...(kernel && { kernel }),
    strategies,
    ...(changed && { whatIf: { question: whatIf, ...changed } }),
    ...(nvme && { nvme: nvmeJson(nvme) }),
  };
  return { schema: "dmalink.compare/2", traces: [about] };
}

function nvmeJson({ firstMismatch, ...rest }: NvmeReplay): object {
  return { ...rest, ...(firstMismatch && { firstMismatch: { ...firstMismatch, phys: hex(firstMismatch.phys) } }) };
}

/** What the recording does not show is null. */
const recordedJson = ({ reached, mode, shownBy, invalidations, mostly, ...rest }: RecordedMachine): object => ({
  reached: reached ?? null,
  mode: mode ?? null,
  shownBy: shownBy ?? null,
  invalidations: invalidations ?? null,
  mostly: mostly ?? null,
  ...rest,
});
