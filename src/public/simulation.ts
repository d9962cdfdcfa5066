/**
 * Whole machines from a seed: what a run does, the run, and the short story of one that broke a promise.
 *
 * @module dmalink/simulation
 */
export {
  dmabuf,
  FAULTS,
  type MappingConfig,
  mapping,
  nvme,
  type PlantedParts,
  type RunOptions,
  type RunResult,
  rdma,
  SCENARIOS,
  type Scenario,
  type SimulationPlan,
  type Step,
  shortestStory,
  tee,
  type Violation,
  vfio,
} from "../simulation/index.ts";
