/** RDMA between two machines, from a seed. */
export { type RdmaConfig, type RdmaPlan, type RdmaStep, rdmaPlan } from "./plan.ts";
export { runRdma } from "./run.ts";
export { rdmaInWords, rdmaStepInWords } from "./story.ts";
