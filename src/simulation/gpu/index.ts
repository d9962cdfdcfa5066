/** GPUs that share the memory of a process, from a seed. */
export { type GpuConfig, type GpuPlan, type GpuStep, gpuPlan, stormPlan } from "./plan.ts";
export { type GpuRunCounts, runGpu } from "./run.ts";
export { gpuInWords, gpuStepInWords } from "./story.ts";
