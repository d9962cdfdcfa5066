/** Guests with devices of their own, from a seed. */
export { type VfioConfig, type VfioPlan, type VfioStep, vfioPlan } from "./plan.ts";
export { runVfio } from "./run.ts";
export { vfioInWords, vfioStepInWords } from "./story.ts";
