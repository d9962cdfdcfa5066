/** Whole machines from a seed: what a run does, the run, and the short story of one that broke a promise. */
export { FAULTS, type MappingConfig, type Step } from "./mapping/index.ts";
export type { PlantedParts, RunOptions, RunResult, Scenario, SimulationPlan, Violation } from "./scenario.ts";
export { dmabuf, mapping, nvme, rdma, SCENARIOS, tee, vfio } from "./scenarios.ts";
export { shortestStory } from "./shrink.ts";
