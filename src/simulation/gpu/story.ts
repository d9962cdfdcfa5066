/** A step of a run of GPUs, and the machine it happens on, in words. */
import { type GpuConfig, type GpuStep, POINTER } from "./plan.ts";

/** The machine of a run. */
export function gpuInWords(config: GpuConfig): string {
  const { iommu, gpus, linked, policy, leaves, allowMixed, wholePointer, hugePages, moves, timesliceMs } = config;
  const space = iommu === "none" ? "without an IOMMU" : `with an IOMMU, ${iommu}`;
  const how = gpus === 1 ? "a GPU" : linked ? "two GPUs on an interconnect" : "two GPUs";
  const size = `${config.gpuMemoryBytes / 2 ** 20} MiB each; eight threads of ${config.threadPages} pages`;
  const mixed = allowMixed ? "mixed ranges" : "no mixed ranges";
  const pointer = `a user pointer of ${config.pointerPages} pages that goes ${wholePointer ? "whole" : "in parts"}`;
  const slice = timesliceMs > 0 ? `, ${timesliceMs} ms of the GPU alone` : "";
  const splits = config.quietSplits ? "" : ", borders announced";
  return (
    `${how} ${space}, ${size}; ranges by ${policy}, ${leaves} entries, chunks of ${config.chunks.join(", ")}, ${mixed}; ${pointer}; ` +
    `huge pages ${hugePages}${splits}; ${moves} of 10 faults move to the GPU${slice}`
  );
}

/** One step. */
export function gpuStepInWords(step: GpuStep): string {
  const who = step.thread === POINTER ? "user pointer" : `thread ${step.thread}`;
  switch (step.do) {
    case "fork":
      return `${who}: a child is forked, reads, writes and ends`;
    case "evict":
      return `${who}: the oldest allocation is evicted`;
    case "GPU copies":
      return `${who}: ${step.do} ${step.pages} pages from ${step.page} to ${step.to}`;
    default:
      return `${who}: ${step.do}, ${step.pages} pages from ${step.page} on`;
  }
}
