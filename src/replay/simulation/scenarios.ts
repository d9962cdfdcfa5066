/** The scenarios there are. */

import { type NvmeConfig, type NvmeStep, nvmePlan } from "./nvme-plan.ts";
import { runNvme } from "./nvme-run.ts";
import { nvmeInWords, nvmeStepInWords } from "./nvme-story.ts";
import { type MappingConfig, mappingPlan, type Step } from "./plan.ts";
import { runMapping } from "./run.ts";
import type { Scenario } from "./scenario.ts";
import { machineInWords, stepInWords } from "./story.ts";

export const mapping: Scenario<MappingConfig, Step> = {
  name: "mapping",
  summary: "devices map memory in every way there is, on every kind of machine",
  plan: (seed) => mappingPlan(seed),
  run: (plan, options) => Promise.resolve(runMapping(plan, options)),
  machineInWords,
  stepInWords,
};

export const nvme: Scenario<NvmeConfig, NvmeStep> = {
  name: "nvme",
  summary: "NVMe disks under load, with resets, removals, lost and late completions, and copies from disk to disk",
  plan: (seed) => nvmePlan(seed),
  run: (plan, options) => runNvme(plan, options),
  machineInWords: nvmeInWords,
  stepInWords: nvmeStepInWords,
};

/** By name. */
export const SCENARIOS: Readonly<Record<string, Scenario<unknown, unknown>>> = {
  mapping: mapping as Scenario<unknown, unknown>,
  nvme: nvme as Scenario<unknown, unknown>,
};
