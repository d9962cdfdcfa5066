/** Whole machines from a seed: what a run does, the run, and the short story of one that broke a promise. */

export { type GpuConfig, type GpuRunCounts, runGpu, stormPlan } from "./gpu/index.ts";
export { FAULTS, type MappingConfig, type Step } from "./mapping/index.ts";
export type { PlantedParts, RunOptions, RunResult, Scenario, SimulationPlan, Violation } from "./scenario.ts";
export { dmabuf, gpu, mapping, nvme, rdma, SCENARIOS, tee, vfio } from "./scenarios.ts";
export { shortestStory } from "./shrink.ts";
