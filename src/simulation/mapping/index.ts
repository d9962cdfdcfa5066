/** Scenario "mapping": devices map memory in every way there is, on every kind of machine. */
export { FAULTS, type MappingConfig, mappingPlan, type Step } from "./plan.ts";
export { runMapping } from "./run.ts";
export { machineInWords, stepInWords } from "./story.ts";
