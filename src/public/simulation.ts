/**
 * Whole machines from a seed: what a run does, the run, and the short story of one that broke a promise.
 *
 * @module dmalink/simulation
 */
export {
  dmabuf,
  FAULTS,
  type GpuConfig,
  type GpuRunCounts,
  gpu,
  type MappingConfig,
  mapping,
  nvme,
  type PlantedParts,
  type RunOptions,
  type RunResult,
  rdma,
  runGpu,
  SCENARIOS,
  type Scenario,
  type SimulationPlan,
  type Step,
  shortestStory,
  stormPlan,
  tee,
  type Violation,
  vfio,
} from "../simulation/index.ts";
