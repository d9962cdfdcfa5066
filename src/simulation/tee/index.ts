/** Trusted devices from a seed. */
export { type TeeConfig, type TeePlan, type TeeStep, teePlan } from "./plan.ts";
export { runTee } from "./run.ts";
export { teeInWords, teeStepInWords } from "./story.ts";
