/** A recorded load, run on a machine under each mapping strategy. */

export {
  type CompareOptions,
  type Comparison,
  compare,
  compareInSteps,
  type StrategyCost,
  type VerifyMode,
} from "./compare.ts";
export * from "./cost.ts";
export type { NvmeMismatch } from "./nvme-bytes.ts";
export type { LeftOut } from "./nvme-load.ts";
export { type NvmeCost, type NvmeReplay, type NvmeReplayOptions, replayAsNvme } from "./nvme-replay.ts";
export { checkReplayOptions, type ReplayOptions, type ReplayProgress } from "./options.ts";
export { type Loads, loadOf, type Plan, type PlanOptions, planOf } from "./plan.ts";
export type { ReplayRequest } from "./request.ts";
export { type MappedLoad, STRATEGIES, STRATEGY_NAMES, type Strategy, type StrategyName } from "./strategies.ts";
export { describeMismatch, type Mismatch } from "./verifier.ts";
