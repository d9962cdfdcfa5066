/** A comparison as data: `dmalink.compare/1`. Lengths are bytes, times nanoseconds, addresses hex strings. */
import { hex } from "../../base/index.ts";
import type { NvmeReplay } from "../../replay/index.ts";
import type { CompareReport } from "./compare-report.ts";

/** The whole answer for one trace. */
export function compareJson({ path, result, requests, kernel, options, damage, changed, nvme }: CompareReport): object {
  const { firstMismatch, strategies, mode, ...rest } = result;
  const { iommu = "vtd-second-stage", seed = 1, cachingMode = false, requestCap, whatIf } = options;
  return {
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
  };
}

function nvmeJson({ firstMismatch, ...rest }: NvmeReplay): object {
  return { ...rest, ...(firstMismatch && { firstMismatch: { ...firstMismatch, phys: hex(firstMismatch.phys) } }) };
}
