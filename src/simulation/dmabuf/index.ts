/** Shared buffers from a seed. */
export { type DmabufConfig, type DmabufPlan, type DmabufStep, dmabufPlan } from "./plan.ts";
export { runDmabuf } from "./run.ts";
export { dmabufInWords, dmabufStepInWords } from "./story.ts";
