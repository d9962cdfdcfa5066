/** Whole machines from a seed: what a run does, the run, and the short story of one that broke a promise. */
export * from "./plan.ts";
export { type RunResult, runSimulation, type Violation } from "./run.ts";
export { shortestStory } from "./shrink.ts";
export { machineInWords, stepInWords } from "./story.ts";
export type { PlantedParts } from "./world.ts";
