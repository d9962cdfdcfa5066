/** A step of a run of shared buffers, and the machine it happens on, in words. */
import type { DmabufConfig, DmabufStep } from "./plan.ts";

export function dmabufInWords({ mode, routes, sharers, pages }: DmabufConfig): string {
  const iommu = mode === "none" ? "no IOMMU" : `IOMMU ${mode}`;
  const bridge = routes ? "the host bridge routes peers" : "the host bridge routes no peers";
  return `a buffer of ${pages} pages, its owner and ${sharers} that may share it, ${iommu}, ${bridge}`;
}

export function dmabufStepInWords(step: DmabufStep): string {
  switch (step.do) {
    case "attach":
      return `device ${step.device} attaches, ${step.kind}`;
    case "read":
    case "write":
      return `device ${step.device} ${step.do}s ${step.pages} pages from page ${step.page}`;
    case "CPU reads":
    case "CPU writes":
      return `the ${step.do} ${step.pages} pages from page ${step.page}`;
    case "migrate":
      return `${step.pages} pages from page ${step.page} move to ${step.to === "device" ? "the owner's memory" : "RAM"}`;
    case "revoke":
    case "restore":
      return `the buffer is ${step.do}d`;
    case "reach back":
      return `device ${step.device} tries addresses that it had`;
    default:
      return `device ${step.device}: ${step.do}`;
  }
}
